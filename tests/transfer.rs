//! A leader that hands its office to a candidate of its choice: it leads next, nobody in between, or nothing changes.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use common::etcdctl::Etcdctl;
use common::proxy::Mode;
use common::{ByHand, Drops, LONG, Progress, TestResult, World, equals, on_etcd, soon};
use tenure::etcd_client::{Client, GetOptions, SortOrder, SortTarget};
use tenure::{Election, Error, FencingToken, Leadership, Loss, Observation, Session, Ticket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

/// A third of it is waited for an answer.
const PATIENT: Duration = Duration::from_secs(60);
const IMPATIENT: Duration = Duration::from_secs(6);

async fn named(world: &World, identity: &str, ttl: Duration) -> TestResult<Session> {
    Ok(Session::builder(world.etcd.client().await?).ttl(ttl).identity(identity).open().await?)
}

/// A candidate that waits.
struct Candidate {
    session: Session,
    elected: JoinHandle<tenure::Result<Leadership>>,
}

/// Candidates stand in the order of their identities.
async fn stand<const N: usize>(world: &World, name: &str, identities: [&str; N]) -> TestResult<[Candidate; N]> {
    let mut standing = Vec::new();
    for identity in identities {
        let session = named(world, identity, PATIENT).await?;
        let mut ticket = session.election(name).enqueue(identity).await?;
        let elected = tokio::spawn(async move { ticket.granted().await });
        standing.push(Candidate { session, elected });
    }
    Ok(standing.try_into().ok().expect("as many"))
}

impl Candidate {
    async fn leads(self) -> TestResult<Leadership> {
        Ok(soon("it leads", self.elected).await??)
    }
}

impl Candidate {
    /// Gives the office up as soon as it has it.
    fn passes_on(self) -> JoinHandle<tenure::Result<()>> {
        tokio::spawn(async move { self.elected.await.expect("no panic")?.resign().await })
    }
}

async fn lead(world: &World, ttl: Duration) -> TestResult<(Election, Leadership)> {
    let election = named(world, "leader", ttl).await?.election("e");
    let term = election.campaign("leader").await?;
    Ok((election, term))
}

async fn order(election: &Election) -> TestResult<Vec<String>> {
    Ok(election.candidates().await?.iter().map(|candidate| candidate.identity().to_owned()).collect())
}

async fn tokens(election: &Election) -> TestResult<Vec<FencingToken>> {
    Ok(election.candidates().await?.iter().map(|candidate| candidate.token()).collect())
}

/// All keys of the exchange are gone.
async fn all_is_taken_away(world: &World) {
    for room in ["~session/transfer/", "~session/consent/"] {
        equals(room, Vec::<String>::new(), async || world.keys(room).await).await;
    }
}

/// Who led, as the history of the store has it from `since` on.
async fn leaders(world: &World, since: i64) -> TestResult<Vec<String>> {
    let mut leaders = Vec::new();
    for revision in since..=world.revision().await {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let found = world.client().get("e/", Some(options.with_limit(1).with_revision(revision))).await?;
        leaders.push(found.kvs().first().map_or("nobody", |kv| kv.value_str().expect("tests use text")).to_owned());
    }
    leaders.dedup();
    Ok(leaders)
}

#[tokio::test]
async fn the_named_candidate_leads_next_and_nobody_in_between() -> TestResult {
    on_etcd(async |world| {
        let (election, term) = lead(world, PATIENT).await?;
        let [b, c, d] = stand(world, "e", ["b", "c", "d"]).await?;
        let mut seen = world.session().await?.election("e").observe().await?;
        let Some(Ok(Observation::Leader(first))) = soon("an observation", seen.next()).await else {
            panic!("somebody leads");
        };
        assert_eq!(first.value(), b"leader");
        let begun = world.revision().await;

        soon("the transfer", term.transfer_to("d")).await?;

        assert!(!term.is_valid());
        assert_eq!(soon("it is told", term.lost()).await, Loss::Released);
        assert!(matches!(term.verify().await, Err(Error::Lost(Loss::Released))));
        let next = d.leads().await?;
        next.verify().await?;
        let Some(Ok(Observation::Leader(second))) = soon("an observation", seen.next()).await else {
            panic!("somebody leads");
        };
        assert_eq!((second.value(), second.token()), (&b"d"[..], next.token()));
        assert_eq!(leaders(world, begun).await?, ["leader", "d"]);
        all_is_taken_away(world).await;

        // The others wait behind it, and each has its turn.
        equals("candidates", 3, async || order(&election).await.unwrap().len()).await;
        assert!(!b.elected.is_finished() && !c.elected.is_finished());
        let mut others = [b, c];
        if order(&election).await?[1] == "c" {
            others.reverse();
        }
        next.resign().await?;
        for other in others {
            let term = other.leads().await?;
            assert!(term.token() > first.token());
            term.resign().await?;
        }
        drop(seen);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_next_in_line_leads_and_nobody_is_asked() -> TestResult {
    on_etcd(async |world| {
        let (election, term) = lead(world, PATIENT).await?;
        let [b, c] = stand(world, "e", ["b", "c"]).await?;
        let before = tokens(&election).await?;
        soon("the transfer", term.transfer_to("b")).await?;
        assert_eq!(tokens(&election).await?, before[1..], "nobody moved");
        b.leads().await?.resign().await?;
        c.leads().await?.resign().await?;
        Ok(())
    })
    .await
}

/// etcd lets the leader go, and the next one hears of it, before the answer is there.
#[tokio::test]
async fn a_leader_that_goes_leads_no_more_while_the_answer_is_on_its_way() -> TestResult {
    on_etcd(async |world| {
        let detour = world.detour()?;
        let term = detour.session().await?.election("e").campaign("leader").await?;
        let [b] = stand(world, "e", ["b"]).await?;
        detour.link.set(Mode::Slow(Duration::from_millis(300)));
        let (mut transfer, mut next) = (pin!(term.transfer_to("b")), pin!(b.leads()));
        let next = tokio::select! {
            biased;
            next = &mut next => {
                assert!(!term.is_valid() && term.deadline().has_passed(), "two lead");
                soon("the transfer", transfer).await?;
                next?
            }
            // The machine was slower still.
            transferred = &mut transfer => {
                transferred?;
                next.await?
            }
        };
        assert!(!term.is_valid() && next.is_valid());
        detour.link.set(Mode::Pass);
        next.resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn whoever_does_not_stand_is_an_error_and_nothing_is_written() -> TestResult {
    on_etcd(async |world| {
        let (_, term) = lead(world, PATIENT).await?;
        let [b] = stand(world, "e", ["b"]).await?;
        let before = world.revision().await;
        for nobody in ["x", "leader", ""] {
            let refused = term.transfer_to(nobody).await;
            assert!(matches!(&refused, Err(Error::NotACandidate { identity }) if identity == nobody), "{refused:?}");
        }
        assert_eq!(world.revision().await, before);
        term.verify().await?;
        // Another one of the same identity is not the leader itself.
        let twin = named(world, "leader", PATIENT).await?;
        let mut ticket = twin.election("e").enqueue("twin").await?;
        soon("the transfer", term.transfer_to("leader")).await?;
        soon("the twin leads", ticket.granted()).await?.resign().await?;
        b.leads().await?.resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_client_in_the_way_is_an_error_and_nothing_is_written() -> TestResult {
    on_etcd(async |world| {
        let (election, term) = lead(world, PATIENT).await?;
        let [b] = stand(world, "e", ["b"]).await?;
        let mut theirs = Etcdctl::run(world, &["elect", "e", "theirs"])?;
        equals("they stand", 3, async || election.candidates().await.unwrap().len()).await;
        let [c] = stand(world, "e", ["c"]).await?;
        let (before, revision) = (election.candidates().await?, world.revision().await);
        let refused = term.transfer_to("c").await;
        let Err(Error::CannotBeAsked { identity }) = refused else { panic!("{refused:?}") };
        assert_eq!(identity, before[2].identity());
        assert_eq!((election.candidates().await?, world.revision().await), (before.clone(), revision));
        term.verify().await?;
        // It may be named itself: then nobody has to ask it anything.
        soon("the transfer", term.transfer_to(before[2].identity())).await?;
        assert_eq!(election.leader().await?.expect("it leads").value(), b"theirs");
        assert_eq!((theirs.line().await?.as_str(), theirs.line().await?.as_str()), (before[2].key(), "theirs"));
        theirs.interrupt().await?;
        for candidate in [c, b] {
            candidate.leads().await?.resign().await?;
        }
        // It does not revoke it itself.
        world.client().lease_revoke(before[2].lease()).await?;
        Ok(())
    })
    .await
}

/// Its lease lives on, and so does its key.
#[tokio::test]
async fn a_dead_candidate_in_the_way_is_an_error_and_nobody_moves() -> TestResult {
    on_etcd(async |world| {
        let (election, term) = lead(world, IMPATIENT).await?;
        let [b] = stand(world, "e", ["b"]).await?;
        let endpoints = world.etcd.endpoints();
        let dead = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let (session, ticket) = runtime.block_on(async move {
                let client = Client::connect(endpoints, None).await.expect("etcd is there");
                let session = Session::builder(client).ttl(LONG).identity("dead").open().await.expect("etcd is there");
                let mut ticket = session.election("e").enqueue("dead").await.expect("etcd is there");
                let waiting = tokio::time::timeout(Duration::from_millis(200), ticket.granted()).await;
                assert!(waiting.is_err(), "somebody leads");
                (session, ticket)
            });
            // Before it could see either of them off.
            drop(runtime);
            drop(ticket);
            session.lease_id()
        });
        let dead = tokio::task::spawn_blocking(|| dead.join().expect("it does not fail")).await?;
        assert_eq!(order(&election).await?, ["leader", "b", "dead"]);
        let [c] = stand(world, "e", ["c"]).await?;
        let before = tokens(&election).await?;
        let (refused, ()) = tokio::join!(soon("the transfer", term.transfer_to("c")), async {
            // The living one has agreed, and whatever it hears meanwhile it does not move.
            equals("answers", 1, async || world.keys("~session/consent/").await.len()).await;
            world.client().put("~session/transfer/e/0-0", "noise", None).await.expect("etcd is there");
        });
        assert!(matches!(&refused, Err(Error::CannotBeAsked { identity }) if identity == "dead"), "{refused:?}");
        world.client().delete("~session/transfer/e/0-0", None).await?;
        all_is_taken_away(world).await;
        assert_eq!(tokens(&election).await?, before);
        term.verify().await?;
        // Once its lease has ended the way is clear.
        world.client().lease_revoke(dead).await?;
        soon("the transfer", term.transfer_to("c")).await?;
        c.leads().await?.resign().await?;
        b.leads().await?.resign().await?;
        Ok(())
    })
    .await
}

/// A place that is not waited in cannot be given up by anybody; and it is not lost by having been asked.
#[tokio::test]
async fn a_ticket_gives_way_while_it_is_awaited_and_keeps_its_place_otherwise() -> TestResult {
    on_etcd(async |world| {
        let (election, term) = lead(world, IMPATIENT).await?;
        let mut ticket = named(world, "ticket", PATIENT).await?.election("e").enqueue("ticket").await?;
        let limited = named(world, "limited", PATIENT).await?.election("e");
        let limited = tokio::spawn(async move { limited.try_campaign_for("limited", LONG).await });
        equals("candidates", 3, async || order(&election).await.unwrap().len()).await;
        let [c] = stand(world, "e", ["c"]).await?;
        let refused = soon("the transfer", term.transfer_to("c")).await;
        assert!(matches!(&refused, Err(Error::CannotBeAsked { identity }) if identity == "ticket"), "{refused:?}");
        assert_eq!(order(&election).await?, ["leader", "ticket", "limited", "c"]);
        all_is_taken_away(world).await;

        // Awaited now and then, in short turns.
        let transfer = term.transfer_to("c");
        tokio::pin!(transfer);
        soon("the transfer", async {
            loop {
                tokio::select! {
                    done = &mut transfer => return done,
                    _ = ticket.granted() => panic!("it leads"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        })
        .await?;
        let next = c.leads().await?;
        assert_eq!(ticket.position().await?.min(1), 1, "it has a new place");
        equals("candidates", 3, async || order(&election).await.unwrap().len()).await;
        next.resign().await?;
        let first = order(&election).await?[0] == "ticket";
        let limited = async { soon("its turn", limited).await.expect("no panic").expect("no error").expect("in time") };
        if first {
            soon("its turn", ticket.granted()).await?.resign().await?;
            limited.await.resign().await?;
        } else {
            limited.await.resign().await?;
            soon("its turn", ticket.granted()).await?.resign().await?;
        }
        Ok(())
    })
    .await
}

/// A leader in the middle of a transfer: one before the named candidate has not answered yet.
async fn half_way(
    world: &World,
) -> TestResult<(Election, Arc<Leadership>, Ticket<Leadership>, Candidate, JoinHandle<tenure::Result<()>>)> {
    let (election, term) = lead(world, PATIENT).await?;
    let term = Arc::new(term);
    let slow = named(world, "slow", PATIENT).await?.election("e").enqueue("slow").await?;
    let [c] = stand(world, "e", ["c"]).await?;
    let transferring = term.clone();
    let transfer = tokio::spawn(async move { transferring.transfer_to("c").await });
    equals("requests", 1, async || world.keys("~session/transfer/").await.len()).await;
    Ok((election, term, slow, c, transfer))
}

#[tokio::test]
async fn a_named_candidate_that_goes_meanwhile_is_an_error_and_nobody_moves() -> TestResult {
    on_etcd(async |world| {
        let (election, term, mut slow, c, transfer) = half_way(world).await?;
        let before = tokens(&election).await?;
        c.elected.abort();
        c.session.close().await?;
        let slow = tokio::spawn(async move { slow.granted().await });
        let refused = soon("the transfer", transfer).await?;
        assert!(matches!(&refused, Err(Error::NotACandidate { identity }) if identity == "c"), "{refused:?}");
        assert_eq!(tokens(&election).await?, before[..2]);
        all_is_taken_away(world).await;
        term.verify().await?;
        assert!(!slow.is_finished());
        drop(term);
        soon("its turn", slow).await??.resign().await?;
        Ok(())
    })
    .await
}

/// Then some may have moved already; the leader has not.
#[tokio::test]
async fn a_named_candidate_that_goes_when_all_have_agreed_is_an_error_and_the_term_goes_on() -> TestResult {
    on_etcd(async |world| {
        let (election, term, mut slow, c, transfer) = half_way(world).await?;
        let mut granted = ByHand::new(slow.granted());
        assert!(matches!(granted.poll(3, Drops::AtOnce).await, Progress::Polled | Progress::Quiet));
        let decided = async || {
            let found = world.client().get("~session/transfer/", Some(GetOptions::new().with_prefix())).await;
            found.unwrap().kvs().iter().any(|kv| kv.value_str().unwrap().contains("decided"))
        };
        // Only as far as it has to be to say yes.
        while !decided().await {
            assert!(!matches!(granted.poll(1, Drops::AtOnce).await, Progress::Ready(_)));
        }
        drop(granted);
        c.elected.abort();
        c.session.close().await?;
        let slow = tokio::spawn(async move { slow.granted().await });
        let refused = soon("the transfer", transfer).await?;
        assert!(matches!(&refused, Err(Error::NotACandidate { identity }) if identity == "c"), "{refused:?}");
        term.verify().await?;
        all_is_taken_away(world).await;
        assert_eq!(order(&election).await?, ["leader", "slow"]);
        drop(term);
        soon("its turn", slow).await??.resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_leader_that_is_lost_meanwhile_is_told_and_the_order_stays() -> TestResult {
    on_etcd(async |world| {
        let (_, term, mut slow, c, transfer) = half_way(world).await?;
        world.client().delete(term.key(), None).await?;
        let refused = soon("the transfer", transfer).await?;
        assert!(matches!(refused, Err(Error::Lost(Loss::Deleted))), "{refused:?}");
        all_is_taken_away(world).await;
        soon("its turn", slow.granted()).await?.resign().await?;
        c.leads().await?.resign().await?;
        let refused = term.transfer_to("c").await;
        assert!(matches!(refused, Err(Error::Lost(Loss::Deleted))), "{refused:?}");
        Ok(())
    })
    .await
}

/// Whoever has gone by itself need not be asked any more, at whatever moment of its answer it went.
#[tokio::test]
async fn a_candidate_that_goes_while_it_is_asked_is_not_waited_for() -> TestResult {
    on_etcd(async |world| {
        for polls in [0, 1, 2, 3, 5, 8, 13] {
            let (_, term, mut slow, c, transfer) = half_way(world).await?;
            let mut granted = ByHand::new(slow.granted());
            assert!(!matches!(granted.poll(polls, Drops::AtOnce).await, Progress::Ready(_)));
            drop(granted);
            drop(slow);
            soon("the transfer", transfer).await??;
            assert!(!term.is_valid());
            c.leads().await?.resign().await?;
            all_is_taken_away(world).await;
            equals("candidates", Vec::<String>::new(), async || world.keys("e/").await).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_transfer_goes_on_over_a_restart() -> TestResult {
    on_etcd(async |world| {
        let (_, term, mut slow, c, transfer) = half_way(world).await?;
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        let slow = tokio::spawn(async move { slow.granted().await });
        soon("the transfer", transfer).await??;
        assert_eq!(soon("it is told", term.lost()).await, Loss::Released);
        c.leads().await?.resign().await?;
        soon("its turn", slow).await??.resign().await?;
        all_is_taken_away(world).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_second_transfer_waits_for_the_first() -> TestResult {
    on_etcd(async |world| {
        let (_, term, mut slow, c, transfer) = half_way(world).await?;
        let mut second = ByHand::new(term.transfer_to("slow"));
        assert!(matches!(second.poll_until_quiet().await, Progress::Quiet));
        let slow = tokio::spawn(async move { slow.granted().await });
        soon("the transfer", transfer).await??;
        let Progress::Ready(refused) = second.poll_until_quiet().await else { panic!("it waits") };
        assert!(matches!(refused, Err(Error::Lost(Loss::Released))), "{refused:?}");
        c.leads().await?.resign().await?;
        soon("its turn", slow).await??.resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn dropping_a_transfer_after_any_number_of_polls_leaves_nothing_behind() -> TestResult {
    on_etcd(async |world| {
        let leader = named(world, "leader", PATIENT).await?;
        for drops in [Drops::AtOnce, Drops::OnceWoken] {
            for polls in 0..100 {
                let (name, case) = (format!("e/{drops:?}/{polls}"), format!("{polls} polls, {drops:?}"));
                let election = leader.election(&name);
                let term = election.campaign("leader").await?;
                let [b, c] = stand(world, &name, ["b", "c"]).await?.map(Candidate::passes_on);
                let mut transfer = ByHand::new(term.transfer_to("c"));
                let progress = transfer.poll(polls, drops).await;
                drop(transfer);
                all_is_taken_away(world).await;
                if let Progress::Ready(transferred) = &progress {
                    assert!(transferred.is_ok(), "{case}: {transferred:?}");
                    assert_eq!(soon(&case, term.lost()).await, Loss::Released);
                } else if term.is_valid() {
                    // It leads on, or goes in good order.
                    match term.verify().await {
                        Ok(()) | Err(Error::Lost(Loss::Released)) => {}
                        Err(error) => panic!("{case}: {error}"),
                    }
                }
                drop(term);
                for passing in [b, c] {
                    soon(&case, passing).await??;
                }
                if matches!(progress, Progress::Ready(_)) {
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}

/// The run that led stands again, those before the named one are asked, and none of them ends.
#[tokio::test]
async fn runs_hand_over_and_go_on() -> TestResult {
    on_etcd(async |world| {
        let shutdown = CancellationToken::new();
        let (elected, mut terms) = mpsc::unbounded_channel();
        let (mut running, watching) = (Vec::new(), world.session().await?.election("e"));
        for (number, identity) in ["a", "b", "c"].into_iter().enumerate() {
            let election = named(world, identity, PATIENT).await?.election("e");
            let elected = elected.clone();
            running.push(tokio::spawn(election.run(identity, shutdown.clone(), move |term: Arc<Leadership>| {
                let _ = elected.send((identity, term.clone()));
                std::future::pending()
            })));
            equals("candidates", number + 1, async || watching.candidates().await.unwrap().len()).await;
        }
        let mut leading = "a";
        for next in ["c", "b", "a", "b", "c"] {
            let (who, term) = soon("a term", terms.recv()).await.expect("they run");
            assert_eq!(who, leading);
            equals("candidates", 3, async || watching.candidates().await.unwrap().len()).await;
            soon("the transfer", term.transfer_to(next)).await?;
            leading = next;
        }
        assert_eq!(soon("a term", terms.recv()).await.expect("they run").0, leading);
        shutdown.cancel();
        for running in running {
            soon("it ends", running).await??;
        }
        Ok(())
    })
    .await
}

/// Nobody who gets the office at once listens for requests.
#[tokio::test]
async fn a_free_office_costs_no_more_than_before() -> TestResult {
    on_etcd(async |world| {
        let session = world.session().await?;
        let before = world.settled_requests(1.0).await;
        let term = session.election("e").campaign("value").await?;
        assert_eq!(world.requests().await.since(before).all(), 1);
        equals("watches", 2.0, async || world.watches().await).await;
        // Who waits watches two keys, its own and the requests; it reads those once.
        let waiting = world.session().await?;
        let mut ticket = waiting.election("e").enqueue("value").await?;
        let waiting = tokio::spawn(async move { ticket.granted().await });
        equals("watches", 6.0, async || world.watches().await).await;
        term.resign().await?;
        soon("its turn", waiting).await??.resign().await?;
        Ok(())
    })
    .await
}
