//! Runs seeds on every core, and tells of the first that fails as shortly as it can.

use std::cell::Cell;
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use super::event::Event;
use super::plan::{PLANS, Plan};
use super::promises::Tally;
use super::schedule::{explore, replay};
use super::world::World;

/// A seed that broke a promise.
struct Failure {
    seed: u64,
    message: String,
    schedule: Vec<Event>,
}

pub(super) fn from_environment() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    hush();
    let failure = match number("TENURE_REPLAY") {
        Some(seed) => replay_seed(seed),
        None => run(number("TENURE_FROM").unwrap_or(1), number("TENURE_SEEDS").unwrap_or(50_000)),
    };
    if let Some(failure) = failure {
        panic!("{}", report(&failure));
    }
}

fn plan_of(seed: u64) -> &'static Plan {
    &PLANS[(seed % PLANS.len() as u64) as usize]
}

/// Runs so many seeds, and returns the smallest that failed, if any did.
fn run(from: u64, seeds: u64) -> Option<Failure> {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let total = Mutex::new(Tally::default());
    let work = || {
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - from >= seeds {
                break;
            }
            show_progress(seed - from, seeds);
            match try_seed(seed) {
                Ok(world) => tally += world.ledger.tally,
                Err(found) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut failure = failure.lock().expect("no worker panics");
                    if failure.as_ref().is_none_or(|known| found.seed < known.seed) {
                        *failure = Some(found);
                    }
                }
            }
        }
        *total.lock().expect("no worker panics") += tally;
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{seeds} seeds from {from}: {:?}", total.into_inner().expect("no worker panics"));
    failure.into_inner().expect("no worker panics")
}

fn try_seed(seed: u64) -> Result<World, Failure> {
    let mut schedule = Vec::new();
    caught(|| explore(plan_of(seed), seed, &mut schedule)).map_err(|message| Failure { seed, message, schedule })
}

/// Runs one seed again, and prints every step of it.
fn replay_seed(seed: u64) -> Option<Failure> {
    let mut schedule = Vec::new();
    let result = caught(|| explore(plan_of(seed), seed, &mut schedule));
    let (mut story, mut told) = (String::new(), Vec::new());
    let _ = caught(|| replay(plan_of(seed), &schedule, |event, world| tell(&mut story, &mut told, event, world)));
    println!("seed {seed}, {}\n{story}", plan_of(seed).name);
    result.err().map(|message| Failure { seed, message, schedule })
}

/// Once per hundredth, for whoever runs this alone.
fn show_progress(done: u64, seeds: u64) {
    if std::env::var_os("TENURE_PROGRESS").is_some() && done.is_multiple_of((seeds / 100).max(1)) {
        eprint!("\r{:3} % of {seeds} seeds", done * 100 / seeds);
    }
}

/// The failure with the shortest schedule that was found for it.
fn report(failure: &Failure) -> String {
    let Failure { seed, message, schedule } = failure;
    let plan = plan_of(*seed);
    let short = shrink(plan, schedule);
    let (mut story, mut told) = (String::new(), Vec::new());
    let again = caught(|| replay(plan, &short, |event, world| tell(&mut story, &mut told, event, world))).err();
    let (steps, shrunk) = (schedule.len(), short.len());
    let again = again.unwrap_or_else(|| "not when run from the list".into());
    format!(
        "seed {seed}, {}: {message}\n{steps} steps came down to {shrunk} and a calm end: {again}\n{story}\
         TENURE_REPLAY={seed} runs it again",
        plan.name
    )
}

/// One line for each step: the revision, what happened, and the places that it changed.
fn tell(story: &mut String, told: &mut Vec<String>, event: Event, world: &World) {
    let _ = write!(story, "{:5} {event:?}", world.etcd.revision);
    told.resize(world.clients.len(), String::new());
    for (c, client) in world.clients.iter().enumerate() {
        let now = match client.place.held() {
            Some(token) => format!("holds {token}"),
            None => format!("{:?}", client.place.next()),
        };
        if now != told[c] {
            let _ = write!(story, "   {c}: {now}");
            told[c] = now;
        }
    }
    story.push('\n');
}

/// Strikes out whatever the failure does not need, in ever smaller pieces.
fn shrink(plan: &'static Plan, schedule: &[Event]) -> Vec<Event> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let end = Instant::now() + PATIENCE;
    let fails = |schedule: &[Event]| caught(|| replay(plan, schedule, |_, _| {})).is_err();
    let mut short = schedule.to_vec();
    let mut piece = short.len() / 2;
    while piece > 0 {
        let before = short.len();
        let mut at = 0;
        while at < short.len() && Instant::now() < end {
            let without = [&short[..at], &short[(at + piece).min(short.len())..]].concat();
            if fails(&without) {
                short = without;
            } else {
                at += piece;
            }
        }
        if short.len() == before || Instant::now() >= end {
            piece /= 2;
        }
    }
    short
}

thread_local! {
    /// A panic on this thread is a finding, not news.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics that are caught below from being printed thousands of times.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                print(info);
            }
        }));
    });
}

/// An assertion of the core counts as a failure too.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    EXPECTED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(false);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default())
    })
}
