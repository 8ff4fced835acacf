//! `tenure ls` and `tenure show`.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::args::Common;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::queues::{Place, Sessions, Snapshot};
use crate::reader::Reader;

pub(crate) async fn ls(common: &Common, prefix: &str, output: Output) -> Result<u8, Failure> {
    let Snapshot { queues, sessions, .. } = Reader::connect(common).await?.all(prefix).await?;
    let mut table = Table::new(["NAME", "KIND", "HOLDERS", "WAITING", "HELD BY"]);
    for queue in queues.iter().filter(|queue| queue.is_one()) {
        let kind = queue.kind();
        let by = queue.holders().map(|place| sessions.identity(place)).collect::<Vec<_>>().join(" ");
        let (holding, waiting) = (queue.holding().to_string(), queue.waiting().to_string());
        let places = queue.places().iter().map(|place| object(place, &sessions, None)).collect::<Vec<_>>();
        let object = json!({ "name": queue.name, "kind": kind, "queue": places });
        table.row([queue.name.clone(), kind.to_owned(), holding, waiting, by], object);
    }
    output.table(&table)
}

pub(crate) async fn show(common: &Common, name: &str, output: Output) -> Result<u8, Failure> {
    let name = name.trim_end_matches('/');
    let reader = Reader::connect(common).await?;
    let (queue, sessions) = (reader.queue(name.to_owned()).await?, reader.sessions().await);
    let mut table = Table::new(["", "IDENTITY", "KIND", "TOKEN", "SINCE", "LEASE", "REMAINING", "VALUE"]);
    for place in queue.places() {
        let lease = match place.waiter.lease() {
            0 => None,
            lease => reader.lease(lease).await?,
        };
        let since = place.waiter.since().map(|since| humantime::format_rfc3339_seconds(since).to_string());
        let remaining = lease.map(|(granted, left)| format!("{}s of {}s", left.as_secs(), granted.as_secs()));
        let dash = || "-".to_owned();
        table.row(
            [
                if place.holds { "*" } else { "" }.to_owned(),
                sessions.identity(place).to_owned(),
                place.wish(),
                place.waiter.token().to_string(),
                since.unwrap_or_else(dash),
                format!("{:x}", place.waiter.lease()),
                remaining.unwrap_or_else(dash),
                place.value.clone().unwrap_or_default(),
            ],
            object(place, &sessions, lease),
        );
    }
    if queue.places().is_empty() {
        output.note(format_args!("{name}: nobody holds it and nobody waits"));
    }
    output.table(&table)
}

/// One who stands in a queue, with its lease where that is known.
pub(crate) fn object(place: &Place, sessions: &Sessions, lease: Option<(Duration, Duration)>) -> Value {
    let waiter = &place.waiter;
    let since = waiter.since().and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    json!({
        "holds": place.holds,
        "identity": sessions.identity(place),
        "kind": place.kind(),
        "key": waiter.key(),
        "token": i64::from(waiter.token()),
        "since": since.map(|since| since.as_secs()),
        "lease": format!("{:x}", waiter.lease()),
        "ttl": lease.map(|(granted, _)| granted.as_secs()),
        "remaining": lease.map(|(_, remaining)| remaining.as_secs()),
        "permits": waiter.permits(),
        "capacity": waiter.capacity(),
        "value": place.value,
    })
}
