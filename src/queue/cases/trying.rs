//! Now or not at all.

use super::*;
use crate::queue::place::End;

const RULE: Rule = Rule::semaphore(2, 1);

fn light(text: &str, created: Revision) -> Elder {
    Elder { weight: Some(1), ..elder(text, created) }
}

#[test]
fn a_try_that_puts_its_key_holds() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    assert_eq!(place.next(), Action::Try { known: 0 });
    place.handle(Input::Entered { created: 10, listing: Listing::default() });
    assert_eq!(place.held(), Some(10));
}

#[test]
fn a_try_whose_watch_stands_since_its_enter_needs_no_look() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Entered { created: CREATED, listing: listing(CREATED, &[]) });
    cover(&mut place, CREATED);
    assert_eq!(place.next(), Action::Wait);
}

/// Go's `TryLock` enters the queue and leaves it again, and delays others meanwhile.
#[test]
fn a_try_that_meets_somebody_has_nothing_to_leave() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Occupied(listing(10, &[elder("q/2-a", 5)])));
    assert_eq!(place.next(), Action::Stop(End::NotFree));
}

#[test]
fn a_try_after_a_look_writes_nothing_where_there_is_no_room() {
    let mut place = seated(Rule::MUTEX, Patience::TryAfterLook);
    assert_eq!(place.next(), Action::Probe { limit: Some(3) });
    place.handle(Input::Probed(listing(10, &[elder("q/2-a", 5)])));
    assert_eq!(place.next(), Action::Stop(End::NotFree));
}

#[test]
fn a_try_after_a_look_asks_that_nobody_came_since() {
    let mut place = seated(RULE, Patience::TryAfterLook);
    place.handle(Input::Probed(listing(10, &[light("q/2-a", 5)])));
    assert_eq!(place.next(), Action::Try { known: 10 });
}

/// A try of unknown outcome may still take the lock.
#[test]
fn an_unsure_try_leaves_fenced_before_it_says_no() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Unknown);
    assert_eq!(place.next(), Action::Try { known: 0 });
    place.handle(Input::Occupied(listing(10, &[elder("q/2-a", 5)])));
    assert_eq!(place.next(), Action::Leave { fence: true });
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Stop(End::NotFree));
}

#[test]
fn a_try_whose_reply_was_lost_is_found_by_the_next() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Unknown);
    place.handle(Input::Entered { created: 10, listing: listing(12, &[]) });
    assert_eq!(place.held(), Some(10));
    place.leave();
    assert_eq!(place.next(), Action::Leave { fence: true }, "the first may still be travelling");
}

/// They block nobody, and the compare counts them.
#[test]
fn a_try_that_meets_nested_keys_tries_again_at_that_revision() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Occupied(Listing { nested: true, ..listing(10, &[]) }));
    assert_eq!(place.next(), Action::Try { known: 10 });
}

#[test]
fn a_try_that_sees_nested_keys_only_reads_past_them() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Occupied(Listing { nested: true, ..cut(10, &[]) }));
    assert_eq!(place.next(), Action::Probe { limit: None });
    place.handle(Input::Probed(listing(11, &[])));
    assert_eq!(place.next(), Action::Try { known: 11 });
}

#[test]
fn a_probe_that_sees_nested_keys_only_reads_past_them() {
    let mut place = seated(Rule::MUTEX, Patience::TryAfterLook);
    place.handle(Input::Probed(Listing { nested: true, ..cut(10, &[]) }));
    assert_eq!(place.next(), Action::Probe { limit: None });
}

/// Keys come and go under it: after a few rounds it enters, which cannot be overtaken.
#[test]
fn a_try_is_repeated_a_few_times_and_then_enters() {
    let mut place = seated(RULE, Patience::Try);
    for revision in 10..14 {
        assert!(matches!(place.next(), Action::Try { .. }));
        place.handle(Input::Occupied(listing(revision, &[light("q/2-a", 5)])));
    }
    assert_eq!(place.next(), Action::Enter);
    place.handle(Input::Entered { created: 20, listing: listing(20, &[light("q/2-a", 5)]) });
    assert_eq!(place.held(), Some(20));
}

/// Entered, but full: it looks no further and leaves.
#[test]
fn a_try_that_entered_and_has_to_wait_leaves() {
    let mut place = seated(RULE, Patience::Try);
    for revision in 10..14 {
        place.handle(Input::Occupied(listing(revision, &[light("q/2-a", 5)])));
    }
    place.handle(Input::Entered { created: 20, listing: listing(20, &[light("q/2-a", 5), light("q/3-a", 15)]) });
    assert_eq!(place.next(), Action::Leave { fence: false });
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Stop(End::NotFree));
}

#[test]
fn a_fenced_try_is_sent_again() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Fenced);
    assert_eq!(place.next(), Action::Try { known: 0 });
}

#[test]
fn a_try_under_a_lost_lease_begins_anew() {
    let mut place = seated(Rule::MUTEX, Patience::TryAfterLook);
    place.handle(Input::LeaseLost);
    assert_eq!(place.next(), Action::Seat);
    place.seat(key("q/3-c"), 3);
    assert_eq!(place.next(), Action::Probe { limit: Some(3) });
}

#[test]
fn a_try_that_is_given_up_has_nothing_to_leave_unless_it_is_unsure() {
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.leave();
    assert_eq!(place.next(), Action::Stop(End::Left));
    let mut place = seated(Rule::MUTEX, Patience::Try);
    place.handle(Input::Unknown);
    place.leave();
    assert_eq!(place.next(), Action::Leave { fence: true });
}

/// A lost probe puts nothing, so there is nothing to void.
#[test]
fn a_lost_probe_leaves_no_doubt() {
    let mut place = seated(Rule::MUTEX, Patience::TryAfterLook);
    place.handle(Input::Unknown);
    place.leave();
    assert_eq!(place.next(), Action::Stop(End::Left));
}
