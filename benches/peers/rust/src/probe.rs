//! What the operating system and the server's own counters say at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::split;
use crate::sample::round;
use crate::{Result, Settings};

/// Counters that are kept. A family with labels is summed by gRPC method: "family:method".
const WANTED: [&str; 12] = [
    "grpc_server_started_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_watcher_total",
    SLOW_WATCHERS,
    "etcd_debugging_mvcc_keys_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_disk_wal_fsync_duration_seconds_sum",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_server_proposals_committed_total",
];

/// Watchers in the group that etcd visits every 100 ms.
const SLOW_WATCHERS: &str = "etcd_debugging_mvcc_slow_watcher_total";

type Counters = BTreeMap<String, f64>;

pub struct Probe {
    pub at: Instant,
    counters: Counters,
    client: Process,
    servers: Vec<Process>,
}

struct Process {
    rss_kb: u64,
    anon_kb: u64,
    cpu_ms: u64,
}

impl Probe {
    pub async fn take(settings: &Settings) -> Result<Self> {
        let client = Process::read("self")?;
        let servers = split(&settings.etcd_pid).into_iter().map(Process::read).collect::<Result<_>>()?;
        let counters = scrape(settings).await?;
        Ok(Self { at: Instant::now(), counters, client, servers })
    }

    /// Waits until the server has no watcher more in its catch-up group than it had here.
    pub async fn settled(&self, settings: &Settings) -> Result<()> {
        let slow = |counters: &Counters| counters.get(SLOW_WATCHERS).copied().unwrap_or(0.0);
        while slow(&scrape(settings).await?) > slow(&self.counters) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub fn memory(&self) -> Value {
        let mut memory = json!({"client_rss_kb": self.client.rss_kb, "client_anon_kb": self.client.anon_kb});
        if !self.servers.is_empty() {
            memory["etcd_rss_kb"] = self.servers.iter().map(|server| server.rss_kb).sum::<u64>().into();
            memory["etcd_anon_kb"] = self.servers.iter().map(|server| server.anon_kb).sum::<u64>().into();
        }
        memory
    }

    /// Everything that changed since an earlier probe, and what the server did, divided by `per`.
    pub fn cost(&self, since: &Self, per: usize) -> Value {
        let mut cost = json!({
            "wall_ms": round((self.at - since.at).as_secs_f64() * 1e3, 1),
            "client_cpu_ms": self.client.cpu_ms - since.client.cpu_ms,
        });
        if !self.servers.is_empty() {
            let cpu_ms = |probe: &Self| probe.servers.iter().map(|server| server.cpu_ms).sum::<u64>();
            cost["etcd_cpu_ms"] = (cpu_ms(self) - cpu_ms(since)).into();
        }
        if self.counters.is_empty() {
            return cost;
        }
        let started = self.family(since, "grpc_server_started_total");
        let received = self.family(since, "grpc_server_msg_received_total");
        let sent = self.family(since, "grpc_server_msg_sent_total");
        let events = self.delta(since, "etcd_debugging_mvcc_events_total");
        let bytes_out = self.delta(since, "etcd_network_client_grpc_sent_bytes_total");
        let bytes_in = self.delta(since, "etcd_network_client_grpc_received_bytes_total");
        cost["rpc_started"] = json!(started);
        cost["rpc_msg_received"] = json!(received);
        cost["rpc_msg_sent"] = json!(sent);
        cost["watch_events"] = json!(events);
        cost["bytes_to_clients"] = json!(bytes_out);
        cost["bytes_from_clients"] = json!(bytes_in);
        cost["raft_proposals"] = json!(self.delta(since, "etcd_server_proposals_committed_total"));
        let fsyncs = self.delta(since, "etcd_disk_wal_fsync_duration_seconds_count");
        if fsyncs > 0.0 {
            let seconds = self.delta(since, "etcd_disk_wal_fsync_duration_seconds_sum");
            cost["wal_fsync_mean_us"] = json!(round(seconds / fsyncs * 1e6, 1));
            cost["wal_fsyncs"] = json!(fsyncs);
        }
        if per > 0 {
            let one = |total: f64, places| round(total / per as f64, places);
            let each =
                |all: &Counters| all.iter().map(|(key, total)| (key.clone(), one(*total, 3))).collect::<Counters>();
            // Keep-alives go by the clock and not by what is measured.
            let sum =
                |all: &Counters| all.iter().filter(|(key, _)| *key != "LeaseKeepAlive").map(|(_, n)| n).sum::<f64>();
            cost["per_op"] = json!({
                "rpc_started": each(&started),
                "rpc_msg_received": each(&received),
                "rpc_msg_sent": each(&sent),
                "msgs_received_all": one(sum(&received), 3),
                "msgs_sent_all": one(sum(&sent), 3),
                "watch_events": one(events, 3),
                "bytes_to_clients": one(bytes_out, 1),
                "bytes_from_clients": one(bytes_in, 1),
            });
        }
        cost
    }

    fn delta(&self, since: &Self, key: &str) -> f64 {
        let at = |probe: &Self| probe.counters.get(key).copied().unwrap_or(0.0);
        at(self) - at(since)
    }

    /// The change of a family by gRPC method, without those that did not change.
    fn family(&self, since: &Self, family: &str) -> Counters {
        let methods = self.counters.keys().filter_map(|key| Some((key, key.strip_prefix(family)?.strip_prefix(':')?)));
        let changes = methods.map(|(key, method)| (method.to_owned(), self.delta(since, key)));
        changes.filter(|(_, change)| *change != 0.0).collect()
    }
}

impl Process {
    fn read(pid: &str) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
        let kb = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        // The second field is in brackets and may hold spaces; utime and stime are the 14th and 15th, in ticks of 1/100 s.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Self { rss_kb: kb("VmRSS:"), anon_kb: kb("RssAnon:"), cpu_ms: ticks * 10 })
    }
}

async fn scrape(settings: &Settings) -> Result<Counters> {
    let mut counters = Counters::new();
    for url in split(&settings.metrics) {
        let page = get(url).await.with_context(|| format!("{url} cannot be read"))?;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            let (true, Ok(value)) = (WANTED.contains(&family), value.parse::<f64>()) else { continue };
            let method = labels.split_once("grpc_method=\"").and_then(|(_, rest)| rest.split_once('"'));
            let key = method.map_or_else(|| family.to_owned(), |(method, _)| format!("{family}:{method}"));
            *counters.entry(key).or_default() += value;
        }
    }
    Ok(counters)
}

/// A page over plain HTTP/1.0, which ends with the connection.
async fn get(url: &str) -> Result<String> {
    let (host, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("not http://HOST/PATH")?;
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    anyhow::ensure!(head.split_whitespace().nth(1) == Some("200"), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
