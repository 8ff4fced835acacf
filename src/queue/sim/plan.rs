//! What a run is made of: who queues up, and what may go wrong.

use super::QUEUE;
use crate::queue::place::Patience;
use crate::queue::rule::{Kind, Rule};

/// What one client wants, again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) rule: Rule,
    pub(super) patience: Patience,
}

/// One configuration. Rates are in thousandths of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) tasks: &'static [Task],
    /// How many clients share a session.
    pub(super) shared_by: usize,
    /// How often each client wants it.
    pub(super) rounds: u8,
    pub(super) go_clients: usize,
    /// From how many keys on the queue counts as deep.
    pub(super) deep: usize,
    /// For how many steps things may go wrong.
    pub(super) chaos: usize,
    pub(super) faults: Faults,
    /// The watches of a session keep the order of revisions, as those of one stream mostly do.
    pub(super) ordered: bool,
}

/// How often each thing goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Requests and replies are lost, or arrive after their sender gave up.
    pub(super) wire: u32,
    /// Watches break.
    pub(super) breaks: u32,
    /// Watches begin at a member that lags.
    pub(super) lags: bool,
    /// Clients lose patience.
    pub(super) cancels: u32,
    /// Leases pass their deadline.
    pub(super) deadlines: u32,
    /// Fences move, and writing them is refused.
    pub(super) fences: u32,
    /// Somebody puts keys that are no direct children.
    pub(super) nested: u32,
    /// Operators delete keys and fence keys, and revoke leases.
    pub(super) operators: u32,
}

const NONE: Faults =
    Faults { wire: 0, breaks: 0, lags: false, cancels: 0, deadlines: 0, fences: 0, nested: 0, operators: 0 };
const ROUGH: Faults =
    Faults { wire: 60, breaks: 8, lags: true, cancels: 15, deadlines: 4, fences: 6, nested: 10, operators: 0 };
const OPERATED: Faults = Faults { operators: 15, ..ROUGH };
/// What can make a grant void: operators, and watches that miss what they do.
const ORDERED: Faults =
    Faults { wire: 20, breaks: 30, lags: false, cancels: 20, deadlines: 1, fences: 1, nested: 1, operators: 30 };
const BREAKING: Faults = Faults { breaks: 80, operators: 80, ..NONE };
/// A lease goes while a look is on its way.
const REVOKED: Faults = Faults { breaks: 12, operators: 25, ..NONE };
/// Every list changes under whoever read it.
const NESTED: Faults = Faults { nested: 150, cancels: 20, ..NONE };
const HEAVY: Faults = Faults { wire: 200, cancels: 50, fences: 80, operators: 40, ..ROUGH };

const fn wait(rule: Rule) -> Task {
    Task { rule, patience: Patience::Wait }
}

const fn try_now(rule: Rule) -> Task {
    Task { rule, patience: Patience::Try }
}

const fn look_and_try(rule: Rule) -> Task {
    Task { rule, patience: Patience::TryAfterLook }
}

const MUTEX: Task = wait(Rule::MUTEX);
const READ: Task = wait(Rule::READ);

const fn semaphore(weight: u32) -> Task {
    wait(Rule::semaphore(4, weight))
}

const MUTEXES: &[Task] = &[MUTEX; 6];
const ELECTIONS: &[Task] = &[wait(Rule::ELECTION); 5];
const OFFICES: &[Task] = &[wait(Rule::ELECTION), MUTEX, MUTEX, wait(Rule::ELECTION), MUTEX, wait(Rule::ELECTION)];
const SEMAPHORES: &[Task] =
    &[semaphore(1), semaphore(3), semaphore(2), semaphore(4), semaphore(1), semaphore(2), semaphore(1), semaphore(1)];
const READERS: &[Task] = &[READ, MUTEX, READ, READ, MUTEX, READ, try_now(Rule::READ), look_and_try(Rule::MUTEX)];
const TRIES: &[Task] =
    &[MUTEX, try_now(Rule::MUTEX), look_and_try(Rule::MUTEX), MUTEX, try_now(Rule::ELECTION), try_now(Rule::MUTEX)];
