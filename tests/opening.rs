//! How a session is opened, and what it then tells about itself.

mod common;

use std::time::Duration;

use common::{LONG, TestResult, World, on_etcd};
use tenure::{Error, Session};
use tokio::time::{Instant, timeout};

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

/// Services are often started before their etcd. The member is stopped for longer than an opening without patience waits.
#[tokio::test]
async fn a_patient_opening_waits_until_etcd_is_up() -> TestResult {
    on_etcd(async |world: &World| {
        world.etcd.kill(0)?;
        let begun = Instant::now();
        let impatient = Session::builder(world.client()).patience(Duration::ZERO).open().await;
        assert!(matches!(impatient, Err(Error::Etcd { .. })), "{impatient:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let mut opening = tokio::spawn(Session::builder(world.client()).patience(LONG).open());
        assert!(timeout(Duration::from_secs(3), &mut opening).await.is_err(), "nobody was there");
        world.etcd.restart(0).await?;
        opening.await??.close().await?;
        Ok(())
    })
    .await
}
