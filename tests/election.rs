//! One leader at a time, in the order in which they stood; terms that end as they should; observers that see it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{ByHand, DropFlag, Drops, LONG, Progress, TestResult, World, endless, equals, on_etcd, soon, until};
use tenure::etcd_client::{CompactionOptions, PutOptions};
use tenure::{Election, Error, Leadership, Loss, Observation, Observations};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

/// Short enough to be lost within a test.
const SHORT: Duration = Duration::from_secs(2);

async fn next(seen: &mut Observations) -> Observation {
    soon("an observation", seen.next()).await.expect("the stream goes on").expect("nothing fails")
}

/// The value of the leader that is observed next.
async fn next_leader(seen: &mut Observations) -> String {
    match next(seen).await {
        Observation::Leader(leader) => String::from_utf8(leader.value().to_vec()).expect("tests use text"),
        Observation::Vacant => panic!("nobody leads"),
    }
}

/// A `run` whose terms are reported, and whose work is only to be dropped.
fn run(election: Election, value: &str) -> (CancellationToken, mpsc::UnboundedReceiver<Term>, Running) {
    let (terms, elected) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(election.run(value.to_owned(), shutdown.clone(), move |leadership: Arc<Leadership>| {
        let (flag, dropped) = DropFlag::new();
        let _ = terms.send(Term { leadership, dropped });
        endless(flag)
    }));
    (shutdown, elected, running)
}

type Running = tokio::task::JoinHandle<tenure::Result<()>>;

struct Term {
    leadership: Arc<Leadership>,
    dropped: Arc<std::sync::atomic::AtomicBool>,
}

