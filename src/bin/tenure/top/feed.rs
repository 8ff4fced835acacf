//! What there is, and what changes, from etcd: read once, then watched; read again when the watch ends.

use std::time::Duration;

use tenure::etcd_client::{Error, Event, WatchResponse, WatchStream};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use crate::queues::{Sessions, Snapshot};
use crate::reader::Reader;

/// Before it is tried again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

#[derive(Debug)]
pub(crate) enum News {
    Read(Snapshot),
    Changed(Vec<Event>),
    /// Nothing is heard from etcd, and why.
    Away(String),
    /// How long the lease was granted for, and what remains; `None` if that cannot be seen.
    Lease(i64, Option<(Duration, Duration)>),
}

/// Follows `prefix` from what was read at `revision` on, for as long as somebody listens.
pub(crate) async fn follow(reader: Reader, prefix: String, mut revision: i64, news: Sender<News>) {
    let mut pause = PAUSES[0];
    while !news.is_closed() {
        let why = watch(&reader, &prefix, revision + 1, &news).await;
        let _ = news.send(News::Away(why)).await;
        loop {
            sleep(pause).await;
            match reader.all(&prefix).await {
                Ok(snapshot) => {
                    (revision, pause) = (snapshot.revision, PAUSES[0]);
                    let _ = news.send(News::Read(snapshot)).await;
                    break;
                }
                Err(failure) => {
                    pause = PAUSES[1].min(pause * 2);
                    let _ = news.send(News::Away(failure.message)).await;
                }
            }
            if news.is_closed() {
                return;
            }
        }
    }
}

/// Passes changes on until that ends; returns why.
async fn watch(reader: &Reader, prefix: &str, revision: i64, news: &Sender<News>) -> String {
    let mut queues = match reader.watch(prefix, revision).await {
        Ok(queues) => queues,
        Err(failure) => return failure.message,
    };
    // Who candidates are. Not everybody may see that; and it may be among the rest.
    let beside = Sessions::prefix("");
    let mut sessions = match beside.starts_with(prefix) {
        true => None,
        false => reader.watch(&beside, revision).await.ok(),
    };
    loop {
        let (response, essential) = tokio::select! {
            response = queues.message() => (response, true),
            response = next(&mut sessions) => (response, false),
        };
        match events(reader, response) {
            Ok(events) if events.is_empty() => {}
            Ok(events) => {
                if news.send(News::Changed(events)).await.is_err() {
                    return String::new();
                }
            }
            Err(why) if essential => return why,
            Err(_) => sessions = None,
        }
    }
}

async fn next(stream: &mut Option<WatchStream>) -> Result<Option<WatchResponse>, Error> {
    match stream {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}

fn events(reader: &Reader, response: Result<Option<WatchResponse>, Error>) -> Result<Vec<Event>, String> {
    match response {
        Ok(Some(response)) if response.canceled() => Err(match response.compact_revision() {
            0 => response.cancel_reason().to_owned(),
            _ => "changes were missed".to_owned(),
        }),
        Ok(Some(response)) => Ok(response.events().to_vec()),
        Ok(None) => Err("the watch has ended".to_owned()),
        Err(error) => Err(reader.failure(&error).message),
    }
}
