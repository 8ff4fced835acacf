//! Candidates who give way: what their leader asks them, and how they answer.
//!
//! 1. A candidate that is asked says yes, and gives way only once the leader says that all have.
//! 2. It takes its new place before it leaves the old one, and a turn that comes meanwhile is its turn.
//! 3. What it said is taken back when the request is, and when it does not wait any more.

use std::future::pending;

use crate::error::Result;
use crate::etcd_client::KeyValue;
use crate::name::{Revision, is_child};
use crate::queue::driver::Attempt;
use crate::queue::{Claim, Seat};
use crate::session::lookout::Lookout;
use crate::session::note::Note;
use crate::ticket::Queue;

/// Where a leader's requests lie, beside the queue, and where the answers do.
pub(crate) const REQUESTS: &str = "transfer";
pub(crate) const ANSWERS: &str = "consent";

/// A leader's request, told by the revision that created its key.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Request {
    /// Who is to lead next.
    pub(crate) to: Box<str>,
    /// The tokens of those who are to give way.
    pub(crate) asked: Vec<i64>,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Would they?
    Asked,
    /// All would: they shall.
    Decided,
}

/// A candidate's yes.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Answer {
    pub(crate) request: i64,
    pub(crate) token: i64,
}

/// The messages below `prefix` that can be read, each with the revision that created it.
pub(crate) fn messages<T: serde::de::DeserializeOwned>(prefix: &str, found: &[KeyValue]) -> Vec<(Revision, T)> {
    let direct = found.iter().filter(|kv| is_child(prefix, kv.key()));
    direct.filter_map(|kv| Some((kv.create_revision(), serde_json::from_slice(kv.value()).ok()?))).collect()
}

pub(crate) fn to_bytes(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("strings and numbers are JSON")
}

/// What a candidate that waits has heard, said and done.
#[derive(Default)]
pub(crate) struct Candidacy {
    /// Since it waits.
    requests: Option<Lookout>,
    said: Option<Said>,
    /// The place that it gives way to, not taken yet.
    next: Option<Attempt>,
}

/// A yes that stands.
struct Said {
    request: Revision,
    note: Note,
}

impl Candidacy {
    /// Waits for the hold as [`Attempt::hold`] does, and gives way where it is asked: then `attempt` is another one.
    /// May be dropped at any time, and called again.
    pub(crate) async fn hold(&mut self, queue: &Queue, attempt: &mut Attempt) -> Result<Option<Claim>> {
        attempt.meet().await?;
        loop {
            let seat = attempt.seat().clone();
            let next = tokio::select! {
                biased;
                claim = attempt.hold() => return claim,
                next = self.give_way(queue, &seat) => next,
            };
            if let Some(claim) = seat.claim_now() {
                return Ok(Some(claim));
            }
            tracing::info!(name = queue.as_str(), "a candidate gives way, and stands at the back");
            *attempt = next;
            self.said = None;
        }
    }

    /// A new place, at the back, once the leader wants that.
    async fn give_way(&mut self, queue: &Queue, seat: &Seat) -> Attempt {
        loop {
            if let Some(next) = &mut self.next {
                match next.queue().await {
                    Ok(()) => return self.next.take().expect("looked at just now"),
                    Err(error) => tracing::warn!(name = queue.as_str(), %error, "a candidate cannot give way"),
                }
                (self.next, self.said) = (None, None);
            }
            if let Err(error) = self.listen(queue, seat).await {
                tracing::warn!(name = queue.as_str(), %error, "a candidate cannot be asked to give way");
                (self.requests, self.said) = (None, None);
                return pending().await;
            }
        }
    }

    /// Answers, until there is a place to give way to.
    async fn listen(&mut self, queue: &Queue, seat: &Seat) -> Result<()> {
        let (core, name) = (queue.session().core(), queue.name()?);
        let prefix = name.beside(REQUESTS);
        let requests = self.requests.get_or_insert_with(|| Lookout::over_prefix(core, prefix.clone()));
        while self.next.is_none() {
            let found = requests.next().await?;
            let standing = seat.standing();
            let concerns = |request: &Request| standing.as_ref().is_some_and(|own| request.asked.contains(&own.0));
            let messages = messages::<Request>(&prefix, &found).into_iter();
            // That of a leader that is gone may still be there.
            let newest = messages.filter(|(_, request)| concerns(request)).max_by_key(|(created, _)| *created);
            let (Some((request, Request { to, stage, .. })), Some((token, lease))) = (newest, &standing) else {
                self.said = None;
                continue;
            };
            let agreed = self.said.as_ref().is_some_and(|said| said.request == request);
            match stage {
                Stage::Asked if !agreed => {
                    tracing::debug!(name = queue.as_str(), to, token, "a candidate agrees to give way");
                    let said = Said { request, note: Note::new(core, lease.clone(), &name.beside(ANSWERS)) };
                    let answer = to_bytes(&Answer { request, token: *token });
                    // An answer that cannot be written is none.
                    let _ = self.said.insert(said).note.write(answer).await;
                }
                Stage::Decided if agreed => self.next = Some(Attempt::patient(queue.session(), seat.again())),
                Stage::Asked | Stage::Decided => {}
            }
        }
        Ok(())
    }
}
