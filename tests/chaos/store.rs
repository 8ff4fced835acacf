//! What the store itself says: every change of it in order of revisions, who stands in a queue, what remains.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tenure::etcd_client::{Client, EventType, GetOptions, SortOrder, SortTarget, WatchOptions};
use tokio::time::{sleep, timeout};

use crate::check::NAMESPACE;
use crate::history::What;
use crate::stage::{Result, Stage};
use crate::worker::ASK;

/// Follows all that is written.
#[derive(Clone)]
pub(crate) struct Store {
    stage: Arc<Stage>,
    client: Client,
    /// The revision up to which all is in the history.
    known: Arc<AtomicI64>,
}

/// One who stands in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) key: String,
    pub(crate) lease: i64,
    value: String,
}

impl Standing {
    /// Whether it is this worker's: a lock's value names its identity, and a candidate's begins with its number, or is its identity.
    pub(crate) fn is_of(&self, process: u32) -> bool {
        let number = process.to_string();
        self.value.contains(&format!("\"worker-{number}\""))
            || self.value.split(' ').next() == Some(&number)
            || self.value == format!("worker-{number}")
    }
}

impl Store {
    pub(crate) async fn new(stage: &Arc<Stage>) -> Result<Self> {
        let mut client = stage.etcd.client().await?;
        let first = client.get("nothing", None).await?.header().map_or(0, |header| header.revision());
        Ok(Self { stage: stage.clone(), client, known: Arc::new(AtomicI64::new(first)) })
    }

    /// Follows until it is dropped.
    pub(crate) async fn follow(self) {
        loop {
            let _ = self.follow_once().await;
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn follow_once(&self) -> Result {
        let next = self.known.load(Ordering::Acquire) + 1;
        let options = WatchOptions::new().with_all_keys().with_start_revision(next);
        let mut client = self.client.clone();
        let mut stream = timeout(ASK, client.watch("", Some(options))).await??;
        while let Some(response) = stream.message().await? {
            assert_eq!(response.compact_revision(), 0, "nothing is compacted that is not known");
            let mut last = 0;
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                let (revision, key) = (kv.mod_revision(), kv.key_str()?.to_owned());
                last = revision;
                self.stage.note(match event.event_type() {
                    EventType::Put => {
                        let (created, value) = (kv.create_revision(), kv.value_str()?.to_owned());
                        What::Put { revision, key, created, value }
                    }
                    EventType::Delete => What::Deleted { revision, key },
                });
            }
            self.known.fetch_max(last, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Writes ten times a second, to see when the store can be written to.
    pub(crate) async fn probe(self) {
        loop {
            let mut kv = self.client.kv_client();
            if let Ok(Ok(_)) = timeout(ASK, kv.put("probe", "", None)).await {
                self.stage.note(What::Answered);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Compacts every second all that is known.
    pub(crate) async fn compact(self) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let mut client = self.client.clone();
            let _ = timeout(ASK, client.compact(self.known.load(Ordering::Acquire), None)).await;
        }
    }

    /// Who stands in a queue, the oldest first.
    pub(crate) async fn queue(&self, name: &str) -> Result<Vec<Standing>> {
        let mut kv = self.client.kv_client();
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let found = timeout(ASK, kv.get(format!("{NAMESPACE}{name}/"), Some(options))).await??;
        let standing = found
            .kvs()
            .iter()
            .map(|kv| Ok(Standing { key: kv.key_str()?.into(), lease: kv.lease(), value: kv.value_str()?.into() }));
        standing.collect()
    }

    pub(crate) async fn delete(&self, key: &str) -> Result {
        self.stage.note(What::Deleting { key: key.to_owned() });
        let mut kv = self.client.kv_client();
        timeout(ASK, kv.delete(key, None)).await??;
        Ok(())
    }

    pub(crate) async fn revoke(&self, lease: i64) -> Result {
        self.stage.note(What::Revoking { lease });
        let mut leases = self.client.lease_client();
        timeout(ASK, leases.revoke(lease)).await??;
        Ok(())
    }

    /// Waits until nothing is left, and says what is, if it is still there after `limit`.
    pub(crate) async fn remains(&self, limit: Duration) -> Result<What> {
        let begun = Instant::now();
        loop {
            let left = timeout(ASK, self.left()).await.unwrap_or_else(|late| Err(late.into()));
            match left {
                Ok((keys, leases)) if keys.is_empty() && leases.is_empty() || begun.elapsed() > limit => {
                    return Ok(What::Remains { keys, leases, file: crate::work::read(&self.stage.file()) });
                }
                Err(error) if begun.elapsed() > limit => return Err(error),
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The keys and leases that there are.
    async fn left(&self) -> Result<(Vec<String>, Vec<i64>)> {
        let mut client = self.client.clone();
        let options = GetOptions::new().with_prefix().with_keys_only();
        let found = client.get(NAMESPACE, Some(options)).await?;
        let keys = found.kvs().iter().map(|kv| kv.key_str().map(str::to_owned));
        let leases = client.leases().await?;
        Ok((keys.collect::<std::result::Result<_, _>>()?, leases.leases().iter().map(|lease| lease.id()).collect()))
    }

    /// Waits until all that was written is in the history.
    pub(crate) async fn catch_up(&self) -> Result {
        let caught = async {
            let mut client = self.client.clone();
            let last = loop {
                let put = timeout(ASK, client.put("end", "", None)).await;
                if let Some(header) = put.ok().and_then(std::result::Result::ok).as_ref().and_then(|put| put.header()) {
                    break header.revision();
                }
            };
            while self.known.load(Ordering::Acquire) < last {
                sleep(Duration::from_millis(10)).await;
            }
        };
        Ok(timeout(Duration::from_secs(20), caught).await?)
    }
}
