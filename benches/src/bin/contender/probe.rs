//! What the system and etcd's own counters say at one moment.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::Settings;
use crate::clock::{self, Nanos};

const STARTED: &str = "grpc_server_started_total";
const RECEIVED: &str = "grpc_server_msg_received_total";
const SENT: &str = "grpc_server_msg_sent_total";
const EVENTS: &str = "etcd_debugging_mvcc_events_total";
const COMMITTED: &str = "etcd_server_proposals_committed_total";
const FSYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count";

pub struct Probe {
    at: Nanos,
    /// Summed over members; by method, `NAME:METHOD`, where there is one.
    counters: BTreeMap<String, f64>,
    client: Process,
    etcd: Process,
}

/// Of one process, or the sum of several.
#[derive(Clone, Copy, Default)]
struct Process {
    rss_kb: u64,
    cpu_ms: u64,
}

impl Probe {
    pub async fn take(settings: &Settings) -> Result<Self> {
        let client = Process::read(std::process::id())?;
        let mut etcd = Process::default();
        for &pid in &settings.etcd_pid {
            let member = Process::read(pid)?;
            etcd.rss_kb += member.rss_kb;
            etcd.cpu_ms += member.cpu_ms;
        }
        let mut counters = BTreeMap::new();
        for url in &settings.metrics {
            add(&mut counters, &fetch(url).await.with_context(|| format!("cannot read {url}"))?);
        }
        Ok(Self { at: clock::now(), counters, client, etcd })
    }

    pub fn memory(&self) -> Value {
        json!({ "client_rss_kb": self.client.rss_kb, "etcd_rss_kb": self.etcd.rss_kb })
    }

    /// How much more of the client's memory is in use than at an earlier probe.
    pub fn client_bytes_since(&self, earlier: &Self) -> f64 {
        (self.client.rss_kb as f64 - earlier.client.rss_kb as f64) * 1024.0
    }

    pub fn etcd_bytes_since(&self, earlier: &Self) -> f64 {
        (self.etcd.rss_kb as f64 - earlier.etcd.rss_kb as f64) * 1024.0
    }

    /// Messages that etcd has received and sent, but for renewals, which go by the clock.
    pub fn messages(&self) -> f64 {
        let counted = |name: &str| {
            !name.ends_with(":LeaseKeepAlive") && [RECEIVED, SENT].iter().any(|family| name.starts_with(family))
        };
        self.counters.iter().filter(|(name, _)| counted(name)).map(|(_, count)| count).sum()
    }

    /// Renewals that etcd has answered.
    pub fn renewals(&self) -> f64 {
        self.counters.get(&format!("{SENT}:LeaseKeepAlive")).copied().unwrap_or_default()
    }

    /// What has changed since an earlier probe, and the same for each of `operations`.
    pub fn cost(&self, earlier: &Self, operations: usize) -> Value {
        let mut cost = Map::new();
        let mut set = |key: &str, value: Value| cost.insert(key.into(), value);
        set("wall_ms", json!(clock::millis(self.at - earlier.at)));
        set("client_cpu_ms", json!(self.client.cpu_ms.saturating_sub(earlier.client.cpu_ms)));
        let etcd_cpu_ms = self.etcd.cpu_ms.saturating_sub(earlier.etcd.cpu_ms);
        set("etcd_cpu_ms", json!(etcd_cpu_ms));
        if self.counters.is_empty() {
            return Value::Object(cost);
        }
        let delta = |name: &str| {
            let at = |probe: &Self| probe.counters.get(name).copied().unwrap_or_default();
            at(self) - at(earlier)
        };
        let each = |total: f64| (total / operations.max(1) as f64 * 1e3).round() / 1e3;
        let family = |name: &str| -> Map<String, Value> {
            let methods = self.counters.keys().filter_map(|key| key.strip_prefix(name)?.strip_prefix(':'));
            let changed = methods.map(|method| (method.to_owned(), delta(&format!("{name}:{method}"))));
            // Renewals go by the clock, and not by what is measured.
            let changed = changed.filter(|(method, delta)| *delta != 0.0 && method != "LeaseKeepAlive");
            changed.map(|(method, delta)| (method, json!(each(delta)))).collect()
        };
        set("watch_events", json!(delta(EVENTS)));
        set("raft_proposals", json!(delta(COMMITTED)));
        set("wal_fsyncs", json!(delta(FSYNCS)));
        set(
            "per_op",
            json!({
                "rpc_started": family(STARTED),
                "rpc_msg_received": family(RECEIVED),
                "rpc_msg_sent": family(SENT),
                "watch_events": each(delta(EVENTS)),
                "raft_proposals": each(delta(COMMITTED)),
                "etcd_cpu_us": each(etcd_cpu_ms as f64 * 1e3),
            }),
        );
        Value::Object(cost)
    }
}

impl Process {
    fn read(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is in brackets, and may hold spaces. User and system time are the 14th and the 15th.
        let (_, after) = stat.rsplit_once(')').context("/proc/PID/stat has a name in brackets")?;
        let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let tick_ms = 1000 / rustix::param::clock_ticks_per_second();
        Ok(Self { rss_kb: rss.context("a process has memory")?.parse()?, cpu_ms: ticks * tick_ms })
    }
}

/// `GET` on one of etcd's URLs.
async fn fetch(url: &str) -> Result<String> {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, "metrics"));
    let mut stream = TcpStream::connect(host).await?;
    // HTTP/1.0: so the body comes in one piece, and ends with the connection.
    stream.write_all(format!("GET /{path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer in HTTP")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "the answer was {head}");
    Ok(body.into())
}

fn add(counters: &mut BTreeMap<String, f64>, metrics: &str) {
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if ![STARTED, RECEIVED, SENT, EVENTS, COMMITTED, FSYNCS].contains(&name) {
            continue;
        }
        let method = labels.split_once("grpc_method=\"").and_then(|(_, rest)| rest.split('"').next());
        let name = method.map_or(name.to_owned(), |method| format!("{name}:{method}"));
        *counters.entry(name).or_default() += value.parse::<f64>().unwrap_or_default();
    }
}
