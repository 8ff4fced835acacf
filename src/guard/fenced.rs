//! Transactions that etcd applies only while all of some holds stand.

use std::sync::atomic::Ordering;

use super::Guard;
use crate::error::{Error, Result, Verdict, code, verdict};
use crate::etcd_client::{GetOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

/// Whether all of them stand.
pub(crate) async fn verify(guards: &[Guard]) -> Result<()> {
    // A transaction of compares alone may be answered by a member that lags; a range in it may not.
    commit(guards, Txn::new().and_then([own(&guards[0])])).await.map(|_| ())
}

/// Commits the user's transaction.
pub(crate) async fn txn(guards: &[Guard], txn: Txn) -> Result<TxnResponse> {
    for guard in guards {
        guard.hold.travelling.fetch_add(1, Ordering::AcqRel);
    }
    let reply = commit(guards, txn).await;
    if !matches!(reply, Err(Error::Unknown)) {
        for guard in guards {
            guard.hold.travelling.fetch_sub(1, Ordering::AcqRel);
        }
    }
    reply
}

/// Wraps `txn` in the conditions and takes its reply out again.
async fn commit(guards: &[Guard], txn: Txn) -> Result<TxnResponse> {
    let conditions: Vec<_> = guards.iter().map(Guard::condition).collect();
    let keys: Vec<_> = guards.iter().map(own).collect();
    let fenced = Txn::new().when(conditions).and_then([TxnOp::txn(txn)]).or_else(keys);
    let core = guards[0].session.core();
    let mut kv = core.kv.clone();
    let mut sent = core.call(kv.txn(fenced.clone())).await;
    if matches!(&sent, Err(Some(error)) if verdict(error) == Verdict::Reauthenticate) {
        // Not applied for sure, so that this is still the first.
        core.reauthenticate().await;
        sent = core.call(kv.txn(fenced)).await;
    }
    let reply = sent.map_err(Error::failed)?;
    let mut responses = reply.op_responses();
    if !reply.succeeded() {
        let stands = |(guard, own): &(&Guard, TxnOpResponse)| match own {
            TxnOpResponse::Get(own) => own.kvs().iter().any(|own| own.create_revision() == guard.token().0),
            _ => false,
        };
        let gone = guards.iter().zip(responses).find(|held| !stands(held)).map_or(&guards[0], |(guard, _)| guard);
        return Err(gone.why_gone().await.into());
    }
    match responses.pop() {
        Some(TxnOpResponse::Txn(reply)) => Ok(reply),
        _ => Err(Error::told(code::UNKNOWN, "the reply to a transaction is incomplete")),
    }
}

/// Reads the key of a hold.
fn own(guard: &Guard) -> TxnOp {
    TxnOp::get(guard.key(), Some(GetOptions::new().with_keys_only()))
}
