//! Three replicas are restarted one after the other, and a leader hands its office to the freshest of the others first:
//! the next in line may be one that has only just started, and has everything to read yet.
//!
//! Every replica publishes how many entries it has read, in a key on its session's lease. A leader that is to be
//! restarted looks at those keys, names the freshest replica, and goes when nobody stands between; if that fails, it
//! goes all the same, and the next in line leads.
//!
//! ```text
//! cargo run --example rolling_restart
//! ETCD_ENDPOINTS=localhost:2379 cargo run --example rolling_restart    # with an etcd that runs already
//! ```

mod common;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tenure::etcd_client::{Client, PutOptions, Txn, TxnOp, TxnOpResponse};
use tenure::{Election, Leadership, Session, connect_options};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Each with how slow it reads: the second in line is the slowest.
const REPLICAS: [(&str, u64); 3] = [("api-1", 2), ("api-2", 20), ("api-3", 4)];

const ENTRIES: &str = "examples/entries";

const TICK: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let etcd = common::etcd().await?;
    let mut client = Client::connect(&etcd.endpoints, Some(connect_options())).await?;
    client.put(ENTRIES, "0", None).await?;

    let mut running = Vec::new();
    for (name, slow) in REPLICAS {
        running.push(Replica::start(&etcd.endpoints, name, slow).await?);
    }
    for place in 0..REPLICAS.len() {
        // Until there is something to read, and somebody has.
        while read(&mut client, &running[place].read).await? < 200 {
            sleep(TICK).await;
        }
        let (name, slow) = REPLICAS[place];
        println!("{name} is restarted");
        running.remove(place).stop(&mut client).await?;
        running.insert(place, Replica::start(&etcd.endpoints, name, slow).await?);
    }

    let entries = read(&mut client, ENTRIES).await?;
    for replica in running {
        replica.shutdown.cancel();
        replica.running.await??;
        replica.session.close().await?;
    }
    client.delete(ENTRIES, None).await?;
    println!("{entries} entries, three restarts");
    Ok(())
}

/// A replica in service.
struct Replica {
    session: Session,
    election: Election,
    /// The key that says how many entries it has read.
    read: String,
    shutdown: CancellationToken,
    running: JoinHandle<tenure::Result<()>>,
}

impl Replica {
    async fn start(endpoints: &[String], name: &str, slow: u64) -> anyhow::Result<Self> {
        let client = Client::connect(endpoints, Some(connect_options())).await?;
        let session = Session::builder(client.clone()).identity(name).ttl(Duration::from_secs(5)).open().await?;
        let (election, shutdown) = (session.election("examples/rolling"), CancellationToken::new());
        let lease = session.lease_id();
        let read = format!("examples/read/{name}");
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(follow(client, read.clone(), slow, lease)));
        let name = name.to_owned();
        let work = move |term| lead(name.clone(), term);
        let run = election.clone().run(session.identity().to_owned(), shutdown.clone(), work);
        let running = tokio::spawn(run);
        Ok(Self { session, election, read, shutdown, running })
    }

    /// Ends it; if it leads, once the freshest of the others does.
    async fn stop(self, client: &mut Client) -> anyhow::Result<()> {
        if let Some(term) = self.election.term() {
            let (heir, entries) = self.freshest(client).await?;
            match term.transfer_to(&heir).await {
                Ok(()) => {
                    let leader = self.election.leader().await?.context("somebody leads")?;
                    ensure!(leader.value() == heir.as_bytes(), "somebody else leads: {leader:?}");
                    println!("handed over to {heir}, which has read {entries}");
                }
                Err(error) => println!("{heir} does not lead, but whoever is next in line: {error}"),
            }
        }
        self.shutdown.cancel();
        self.running.await??;
        self.session.close().await?;
        Ok(())
    }

    /// Who of the other candidates has read most, and how much.
    async fn freshest(&self, client: &mut Client) -> anyhow::Result<(String, u64)> {
        let mut freshest = None;
        for candidate in self.election.candidates().await? {
            let name = candidate.identity();
            if name == self.session.identity() {
                continue;
            }
            let entries = read(client, &format!("examples/read/{name}")).await?;
            println!("  {name} has read {entries}");
            freshest = freshest.max(Some((entries, name.to_owned())));
        }
        let (entries, name) = freshest.context("nobody else stands")?;
        Ok((name, entries))
    }
}

/// The work of one term: it goes on writing where the last leader left off.
async fn lead(name: String, term: Arc<Leadership>) {
    println!("{name} leads with token {}", term.token());
    let written = async {
        let reply = term.txn(Txn::new().and_then([TxnOp::get(ENTRIES, None)])).await?;
        let found = reply.op_responses().into_iter().find_map(|op| match op {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
            _ => None,
        });
        let mut entries: u64 = found.context("there are no entries")?.value_str()?.parse()?;
        loop {
            entries += 10;
            // Refused by etcd once another one leads.
            term.txn(Txn::new().and_then([TxnOp::put(ENTRIES, entries.to_string(), None)])).await?;
            sleep(TICK).await;
        }
    };
    let written: anyhow::Result<()> = written.await;
    // Not seen where the office is handed over: then this is dropped.
    println!("{name} leads no longer: {written:?}");
}

/// Reads what the leader writes, a part of what is left at a time, and says how far it is.
async fn follow(mut client: Client, key: String, slow: u64, lease: i64) -> anyhow::Result<()> {
    let mut has_read = 0;
    loop {
        let entries = read(&mut client, ENTRIES).await?;
        has_read += entries.saturating_sub(has_read).div_ceil(slow);
        let with_lease = PutOptions::new().with_lease(lease);
        client.put(key.as_str(), has_read.to_string(), Some(with_lease)).await?;
        sleep(TICK).await;
    }
}

async fn read(client: &mut Client, key: &str) -> anyhow::Result<u64> {
    let found = client.get(key, None).await?;
    found.kvs().first().map_or(Ok(0), |kv| Ok(kv.value_str()?.parse()?))
}