impl Term {
    fn work_is_dropped(&self) -> bool {
        self.dropped.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn candidates_lead_in_the_order_in_which_they_stood() -> TestResult {
    on_etcd(async |world| {
        let sessions = [world.session().await?, world.session().await?, world.session().await?];
        let mut tickets = Vec::new();
        for (number, session) in sessions.iter().enumerate() {
            tickets.push(session.election("e").enqueue(format!("{number}")).await?);
        }
        let mut last = None;
        for (number, ticket) in tickets.iter_mut().enumerate() {
            let term = soon("the term", ticket.granted()).await?;
            let leader = sessions[0].election("e").leader().await?.expect("there is a leader");
            assert_eq!(leader.value(), format!("{number}").as_bytes());
            assert_eq!((leader.token(), leader.key()), (term.token(), term.key()));
            assert_eq!(leader.lease(), sessions[number].lease_id());
            assert!(last < Some(term.token()), "tokens grow");
            last = Some(term.token());
            term.resign().await?;
        }
        assert!(sessions[0].election("e").leader().await?.is_none());
        Ok(())
    })
    .await
}

/// etcd-client's `campaign()` told all three that they lead: the server does not keep a waiter's lease alive.
#[tokio::test]
async fn candidates_who_wait_longer_than_their_ttl_are_not_all_elected() -> TestResult {
    on_etcd(async |world| {
        let sessions = [world.etcd.session(SHORT).await?, world.etcd.session(SHORT).await?];
        let first = sessions[0].election("e").campaign("first").await?;
        let mut ticket = sessions[1].election("e").enqueue("second").await?;
        let waited = tokio::time::timeout(SHORT * 2, ticket.granted()).await;
        assert!(waited.is_err(), "elected beside a leader");
        first.verify().await?;
        first.resign().await?;
        let second = soon("the term", ticket.granted()).await?;
        second.verify().await?;
        second.resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_try_neither_stands_nor_writes_where_somebody_leads() -> TestResult {
    on_etcd(async |world| {
        let (one, other) = (world.session().await?.election("e"), world.session().await?.election("e"));
        let term = one.try_campaign("one").await?.expect("nobody leads");
        let before = world.revision().await;
        assert!(other.try_campaign("other").await?.is_none());
        assert!(other.try_campaign("other").await?.is_none(), "now it knows that somebody leads, and looks first");
        assert_eq!(world.revision().await, before);
        assert!(other.try_campaign_for("other", Duration::from_millis(20)).await?.is_none());
        term.resign().await?;
        // The candidate that went without is withdrawn in the background.
        until("no candidate", async || one.candidates().await.is_ok_and(|all| all.is_empty())).await;
        other.try_campaign_for("other", Duration::ZERO).await?.expect("nobody leads").resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn candidates_are_listed_with_the_identity_of_their_session() -> TestResult {
    on_etcd(async |world| {
        let open = async |identity: &str| {
            let client = world.etcd.client().await.expect("etcd is there");
            tenure::Session::builder(client).ttl(LONG).identity(identity).open().await
        };
        let (one, other) = (open("one").await?, open("other").await?);
        let term = one.election("e").campaign("value").await?;
        let ticket = other.election("e").enqueue("value").await?;
        let foreign = world.client().lease_grant(600, None).await?.id();
        let key = format!("e/{foreign:x}");
        world.client().put(key.as_str(), "", Some(PutOptions::new().with_lease(foreign))).await?;
        let candidates = one.election("e").candidates().await?;
        let identities: Vec<_> = candidates.iter().map(|candidate| candidate.identity()).collect();
        assert_eq!(identities, ["one", "other", &format!("{foreign:x}")]);
        assert_eq!((candidates[0].token(), candidates[0].lease()), (term.token(), one.lease_id()));
        assert_eq!(ticket.position().await?, 1);
        world.client().lease_revoke(foreign).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn dropping_a_campaign_after_any_number_of_polls_leaves_no_candidate() -> TestResult {
    on_etcd(async |world| {
        let (holder, session) = (world.session().await?, world.session().await?);
        for (name, contended) in [("free", false), ("taken", true)] {
            let election = session.election(name);
            let leader = if contended { Some(holder.election(name).campaign("leader").await?) } else { None };
            for drops in [Drops::AtOnce, Drops::OnceWoken] {
                for polls in 1.. {
                    let mut campaign = ByHand::new(election.campaign("value"));
                    let progress = campaign.poll(polls, drops).await;
                    drop(campaign);
                    let done = match progress {
                        Progress::Polled => false,
                        Progress::Quiet => true,
                        Progress::Ready(term) => {
                            term?.resign().await?;
                            true
                        }
                    };
                    let (prefix, others) = (format!("{name}/"), usize::from(contended));
                    equals("candidates", others, async || world.keys(&prefix).await.len()).await;
                    if done {
                        break;
                    }
                }
            }
            if let Some(leader) = leader {
                let mut next = election.enqueue("next").await?;
                leader.resign().await?;
                soon("the term", next.granted()).await?.resign().await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_proclamation_changes_the_value_and_nothing_else() -> TestResult {
    on_etcd(async |world| {
        let election = world.session().await?.election("e");
        let term = election.campaign("one").await?;
        let before = election.leader().await?.expect("there is a leader");
        term.proclaim("two").await?;
        let after = election.leader().await?.expect("there is a leader");
        assert_eq!(after.value(), b"two");
        assert_eq!((after.token(), after.key(), after.lease()), (before.token(), before.key(), before.lease()));
        term.verify().await?;
        world.client().delete(term.key(), None).await?;
        let refused = soon("an answer", term.proclaim("three")).await;
        assert!(matches!(refused, Err(Error::Lost(Loss::Deleted))), "{refused:?}");
        assert!(election.leader().await?.is_none(), "a proclamation does not bring the key back");
        Ok(())
    })
    .await
}

/// A proclamation whose future was dropped may still be travelling.
#[tokio::test]
async fn a_dropped_proclamation_never_overwrites_a_newer_one() -> TestResult {
    on_etcd(async |world| {
        let election = world.session().await?.election("e");
        let term = election.campaign("first").await?;
        for polls in 1..20 {
            let old = format!("old {polls}");
            let mut dropped = ByHand::new(term.proclaim(old.as_str()));
            let progress = dropped.poll(polls, Drops::AtOnce).await;
            drop(dropped);
            let new = format!("new {polls}");
            term.proclaim(new.as_str()).await?;
            // Writes of one connection arrive in order: after these the dropped one has arrived or never will.
            for _ in 0..5 {
                assert_eq!(election.leader().await?.expect("there is a leader").value(), new.as_bytes());
            }
            if matches!(progress, Progress::Ready(_) | Progress::Quiet) {
                break;
            }
        }
        term.resign().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_observer_sees_leaders_values_and_vacancies_in_order() -> TestResult {
    on_etcd(async |world| {
        let (session, other) = (world.session().await?, world.session().await?);
        let election = session.election("e");
        let mut seen = other.election("e").observe().await?;
        assert_eq!(next(&mut seen).await, Observation::Vacant);
        for round in 0..20 {
            let term = election.campaign(format!("a{round}")).await?;
            term.proclaim(format!("b{round}")).await?;
            let mut ticket = other.election("e").enqueue(format!("c{round}")).await?;
            term.resign().await?;
            soon("the term", ticket.granted()).await?.resign().await?;
        }
        for round in 0..20 {
            for who in ["a", "b", "c"] {
                assert_eq!(next_leader(&mut seen).await, format!("{who}{round}"));
            }
            assert_eq!(next(&mut seen).await, Observation::Vacant);
        }
        drop(seen);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_observer_goes_on_over_a_restart_and_a_compaction() -> TestResult {
    on_etcd(async |world| {
        let election = world.session().await?.election("e");
        let mut seen = election.observe().await?;
        assert_eq!(next(&mut seen).await, Observation::Vacant);
        let term = election.campaign("one").await?;
        assert_eq!(next_leader(&mut seen).await, "one");
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        term.proclaim("two").await?;
        assert_eq!(next_leader(&mut seen).await, "two");
        for round in 0..10 {
            term.proclaim(format!("{round}")).await?;
        }
        let options = CompactionOptions::new().with_physical();
        let newest = world.revision().await;
        world.client().compact(newest, Some(options)).await?;
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        term.proclaim("last").await?;
        while next_leader(&mut seen).await != "last" {}
        term.resign().await?;
        assert_eq!(next(&mut seen).await, Observation::Vacant);
        drop(seen);
        Ok(())
    })
    .await
}

/// Whoever does not keep up is told of the present, and of no past that would fill the memory.
#[tokio::test]
async fn an_observer_that_does_not_keep_up_skips_to_the_present() -> TestResult {
    on_etcd(async |world| {
        let election = world.session().await?.election("e");
        let term = election.campaign("first").await?;
        let mut seen = election.observe().await?;
        // One is seen, so that the others are changes to the observer, of which its backlog holds 1,024.
        assert_eq!(next_leader(&mut seen).await, "first");
        let mut client = world.client();
        let last = 1_100;
        for round in 0..=last {
            client.put(term.key(), format!("{round}"), Some(PutOptions::new().with_ignore_lease())).await?;
        }
        let mut told = Vec::new();
        while told.last() != Some(&last) {
            told.push(next_leader(&mut seen).await.parse()?);
        }
        assert!(told.is_sorted_by(|earlier, later| earlier < later), "it went back: {told:?}");
        term.proclaim("after").await?;
        assert_eq!(next_leader(&mut seen).await, "after");
        assert_eq!(format!("{seen:?}"), "Observations { .. }");
        term.resign().await?;
        drop(seen);
        Ok(())
    })
    .await
}

/// What lies deeper belongs to another name, be it the oldest key.
#[tokio::test]
async fn a_nested_key_is_no_leader() -> TestResult {
    on_etcd(async |world| {
        world.client().put("e/nested/key", "stranger", None).await?;
        let election = world.session().await?.election("e");
        assert!(election.leader().await?.is_none());
        let mut seen = election.observe().await?;
        assert_eq!(next(&mut seen).await, Observation::Vacant);
        let term = election.campaign("us").await?;
        assert_eq!(next_leader(&mut seen).await, "us");
        assert_eq!(election.leader().await?.expect("we lead").value(), b"us");
        term.resign().await?;
        world.client().delete("e/nested/key", None).await?;
        drop(seen);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn closing_the_session_ends_the_observer_with_an_error() -> TestResult {
    on_etcd(async |world| {
        let session = world.session().await?;
        let mut seen = session.election("e").observe().await?;
        assert_eq!(next(&mut seen).await, Observation::Vacant);
        session.close().await?;
        assert!(matches!(soon("the last word", seen.next()).await, Some(Err(Error::Closed))));
        assert!(soon("the end", seen.next()).await.is_none());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_leads_until_it_is_told_to_stop_and_resigns() -> TestResult {
    on_etcd(async |world| {
        let (one, other) = (world.session().await?.election("e"), world.session().await?.election("e"));
        assert!(one.term().is_none());
        let (stop_one, mut elected, first) = run(one.clone(), "one");
        let term = soon("a term", elected.recv()).await.expect("it runs");
        assert_eq!(one.term().expect("it leads").token(), term.leadership.token());
        let (stop_other, mut elected, second) = run(other.clone(), "other");
        until("the second candidate", async || one.candidates().await.is_ok_and(|all| all.len() == 2)).await;
        assert!(other.term().is_none());
        let ending = term.leadership.ending();
        assert!(!ending.is_cancelled());
        stop_one.cancel();
        soon("the end of the run", first).await??;
        assert!(ending.is_cancelled() && term.work_is_dropped() && one.term().is_none());
        assert_eq!(term.leadership.lost().await, Loss::Released);
        let next = soon("a term", elected.recv()).await.expect("it runs");
        assert!(next.leadership.token() > term.leadership.token());
        stop_other.cancel();
        soon("the end of the run", second).await??;
        Ok(())
    })
    .await
}

/// A candidate who is told to stop before it is elected.
#[tokio::test]
async fn a_run_that_waits_for_its_turn_withdraws_when_told_to_stop() -> TestResult {
    on_etcd(async |world| {
        let term = world.session().await?.election("e").campaign("leader").await?;
        let other = world.session().await?.election("e");
        let (stop, _elected, running) = run(other.clone(), "other");
        until("the candidate", async || other.candidates().await.is_ok_and(|all| all.len() == 2)).await;
        stop.cancel();
        soon("the end of the run", running).await??;
        until("no candidate", async || other.candidates().await.is_ok_and(|all| all.len() == 1)).await;
        term.resign().await?;
        Ok(())
    })
    .await
}

/// The next leader never overlaps with what lives inside the future, and that has its grace.
#[tokio::test]
async fn work_may_end_by_itself_within_its_grace_before_the_office_goes() -> TestResult {
    on_etcd(async |world| {
        let election = world.session().await?.election("e").grace(LONG);
        let observer = world.session().await?.election("e");
        let (started, mut starts) = mpsc::unbounded_channel();
        let (finish, finished) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let shutdown = CancellationToken::new();
        let work = {
            let (finish, finished) = (finish.clone(), finished.clone());
            move |term: Arc<Leadership>| {
                let (started, finish, finished) = (started.clone(), finish.clone(), finished.clone());
                async move {
                    started.send(()).expect("the test listens");
                    term.ending().cancelled().await;
                    started.send(()).expect("the test listens");
                    finish.cancelled().await;
                    finished.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let running = tokio::spawn(election.run("value", shutdown.clone(), work));
        soon("the start", starts.recv()).await;
        shutdown.cancel();
        soon("the ending", starts.recv()).await;
        assert!(observer.leader().await?.is_some(), "the office is held while the work lives");
        finish.cancel();
        soon("the end of the run", running).await??;
        assert_eq!(finished.load(Ordering::SeqCst), 1);
        assert!(observer.leader().await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn work_that_returns_gives_the_office_up_and_stands_again_at_the_back() -> TestResult {
    on_etcd(async |world| {
        let (one, other) = (world.session().await?.election("e"), world.session().await?.election("e"));
        let (terms, mut elected) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let brief = |name: &'static str| {
            let terms = terms.clone();
            move |term: Arc<Leadership>| {
                let terms = terms.clone();
                async move { terms.send((name, term.token())).expect("the test listens") }
            }
        };
        let runs = [
            tokio::spawn(one.run("one", stop.clone(), brief("one"))),
            tokio::spawn(other.run("other", stop.clone(), brief("other"))),
        ];
        let (mut seen, mut last) = ([0, 0], None);
        while seen.contains(&0) || seen.iter().sum::<usize>() < 6 {
            let (name, token) = soon("a term", elected.recv()).await.expect("they run");
            assert!(last < Some(token), "tokens grow");
            last = Some(token);
            seen[usize::from(name == "other")] += 1;
        }
        stop.cancel();
        for run in runs {
            soon("the end of the run", run).await??;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_whose_lease_is_revoked_drops_its_work_and_campaigns_again() -> TestResult {
    on_etcd(async |world| {
        let session = world.session().await?;
        let (stop, mut elected, running) = run(session.election("e"), "value");
        let first = soon("a term", elected.recv()).await.expect("it runs");
        world.client().lease_revoke(session.lease_id()).await?;
        let second = soon("another term", elected.recv()).await.expect("it runs");
        assert!(first.work_is_dropped() && !first.leadership.is_valid());
        assert_eq!(first.leadership.lost().await, Loss::Revoked);
        assert!(first.leadership.ending().is_cancelled());
        assert!(second.leadership.is_valid() && !second.work_is_dropped());
        stop.cancel();
        soon("the end of the run", running).await??;
        Ok(())
    })
    .await
}

/// Jeopardy comes well before the deadline: the office is given up while it is still ours.
#[tokio::test]
async fn a_run_drops_its_work_in_jeopardy() -> TestResult {
    on_etcd(async |world| {
        let (stop, mut elected, running) = run(world.etcd.session(SHORT).await?.election("e"), "value");
        let term = soon("a term", elected.recv()).await.expect("it runs");
        world.etcd.pause(0)?;
        soon("the ending", term.leadership.ending().cancelled_owned()).await;
        until("the work dropped", async || term.work_is_dropped()).await;
        assert!(!term.leadership.is_valid(), "it is given up");
        world.etcd.resume(0)?;
        soon("another term", elected.recv()).await.expect("it runs");
        stop.cancel();
        soon("the end of the run", running).await??;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn closing_the_session_ends_a_run_with_an_error_after_its_work() -> TestResult {
    on_etcd(async |world| {
        let session = world.session().await?;
        let (_stop, mut elected, running) = run(session.election("e"), "value");
        let term = soon("a term", elected.recv()).await.expect("it runs");
        session.close().await?;
        assert!(term.work_is_dropped());
        assert!(matches!(soon("the end of the run", running).await?, Err(Error::Closed)));
        assert_eq!(term.leadership.lost().await, Loss::Closed);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn dropping_a_run_drops_its_work_and_resigns() -> TestResult {
    on_etcd(async |world| {
        let election = world.session().await?.election("e");
        let (_stop, mut elected, running) = run(election.clone(), "value");
        let term = soon("a term", elected.recv()).await.expect("it runs");
        running.abort();
        until("the work dropped", async || term.work_is_dropped()).await;
        drop(term);
        until("a vacancy", async || election.leader().await.is_ok_and(|leader| leader.is_none())).await;
        assert!(election.term().is_none());
        Ok(())
    })
    .await
}

/// Others may refer to the term for longer than the run lives: the office goes with the run.
#[tokio::test]
async fn dropping_a_run_resigns_though_its_term_is_still_referred_to() -> TestResult {
    on_etcd(async |world| {
        let (election, other) = (world.session().await?.election("e"), world.session().await?.election("e"));
        let (_stop, mut elected, running) = run(election.clone(), "value");
        let term = soon("a term", elected.recv()).await.expect("it runs");
        running.abort();
        soon("the other's term", other.campaign("other")).await?.resign().await?;
        assert!(term.work_is_dropped() && term.leadership.ending().is_cancelled());
        assert!(!term.leadership.is_valid());
        Ok(())
    })
    .await
}

/// A proclamation by another client's hand, or a straggling one of ours, does not end the term.
#[tokio::test]
async fn a_proclamation_goes_on_from_whatever_was_written_last() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let term = session.election("e").campaign("one").await?;
        let options = PutOptions::new().with_lease(session.lease_id());
        world.client().put(term.key(), "stranger", Some(options)).await?;
        term.proclaim("two").await?;
        assert_eq!(session.election("e").leader().await?.expect("it leads").value(), b"two");
        term.resign().await?;
        Ok(())
    })
    .await
}

/// What etcd answers a leader about its own key is not left for a watch to say again.
#[tokio::test]
async fn a_proclamation_that_finds_no_key_ends_the_term() -> TestResult {
    on_etcd(async |world: &World| {
        let election = world.session().await?.election("office");
        for _ in 0..5 {
            let term = election.campaign("one").await?;
            world.client().delete(term.key(), None).await?;
            let proclaimed = term.proclaim("two").await;
            assert!(!term.is_valid());
            assert!(matches!(proclaimed, Err(Error::Lost(Loss::Deleted))), "{proclaimed:?}");
            assert_eq!(soon("`lost` fires", term.lost()).await, Loss::Deleted);
            soon("the term ends", term.ending().cancelled_owned()).await;
        }
        Ok(())
    })
    .await
}
