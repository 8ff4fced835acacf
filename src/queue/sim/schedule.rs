//! Who comes next: at random while a schedule is being found, by the list when it is replayed.

use fastrand::Rng;

use super::client::Handing;
use super::event::Event;
use super::plan::{Faults, Plan};
use super::world::World;

/// A run that takes longer goes round in circles.
const MAX_STEPS: usize = 20_000;

/// Runs a plan from a seed, writing down what happens.
pub(super) fn explore(plan: &'static Plan, seed: u64, schedule: &mut Vec<Event>) -> Result<World, String> {
    let rng = &mut Rng::with_seed(seed);
    let mut world = World::new(plan);
    for step in 0..MAX_STEPS {
        let fault = if step < plan.chaos { pick_fault(&world, rng) } else { None };
        let Some(event) = fault.map_or_else(|| pick(&world, rng), |fault| Ok(Some(fault)))? else {
            return world.check_end().map(|()| world);
        };
        schedule.push(event);
        world.apply(event)?;
    }
    Err("no end in sight".into())
}

/// Runs a list, leaving out what cannot happen, and then calmly to the end. Shows each event and what it led to.
pub(super) fn replay(
    plan: &'static Plan,
    schedule: &[Event],
    mut show: impl FnMut(Event, &World),
) -> Result<(), String> {
    let mut world = World::new(plan);
    for event in schedule {
        if world.can(*event) {
            if is_release(&world, *event) && is_quiet(&world) {
                world.check_quiet()?;
            }
            let result = world.apply(*event);
            show(*event, &world);
            result?;
        }
    }
    let rng = &mut Rng::with_seed(0);
    for _ in 0..MAX_STEPS {
        let Some(event) = pick(&world, rng)? else { return world.check_end() };
        let result = world.apply(event);
        show(event, &world);
        result?;
    }
    Err("no end in sight".into())
}

/// Something that can happen without a fault, or nothing if that is so. Looks whether everybody is where he should
/// be if nothing but releases can happen.
fn pick(world: &World, rng: &mut Rng) -> Result<Option<Event>, String> {
    const GUESSES: usize = 24;
    let guessed = (0..GUESSES).map(|_| guess(world, rng)).find(|event| world.can(*event));
    if let Some(event) = guessed
        && !(is_release(world, event) && is_quiet(world))
    {
        return Ok(Some(event));
    }
    let possible: Vec<Event> = everything(world).filter(|event| world.can(*event)).collect();
    if possible.iter().all(|event| is_release(world, *event)) {
        world.check_quiet()?;
    }
    Ok(rng.choice(possible).map(|event| dress(event, world, rng)))
}

fn is_quiet(world: &World) -> bool {
    everything(world).all(|event| is_release(world, event) || !world.can(event))
}

fn is_release(world: &World, event: Event) -> bool {
    match event {
        Event::Release(..) => true,
        Event::Go(n) => world.is_go_release(n),
        // They block nobody but Go: until nothing else can happen they stay.
        Event::RemoveNested => true,
        _ => false,
    }
}

/// Every event that is no fault, whether or not it can happen.
fn everything(world: &World) -> impl Iterator<Item = Event> {
    let of_client = |c| {
        let release = Event::Release(c, Handing::Nobody);
        [
            Event::Act(c),
            Event::Commit(c),
            Event::Answer(c),
            Event::Watch(c),
            Event::Hear(c),
            Event::LoseLease(c),
            release,
        ]
    };
    let of_session = |s| [Event::Batch(s), Event::Grant(s), Event::Learn(s), Event::WriteFence(s), Event::Tidy(s)];
    let of_watch = |(session, watch)| [Event::Open { session, watch, lag: 0 }, Event::Deliver { session, watch }];
    let watches = |s: usize| (0..world.sessions[s].watches.len()).map(move |watch| (s, watch));
    let sessions = 0..world.sessions.len();
    let others = [Event::RemoveNested, Event::AllowFences].into_iter();
    (0..world.clients.len())
        .flat_map(of_client)
        .chain(sessions.clone().flat_map(watches).flat_map(of_watch))
        .chain(sessions.flat_map(of_session))
        .chain((0..world.lost.len()).map(Event::Expire))
        .chain((0..world.stragglers.len()).map(Event::Straggle))
        .chain((0..world.go.len()).map(Event::Go))
        .chain(others)
}

