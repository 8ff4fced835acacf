//! A redis-server that does not outlive this process.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tempfile::TempDir;
use tenure_peers::{Report, Result};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub url: String,
    pub pid: u32,
    process: Child,
    _dir: TempDir,
}

impl Server {
    /// On a free port, with an empty directory below TMPDIR; every write is on disk before it is answered.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("peers-redis-").tempdir()?;
        // Somebody else may take the port before redis-server does: then it ends, and another one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            // setpriv and the shell make way for redis-server, which then ends with the thread that spawns it, the main one.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#]);
            command.arg(std::process::id().to_string()).arg("redis-server").args(["--port", &port.to_string()]);
            command.args(["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
            command.args(["--loglevel", "warning", "--dir"]).arg(dir.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            let mut process = command.spawn().context("redis-server cannot be started")?;
            let url = format!("redis://127.0.0.1:{port}");
            let deadline = Instant::now() + PATIENCE;
            while process.try_wait()?.is_none() {
                if ask_process_id(&url).await == Some(process.id()) {
                    return Ok(Self { url, pid: process.id(), process, _dir: dir });
                }
                if Instant::now() > deadline {
                    process.kill()?;
                    process.wait()?;
                    anyhow::bail!("redis-server does not answer");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        anyhow::bail!("redis-server ends as soon as it is started")
    }

    /// Says what the server says of itself.
    pub async fn describe(&self, report: &mut Report) -> Result<()> {
        let mut connection = connect(&self.url).await?;
        let version = info(&mut connection, "redis_version").await.context("no version")?;
        let configured: Vec<String> =
            redis::cmd("CONFIG").arg("GET").arg("append*").query_async(&mut connection).await?;
        let setting = |name: &str| configured.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
        report.set(
            "server",
            json!({
                "redis": version,
                "appendonly": setting("appendonly"),
                "appendfsync": setting("appendfsync"),
                "below": std::env::temp_dir(),
            }),
        );
        report.set("endpoints", self.url.as_str());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended by itself is fine too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn connect(url: &str) -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

async fn info(connection: &mut MultiplexedConnection, field: &str) -> Option<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await.ok()?;
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}

/// Of the server that listens there, which may be somebody else's.
async fn ask_process_id(url: &str) -> Option<u32> {
    info(&mut connect(url).await.ok()?, "process_id").await?.parse().ok()
}
