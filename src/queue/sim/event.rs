//! What can happen next: a schedule is a list of these.

use super::client::Handing;
use crate::queue::place::Revision;

/// Names its subject by number, so that a schedule still makes sense when others are struck out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    // A client, by number.
    /// Does what its place says.
    Act(usize),
    /// Its request takes effect.
    Commit(usize),
    /// The reply reaches it.
    Answer(usize),
    /// Watches one more key.
    Watch(usize),
    /// It holds without having waited: watches its own key from its enter on.
    WatchOwn(usize),
    /// Reads the next of what it was told.
    Hear(usize),
    /// Finds that the lease of its key is lost.
    LoseLease(usize),
    /// Gives its hold back.
    Release(usize, Handing),

    // A session, by number.
    /// Sends the leaves of all its clients in one transaction.
    Batch(usize),
    /// Etcd accepts a watch.
    Open {
        session: usize,
        watch: usize,
        lag: Revision,
    },
    /// The next event of a watch is handed to the clients.
    Deliver {
        session: usize,
        watch: usize,
    },
    /// Takes a new lease.
    Grant(usize),
    /// Is told that its lease is gone.
    Learn(usize),
    /// Writes its missing fence again.
    WriteFence(usize),
    /// Closes the watches that nobody needs any more.
    Tidy(usize),

    // Everybody else.
    /// A lease that is lost expires, by number.
    Expire(usize),
    /// A request whose sender gave up arrives after all, by number.
    Straggle(usize),
    /// A client of another make takes its next step.
    Go(usize),
    RemoveNested,
    AllowFences,

    // What goes wrong.
    LoseRequest(usize),
    LoseReply(usize),
    /// The sender gives up; the request travels on.
    TimeOut(usize),
    LoseStraggler(usize),
    Cancel(usize),
    BreakWatches(usize),
    PassDeadline(usize),
    MoveFence(usize),
    RefuseFences,
    PutNested(u8),
    DeleteKey(usize),
    DeleteFence(usize),
    RevokeLease(usize),
}
