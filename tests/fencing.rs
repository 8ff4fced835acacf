//! What must never be done by two is done in the name of a hold, and refused once that is over.

mod common;

use common::{TestResult, World, equals, on_etcd, soon};
use tenure::etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use tenure::{Error, FencingToken, Guard, Loss};

fn put(key: &str, value: &str) -> Txn {
    Txn::new().and_then([TxnOp::put(key, value, None)])
}

async fn value(world: &World, key: &str) -> TestResult<Option<String>> {
    let found = world.client().get(key, None).await?;
    Ok(found.kvs().first().map(|kv| kv.value_str().map(str::to_owned)).transpose()?)
}

#[tokio::test]
async fn a_transaction_is_applied_while_the_hold_stands() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        let reply = guard.txn(put("work", "1")).await?;
        assert!(reply.succeeded());
        assert_eq!(reply.op_responses().len(), 1, "the reply is that of the caller's transaction");
        assert_eq!(value(world, "work").await?.as_deref(), Some("1"));

        // The caller's own conditions decide on the caller's own branches.
        let swap = |from: &str| {
            Txn::new()
                .when([Compare::value("work", CompareOp::Equal, from)])
                .and_then([TxnOp::put("work", "2", None)])
                .or_else([TxnOp::get("work", None)])
        };
        assert!(guard.txn(swap("1")).await?.succeeded());
        let refused = guard.txn(swap("1")).await?;
        assert!(!refused.succeeded());
        let Some(TxnOpResponse::Get(found)) = refused.op_responses().pop() else { panic!("{refused:?}") };
        assert_eq!(found.kvs()[0].value(), b"2");
        guard.txn(Txn::new()).await?;
        guard.txn(Txn::new().and_then([TxnOp::delete("work", None)])).await?;
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// What fits beside the condition.
#[tokio::test]
async fn a_transaction_of_127_operations_passes() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        let puts =
            |n| Txn::new().and_then((0..n).map(|n| TxnOp::put(format!("work/{n}"), "", None)).collect::<Vec<_>>());
        assert_eq!(guard.txn(puts(127)).await?.op_responses().len(), 127);
        assert_eq!(world.keys("work/").await.len(), 127);
        let conditions: Vec<_> =
            (0..127).map(|n| Compare::version(format!("work/{n}"), CompareOp::Greater, 0)).collect();
        let deletes: Vec<_> = (0..127).map(|n| TxnOp::delete(format!("work/{n}"), None)).collect();
        assert!(guard.txn(Txn::new().when(conditions).and_then(deletes)).await?.succeeded());
        // One that etcd refuses says so, and costs no hold.
        let error = guard.txn(puts(200)).await.unwrap_err();
        assert!(matches!(&error, Error::Etcd { message, .. } if message.contains("too many operations")), "{error:?}");
        assert!(guard.is_valid());
        guard.unlock().await?;
        Ok(())
    })
    .await
}

/// Ways in which a hold ends without its holder.
async fn refuses(world: &World, guard: &Guard, loss: Loss) -> TestResult {
    let before = world.revision().await;
    for _ in 0..2 {
        let error = guard.txn(put("work", "late")).await.unwrap_err();
        assert!(matches!(error, Error::Lost(told) if told == loss), "{error:?}");
        let error = guard.verify().await.unwrap_err();
        assert!(matches!(error, Error::Lost(told) if told == loss), "{error:?}");
    }
    assert_eq!(value(world, "work").await?, None);
    // A session that lost its lease takes a new one, and its fence, meanwhile.
    assert!(world.revision().await <= before + 1);
    Ok(())
}

/// At once: the transaction asks etcd, whether or not the holder has heard of it yet.
#[tokio::test]
async fn a_transaction_is_refused_once_the_key_is_deleted() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        guard.verify().await?;
        world.client().delete(guard.key(), None).await?;
        refuses(world, &guard, Loss::Deleted).await?;
        assert_eq!(soon("`lost` fires", guard.lost()).await, Loss::Deleted);
        refuses(world, &guard, Loss::Deleted).await
    })
    .await
}

#[tokio::test]
async fn a_transaction_is_refused_once_the_lease_is_revoked() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        world.client().lease_revoke(session.lease_id()).await?;
        refuses(world, &guard, Loss::Revoked).await
    })
    .await
}

/// A key that somebody put back is not the hold: its create revision is another.
#[tokio::test]
async fn a_key_that_was_put_back_is_no_hold() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        let key = guard.key().to_owned();
        world.client().delete(key.as_str(), None).await?;
        world.client().put(key.as_str(), "", None).await?;
        refuses(world, &guard, Loss::Deleted).await?;
        drop(guard);
        // Its guard deletes what bears its name. Should it have heard of the loss before, it had nothing to do.
        world.client().delete(key.as_str(), None).await?;
        Ok(())
    })
    .await
}

/// For writes that need more than one transaction of ours can say.
#[tokio::test]
async fn the_condition_holds_in_a_transaction_of_the_callers() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let (guard, other) = (session.mutex("name").lock().await?, session.mutex("other").lock().await?);
        let put = || [TxnOp::put("work", "1", None)];
        let both = || Txn::new().when([guard.compare(), other.compare()]).and_then(put());
        assert!(world.client().txn(both()).await?.succeeded());
        world.client().delete("work", None).await?;
        let late = both();
        other.unlock().await?;
        assert!(!world.client().txn(late).await?.succeeded());
        let late = Txn::new().when([guard.compare()]).and_then(put());
        guard.unlock().await?;
        // The next holder's key is another.
        let next = session.mutex("name").lock().await?;
        assert!(!world.client().txn(late).await?.succeeded());
        assert_eq!(value(world, "work").await?, None);
        next.unlock().await?;
        Ok(())
    })
    .await
}

/// A hold whose condition is out there is not handed over in memory: a straggling write would still find its key.
#[tokio::test]
async fn a_hold_whose_condition_was_given_out_is_handed_on_after_its_key_is_gone() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        for _ in 0..20 {
            let guard = session.mutex("name").lock().await?;
            let late = Txn::new().when([guard.compare()]).and_then([TxnOp::put("work", "late", None)]);
            let mut ticket = session.mutex("name").enqueue().await?;
            drop(guard);
            let next = soon("it is its turn", ticket.granted()).await?;
            assert!(!world.client().txn(late).await?.succeeded());
            next.unlock().await?;
        }
        assert_eq!(value(world, "work").await?, None);
        Ok(())
    })
    .await
}

/// A store that is not etcd takes the token: as text, as a number, and larger for every later holder.
#[tokio::test]
async fn a_token_is_a_number_that_grows() -> TestResult {
    on_etcd(async |world: &World| {
        let sessions = [world.session().await?, world.session().await?];
        let mut last = None;
        for n in 0..10 {
            let guard = sessions[n % 2].mutex("name").lock().await?;
            let token = guard.token();
            assert!(Some(token) > last);
            last = Some(token);
            assert_eq!(token.to_string().parse::<FencingToken>()?, token);
            assert_eq!(token.to_string(), i64::from(token).to_string());
            assert_eq!(format!("{token:>20}").len(), 20);
            guard.unlock().await?;
        }
        assert!("".parse::<FencingToken>().is_err());
        assert!("1f".parse::<FencingToken>().is_err());
        equals("keys", Vec::new(), async || world.keys("name/").await).await;
        Ok(())
    })
    .await
}
