//! `tenure lock` and `tenure elect`: waits for a hold, and keeps it.

use std::io::{IsTerminal as _, stderr};
use std::ops::Deref;
use std::time::Duration;

use tenure::{Guard, Leadership, Result, Session};
use tokio::time::{sleep, timeout};

use crate::args::{Common, Elect, How, Lock, MIN_TTL_OF_COMMAND, OnRevocation};
use crate::connect;
use crate::failure::{Failure, LOST, NOT_FREE, SIGNALLED, USAGE};
use crate::output::{Output, Told};
use crate::run;
use crate::signals::{ENDING, Signals};

/// Whoever is at the terminal is told for what it waits, if it takes longer than this.
const LONG: Duration = Duration::from_secs(1);

/// A lock or an office.
#[derive(Debug)]
pub(crate) enum Hold {
    Lock(Guard),
    Office(Leadership),
}

impl Hold {
    pub(crate) async fn release(self) -> Result<()> {
        match self {
            Self::Lock(guard) => guard.unlock().await,
            Self::Office(term) => term.resign().await,
        }
    }
}

impl Deref for Hold {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        match self {
            Self::Lock(guard) => guard,
            Self::Office(term) => term,
        }
    }
}

pub(crate) async fn lock(common: &Common, lock: Lock, output: Output) -> Result<u8, Failure> {
    let Lock { name, shared, permits, count, how } = lock;
    let (now, timeout) = (how.now, how.timeout);
    let acquire = async |session: Session| -> Result<Option<Hold>> {
        let guard = if let Some(permits) = permits {
            let semaphore = session.semaphore(&name, permits);
            match timeout {
                _ if now => semaphore.try_acquire_many(count).await?,
                Some(limit) => semaphore.try_acquire_many_for(count, limit).await?,
                None => Some(semaphore.acquire_many(count).await?),
            }
        } else if shared {
            let lock = session.rwlock(&name);
            match timeout {
                _ if now => lock.try_read().await?,
                Some(limit) => lock.try_read_for(limit).await?,
                None => Some(lock.read().await?),
            }
        } else {
            let mutex = session.mutex(&name);
            match timeout {
                _ if now => mutex.try_lock().await?,
                Some(limit) => mutex.try_lock_for(limit).await?,
                None => Some(mutex.lock().await?),
            }
        };
        Ok(guard.map(Hold::Lock))
    };
    keep(common, &how, &name, acquire, output).await
}

pub(crate) async fn elect(common: &Common, elect: Elect, output: Output) -> Result<u8, Failure> {
    let Elect { name, value, how } = elect;
    let (now, timeout) = (how.now, how.timeout);
    let acquire = async |session: Session| -> Result<Option<Hold>> {
        let (election, value) = (session.election(&name), value.as_str());
        let term = match timeout {
            _ if now => election.try_campaign(value).await?,
            Some(limit) => election.try_campaign_for(value, limit).await?,
            None => Some(election.campaign(value).await?),
        };
        Ok(term.map(Hold::Office))
    };
    keep(common, &how, &name, acquire, output).await
}

/// From the first request to the last: whatever happens, no key and no lease is left behind, if etcd can be reached.
async fn keep(
    common: &Common,
    how: &How,
    name: &str,
    acquire: impl AsyncFnOnce(Session) -> Result<Option<Hold>>,
    output: Output,
) -> Result<u8, Failure> {
    if !how.command.is_empty() && how.ttl < MIN_TTL_OF_COMMAND {
        let reason = "with a command --ttl is 3s at least: below, no time is left between SIGTERM and SIGKILL";
        return Err(Failure::new(USAGE, reason));
    }
    let mut signals = Signals::listen(&ENDING)?;
    let session = tokio::select! {
        session = connect::session(common, how) => session?,
        signal = signals.next() => return Ok(interrupted(signal)),
    };
    let waited = tokio::select! {
        biased;
        hold = wait(&session, how, name, acquire, output) => Ok(hold),
        signal = signals.next() => Err(signal),
    };
    let ended = match waited {
        Ok(Ok(hold)) if how.command.is_empty() => until_interrupted(hold, how, &mut signals, output).await,
        Ok(Ok(hold)) => run::command(&session, hold, how, &mut signals, output).await,
        Ok(Err(failure)) => Err(failure),
        Err(signal) => Ok(interrupted(signal)),
    };
    // Of a lost hold nothing is left to give back; where etcd does not answer, that is not waited for.
    let limit = if matches!(ended, Ok(LOST)) { Duration::from_millis(500) } else { Duration::MAX };
    tokio::select! {
        _ = timeout(limit, session.close()) => {}
        // Once more: at once. The lease expires by itself.
        _ = signals.next() => {}
    }
    ended
}

pub(crate) fn interrupted(signal: rustix::process::Signal) -> u8 {
    SIGNALLED + u8::try_from(signal.as_raw()).expect("it is one of a few small ones")
}

async fn wait(
    session: &Session,
    how: &How,
    name: &str,
    acquire: impl AsyncFnOnce(Session) -> Result<Option<Hold>>,
    output: Output,
) -> Result<Hold, Failure> {
    let telling = async {
        if stderr().is_terminal() {
            sleep(LONG).await;
            output.note(format_args!("{name}: waiting{}", ahead(session, name).await));
        }
        std::future::pending().await
    };
    let hold = tokio::select! {
        hold = acquire(session.clone()) => hold.map_err(|error| Failure::of(name, &error))?,
        () = telling => unreachable!("it goes on for ever"),
    };
    if let Some(hold) = hold {
        let aside = !how.command.is_empty();
        output.hold(Told::Held, &hold, aside);
        return Ok(hold);
    }
    let limit = how.timeout.map(|limit| format!(" within {}", humantime::format_duration(limit)));
    let ahead = ahead(session, name).await;
    Err(Failure::new(NOT_FREE, format_args!("{name}: not free{}{ahead}", limit.unwrap_or_default())))
}

/// Who is in the way, if that can be told.
async fn ahead(session: &Session, name: &str) -> String {
    let queue = session.mutex(name).queue().await.unwrap_or_default();
    let others: Vec<_> = queue.iter().filter(|waiter| waiter.lease() != session.lease_id()).collect();
    match others.as_slice() {
        [] => String::new(),
        [first] => format!(": held by {}", first.identity()),
        [first, rest @ ..] => format!(": held by {}, {} more in the queue", first.identity(), rest.len()),
    }
}

/// Without a command.
async fn until_interrupted(hold: Hold, how: &How, signals: &mut Signals, output: Output) -> Result<u8, Failure> {
    let told_to_let_go = async {
        output.revocation(&hold, &hold.revocation_requested().await);
        if how.on_revocation == OnRevocation::Ignore {
            std::future::pending().await
        }
    };
    let lost = tokio::select! {
        loss = hold.lost() => Some(loss),
        _ = signals.next() => None,
        () = told_to_let_go => None,
    };
    output.hold(lost.map_or(Told::Released, Told::Lost), &hold, false);
    if lost.is_some() {
        return Ok(LOST);
    }
    // A second signal does not wait for it.
    let name = hold.name().to_owned();
    tokio::select! {
        released = hold.release() => released.map(|()| 0).map_err(|error| Failure::of(&name, &error)),
        signal = signals.next() => Ok(interrupted(signal)),
    }
}