/// Any event that is no fault, the frequent ones more often.
fn guess(world: &World, rng: &mut Rng) -> Event {
    let (client, session) = (rng.usize(..world.clients.len()), rng.usize(..world.sessions.len()));
    let watch = rng.usize(..world.sessions[session].watches.len().max(1));
    let any = |rng: &mut Rng, all: usize| rng.usize(..all.max(1));
    let event = match rng.u8(..17) {
        0..3 => Event::Act(client),
        3..5 => Event::Commit(client),
        5..7 => Event::Answer(client),
        7 => Event::Watch(client),
        8 => Event::WatchOwn(client),
        9 => Event::Hear(client),
        10 => Event::LoseLease(client),
        11 => Event::Release(client, Handing::Nobody),
        12 => Event::Deliver { session, watch },
        13 | 14 => Event::Open { session, watch, lag: 0 },
        15 => {
            let events =
                [Event::Batch(session), Event::Grant(session), Event::WriteFence(session), Event::Tidy(session)];
            events[any(rng, 4)]
        }
        _ => match rng.u8(..8) {
            0 => Event::Learn(session),
            1 => Event::AllowFences,
            2 => Event::Straggle(any(rng, world.stragglers.len())),
            3 => Event::Expire(any(rng, world.lost.len())),
            _ if world.go.is_empty() => Event::Learn(session),
            _ => Event::Go(any(rng, world.go.len())),
        },
    };
    dress(event, world, rng)
}

/// Chooses what an event leaves open.
fn dress(event: Event, world: &World, rng: &mut Rng) -> Event {
    match event {
        Event::Release(c, _) => {
            let handing = [Handing::Nobody, Handing::AtOnce, Handing::Queued];
            Event::Release(c, handing[rng.usize(..3)])
        }
        Event::Open { session, watch, .. } if world.plan.faults.lags && rng.bool() => {
            Event::Open { session, watch, lag: rng.i64(0..6) }
        }
        _ => event,
    }
}

fn pick_fault(world: &World, rng: &mut Rng) -> Option<Event> {
    let (client, session) = (rng.usize(..world.clients.len()), rng.usize(..world.sessions.len()));
    let Faults { wire, breaks, cancels, deadlines, fences, nested, operators, .. } = world.plan.faults;
    let mut roll = rng.u32(..1000);
    let mut falls_to = |rate: u32| {
        let falls = roll < rate;
        roll = roll.wrapping_sub(rate);
        falls
    };
    let straggler = rng.usize(..world.stragglers.len().max(1));
    let fault = if falls_to(wire) {
        // Whoever is on its way, so that the rate does not depend on how many clients there are.
        let is_flying = |c: &usize| world.clients[*c].request.is_some();
        let flying = rng.choice((0..world.clients.len()).filter(is_flying).collect::<Vec<_>>())?;
        let fates = [
            Event::LoseRequest(flying),
            Event::LoseReply(flying),
            Event::TimeOut(flying),
            Event::LoseStraggler(straggler),
        ];
        fates[rng.usize(..4)]
    } else if falls_to(breaks) {
        Event::BreakWatches(session)
    } else if falls_to(cancels) {
        Event::Cancel(client)
    } else if falls_to(deadlines) {
        Event::PassDeadline(session)
    } else if falls_to(fences) {
        [Event::MoveFence(session), Event::RefuseFences][rng.usize(..2)]
    } else if falls_to(nested) {
        Event::PutNested(rng.u8(..))
    } else if falls_to(operators) {
        let deeds = [
            Event::DeleteKey(client),
            Event::DeleteKey(client),
            Event::DeleteFence(session),
            Event::RevokeLease(session),
        ];
        deeds[rng.usize(..4)]
    } else {
        return None;
    };
    world.can(fault).then_some(fault)
}
