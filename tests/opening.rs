//! How a session is opened, and what it then tells about itself.

mod common;

use common::{TestResult, World, on_etcd};

/// Callers that write beside their holds need the client, the lease and the values of those who wait.
#[tokio::test]
async fn a_session_and_its_holds_tell_what_they_stand_on() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        assert!(session.health().borrow().is_safe());
        let term = session.election("opening/accessors").campaign("here").await?;
        assert_eq!(term.lease(), session.lease_id());
        let candidates = session.election("opening/accessors").candidates().await?;
        assert_eq!(candidates[0].value(), b"here");
        let found = session.client().get(term.key(), None).await?;
        assert_eq!(found.kvs()[0].value(), b"here");
        term.resign().await?;
        session.close().await?;
        assert!(!session.health().borrow().is_safe());
        Ok(())
    })
    .await
}
