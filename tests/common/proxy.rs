//! Loopback proxies: every connection runs over a link, and what a link does can be changed at any time.
#![allow(dead_code, reason = "each of its users needs a part of it")]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tenure::testing::{self, Etcd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What a link does with what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Every so much of data takes so long.
    Slow(Duration),
    /// Nothing arrives, and no connection breaks.
    Freeze,
    /// What is asked arrives, and the answers do not, until this ends.
    FreezeAnswers,
    /// All connections break, and no new one is made.
    Cut,
}

/// The data that a slow link carries at once.
const CHUNK: usize = 4_096;

/// The connections from one place to another.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<watch::Sender<Mode>>);

impl Link {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Mode::Pass)))
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }

    /// Breaks the connections that there are.
    pub(crate) async fn reset(&self) {
        self.set(Mode::Cut);
        sleep(Duration::from_millis(50)).await;
        self.set(Mode::Pass);
    }
}

/// A listener on a port of its own.
pub(crate) fn listen() -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Forwards to `target`, each connection over the link that `link` finds for where it comes from.
pub(crate) async fn serve<F>(
    listener: std::net::TcpListener,
    target: SocketAddr,
    link: impl Fn(SocketAddr) -> F,
) -> io::Result<()>
where
    F: Future<Output = Link> + Send + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (client, source) = listener.accept().await?;
        let link = link(source);
        tokio::spawn(async move { carry(client, target, link.await).await });
    }
}

async fn carry(client: TcpStream, target: SocketAddr, link: Link) {
    let mut cut = link.0.subscribe();
    let carried = async {
        let mut modes = link.0.subscribe();
        // A connection to who cannot be reached hangs, as a connection that is made does.
        let _ = modes.wait_for(|mode| *mode != Mode::Freeze).await;
        let Ok(server) = TcpStream::connect(target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let (there, back) = (link.0.subscribe(), link.0.subscribe());
        // Whoever closes one direction closes both, as etcd and its clients do.
        tokio::select! {
            _ = pump(from_client, to_server, there, &[Mode::Freeze, Mode::Cut]) => {}
            _ = pump(from_server, to_client, back, &[Mode::Freeze, Mode::FreezeAnswers, Mode::Cut]) => {}
        }
    };
    tokio::select! {
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        () = carried => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    freezing: &[Mode],
) -> io::Result<()> {
    let mut buffer = [0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mode = *modes.wait_for(|mode| !freezing.contains(mode)).await.map_err(io::Error::other)?;
        if let Mode::Slow(delay) = mode {
            sleep(delay).await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// A cluster whose members reach each other over links: the one `from` a member `to` another is `links[from][to]`.
pub(crate) async fn cluster(members: usize) -> testing::Result<(Arc<Etcd>, Vec<Vec<Link>>)> {
    let links: Vec<Vec<Link>> = (0..members).map(|_| (0..members).map(|_| Link::new()).collect()).collect();
    let cluster: Arc<OnceLock<Weak<Etcd>>> = Arc::default();
    let owners: Arc<Owners> = Arc::default();
    let started = Etcd::cluster_behind(members, |peers| {
        let fronts = peers.iter().enumerate().map(|(to, &peer)| {
            let (listener, address) = listen()?;
            let (links, cluster, owners) = (links.clone(), cluster.clone(), owners.clone());
            let link = move |source: SocketAddr| {
                let (links, cluster, owners) = (links.clone(), cluster.clone(), owners.clone());
                async move {
                    let from = owners.of(source.port(), &cluster).await;
                    // Of one that is not known, the link from the member to itself, which is cut with all that lead there.
                    links[from.unwrap_or(to)][to].clone()
                }
            };
            tokio::spawn(serve(listener, peer, link));
            Ok(address)
        });
        fronts.collect()
    });
    let etcd = Arc::new(started.await?);
    cluster.set(Arc::downgrade(&etcd)).expect("it is started once");
    // Whose the first connections are was not known yet.
    for link in links.iter().flatten() {
        link.reset().await;
    }
    Ok((etcd, links))
}

/// How long connections are gathered before the system is asked whose they are: it has to look through every socket
/// that there is, and members that are cut off try again hundreds of times a second.
const GATHERED: Duration = Duration::from_millis(10);

/// Which member has the connection that comes from a port of this machine.
#[derive(Default)]
struct Owners(tokio::sync::Mutex<Census>);

/// The connections that there were when it began.
#[derive(Default)]
struct Census {
    begun: Option<Instant>,
    members: HashMap<u16, usize>,
}

impl Owners {
    /// `None` where the system does not tell.
    async fn of(&self, port: u16, cluster: &OnceLock<Weak<Etcd>>) -> Option<usize> {
        let (accepted, etcd) = (Instant::now(), cluster.get()?);
        let mut last = self.0.lock().await;
        // An earlier one may know the port from the connection before.
        if last.begun.is_none_or(|begun| begun < accepted) {
            sleep(GATHERED).await;
            let processes: Vec<_> = {
                let etcd = etcd.upgrade()?;
                (0..etcd.endpoints().len()).map(|member| etcd.pid(member)).collect()
            };
            let begun = Some(Instant::now());
            let taken = tokio::task::spawn_blocking(move || census(&processes)).await;
            *last = Census { begun, members: taken.ok().flatten().unwrap_or_default() };
        }
        last.members.get(&port).copied()
    }
}

/// Which of these processes has the connection from which port.
fn census(processes: &[Option<u32>]) -> Option<HashMap<u16, usize>> {
    let mut sockets = HashMap::new();
    for (member, process) in processes.iter().enumerate() {
        let open = process.and_then(|process| std::fs::read_dir(format!("/proc/{process}/fd")).ok());
        for open in open.into_iter().flatten().flatten() {
            if let Ok(target) = std::fs::read_link(open.path()) {
                sockets.insert(target.to_string_lossy().into_owned(), member);
            }
        }
    }
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let known = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let member = sockets.get(&format!("socket:[{}]", fields.get(9)?))?;
        Some((u16::from_str_radix(port, 16).ok()?, *member))
    });
    Some(known.collect())
}
