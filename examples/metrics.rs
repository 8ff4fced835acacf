//! Metrics of waits, holds and renewals, as Prometheus reads them.
//!
//! The crate counts through the `metrics` facade; a service installs the exporter that it likes. This one serves
//! <http://127.0.0.1:9464/metrics>, or another address that is given, while six workers pass a lock around; then it
//! shows what it serves.
//!
//! ```text
//! cargo run --features metrics --example metrics
//! cargo run --features metrics --example metrics -- 127.0.0.1:9999
//! ```

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;
use tenure::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    let address: SocketAddr = address.parse().with_context(|| format!("`{address}` is not an address and a port"))?;

    // Before the first session, so that its descriptions reach the exporter.
    PrometheusBuilder::new().with_http_listener(address).install().with_context(|| format!("serving {address}"))?;

    let etcd = common::etcd().await?;
    let session = Session::connect(&etcd.endpoints).await?;
    let mut workers = JoinSet::new();
    for _ in 0..6 {
        let mutex = session.mutex("examples/metrics");
        workers.spawn(async move {
            for _ in 0..3 {
                let guard = mutex.lock().await?;
                let _ = guard.run(tokio::time::sleep(Duration::from_millis(20))).await;
                guard.unlock().await?;
            }
            Ok::<_, tenure::Error>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    session.close().await?;

    for line in scrape(address).await?.lines().filter(|line| line.contains("tenure_")) {
        println!("{line}");
    }
    Ok(())
}

/// What Prometheus would read.
async fn scrape(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
