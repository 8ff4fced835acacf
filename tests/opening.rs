//! How a session is opened, and what it then tells about itself.

mod common;

use common::{TestResult, World, on_etcd};
use tenure::{Error, Session};

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

/// Most people who try the crate have one endpoint, as a string.
#[tokio::test]
async fn one_endpoint_or_several_connect() -> TestResult {
    on_etcd(async |world: &World| {
        let endpoints: Vec<String> = world.etcd.endpoints();
        let options = tenure::connect_options();
        for session in [
            Session::connect(endpoints[0].as_str()).await?,
            Session::connect(&endpoints[0]).await?,
            Session::connect(&endpoints).await?,
            Session::connect(&endpoints[..]).await?,
            Session::connect([&endpoints[0]]).await?,
            Session::connect_with(endpoints, options).await?,
        ] {
            session.close().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_is_no_uri_is_an_invalid_option() {
    let error = Session::connect("not a uri").await.expect_err("it has spaces");
    assert!(matches!(error, Error::InvalidOption { option: "endpoints", .. }), "{error:?}");
}
