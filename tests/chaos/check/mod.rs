//! Whether a history keeps the promises.
//!
//! Where the crate's own clock decides, nothing is allowed for: a guard that says it is valid, a transaction of a
//! guard, what an observer sees. Where somebody has to act in time, [`SCHEDULING`] is allowed, and the time for which
//! the director had stopped the process.

mod ending;
mod given_away;
mod holds;
mod observers;
mod requests;
mod sets;
mod transfers;

use std::collections::HashMap;
use std::fmt;

use crate::history::{DIRECTOR, Event, Hold, How, Nanos, Process, SECOND, Share, What, lease_of};

/// The prefix of all names.
pub(crate) const NAMESPACE: &str = "chaos/";

/// How late the machine may be in letting a process run that is due: it has few cores, and shares them with three
/// members of etcd and whatever else is running.
pub(crate) const SCHEDULING: Nanos = SECOND / 2;

/// How long after it was sent a deletion may take place, where it waits for a member that is frozen.
const LATE: Nanos = 10 * SECOND;

/// What the cluster itself may need after the last fault, beyond two TTLs, and how long observers may lag behind: an election of its leader that is split
/// takes up to 4 s, the leases' new TTL includes an election timeout of 1 s, and whoever failed for long asks again
/// after 1 s.
pub(crate) const RECOVERY: Nanos = 6 * SECOND;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) text: String,
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// No two guards of a name are valid at one instant, or no more than share it, and later ones have larger tokens.
    Exclusion,
    /// No guard is valid after its deadline, and the loss is told in time.
    Deadline,
    /// `run` drops its work by the deadline.
    Work,
    /// What is written by two at once, unfenced, is so only while one of them was stopped.
    Unfenced,
    /// Fenced writes are in order of tokens, and none is lost.
    Fenced,
    /// After a hand-over the named one leads next; one that fails leaves the term as it is.
    Transfer,
    /// A request is heard by those whom it names, and goes with them.
    Requests,
    /// Observers see the leaders that there were, in order.
    Observers,
    /// Who waits without a limit is never turned away.
    Patience,
    /// `try_lock_for` waits for as long as it says.
    Limit,
    /// In the end everyone was granted or has left.
    Ending,
    /// Nothing remains.
    Remains,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// All violations in a history, whose events may be in any order.
pub(crate) fn check(events: &[Event], ttl: Nanos) -> Vec<Violation> {
    let facts = Facts::gather(events, ttl);
    let mut found = Vec::new();
    holds::check(&facts, &mut found);
    sets::check(&facts, &mut found);
    observers::check(&facts, &mut found);
    transfers::check(&facts, &mut found);
    requests::check(&facts, &mut found);
    ending::check(&facts, &mut found);
    found
}

/// What is allowed for, as it was.
pub(crate) struct Measures {
    /// How much later than its deadline any work ended whose process was not stopped.
    pub(crate) latest: Nanos,
    /// How many leases etcd gave away before their time.
    pub(crate) given_away: usize,
}

pub(crate) fn measure(events: &[Event], ttl: Nanos) -> Measures {
    let facts = Facts::gather(events, ttl);
    Measures { latest: holds::latest(&facts), given_away: facts.given_away.len() }
}

/// The events in order, and what all checks ask for.
pub(crate) struct Facts {
    pub(crate) ttl: Nanos,
    pub(crate) events: Vec<Event>,
    /// The holds of each name in order of tokens.
    pub(crate) names: HashMap<String, Vec<Life>>,
    /// When processes were stopped, from and to.
    stops: HashMap<Process, Vec<(Nanos, Nanos)>>,
    pub(crate) killed: HashMap<Process, Nanos>,
    deleting: HashMap<String, Vec<Nanos>>,
    revoking: HashMap<i64, Nanos>,
    given_away: HashMap<i64, Nanos>,
    pub(crate) healed: Option<Nanos>,
    /// Granted once more than once.
    pub(crate) doubles: Vec<Hold>,
}

/// One hold from its grant to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) hold: Hold,
    pub(crate) process: Process,
    pub(crate) key: String,
    pub(crate) share: Share,
    pub(crate) granted: Nanos,
    /// When the guard first said that it is valid, and when last.
    pub(crate) valid: Option<(Nanos, Nanos)>,
    /// The latest that was said.
    pub(crate) deadline: Nanos,
    /// When the worker began to give it back, if it did.
    pub(crate) releasing: Option<Nanos>,
    pub(crate) ended: Option<(Nanos, String)>,
    /// The work in it: from, to, and the latest deadline known.
    pub(crate) work: Option<Work>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) began: Nanos,
    pub(crate) ended: Option<Nanos>,
    pub(crate) deadline: Nanos,
}