const SEMAPHORE_TRIES: &[Task] = &[
    semaphore(2),
    try_now(Rule::semaphore(4, 1)),
    look_and_try(Rule::semaphore(4, 2)),
    semaphore(1),
    try_now(Rule::semaphore(4, 4)),
    look_and_try(Rule::semaphore(4, 1)),
    try_now(Rule::semaphore(4, 2)),
];
const MIXED: &[Task] = &[semaphore(2), MUTEX, semaphore(1), semaphore(3), MUTEX, semaphore(1), READ];

const CALM: Plan = Plan {
    name: "mutex, calm",
    tasks: MUTEXES,
    shared_by: 2,
    rounds: 2,
    go_clients: 0,
    deep: 3,
    chaos: 250,
    faults: NONE,
    ordered: false,
};

const ALONE: Plan = Plan { shared_by: 6, ordered: true, ..CALM };

/// Every configuration that is run.
pub(super) const PLANS: &[Plan] = &[
    CALM,
    Plan { name: "mutex, shallow", deep: usize::MAX, faults: ROUGH, go_clients: 1, ..CALM },
    Plan { name: "mutex, rough", faults: ROUGH, go_clients: 2, ..CALM },
    Plan { name: "mutex, one session", faults: ROUGH, shared_by: 6, ..CALM },
    Plan { name: "mutex, operators", faults: OPERATED, go_clients: 1, ..CALM },
    Plan { name: "mutex, operators, ordered", faults: ORDERED, ordered: true, ..CALM },
    Plan { name: "mutex, one session, breaking, ordered", faults: BREAKING, ..ALONE },
    Plan {
        name: "mutex, one session, revoked",
        tasks: &[MUTEX; 4],
        rounds: 4,
        faults: REVOKED,
        deep: usize::MAX,
        ..ALONE
    },
    Plan { name: "mutex, breaking, ordered", faults: BREAKING, ordered: true, ..CALM },
    Plan { name: "mutex, heavy", tasks: &[MUTEX; 4], faults: HEAVY, ..CALM },
    Plan { name: "election, rough", tasks: ELECTIONS, faults: ROUGH, go_clients: 1, ..CALM },
    Plan { name: "election and mutex, rough", tasks: OFFICES, faults: ROUGH, shared_by: 3, ..CALM },
    Plan { name: "semaphore, calm", tasks: SEMAPHORES, shared_by: 3, rounds: 1, ..CALM },
    Plan { name: "semaphore, rough", tasks: SEMAPHORES, shared_by: 3, rounds: 1, faults: ROUGH, go_clients: 1, ..CALM },
    Plan { name: "semaphore, operators", tasks: SEMAPHORES, shared_by: 4, rounds: 1, faults: OPERATED, ..CALM },
    Plan {
        name: "semaphore, operators, ordered",
        tasks: SEMAPHORES,
        shared_by: 4,
        rounds: 1,
        faults: ORDERED,
        ordered: true,
        ..CALM
    },
    Plan { name: "readers, rough", tasks: READERS, rounds: 1, faults: ROUGH, go_clients: 1, ..CALM },
    Plan { name: "readers, operators", tasks: READERS, shared_by: 4, rounds: 1, faults: OPERATED, ..CALM },
    Plan { name: "try, calm", tasks: TRIES, ..CALM },
    Plan { name: "try, rough", tasks: TRIES, faults: ROUGH, go_clients: 1, ..CALM },
    Plan { name: "try, heavy", tasks: TRIES, faults: HEAVY, ..CALM },
    Plan { name: "semaphore and try, nested", tasks: SEMAPHORE_TRIES, faults: NESTED, ..CALM },
    Plan { name: "semaphore and try, rough", tasks: SEMAPHORE_TRIES, faults: ROUGH, ..CALM },
    Plan { name: "semaphore and try, heavy", tasks: SEMAPHORE_TRIES, faults: HEAVY, ..CALM },
    Plan { name: "semaphore and mutex, rough", tasks: MIXED, shared_by: 4, faults: ROUGH, ..CALM },
];

impl Plan {
    pub(super) fn sessions(&self) -> usize {
        self.tasks.len().div_ceil(self.shared_by)
    }

    /// Whether every hold excludes every other, so that tokens only grow.
    pub(super) fn is_exclusive(&self) -> bool {
        self.tasks.iter().all(|Task { rule, .. }| rule.permits == 1 && rule.kind != Kind::Read)
    }
}

/// The key of a client of Go's `concurrency`, which uses it again and again.
pub(super) fn go_key(client: usize) -> String {
    format!("{QUEUE}/{:x}", 0xa0 + client)
}
