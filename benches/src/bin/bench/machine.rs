//! On what it was measured.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;

use anyhow::Result;
use serde_json::{Value, json};
use tenure::testing::Etcd;

pub struct Machine {
    pub date: String,
    pub commit: String,
    pub etcd: String,
    pub rustc: String,
    pub kernel: String,
    pub cores: usize,
    pub load: String,
}

impl Machine {
    pub async fn here() -> Result<Self> {
        let etcd = Etcd::start().await?;
        let etcd = etcd.client().await?.status().await?.version().to_owned();
        let system = rustix::system::uname();
        Ok(Self {
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            commit: said("git", &["describe", "--always", "--dirty"]),
            etcd,
            rustc: said("rustc", &["--version"]),
            kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
            cores: thread::available_parallelism()?.get(),
            load: load(),
        })
    }

    pub fn json(&self) -> Value {
        json!({
            "date": self.date, "tenure": tenure_bench::version(), "commit": self.commit, "etcd": self.etcd,
            "rustc": self.rustc, "kernel": self.kernel, "cores": self.cores, "load": self.load,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, commit, etcd, rustc, kernel, cores, load } = self;
        let version = tenure_bench::version();
        write!(
            f,
            "{date}, tenure {version} at {commit}, etcd {etcd}, {rustc}, {cores} cores, {kernel}, load before {load}"
        )
    }
}

/// Of the last minute: what else ran beside the measurement.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.ok().filter(|output| output.status.success());
    said.map_or_else(|| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