impl Facts {
    fn gather(events: &[Event], ttl: Nanos) -> Self {
        let mut events = events.to_vec();
        events.sort_by_key(|event| event.at);
        let mut facts = Self {
            ttl,
            names: HashMap::new(),
            stops: HashMap::new(),
            killed: HashMap::new(),
            deleting: HashMap::new(),
            revoking: HashMap::new(),
            given_away: HashMap::new(),
            healed: None,
            doubles: Vec::new(),
            events: Vec::new(),
        };
        let mut lives: HashMap<Hold, Life> = HashMap::new();
        for event in &events {
            facts.note(event);
            if let What::Granted { hold, .. } = &event.what
                && lives.contains_key(hold)
            {
                facts.doubles.push(hold.clone());
            }
            note_life(&mut lives, event);
        }
        for (_, life) in lives {
            facts.names.entry(life.hold.name.clone()).or_default().push(life);
        }
        for lives in facts.names.values_mut() {
            lives.sort_by_key(|life| life.hold.token);
        }
        facts.events = events;
        facts.given_away = given_away::leases(&facts);
        facts
    }

    fn note(&mut self, event: &Event) {
        match &event.what {
            What::Stopping { process } => {
                self.stops.entry(*process).or_default().push((event.at, Nanos::MAX));
            }
            What::Woken { process } => {
                if let Some(stop) = self.stops.entry(*process).or_default().last_mut() {
                    stop.1 = event.at;
                }
            }
            What::Killed { process } => {
                self.killed.insert(*process, event.at);
            }
            What::Deleting { key } => {
                self.deleting.entry(key.clone()).or_default().push(event.at);
            }
            What::Revoking { lease } => {
                self.revoking.entry(*lease).or_insert(event.at);
            }
            What::Healed => self.healed = Some(event.at),
            _ => {}
        }
    }

    /// When an operator took the key away, or etcd did so before its time. From then on until it hears of it, its
    /// holder cannot know.
    pub(crate) fn taken(&self, life: &Life) -> Option<Nanos> {
        let of_lease = |leases: &HashMap<i64, Nanos>| lease_of(&life.key).and_then(|lease| leases.get(&lease).copied());
        let mut deleted = self.deleting.get(&life.key).into_iter().flatten().copied();
        // A session uses a key again.
        let deleted = deleted.find(|deleting| deleting.saturating_add(LATE) >= life.granted);
        [deleted, of_lease(&self.revoking), of_lease(&self.given_away)].into_iter().flatten().min()
    }

    /// The key that goes with the lease of another, and with nothing else.
    pub(crate) fn fence_of(key: &str) -> Option<String> {
        lease_of(key).map(|lease| format!("{NAMESPACE}~session/{lease:x}"))
    }

    pub(crate) fn life(&self, hold: &Hold) -> Option<&Life> {
        let lives = self.names.get(&hold.name)?;
        lives.binary_search_by_key(&hold.token, |life| life.hold.token).ok().map(|found| &lives[found])
    }

    /// Whether an operator has revoked a lease.
    pub(crate) fn is_revoked(&self, lease: i64) -> bool {
        self.revoking.contains_key(&lease)
    }

    /// By when a process must have done what is due at `due`: it cannot do anything while it is stopped.
    pub(crate) fn in_time(&self, process: Process, due: Nanos) -> Nanos {
        let mut due = due;
        for &(from, to) in self.stops.get(&process).into_iter().flatten() {
            // It may have been stopped in the very moment in which it was about to act.
            if from <= due.saturating_add(SCHEDULING) && to > due {
                due = to;
            }
        }
        due.saturating_add(SCHEDULING)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.by != DIRECTOR)
    }

    /// Who asked, when and how.
    pub(crate) fn asks(&self) -> HashMap<(Process, u64), (Nanos, How, &str)> {
        let asks = self.workers().filter_map(|event| match &event.what {
            What::Asked { ask, name, how } => Some(((event.by, *ask), (event.at, *how, name.as_str()))),
            _ => None,
        });
        asks.collect()
    }
}

fn note_life(lives: &mut HashMap<Hold, Life>, event: &Event) {
    let at = event.at;
    if let What::Granted { hold, key, share, .. } = &event.what {
        let life = Life {
            hold: hold.clone(),
            process: event.by,
            key: key.clone(),
            share: *share,
            granted: at,
            valid: None,
            deadline: 0,
            releasing: None,
            ended: None,
            work: None,
        };
        lives.insert(hold.clone(), life);
        return;
    }
    let (What::Valid { hold, .. }
    | What::Releasing { hold }
    | What::Ended { hold, .. }
    | What::WorkBegan { hold }
    | What::WorkEnded { hold, .. }) = &event.what
    else {
        return;
    };
    let Some(life) = lives.get_mut(hold) else { return };
    match &event.what {
        What::Valid { deadline, .. } => {
            life.valid = Some((life.valid.map_or(at, |(first, _)| first), at));
            life.deadline = life.deadline.max(*deadline);
        }
        What::Releasing { .. } => life.releasing = Some(at),
        What::Ended { why, .. } => life.ended = Some((at, why.clone())),
        What::WorkBegan { .. } => life.work = Some(Work { began: at, ended: None, deadline: 0 }),
        What::WorkEnded { deadline, .. } => {
            if let Some(work) = &mut life.work {
                (work.ended, work.deadline) = (Some(at), *deadline);
            }
        }
        _ => unreachable!("listed above"),
    }
}
