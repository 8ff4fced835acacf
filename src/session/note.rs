//! A key of the session's own that says something to others for a while.
//!
//! 1. A task of its own writes it and takes it away: a write is never dropped while it travels.
//! 2. Each write is on the condition that the key is as the last one left it, and that the fence stands. So one whose
//!    reply was not heard overwrites no later one, and does not bring back a key that was taken away.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::Core;
use super::lease::Lease;
use crate::error::{Error, Loss, Result, Verdict, verdict};
use crate::etcd_client::{self, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use crate::name::Revision;
use crate::retry;

/// The key, until this is dropped, or its lease is lost. Then it is taken away, in the background.
#[derive(Debug)]
pub(crate) struct Note {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct Order {
    value: Vec<u8>,
    written: oneshot::Sender<Result<Revision>>,
}

impl Note {
    /// A key below `prefix` on `lease`, which is not written yet.
    pub(crate) fn new(core: &Arc<Core>, lease: Arc<Lease>, prefix: &str) -> Self {
        let (orders, todo) = mpsc::unbounded_channel();
        let number = core.numbers.take();
        let key = format!("{prefix}{:x}-{number:x}", lease.id);
        let writer =
            Writer { core: core.clone(), lease, key, number, created: 0, modified: 0, written: false, unsure: false };
        core.spawn(writer.run(todo));
        Self { orders }
    }

    /// Writes it; returns the revision at which it was created. Dropping the future does not stop the write.
    pub(crate) async fn write(&self, value: Vec<u8>) -> Result<Revision> {
        let (written, answer) = oneshot::channel();
        // Where nobody takes it the lease is lost.
        let _ = self.orders.send(Order { value, written });
        answer.await.unwrap_or(Err(Error::Lost(Loss::Expired)))
    }
}

struct Writer {
    core: Arc<Core>,
    lease: Arc<Lease>,
    key: String,
    number: u64,
    created: Revision,
    /// The revision of the last write that was heard of; 0 before the first.
    modified: Revision,
    /// A write was sent.
    written: bool,
    /// A request may still be travelling.
    unsure: bool,
}

impl Writer {
    async fn run(mut self, mut todo: mpsc::UnboundedReceiver<Order>) {
        let lease = self.lease.clone();
        let seen_off = async {
            while let Some(Order { value, written }) = todo.recv().await {
                let _ = written.send(self.write(&value).await);
            }
            if self.written {
                self.remove().await;
            }
            // A request that travels on would be too late for the next key with this number.
            if !self.unsure {
                self.core.numbers.give_back(self.number);
            }
        };
        tokio::select! {
            () = seen_off => {}
            // The key goes with it.
            () = lease.over() => {}
        }
    }

    async fn write(&mut self, value: &[u8]) -> Result<Revision> {
        let (begun, mut delays) = (Instant::now(), retry::delays());
        self.written = true;
        loop {
            let error = match self.send(value).await {
                Ok(reply) if self.account(&reply, value).await? => return Ok(self.created),
                Ok(_) => None,
                Err(error) => {
                    match error.as_ref().map_or(Verdict::Unknown, verdict) {
                        Verdict::Never | Verdict::Exhausted => return Err(Error::failed(error)),
                        Verdict::NoLease => {
                            self.core.doubt_lease();
                            return Err(Error::failed(error));
                        }
                        Verdict::Reauthenticate => self.core.reauthenticate().await,
                        Verdict::Unknown => self.unsure = true,
                        Verdict::Again => {}
                    }
                    error
                }
            };
            if begun.elapsed() >= self.core.call_limit {
                return Err(Error::failed(error));
            }
            sleep(delays.next()).await;
        }
    }

    async fn send(&self, value: &[u8]) -> Result<TxnResponse, Option<etcd_client::Error>> {
        let fence = self.core.fence_key(self.lease.id);
        let conditions = [
            Compare::mod_revision(fence.as_str(), CompareOp::Equal, self.lease.fence()),
            Compare::mod_revision(self.key.as_str(), CompareOp::Equal, self.modified),
        ];
        let put = TxnOp::put(self.key.as_str(), value, Some(PutOptions::new().with_lease(self.lease.id)));
        let own = TxnOp::get(self.key.as_str(), None);
        let fence = TxnOp::get(fence, Some(GetOptions::new().with_keys_only()));
        let mut kv = self.core.kv.clone();
        self.core.call(kv.txn(Txn::new().when(conditions).and_then([put]).or_else([own, fence]))).await
    }

    /// Whether the value is written, by this request or by an earlier one.
    async fn account(&mut self, reply: &TxnResponse, value: &[u8]) -> Result<bool> {
        if reply.succeeded() {
            self.modified = reply.header().map_or(0, |header| header.revision());
            if self.created == 0 {
                self.created = self.modified;
            }
            return Ok(true);
        }
        let mut found = reply.op_responses().into_iter().map(|op| match op {
            TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
            _ => None,
        });
        let (own, fence) = (found.next().flatten(), found.next().flatten());
        match fence {
            Some(fence) => self.lease.learn_fence(fence.mod_revision()),
            None => self.lease.learn_fence(self.core.rewrite_fence(&self.lease).await.map_err(Error::failed)?),
        }
        (self.created, self.modified) = own.as_ref().map_or((0, 0), |own| (own.create_revision(), own.mod_revision()));
        Ok(own.is_some_and(|own| own.value() == value))
    }

    async fn remove(&mut self) {
        let mut delays = retry::delays();
        loop {
            let mut ops = vec![TxnOp::delete(self.key.as_str(), None)];
            if self.unsure {
                let options = PutOptions::new().with_lease(self.lease.id);
                let value = self.core.fence_value();
                ops.push(TxnOp::put(self.core.fence_key(self.lease.id), &*value, Some(options)));
            }
            let mut kv = self.core.kv.clone();
            match self.core.call(kv.txn(Txn::new().and_then(ops))).await {
                Ok(reply) => {
                    if self.unsure {
                        self.lease.learn_fence(reply.header().map_or(0, |header| header.revision()));
                    }
                    return;
                }
                Err(error) => {
                    self.unsure = true;
                    if error.as_ref().is_some_and(|error| verdict(error) == Verdict::Reauthenticate) {
                        self.core.reauthenticate().await;
                    }
                }
            }
            sleep(delays.next()).await;
        }
    }
}
