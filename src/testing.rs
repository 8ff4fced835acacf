//! A real etcd in child processes, for tests and examples.
//!
//! Members listen on loopback and keep their data in a temporary directory. They run the etcd that is installed:
//! the one that the environment variable `TENURE_ETCD` names, else `etcd` on `PATH`. (A script that stands for it
//! has to `exec` it, or signals reach only the script.) `TENURE_ETCD_DIR` puts the directory elsewhere than under the
//! system's default, on a tmpfs for a benchmark say. Variables that configure an etcd, `ETCD_*`, do not reach it.
//!
//! What holds:
//!
//! 1. An [`Etcd`] that was handed out works: each of its members has answered a linearizable read.
//! 2. No process and no directory outlives its [`Etcd`], whether it is dropped at the end of a test, by a panic,
//!    with paused members, or with the future that was starting it.
//! 3. On Linux no process outlives the one that started it either, even if that one is killed or leaks its
//!    [`Etcd`] in a static; its directory does then stay behind. This needs util-linux's `setpriv`; without
//!    it, and on macOS, members do outlive a process that is killed.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tenure::testing::Etcd;
//!
//! let etcd = Etcd::start().await?;
//! let mut client = etcd.client().await?;
//! client.put("greeting", "hello", None).await?;
//! etcd.kill(0)?;
//! etcd.restart(0).await?;
//! let found = etcd.client().await?.get("greeting", None).await?;
//! assert_eq!(found.kvs()[0].value(), b"hello");
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::slice;
use std::time::{Duration, Instant};

use etcd_client::Client;
use tempfile::TempDir;

use crate::Session;

use self::error::io_error;
pub use self::error::{Error, Result};
use self::launch::directly;
use self::member::{Member, Signal};

mod child;
mod error;
mod install;
mod launch;
mod member;
mod metrics;

/// How long a member may take to start or to stop, and a cluster to elect. Far beyond what a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// An etcd cluster of one's own, in child processes that end when it is dropped.
///
/// Members are named by their index, from 0. An index that there is not is a panic. Dropping blocks until the
/// processes have ended, which takes milliseconds.
#[derive(Debug)]
#[must_use = "dropping it ends its processes"]
pub struct Etcd {
    // Dropped in this order: first the processes, then the directory that they write to.
    members: Vec<Member>,
    dir: TempDir,
}

impl Etcd {
    /// Starts an etcd of one member.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] if there is no etcd; [`Error::Exited`] or [`Error::TimedOut`], with the end of the
    /// log, if it does not come up.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what it has started.
    pub async fn start() -> Result<Self> {
        Self::launch(1, &[], &mut directly).await
    }

    /// Starts an etcd of one member with further flags, such as `--auth-token-ttl=2`. They come last, so that they
    /// override the flags that every member gets.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start). An unknown flag is an [`Error::Exited`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what it has started.
    pub async fn start_with(flags: &[&str]) -> Result<Self> {
        Self::launch(1, flags, &mut directly).await
    }

    /// Starts an etcd of several members, and waits for each.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// If `members` is 0.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what it has started.
    pub async fn cluster(members: usize) -> Result<Self> {
        assert!(members > 0, "a cluster has at least one member");
        Self::launch(members, &[], &mut directly).await
    }

    /// Starts an etcd of several members that reach each other by way of somebody else, who can cut them apart:
    /// `front` is told where each member listens for its peers, and says where these shall connect to instead. It
    /// is asked again should the ports be lost to another process.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and [`Error::Io`] with the error of `front`.
    ///
    /// # Panics
    ///
    /// If `members` is 0, or `front` names more or fewer addresses than there are members.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what it has started.
    pub async fn cluster_behind(
        members: usize,
        mut front: impl FnMut(&[SocketAddr]) -> io::Result<Vec<SocketAddr>> + Send,
    ) -> Result<Self> {
        assert!(members > 0, "a cluster has at least one member");
        Self::launch(members, &[], &mut front).await
    }

    /// Where clients connect to: `127.0.0.1:PORT` of each member, dead ones included.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// A session with this TTL on a new client.
    ///
    /// # Errors
    ///
    /// Those of [`SessionBuilder::open`](crate::SessionBuilder::open).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no session.
    pub async fn session(&self, ttl: Duration) -> crate::Result<Session> {
        let connected = Client::connect(self.endpoints(), Some(crate::connect_options())).await;
        let client = connected.map_err(crate::Error::etcd)?;
        Session::builder(client).ttl(ttl).open().await
    }

