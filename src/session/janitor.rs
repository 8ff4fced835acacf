//! Leaves that outlive their futures: places whose owner dropped them are seen to their end here.
//!
//! Keys of one name go in one transaction, and while it travels those that follow are gathered for the next. Each
//! key of a transaction that fails is then seen to by itself.

use std::collections::HashMap;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::Core;
use super::core::Vital;
use crate::etcd_client::{Txn, TxnOp};
use crate::name::Key;

/// How many keys go in one transaction: etcd takes 128 operations at most.
const BATCH: usize = 100;

/// A place that its owner has given up.
pub(crate) trait Departing: Send {
    /// The queue it leaves.
    fn queue(&self) -> &str;
    /// Its key, if deleting that is all that is left to do.
    fn last_key(&mut self) -> Option<Key>;
    /// Its key was deleted.
    fn left(&mut self);
    /// Its key may have been deleted, or may yet be.
    fn unheard(&mut self);
    /// Does what is left to do until nothing is.
    fn see_off(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

type Batch = Vec<Box<dyn Departing>>;

/// Sees off whoever departs until the session closes: then the keys go with the lease.
pub(crate) async fn run(core: Arc<Core>, mut departing: mpsc::UnboundedReceiver<Box<dyn Departing>>) {
    let _vital = Vital(&core);
    let mut waiting: HashMap<String, Batch> = HashMap::new();
    let mut travelling: JoinSet<Option<String>> = JoinSet::new();
    let mut busy: Vec<String> = Vec::new();
    loop {
        tokio::select! {
            // Whoever waits for the session to close relies on the keys being gone with the lease.
            () = core.closing.cancelled() => return,
            Some(next) = departing.recv() => {
                let mut all = vec![next];
                while let Ok(next) = departing.try_recv() {
                    all.push(next);
                }
                for mut next in all {
                    if next.last_key().is_some() {
                        waiting.entry(next.queue().to_owned()).or_default().push(next);
                    } else {
                        travelling.spawn(async move {
                            next.see_off().await;
                            None
                        });
                    }
                }
            }
            Some(done) = travelling.join_next() => {
                if let Some(queue) = outcome(done).flatten() {
                    busy.retain(|other| *other != queue);
                }
            }
        }
        let ready: Vec<String> = waiting.keys().filter(|queue| !busy.contains(queue)).cloned().collect();
        for queue in ready {
            let mut batch = waiting.remove(&queue).expect("listed just now");
            if batch.len() > BATCH {
                waiting.insert(queue.clone(), batch.split_off(BATCH));
            }
            busy.push(queue.clone());
            let core = core.clone();
            travelling.spawn(async move {
                send(&core, batch).await;
                Some(queue)
            });
        }
    }
}

async fn send(core: &Core, mut batch: Batch) {
    if batch.len() > 1 {
        let keys = batch.iter_mut().filter_map(|departing| departing.last_key());
        let deletes: Vec<TxnOp> = keys.map(|key| TxnOp::delete(key.to_vec(), None)).collect();
        let mut kv = core.kv.clone();
        if core.call(kv.txn(Txn::new().and_then(deletes))).await.is_ok() {
            return batch.iter_mut().for_each(|departing| departing.left());
        }
        batch.iter_mut().for_each(|departing| departing.unheard());
    }
    let mut alone: JoinSet<()> = batch.into_iter().map(Departing::see_off).collect();
    while let Some(done) = alone.join_next().await {
        outcome(done);
    }
}

/// What came of a departure: `None` at the end of the runtime. A panic is passed on.
fn outcome<T>(done: Result<T, JoinError>) -> Option<T> {
    done.map_err(|error| error.try_into_panic().map(|panic| resume_unwind(panic))).ok()
}
