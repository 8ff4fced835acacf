//! From the wish for a cluster to one that answers.
//!
//! Ports lie below the range from which the system takes those of outgoing connections. From within, a client that
//! reconnects to a dead member could get that member's port, connect to itself, and keep it from restarting.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::error::{Error, Result, io_error};
use super::member::Member;
use super::{Etcd, LIMIT, POLL, install};

/// How often a start is tried when somebody else is faster to take the ports.
const TRIES: usize = 5;

/// Told where each member listens for its peers, says where they reach it.
pub(super) type Front<'a> = dyn FnMut(&[SocketAddr]) -> io::Result<Vec<SocketAddr>> + Send + 'a;

/// Nobody stands in front of a member.
pub(super) fn directly(peers: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    Ok(peers.into())
}

/// What the members of a cluster have in common.
pub(super) struct Plan<'a> {
    pub(super) binary: &'a Path,
    pub(super) dir: &'a Path,
    pub(super) cluster: &'a str,
    /// Of each member, the one for clients and the one for peers.
    pub(super) ports: &'a [(u16, u16)],
    /// Where the peers of each member reach it.
    pub(super) fronts: &'a [SocketAddr],
    pub(super) flags: &'a [&'a str],
}

impl Plan<'_> {
    pub(super) fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.cluster)
    }

    pub(super) fn args(&self, index: usize) -> Vec<OsString> {
        let (client, peer) = self.ports[index];
        let url = |port| format!("http://127.0.0.1:{port}");
        let peers = self.fronts.iter().enumerate();
        let peers: Vec<_> = peers.map(|(index, front)| format!("{}=http://{front}", self.name(index))).collect();
        let flags = [
            ("--name", self.name(index)),
            ("--listen-client-urls", url(client)),
            ("--advertise-client-urls", url(client)),
            ("--listen-peer-urls", url(peer)),
            ("--initial-advertise-peer-urls", format!("http://{}", self.fronts[index])),
            ("--initial-cluster", peers.join(",")),
            ("--initial-cluster-state", "new".into()),
            ("--initial-cluster-token", self.cluster.into()),
            // The only logger since 3.5; before that, the only one that knows levels.
            ("--logger", "zap".into()),
            ("--log-level", "warn".into()),
        ];
        let mut args: Vec<OsString> = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
        args.extend(["--data-dir".into(), self.dir.join(format!("{index}.etcd")).into()]);
        args.extend(self.flags.iter().map(Into::into));
        args
    }
}

impl Etcd {
    pub(super) async fn launch(members: usize, flags: &[&str], front: &mut Front<'_>) -> Result<Self> {
        let named = env::var_os("TENURE_ETCD");
        let binary = install::find(named.as_deref(), env::var_os("PATH").as_deref())?;
        let mut tries = 1;
        loop {
            let etcd = Self::prepare(&binary, members, flags, front)?;
            match etcd.bring_up().await {
                // Between our choice of a port and etcd's use of it, someone else may take it.
                Err(Error::Exited { log, .. }) if log.contains("address already in use") && tries < TRIES => tries += 1,
                outcome => return outcome.map(|()| etcd),
            }
        }
    }

    /// A cluster on paper, and its directory.
    fn prepare(binary: &Path, members: usize, flags: &[&str], front: &mut Front<'_>) -> Result<Self> {
        let base = env::var_os("TENURE_ETCD_DIR").map_or_else(env::temp_dir, Into::into);
        let dir = tempfile::Builder::new().prefix("tenure-etcd-").tempdir_in(&base);
        let dir = dir.map_err(io_error(|| format!("make a directory in {}", base.display())))?;
        // Unique among all that run at the time, so that no other etcd can be taken for ours.
        let cluster = dir.path().file_name().map_or_else(Default::default, OsStr::to_string_lossy).into_owned();
        let ports = free_ports(2 * members).map_err(io_error(|| "find free ports".into()))?;
        let ports: Vec<_> = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let peers: Vec<_> = ports.iter().map(|&(_, peer)| SocketAddr::from((Ipv4Addr::LOCALHOST, peer))).collect();
        let fronts = front(&peers).map_err(io_error(|| "stand in front of the members".into()))?;
        assert_eq!(fronts.len(), members, "each member is reached somewhere");
        let plan = Plan { binary, dir: dir.path(), cluster: &cluster, ports: &ports, fronts: &fronts, flags };
        let members = (0..members).map(|index| Member::new(index, &plan)).collect();
        Ok(Self { members, dir })
    }

    async fn bring_up(&self) -> Result<()> {
        for member in &self.members {
            member.spawn()?;
        }
        for index in 0..self.members.len() {
            self.ready(index, &self.members).await?;
        }
        Ok(())
    }

    /// Waits until a member is of use, or one of `fallible` has ended.
    pub(super) async fn ready(&self, index: usize, fallible: &[Member]) -> Result<()> {
        let member = &self.members[index];
        let mut client = self.member_client(index).await?;
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let quorum = 2 * self.running().count() > self.members.len();
            let ready = if quorum { member.answers(&mut client).await } else { member.listens().await };
            for member in fallible {
                member.check()?;
            }
            if ready {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Error::TimedOut { what: format!("for etcd member {index} to answer"), log: member.tail() })
    }
}

/// Ports of which nobody makes use. Each is given out once by this process, until all of the range have been.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    // Processes that start one after the other, as parallel tests do, begin well apart.
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(64)));
    let candidates = (0..COUNT).map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % u32::from(COUNT);
        FIRST + u16::try_from(next).expect("the remainder is less than a u16")
    });
    let ports: Vec<_> =
        candidates.filter(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).take(count).collect();
    if ports.len() == count { Ok(ports) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
}
