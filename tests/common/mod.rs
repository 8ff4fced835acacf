//! What the tests share: an etcd of their own, conditions to wait for, futures that are dropped half-way, and the
//! check that nothing is left when a test is over.
#![allow(dead_code, reason = "each file uses a part of it")]

pub(crate) mod etcdctl;
pub(crate) mod proxy;

use std::fmt::Debug;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tenure::etcd_client::{Client, GetOptions};
use tenure::testing::{Error, Etcd};
use tenure::{Guard, Session, Ticket};
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::proxy::Link;

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// More than any condition takes on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A TTL that no test outlives, where no lease is to be renewed or to expire meanwhile.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// An etcd of one's own.
pub(crate) struct World {
    pub(crate) etcd: Etcd,
    client: Client,
    /// How many tasks there were before the test.
    tasks: usize,
}

/// Runs `test` on an etcd of one member, and checks that nothing is left afterwards: no key, no lease, no watch and
/// no task.
pub(crate) async fn on_etcd(test: impl AsyncFnOnce(&World) -> TestResult) -> TestResult {
    on(Etcd::start(), test).await
}

/// The same on an etcd of one's own choice.
pub(crate) async fn on(
    etcd: impl Future<Output = tenure::testing::Result<Etcd>>,
    test: impl AsyncFnOnce(&World) -> TestResult,
) -> TestResult {
    let tasks = tasks();
    let etcd = etcd.await?;
    let client = etcd.client().await?;
    let world = World { etcd, client, tasks };
    test(&world).await?;
    world.check_that_nothing_is_left().await;
    Ok(())
}

/// A way to an etcd of one member that can be disturbed.
pub(crate) struct Detour {
    pub(crate) link: Link,
    pub(crate) endpoint: String,
    serving: AbortHandle,
}

impl Detour {
    pub(crate) async fn client(&self) -> Result<Client, etcd_client::Error> {
        Client::connect([&self.endpoint], Some(tenure::connect_options())).await
    }

    /// A session that needs no renewal during the test.
    pub(crate) async fn session(&self) -> TestResult<Session> {
        Ok(Session::builder(self.client().await?).ttl(LONG).open().await?)
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

impl World {
    /// The client of the test itself, apart from that of any session.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// A session that needs no renewal during the test, on a client of its own.
    pub(crate) async fn session(&self) -> tenure::Result<Session> {
        self.etcd.session(LONG).await
    }

    pub(crate) fn detour(&self) -> TestResult<Detour> {
        let (link, (listener, address)) = (Link::new(), proxy::listen()?);
        let (member, over) = (self.etcd.endpoints()[0].parse()?, link.clone());
        let serving = tokio::spawn(proxy::serve(listener, member, move |_| ready(over.clone()))).abort_handle();
        Ok(Detour { link, endpoint: address.to_string(), serving })
    }

    /// All keys that begin with `prefix`, in key order.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let options = GetOptions::new().with_keys_only();
        let options = if prefix.is_empty() { options.with_all_keys() } else { options.with_prefix() };
        let found = reply(async || self.client().get(prefix, Some(options.clone())).await).await;
        found.kvs().iter().map(|kv| kv.key_str().expect("tests use text").to_owned()).collect()
    }

    /// The revision of the store: every write raises it.
    pub(crate) async fn revision(&self) -> i64 {
        let found = self.client().get("no such key", None).await.expect("etcd answers");
        found.header().expect("replies have one").revision()
    }

    pub(crate) async fn leases(&self) -> Vec<i64> {
        let found = reply(async || self.client().leases().await).await;
        found.leases().iter().map(|lease| lease.id()).collect()
    }

    /// The sum of a metric over all members.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let mut sum = 0.0;
        for member in 0..self.etcd.endpoints().len() {
            sum += match self.etcd.metric(member, name, label).await {
                Ok(figure) => figure,
                Err(Error::NoMetric { .. }) => 0.0,
                Err(error) => panic!("{error}"),
            };
        }
        sum
    }

    /// How many watches there are.
    pub(crate) async fn watches(&self) -> f64 {
        self.metric("etcd_debugging_mvcc_watcher_total", "").await
    }

    /// How many requests to the store were answered: reads and writes, not the streams of watches and renewals.
    pub(crate) async fn requests(&self) -> Requests {
        let handled = async |method: &str| {
            let label = format!("grpc_method=\"{method}\"");
            self.metric("grpc_server_handled_total", &label).await as u64
        };
        let writes = handled("Put").await + handled("DeleteRange").await;
        Requests { txns: handled("Txn").await, reads: handled("Range").await, writes }
    }

