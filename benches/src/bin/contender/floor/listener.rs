//! An open watch on one key, and when it told of deletions.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tenure::etcd_client::{Client, EventType, WatchFilterType, WatchOptions, WatchStream};

use crate::bench::{self, Settings};
use crate::clock::{Nanos, now};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    #[arg(long)]
    key: String,
}

/// Says `ready`, and then when it heard of each deletion.
pub async fn run(Options { settings, key }: Options) -> Result<()> {
    let watch = listen(bench::connect(&settings.endpoints).await?, &key).await?;
    println!("ready");
    watch.forward(|at| writeln!(std::io::stdout(), "{at}").is_ok()).await;
    Ok(())
}

pub struct Watch(pub WatchStream);

/// Returns once etcd watches.
pub async fn listen(mut client: Client, key: &str) -> Result<Watch> {
    let options = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
    let mut stream = client.watch(key, Some(options)).await?;
    let created = stream.message().await?.context("the watch has ended")?;
    ensure!(created.created(), "the first answer is that the watch is open");
    Ok(Watch(stream))
}

impl Watch {
    /// Until nobody listens any more.
    pub async fn forward(mut self, mut tell: impl FnMut(Nanos) -> bool) {
        while let Ok(Some(response)) = self.0.message().await {
            let at = now();
            for event in response.events() {
                if event.event_type() == EventType::Delete && !tell(at) {
                    return;
                }
            }
        }
    }
}
