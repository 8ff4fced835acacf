//! What a type can be used for in a program of many threads: a promise that the compiler would break in silence.

use std::error::Error as StdError;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tenure::etcd_client::{Client, Txn};
use tenure::{
    Deadline, Election, Error, FencingToken, Guard, Health, Kind, Leader, Leadership, Loss, Lost, MultiGuard, Mutex,
    Observation, Observations, ReentrantMutex, Revocation, RevocationRequested, RwLock, Semaphore, Session,
    SessionBuilder, Ticket, Waiter,
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

fn shared<T: Debug + Send + Sync + 'static>() {}
fn handle<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}
fn value<T: Copy + Eq + Debug + Send + Sync + Unpin + 'static>() {}
fn ordered<T: Copy + Ord>() {}
fn future<F: Future + Send + 'static>(_: F) {}

#[test]
fn handles_can_be_cloned_and_shared() {
    handle::<Session>();
    handle::<Mutex>();
    handle::<ReentrantMutex>();
    handle::<RwLock>();
    handle::<Semaphore>();
    handle::<Election>();
    handle::<Lost>();
    handle::<Revocation>();
    handle::<RevocationRequested>();
    handle::<Waiter>();
    handle::<Leader>();
    handle::<Observation>();
}

#[test]
fn guards_tickets_and_builders_can_be_sent_and_shared() {
    shared::<Guard>();
    shared::<MultiGuard>();
    shared::<Leadership>();
    shared::<Ticket>();
    shared::<Ticket<Leadership>>();
    shared::<SessionBuilder>();
    shared::<Error>();
}

#[test]
fn values_are_plain() {
    value::<Deadline>();
    value::<Kind>();
    value::<FencingToken>();
    value::<Health>();
    value::<Loss>();
    ordered::<Deadline>();
    ordered::<FencingToken>();
    fn token<T: Display + FromStr + Into<i64> + Hash>() {}
    token::<FencingToken>();
    fn error<T: StdError + Display>() {}
    error::<Loss>();
    error::<Error>();
    fn converts<T: From<Loss>>() {}
    converts::<Error>();
}

/// `Lost` goes into any `select!`, without a pin.
#[test]
fn lost_is_an_unpin_future() {
    fn check<T: Future<Output = Loss> + Clone + Send + Sync + Unpin + 'static>() {}
    check::<Lost>();
}

/// So does what a holder is asked.
#[test]
fn a_request_for_revocation_is_an_unpin_future() {
    fn check<T: Future<Output = Revocation> + Clone + Send + Sync + Unpin + 'static>() {}
    check::<RevocationRequested>();
}

/// Observers are polled wherever their owner likes.
#[test]
fn observations_are_an_unpin_stream() {
    fn check<T: Stream<Item = tenure::Result<Observation>> + Debug + Send + Unpin + 'static>() {}
    check::<Observations>();
}

/// All that a hold can do an office can do: a leadership is a guard.
#[test]
fn a_leadership_is_a_guard() {
    fn check<T: std::ops::Deref<Target = Guard>>() {}
    check::<Leadership>();
}

/// Compiled, and never run: every future can be given to `tokio::spawn`.
#[expect(dead_code, reason = "compiling it is the test")]
fn every_future_can_be_spawned(
    client: fn() -> Client,
    session: fn() -> Session,
    mutex: fn() -> Mutex,
    guard: fn() -> Guard,
    ticket: fn() -> Ticket,
) {
    future(Session::connect(["localhost:2379"]));
    future(Session::connect(vec!["localhost:2379".to_owned()]));
    future(Session::open(client()));
    future(Session::builder(client()).open());
    future(Session::builder(client()).isolated(["localhost:2379"], tenure::connect_options()).open());
    let here = session();
    future(async move { here.close().await });

    let here = mutex();
    future(async move { here.lock().await });
    let here = mutex();
    future(async move { here.try_lock().await });
    let here = mutex();
    future(async move { here.try_lock_for(Duration::ZERO).await });
    let here = mutex();
    future(async move { here.enqueue().await });
    let here = mutex();
    future(async move { here.queue().await });

    let here = mutex();
    future(async move { here.request_revocation("reason").await });
    let here = mutex();
    future(async move { here.force_release("1".parse().unwrap()).await });

    let mut here = ticket();
    future(async move { here.granted().await });
    let here = ticket();
    future(async move { here.position().await });

    future(guard().lost());
    future(guard().revocation_requested());
    future(guard().unlock());
    let here = guard();
    future(async move { here.run(async {}).await });
    let here = guard();
    future(async move { here.verify().await });
    let here = guard();
    future(async move { here.txn(Txn::new()).await });
}

