//! A leader that hands its office to a candidate of its choice.
//!
//! 1. Nobody's key is deleted but by its owner: those who stand between give way by entering again at the back, and
//!    the leader goes only when it has seen that they have.
//! 2. Nobody moves before all of them have said that they will.
//! 3. The leader goes in a transaction, on the condition that the one it goes for stands. Its hold has ended before
//!    that is sent, so that no two ever hold.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::leadership::Leadership;
use super::{Owner, owners};
use crate::consent::{ANSWERS, Answer, REQUESTS, Request, Stage, messages, to_bytes};
use crate::error::{Error, Result, Verdict, verdict};
use crate::etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};
use crate::guard::Ending;
use crate::name::{Key, Revision};
use crate::queue::{Resignation, Seat};
use crate::retry;
use crate::session::Core;
use crate::session::lookout::{Lookout, gone};
use crate::session::note::Note;
use crate::ticket::Queue;
use crate::token::Waiter;

impl Leadership {
    /// Hands the office over to the candidate whose session is called `identity`, as
    /// [`candidates`](super::Election::candidates) lists it: the oldest of them, if there are several, apart from this
    /// leader itself. It leads next, and nobody in between. Afterwards the term has ended as
    /// [released](crate::Loss::Released).
    ///
    /// The order stays the queue's: candidates who stand before the named one are asked to give way, and stand again
    /// at the back, in an order of their own; their `campaign`, their ticket and their [`run`](super::Election::run)
    /// go on waiting there. First each of them says that it will, for which all together have a third of the session's
    /// TTL; then they move, for which they have as long; then this leader goes. A candidate can say so while it waits
    /// in one of this crate's calls: not another client, not one whose process is gone until its lease ends, and not
    /// the owner of a [`Ticket`](crate::Ticket) that does not await it.
    ///
    /// The term ends just before the request is sent in which this leader goes, so that no two terms ever stand: what of
    /// its work must not overlap with the next leader's has to be stopped before this call. Within a `run`, the work is
    /// dropped when the term ends, and the candidate stands again. One transfer of a term is under way at a time; another waits for it.
    ///
    /// `cargo run --example rolling_restart` hands over to the freshest replica.
    ///
    /// # Errors
    ///
    /// The term goes on, and nothing has changed, with [`Error::NotACandidate`] if nobody of that identity stands, and
    /// [`Error::CannotBeAsked`] if a candidate before it does not answer. If either happens only after all had agreed,
    /// since somebody has gone meanwhile, the term goes on as well; those who have given way by then stay where
    /// they are. If the named candidate goes in the very moment in which this leader does, it is
    /// [`Error::NotACandidate`] too, and the office is given up all the same, to whoever stands next: then the term
    /// [is over](crate::Guard::is_valid).
    ///
    /// [`Error::Lost`] if the term ended otherwise, and [`Error::Unknown`] if nobody can tell for whom it ended. An error
    /// if etcd gives no answer to what is asked before: the term goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future calls the transfer off, and takes away in the background what it has written: unless the
    /// last request is on its way, in which this leader goes. Those who have given way stay where they are.
    pub async fn transfer_to(&self, identity: impl AsRef<str>) -> Result<()> {
        let _alone = self.transferring.lock().await;
        let transfer = Transfer { term: self, queue: Queue::new(self.session(), self.name()), to: identity.as_ref() };
        if !self.is_valid() {
            return Err(self.lost().await.into());
        }
        let (heir, _request) = tokio::select! {
            biased;
            () = self.ended() => return Err(self.lost().await.into()),
            clear = transfer.clear_the_way() => clear?,
        };
        tracing::info!(name = self.name(), token = %self.token(), to = heir.identity(), "the office is handed over");
        transfer.go(heir).await
    }
}

struct Transfer<'a> {
    term: &'a Leadership,
    queue: Queue,
    to: &'a str,
}