    /// A new client, with a connection of its own, to all members.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the client refuses the endpoints. It connects with its first call.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.endpoints()).await
    }

    /// A new client to one member.
    ///
    /// # Errors
    ///
    /// As for [`client`](Self::client).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn member_client(&self, member: usize) -> Result<Client> {
        connect(&[self.members[member].endpoint()]).await
    }

    /// The member that leads: which says so of itself, in the highest term. Waits for an election to end.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if none gets to lead, because there is no quorum.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let mut newest = None;
            for (index, member) in self.running() {
                if let Some(term) = member.leads(&mut self.member_client(index).await?).await {
                    newest = newest.max(Some((term, index)));
                }
            }
            if let Some((_, leader)) = newest {
                return Ok(leader);
            }
            tokio::time::sleep(POLL).await;
        }
        let logs: Vec<_> = self.members.iter().map(Member::tail).collect();
        Err(Error::TimedOut { what: "for the cluster to have a leader".into(), log: logs.join("\n") })
    }

    /// Freezes a member, which answers nothing from here on and keeps its connections (SIGSTOP).
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] if it was killed or stopped before, [`Error::Exited`] if it ended by itself.
    pub fn pause(&self, member: usize) -> Result<()> {
        self.members[member].signal(Signal::Pause)
    }

    /// Lets a paused member go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] if it was killed or stopped before, [`Error::Exited`] if it ended by itself.
    pub fn resume(&self, member: usize) -> Result<()> {
        self.members[member].signal(Signal::Resume)
    }

    /// Crashes a member (SIGKILL), and returns when its process is gone. Its data stay, for
    /// [`restart`](Self::restart).
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] if it was killed or stopped before, [`Error::Exited`] if it ended by itself.
    pub fn kill(&self, member: usize) -> Result<()> {
        self.members[member].kill()
    }

    /// Shuts a member down in good order (SIGTERM) and waits for its end, a paused one too. With streams open, etcd
    /// takes seconds.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] if it was killed or stopped before, [`Error::Exited`] if it ended by itself,
    /// [`Error::TimedOut`] if it does not end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the member shutting down.
    pub async fn stop(&self, member: usize) -> Result<()> {
        let stopped = &self.members[member];
        stopped.signal(Signal::Stop)?;
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if stopped.has_ended()? {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Error::TimedOut { what: format!("for etcd member {member} to stop"), log: stopped.tail() })
    }

    /// Starts a member again, on its ports and its data, and waits until it answers a linearizable read. A member
    /// that runs is killed first. While fewer members run than make a quorum, none can answer a read: then this waits
    /// only until the member listens.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] or [`Error::TimedOut`], with the end of the log, if it does not come up.
    ///
    /// # Panics
    ///
    /// If two tasks restart one member at the same instant.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the member coming up.
    pub async fn restart(&self, member: usize) -> Result<()> {
        let again = &self.members[member];
        if !again.has_ended()? {
            again.kill()?;
        }
        again.spawn()?;
        self.ready(member, slice::from_ref(again)).await
    }

    /// What a member says about itself, in the text format of Prometheus.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the member does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn metrics(&self, member: usize) -> Result<String> {
        let asked = metrics::fetch(self.members[member].port());
        asked.await.map_err(io_error(|| format!("read the metrics of etcd member {member}")))
    }

    /// One figure of [`metrics`](Self::metrics): the sum over the series of that name whose labels contain the text
    /// `label`, such as `grpc_method="Txn"`. An empty text fits all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the member does not answer, [`Error::NoMetric`] if no series fits.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn metric(&self, member: usize, name: &str, label: &str) -> Result<f64> {
        let found = metrics::sum(&self.metrics(member).await?, name, label);
        found.ok_or_else(|| Error::NoMetric { member, name: name.into(), label: label.into() })
    }

    /// The process of a member, if it has one.
    #[must_use]
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.members[member].pid()
    }

    /// The directory of all data and logs. It goes with this value.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(|(_, member)| member.is_running())
    }
}

async fn connect(endpoints: &[String]) -> Result<Client> {
    let client = Client::connect(endpoints, Some(crate::connect_options())).await;
    client.map_err(io::Error::other).map_err(io_error(|| format!("connect to {}", endpoints.join(", "))))
}