/// The same for an owner's handle.
#[expect(dead_code, reason = "compiling it is the test")]
fn every_future_of_a_reentrant_lock_can_be_spawned(owner: fn() -> ReentrantMutex) {
    let here = owner();
    future(async move { here.lock().await });
    let here = owner();
    future(async move { here.try_lock().await });
    let here = owner();
    future(async move { here.try_lock_for(Duration::ZERO).await });
    let here = owner();
    future(async move { here.queue().await });
}

/// The same for the locks that several may hold.
#[expect(dead_code, reason = "compiling it is the test")]
fn every_future_of_a_shared_lock_can_be_spawned(rwlock: fn() -> RwLock, semaphore: fn() -> Semaphore) {
    let here = rwlock();
    future(async move { here.read().await });
    let here = rwlock();
    future(async move { here.write().await });
    let here = rwlock();
    future(async move { here.try_read().await });
    let here = rwlock();
    future(async move { here.try_write().await });
    let here = rwlock();
    future(async move { here.try_read_for(Duration::ZERO).await });
    let here = rwlock();
    future(async move { here.try_write_for(Duration::ZERO).await });
    let here = rwlock();
    future(async move { here.enqueue_read().await });
    let here = rwlock();
    future(async move { here.enqueue_write().await });
    let here = rwlock();
    future(async move { here.queue().await });
    let here = semaphore();
    future(async move { here.acquire().await });
    let here = semaphore();
    future(async move { here.acquire_many(1).await });
    let here = semaphore();
    future(async move { here.try_acquire().await });
    let here = semaphore();
    future(async move { here.try_acquire_many(1).await });
    let here = semaphore();
    future(async move { here.try_acquire_for(Duration::ZERO).await });
    let here = semaphore();
    future(async move { here.try_acquire_many_for(1, Duration::ZERO).await });
    let here = semaphore();
    future(async move { here.enqueue().await });
    let here = semaphore();
    future(async move { here.enqueue_many(1).await });
    let here = semaphore();
    future(async move { here.queue().await });
    let here = rwlock();
    future(async move { here.request_revocation("reason").await });
    let here = semaphore();
    future(async move { here.request_revocation("reason").await });
}

/// The same for several locks at once, whatever their names are given in.
#[expect(dead_code, reason = "compiling it is the test")]
fn every_future_of_several_locks_can_be_spawned(session: fn() -> Session, guards: fn() -> MultiGuard) {
    let here = session();
    future(async move { here.lock_all(["a", "b"]).await });
    let here = session();
    future(async move { here.lock_all(vec!["a".to_owned()]).await });
    let here = session();
    future(async move { here.try_lock_all((0..3).map(|n| n.to_string())).await });
    let here = session();
    future(async move { here.try_lock_all_for(["a", "b"], Duration::ZERO).await });
    future(guards().lost());
    future(guards().unlock());
    let here = guards();
    future(async move { here.run(async {}).await });
    let here = guards();
    future(async move { here.verify().await });
    let here = guards();
    future(async move { here.txn(Txn::new()).await });
}

/// The same for elections, with work that borrows nothing.
#[expect(dead_code, reason = "compiling it is the test")]
fn every_future_of_an_election_can_be_spawned(
    election: fn() -> Election,
    leadership: fn() -> Leadership,
    ticket: fn() -> Ticket<Leadership>,
) {
    let here = election();
    future(async move { here.campaign("value").await });
    let here = election();
    future(async move { here.try_campaign("value".to_owned()).await });
    let here = election();
    future(async move { here.try_campaign_for(vec![0], Duration::ZERO).await });
    let here = election();
    future(async move { here.enqueue("value").await });
    let here = election();
    future(async move { here.leader().await });
    let here = election();
    future(async move { here.observe().await });
    let here = election();
    future(async move { here.candidates().await });
    let here = election();
    future(async move { here.request_revocation("reason").await });
    let here = election();
    future(async move { here.force_release("1".parse().unwrap()).await });
    let mut terms = 0;
    let work = move |term: Arc<Leadership>| {
        terms += 1;
        async move {
            let _ = term.proclaim(terms.to_string()).await;
            term.ending().cancelled().await;
        }
    };
    future(election().grace(Duration::ZERO).run("value", CancellationToken::new(), work));

    let mut here = ticket();
    future(async move { here.granted().await });
    let here = leadership();
    future(async move { here.proclaim("value").await });
    let here = leadership();
    future(async move { here.transfer_to("identity").await });
    future(leadership().resign());
}
