//! Leadership moving through three processes, and a lock through six.
//!
//! A leader crashes (SIGKILL), and the next one leads once its lease has expired. A leader is stopped (SIGTERM), and
//! hands over in milliseconds. Six workers pass one lock in the order in which they queued. One more waits for three
//! seconds at most, and goes. All of it is checked: the exit code is 0 only if it happened.
//!
//! ```text
//! cargo run --example failover
//! ```
//!
//! The processes are this program, started again in another role; they end with it.

#[path = "../common/mod.rs"]
mod common;
mod replica;
mod role;
mod stage;
mod story;
mod timeline;
mod worker;

use std::process::ExitCode;

use anyhow::ensure;
use tenure::connect_options;
use tenure::etcd_client::{Client, GetOptions};

use role::Role;
use stage::Stage;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    if let Some(role) = Role::of_this_process()? {
        role.play().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = common::shutdown()?;
    let Some(outcome) = stop.run_until_cancelled(common::etcd()).await else { return Ok(interrupted()) };
    let etcd = outcome?;
    let namespace = format!("tenure-demo-{}/", std::process::id());
    let session = role::session(&etcd.endpoints, "demo", &namespace).await?;

    let stage = Stage::set(etcd.endpoints.clone(), namespace.clone())?;
    let told = stop.run_until_cancelled(story::tell(stage, &session)).await;
    session.close().await?;
    let Some(told) = told else { return Ok(interrupted()) };
    let timeline = told?;

    nothing_is_left(&etcd.endpoints, &namespace).await?;
    timeline.checked("no key is left in etcd");
    println!("\nAll of it happened, in {:.1} s.", timeline.begun().elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

fn interrupted() -> ExitCode {
    eprintln!("\ninterrupted; what was started has been ended");
    ExitCode::from(130)
}

async fn nothing_is_left(endpoints: &[String], namespace: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(endpoints, Some(connect_options())).await?;
    let left = client.get(namespace, Some(GetOptions::new().with_prefix())).await?;
    let keys: Vec<_> = left.kvs().iter().map(|kv| String::from_utf8_lossy(kv.key())).collect();
    ensure!(keys.is_empty(), "left in etcd: {}", keys.join(", "));
    Ok(())
}