/// What became of the request in which a leader goes.
enum Gone {
    /// For its heir.
    Over,
    /// The heir was gone before.
    NoHeir,
    /// So was the leader.
    Before,
    Unheard(Error),
}

impl Transfer<'_> {
    /// Whom to go for, once nobody stands between, and what was asked of those who did.
    async fn clear_the_way(&self) -> Result<(Waiter, Option<Note>)> {
        let (heir, between) = self.heir().await?;
        if let Some((other, _)) = between.iter().find(|(_, owner)| *owner == Owner::Other) {
            return Err(cannot_be_asked(other));
        }
        if between.is_empty() {
            return Ok((heir, None));
        }
        let (core, name) = (self.queue.session().core(), self.queue.name()?);
        let between: Vec<Waiter> = between.into_iter().map(|(waiter, _)| waiter).collect();
        let asked: Vec<i64> = between.iter().map(|waiter| waiter.token().0).collect();
        let message = |stage| to_bytes(&Request { to: self.to.into(), asked: asked.clone(), stage });
        let note = Note::new(core, self.term.held_lease().clone(), &name.beside(REQUESTS));
        let request = note.write(message(Stage::Asked)).await?;
        self.hear(request, &between).await?;
        // Nobody moves for one that is gone.
        self.heir_stands(&heir).await?;
        note.write(message(Stage::Decided)).await?;
        if timeout(self.limit(), gone(core, between.iter().map(key).collect())).await.is_err() {
            let queue = self.queue.list().await?;
            let stands = |waiter: &&Waiter| queue.iter().any(|kv| kv.create_revision() == waiter.token().0);
            if let Some(stays) = between.iter().find(stands) {
                return Err(cannot_be_asked(stays));
            }
        }
        self.heir_stands(&heir).await?;
        Ok((heir, Some(note)))
    }

    /// The named candidate, and who stands before it.
    async fn heir(&self) -> Result<(Waiter, Vec<(Waiter, Owner)>)> {
        let mut candidates = owners(&self.queue, &self.queue.list().await?).await?;
        candidates.retain(|(candidate, _)| candidate.token() >= self.term.token());
        if candidates.first().is_none_or(|(first, _)| first.token() != self.term.token()) {
            return Err(self.term.why_gone().await.into());
        }
        candidates.remove(0);
        let named = candidates.iter().position(|(candidate, _)| candidate.identity() == self.to);
        let named = named.ok_or_else(|| self.not_a_candidate())?;
        let (heir, _) = candidates.swap_remove(named);
        candidates.truncate(named);
        Ok((heir, candidates))
    }

    async fn heir_stands(&self, heir: &Waiter) -> Result<()> {
        let queue = self.queue.list().await?;
        let stands = queue.iter().any(|kv| kv.create_revision() == heir.token().0);
        if stands { Ok(()) } else { Err(self.not_a_candidate()) }
    }

    /// Waits until all who were asked have said yes, or are gone.
    async fn hear(&self, request: i64, asked: &[Waiter]) -> Result<()> {
        let prefix = self.queue.name()?.beside(ANSWERS);
        let core = self.queue.session().core();
        let mut answers = Lookout::over_prefix(core, prefix.clone());
        let mut silent: Vec<&Waiter> = asked.iter().collect();
        let heard = async {
            while let Some(first) = silent.first() {
                let answers = tokio::select! {
                    answers = answers.next() => answers?,
                    () = gone(core, vec![key(first)]) => {
                        silent.remove(0);
                        continue;
                    }
                };
                let found = messages::<Answer>(&prefix, &answers);
                let yes = |token| found.iter().any(|(_, answer)| *answer == Answer { request, token });
                silent.retain(|waiter| !yes(waiter.token().0));
            }
            Ok(())
        };
        match timeout(self.limit(), heard).await {
            Ok(heard) => heard,
            Err(_) => silent.first().map_or(Ok(()), |silent| Err(cannot_be_asked(silent))),
        }
    }

    fn limit(&self) -> std::time::Duration {
        self.term.held_lease().ttl / 3
    }

    fn not_a_candidate(&self) -> Error {
        Error::NotACandidate { identity: self.to.to_owned() }
    }

    /// Ends the term for the heir's sake. The request is seen to its end by a task.
    async fn go(&self, heir: Waiter) -> Result<()> {
        let (core, seat, lease) =
            (self.term.session().core(), self.term.seat().clone(), self.term.held_lease().clone());
        let leave = Leave { core: core.clone(), seat, own: Waiter::leading(self.term), heir };
        let (done, outcome) = oneshot::channel();
        let ending = Ending::of(self.term);
        leave.seat.resigns(Resignation::Sent);
        core.spawn(async move {
            let gone = tokio::select! {
                gone = leave.send() => gone,
                () = lease.over() => Gone::Before,
            };
            match gone {
                Gone::Over => leave.seat.resigned(),
                Gone::Before => {
                    leave.seat.miss_key();
                    leave.seat.resigns(Resignation::None);
                }
                Gone::NoHeir | Gone::Unheard(_) => ending.abandon(),
            }
            let _ = done.send(gone);
        });
        match outcome.await {
            Ok(Gone::Over) => Ok(()),
            Ok(Gone::NoHeir) => Err(self.not_a_candidate()),
            Ok(Gone::Unheard(error)) => Err(error),
            Ok(Gone::Before) | Err(_) => Err(self.term.why_gone().await.into()),
        }
    }
}

