//! `tenure ls` and `tenure show`.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::args::Common;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::queues::{Place, Queue, Reader};

pub(crate) async fn ls(common: &Common, prefix: &str, output: Output) -> Result<u8, Failure> {
    let queues = Reader::connect(common).await?.all(prefix).await?;
    let mut table = Table::new(["NAME", "KIND", "HOLDERS", "WAITING", "HELD BY"]);
    for queue in queues {
        let (holders, waiting): (Vec<_>, Vec<_>) = queue.places.iter().partition(|place| place.holds);
        let kind = queue.places.first().map_or("-", kind);
        let by = holders.iter().map(|place| &*place.identity).collect::<Vec<_>>().join(" ");
        let (holding, waiting) = (holders.len().to_string(), waiting.len().to_string());
        let places = queue.places.iter().map(|place| object(place, None)).collect::<Vec<_>>();
        let object = json!({ "name": queue.name, "kind": kind, "queue": places });
        table.row([queue.name.clone(), kind.to_owned(), holding, waiting, by], object);
    }
    output.table(&table)
}

pub(crate) async fn show(common: &Common, name: &str, output: Output) -> Result<u8, Failure> {
    let name = name.trim_end_matches('/');
    let mut reader = Reader::connect(common).await?;
    let Queue { places, .. } = reader.one(name).await?;
    let mut table = Table::new(["", "IDENTITY", "KIND", "TOKEN", "SINCE", "LEASE", "REMAINING", "VALUE"]);
    for place in &places {
        let lease = match place.waiter.lease() {
            0 => None,
            lease => reader.lease(lease).await?,
        };
        let permits = place.waiter.permits().zip(place.waiter.capacity());
        let permits = permits.map(|(permits, of)| format!(" {permits}/{of}")).unwrap_or_default();
        let since = place.waiter.since().map(|since| humantime::format_rfc3339_seconds(since).to_string());
        let remaining = lease.map(|(granted, left)| format!("{}s of {}s", left.as_secs(), granted.as_secs()));
        let dash = || "-".to_owned();
        table.row(
            [
                if place.holds { "*" } else { "" }.to_owned(),
                place.identity.clone(),
                format!("{}{permits}", kind(place)),
                place.waiter.token().to_string(),
                since.unwrap_or_else(dash),
                format!("{:x}", place.waiter.lease()),
                remaining.unwrap_or_else(dash),
                place.value.clone().unwrap_or_default(),
            ],
            object(place, lease),
        );
    }
    if places.is_empty() {
        output.note(format_args!("{name}: nobody holds it and nobody waits"));
    }
    output.table(&table)
}

fn kind(place: &Place) -> &'static str {
    use tenure::Kind;
    match place.waiter.kind() {
        Some(Kind::Mutex) => "mutex",
        Some(Kind::Election) => "election",
        Some(Kind::Read) => "read",
        Some(Kind::Write) => "write",
        Some(Kind::Semaphore) => "semaphore",
        // etcdctl and Go put the proposal into a candidate's key, and nothing into a lock's.
        _ if place.value.is_some() => "election",
        _ => "mutex",
    }
}

fn object(place: &Place, lease: Option<(Duration, Duration)>) -> Value {
    let waiter = &place.waiter;
    let since = waiter.since().and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    json!({
        "holds": place.holds,
        "identity": place.identity,
        "kind": kind(place),
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
