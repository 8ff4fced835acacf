//! A queue of the bare requests: a put, a delete, and a watch on who stands before. Everyone knows from the beginning who
//! that is, and asks nothing of anybody.

use std::sync::Arc;

use anyhow::{Context, Result};
use tenure::etcd_client::{Client, DeleteOptions, EventType, PutOptions};
use tokio::sync::Semaphore;

use crate::clock::now;
use crate::contest::{Contest, Turn};
use crate::floor::listener::{Watch, listen};

/// The key of who begins.
pub fn first(name: &str) -> String {
    format!("{name}/first")
}

fn place(name: &str, index: usize) -> String {
    format!("{name}/{index}")
}

/// One of those who pass it round, `index` of all.
pub async fn stand(mut client: Client, contest: Contest, index: usize, standing: Arc<Semaphore>) -> Result<Vec<Turn>> {
    let Contest { name, turns, all, hold, .. } = contest;
    let (own, before) = (place(&name, index), place(&name, (index + all - 1) % all));
    let mut before = listen(client.clone(), &before).await?;
    let mut first = if index == 0 { Some(listen(client.clone(), &first(&name)).await?) } else { None };
    let lease = client.lease_grant(60, None).await?.id();
    let put = PutOptions::new().with_lease(lease);
    let mut taken = Vec::with_capacity(turns);
    let mut asked = now();
    client.put(own.as_str(), "", Some(put.clone())).await?;
    standing.add_permits(1);
    loop {
        let token = deletion(first.as_mut().unwrap_or(&mut before)).await?;
        first = None;
        let granted = now();
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let released = now();
        client.delete(own.as_str(), None::<DeleteOptions>).await?;
        taken.push(Turn { token, asked, granted, released, gone: now() });
        if taken.len() == turns {
            client.lease_revoke(lease).await?;
            return Ok(taken);
        }
        asked = now();
        client.put(own.as_str(), "", Some(put.clone())).await?;
    }
}

/// The revision of the next one.
async fn deletion(watch: &mut Watch) -> Result<i64> {
    loop {
        let response = watch.0.message().await?.context("the watch has ended")?;
        let deleted = response.events().iter().find(|event| event.event_type() == EventType::Delete);
        if let Some(kv) = deleted.and_then(|event| event.kv()) {
            return Ok(kv.mod_revision());
        }
    }
}