/// What of it stands while it does: its key, under this revision.
fn key(candidate: &Waiter) -> (Key, Revision) {
    (Key::from(candidate.key().as_bytes()), candidate.token().0)
}

fn cannot_be_asked(candidate: &Waiter) -> Error {
    Error::CannotBeAsked { identity: candidate.identity().to_owned() }
}

/// The request in which a leader goes.
struct Leave {
    core: Arc<Core>,
    seat: Arc<Seat>,
    own: Waiter,
    heir: Waiter,
}

impl Leave {
    async fn send(&self) -> Gone {
        let stands = |who: &Waiter| Compare::create_revision(who.key(), CompareOp::Equal, who.token().0);
        let get = |who: &Waiter| TxnOp::get(who.key(), Some(GetOptions::new().with_keys_only()));
        let conditions = [stands(&self.own), stands(&self.heir)];
        let delete = TxnOp::delete(self.own.key(), None);
        let txn = Txn::new().when(conditions).and_then([delete]).or_else([get(&self.own), get(&self.heir)]);
        let (mut delays, mut unsure) = (retry::delays(), false);
        loop {
            let mut kv = self.core.kv.clone();
            match self.core.call(kv.txn(txn.clone())).await {
                Ok(reply) if reply.succeeded() => return Gone::Over,
                Ok(reply) => {
                    let found = |who: &Waiter, op: Option<&TxnOpResponse>| match op {
                        Some(TxnOpResponse::Get(get)) => {
                            get.kvs().iter().any(|kv| kv.create_revision() == who.token().0)
                        }
                        _ => false,
                    };
                    let responses = reply.op_responses();
                    return match found(&self.own, responses.first()) {
                        true => Gone::NoHeir,
                        // By an earlier request, unheard.
                        false if unsure && found(&self.heir, responses.get(1)) => Gone::Over,
                        // Or before it, and the heir has gone since or has not: nobody can tell.
                        false if unsure => Gone::Unheard(Error::Unknown),
                        false => Gone::Before,
                    };
                }
                Err(error) => match error.as_ref().map_or(Verdict::Unknown, verdict) {
                    Verdict::Never | Verdict::Exhausted if !unsure => return Gone::Unheard(Error::failed(error)),
                    Verdict::Unknown => unsure = true,
                    Verdict::Reauthenticate => self.core.reauthenticate().await,
                    Verdict::Never | Verdict::Exhausted | Verdict::NoLease | Verdict::Again => {}
                },
            }
            sleep(delays.next()).await;
        }
    }
}
