//! What workers lock.

use std::time::Duration;

use fastrand::Rng;
use tenure::{Guard, Mutex, ReentrantMutex, Result, RwLock, Semaphore, Session, Ticket};

use crate::history::Share;

/// How many permits the semaphore has.
pub(crate) const PERMITS: u32 = 3;

/// A lock of any kind, and how much of it is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Lock {
    Mutex(Mutex),
    /// An owner, who locks again what it holds; a ticket is the mutex' own.
    Owner(Mutex, ReentrantMutex),
    Read(RwLock),
    Write(RwLock),
    Permits(Semaphore, u32),
}

impl Lock {
    /// The kind belongs to the name.
    pub(crate) fn of(session: &Session, name: &str, rng: &mut Rng) -> Self {
        match name {
            "pages" if rng.u32(..3) == 0 => Self::Write(session.rwlock(name)),
            "pages" => Self::Read(session.rwlock(name)),
            "permits" => Self::Permits(session.semaphore(name, PERMITS), [1, 1, 1, 2, PERMITS][rng.usize(..5)]),
            "queue" if rng.bool() => {
                let mutex = session.mutex(name);
                let owner = mutex.reentrant();
                Self::Owner(mutex, owner)
            }
            _ => Self::mutex(session, name),
        }
    }

    pub(crate) fn mutex(session: &Session, name: &str) -> Self {
        Self::Mutex(session.mutex(name))
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Mutex(mutex) | Self::Owner(mutex, _) => mutex.name(),
            Self::Read(lock) | Self::Write(lock) => lock.name(),
            Self::Permits(semaphore, _) => semaphore.name(),
        }
    }

    pub(crate) fn share(&self) -> Share {
        match self {
            Self::Mutex(_) | Self::Owner(..) => Share::ALONE,
            Self::Read(_) => Share::READ,
            Self::Write(_) => Share::WRITE,
            Self::Permits(semaphore, n) => Share { weight: *n, of: semaphore.permits() },
        }
    }

    pub(crate) async fn lock(&self) -> Result<Guard> {
        match self {
            Self::Mutex(mutex) => mutex.lock().await,
            Self::Owner(_, owner) => owner.lock().await,
            Self::Read(lock) => lock.read().await,
            Self::Write(lock) => lock.write().await,
            Self::Permits(semaphore, n) => semaphore.acquire_many(*n).await,
        }
    }

    pub(crate) async fn try_lock(&self) -> Result<Option<Guard>> {
        match self {
            Self::Mutex(mutex) => mutex.try_lock().await,
            Self::Owner(_, owner) => owner.try_lock().await,
            Self::Read(lock) => lock.try_read().await,
            Self::Write(lock) => lock.try_write().await,
            Self::Permits(semaphore, n) => semaphore.try_acquire_many(*n).await,
        }
    }

    pub(crate) async fn try_lock_for(&self, limit: Duration) -> Result<Option<Guard>> {
        match self {
            Self::Mutex(mutex) => mutex.try_lock_for(limit).await,
            Self::Owner(_, owner) => owner.try_lock_for(limit).await,
            Self::Read(lock) => lock.try_read_for(limit).await,
            Self::Write(lock) => lock.try_write_for(limit).await,
            Self::Permits(semaphore, n) => semaphore.try_acquire_many_for(*n, limit).await,
        }
    }

    pub(crate) async fn enqueue(&self) -> Result<Ticket> {
        match self {
            Self::Mutex(mutex) | Self::Owner(mutex, _) => mutex.enqueue().await,
            Self::Read(lock) => lock.enqueue_read().await,
            Self::Write(lock) => lock.enqueue_write().await,
            Self::Permits(semaphore, n) => semaphore.enqueue_many(*n).await,
        }
    }
}