    /// The requests once all that was to be done is done: as many watches stand as there should be, and a while has
    /// passed without a request.
    pub(crate) async fn settled_requests(&self, watches: f64) -> Requests {
        equals("watches", watches, async || self.watches().await).await;
        let (mut last, mut same) = (self.requests().await, 0);
        while same < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.requests().await;
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    async fn check_that_nothing_is_left(self) {
        equals("keys", Vec::<String>::new(), async || self.keys("").await).await;
        equals("leases", Vec::<i64>::new(), async || self.leases().await).await;
        equals("watches", 0.0, async || self.watches().await).await;
        let Self { etcd, client, tasks: before } = self;
        drop(client);
        equals("tasks", before, async || tasks()).await;
        drop(etcd);
    }
}

/// See [`World::requests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) txns: u64,
    pub(crate) reads: u64,
    /// Bare puts and deletes.
    pub(crate) writes: u64,
}

impl Requests {
    pub(crate) fn all(self) -> u64 {
        self.txns + self.reads + self.writes
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { txns: self.txns - earlier.txns, reads: self.reads - earlier.reads, writes: self.writes - earlier.writes }
    }
}

/// A reply of an etcd that may just have been killed or resumed.
async fn reply<T>(call: impl AsyncFn() -> Result<T, etcd_client::Error>) -> T {
    let begun = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(1), call()).await {
            Ok(Ok(reply)) => return reply,
            Ok(Err(error)) => assert!(begun.elapsed() < LIMIT, "{error}"),
            Err(_) => assert!(begun.elapsed() < LIMIT, "no answer"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    equals(what, true, async || holds().await).await;
}

/// Waits for a figure to become what it should be.
pub(crate) async fn equals<T: PartialEq + Debug>(what: &str, expected: T, mut ask: impl AsyncFnMut() -> T) {
    let begun = Instant::now();
    loop {
        let now = ask().await;
        if now == expected {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "waited in vain, {what}: {now:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What must happen, or the test fails rather than hangs.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let done = tokio::time::timeout(LIMIT, future).await;
    done.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A future that is polled by hand.
pub(crate) struct ByHand<F: Future> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// When a future is dropped that was polled so often.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drops {
    /// Right after the last poll: what it asked for is on its way.
    AtOnce,
    /// When it was woken once more: what it asked for is there, and it has not seen it.
    OnceWoken,
}

/// How far a future got.
#[derive(Debug)]
pub(crate) enum Progress<T> {
    Ready(T),
    /// It was polled as often as it was to be.
    Polled,
    /// It does not ask to be polled any more: it waits for somebody else.
    Quiet,
}

impl<F: Future> ByHand<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(Notify::new())) }
    }

    /// Polls so often, each time but the first when it was woken.
    pub(crate) async fn poll(&mut self, polls: usize, drops: Drops) -> Progress<F::Output> {
        let waker = Waker::from(self.woken.clone());
        for poll in 0..polls {
            if poll > 0 && !self.is_woken().await {
                return Progress::Quiet;
            }
            // Within a task of the runtime, but out of its sight: only the waker tells.
            if let Poll::Ready(output) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Progress::Ready(output);
            }
        }
        match drops {
            Drops::OnceWoken if polls > 0 && !self.is_woken().await => Progress::Quiet,
            _ => Progress::Polled,
        }
    }

    /// Polls until it waits for somebody else.
    pub(crate) async fn poll_until_quiet(&mut self) -> Progress<F::Output> {
        self.poll(usize::MAX, Drops::AtOnce).await
    }

    /// Polls it to its end, however long that takes.
    pub(crate) async fn end(self) -> F::Output {
        soon("it ends", self.future).await
    }

    async fn is_woken(&self) -> bool {
        // Longer than a reply takes. Should one take longer, the future is dropped earlier than it could be.
        tokio::time::timeout(Duration::from_millis(150), self.woken.0.notified()).await.is_ok()
    }
}

/// A program that ends by Ctrl-C, though whoever runs the tests has that ignored, as shells have it in the background.
pub(crate) fn as_from_a_terminal(program: &str) -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,QUIT,TERM,HUP", program]);
    command
}

/// Tells whether the work that owns it was dropped.
#[derive(Debug)]
pub(crate) struct DropFlag(Arc<AtomicBool>);

impl DropFlag {
    pub(crate) fn new() -> (Self, Arc<AtomicBool>) {
        let dropped = Arc::new(AtomicBool::new(false));
        (Self(dropped.clone()), dropped)
    }
}

impl Drop for DropFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Work that never ends.
pub(crate) async fn endless(flag: DropFlag) {
    std::future::pending::<()>().await;
    drop(flag);
}

pub(crate) async fn sessions(world: &World) -> tenure::Result<[Session; 3]> {
    Ok([world.session().await?, world.session().await?, world.session().await?])
}

/// One for all, where holds are handed on in memory.
pub(crate) async fn shared(world: &World) -> tenure::Result<[Session; 3]> {
    let session = world.session().await?;
    Ok([session.clone(), session.clone(), session])
}

/// It is not granted, although everything that etcd has to say to it has been said.
pub(crate) async fn waits(ticket: &mut Ticket) {
    assert!(matches!(ByHand::new(ticket.granted()).poll_until_quiet().await, Progress::Quiet), "granted");
}

pub(crate) async fn holds(ticket: &mut Ticket) -> TestResult<Guard> {
    Ok(soon("it is its turn", ticket.granted()).await?)
}
