//! A task of the session that panics leaves nobody in a belief that nobody looks after: the session ends.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::time::timeout;

use super::core::Phase;
use super::janitor::Departing;
use super::watch::{Notice, Watcher};
use super::{Health, Session};
use crate::connect_options;
use crate::error::{Error, Loss};
use crate::name::Key;
use crate::testing::Etcd;

const LIMIT: Duration = Duration::from_secs(60);

const LONG: Duration = Duration::from_secs(120);

/// Panics wherever it is asked.
struct Panics;

impl Watcher for Panics {
    fn tell(self: Arc<Self>, _: Notice) {
        panic!("on purpose");
    }
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

/// Gives its key, or none, and panics then.
struct Departs(Option<Key>);

impl Departing for Departs {
    fn queue(&self) -> &str {
        "name/"
    }

    fn last_key(&mut self) -> Option<Key> {
        self.0.clone()
    }

    fn left(&mut self) {
        panic!("on purpose");
    }

    fn unheard(&mut self) {}

    fn see_off(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async { panic!("on purpose") })
    }
}

/// Ends a session that holds by a panic, and looks at all who believe in it.
async fn ends(loss: Loss, panic: impl AsyncFnOnce(&Session)) {
    let etcd = Etcd::start().await.expect("it starts");
    ends_session(etcd.session(LONG).await.expect("it opens"), loss, panic).await;
}

async fn ends_session(session: Session, loss: Loss, panic: impl AsyncFnOnce(&Session)) {
    let guard = session.mutex("name").lock().await.expect("it is free");
    let other = session.mutex("other");
    let held = other.lock().await.expect("it is free");
    let waiting = tokio::spawn(async move { other.lock().await });
    panic(&session).await;
    assert_eq!(timeout(LIMIT, guard.lost()).await, Ok(loss));
    assert!(!guard.is_valid() && !held.is_valid());
    let waited = timeout(LIMIT, waiting).await.expect("it ends").expect("it does not panic");
    assert!(matches!(waited, Err(Error::Closed)), "{waited:?}");
    let asked = timeout(LIMIT, session.mutex("third").lock()).await.expect("an answer");
    assert!(matches!(asked, Err(Error::Closed)), "{asked:?}");
    assert_eq!(*session.health().borrow(), Health::Lost(Loss::Closed));
}

#[tokio::test]
async fn a_panic_in_the_watch_stream_ends_the_session() {
    ends(Loss::Closed, async |session| {
        session.core().hub.watch(&Key::from(*b"key"), None, Arc::new(Panics));
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_a_departure_ends_the_session() {
    ends(Loss::Closed, async |session| session.core().take(Box::new(Departs(None)))).await;
}

/// One alone, and two that leave together.
#[tokio::test]
async fn a_panic_in_a_batch_of_departures_ends_the_session() {
    for count in [1, 2] {
        ends(Loss::Closed, async |session| {
            for n in 0..count {
                session.core().take(Box::new(Departs(Some(Key::from([b'k', n])))));
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_panic_in_a_task_of_a_hold_ends_the_session() {
    ends(Loss::Closed, async |session| session.core().spawn(async { panic!("on purpose") })).await;
}

/// It logs, and logs go to code of others.
#[tokio::test]
async fn a_panic_in_the_renewal_loop_ends_the_session() {
    let panics = || -> std::io::Sink { panic!("on purpose") };
    let warnings =
        tracing_subscriber::fmt().with_env_filter("tenure::session::keepalive=warn").with_writer(panics).finish();
    ends(Loss::Revoked, async |session| {
        let _logging = tracing::subscriber::set_default(warnings);
        let mut client = session.core().client.lease_client();
        client.revoke(session.lease_id()).await.expect("it stood");
        let mut health = session.health();
        let closed = health.wait_for(|health| *health == Health::Lost(Loss::Closed));
        timeout(LIMIT, closed).await.expect("it ends").expect("the session is there");
    })
    .await;
}

/// It wakes those who watch its health, and they are code of others.
#[tokio::test]
async fn a_panic_in_isolated_renewal_ends_the_session() {
    let etcd = Etcd::start().await.expect("it starts");
    let client = etcd.client().await.expect("it connects");
    let builder = Session::builder(client).ttl(LONG).isolated(etcd.endpoints(), connect_options());
    ends_session(builder.open().await.expect("it opens"), Loss::Revoked, async |session| {
        let (mut health, waker) = (session.health(), Waker::from(Arc::new(Panics)));
        health.borrow_and_update();
        let mut changed = pin!(health.changed());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let mut client = session.core().client.lease_client();
        client.revoke(session.lease_id()).await.expect("it stood");
        let mut phase = session.core().phase.subscribe();
        let closed = phase.wait_for(|phase| matches!(phase, Phase::Closed { .. }));
        timeout(LIMIT, closed).await.expect("it ends").expect("the session is there");
    })
    .await;
}
