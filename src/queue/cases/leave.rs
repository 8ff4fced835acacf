//! Out of the queue: one way for everybody.

use super::*;
use crate::queue::place::End;

/// A place whose first enter may still be travelling.
fn unsure(elders: &[Elder]) -> Place {
    let mut place = entering(Rule::MUTEX);
    place.handle(Input::Unknown);
    place.handle(Input::Entered { created: CREATED, listing: listing(CREATED, elders) });
    place
}

#[test]
fn a_place_without_a_request_behind_it_just_stops() {
    let mut place = Place::new(Rule::MUTEX, Patience::Wait);
    place.leave();
    assert_eq!(place.next(), Action::Stop(End::Left));
    let mut place = entering(Rule::MUTEX);
    place.leave();
    assert_eq!(place.next(), Action::Stop(End::Left));
}

#[test]
fn a_sure_place_leaves_without_a_fence() {
    for mut place in [holding(Rule::MUTEX), waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)])] {
        assert_eq!((place.is_unsure(), place.end()), (false, None));
        place.leave();
        assert_eq!((place.held(), place.next()), (None, Action::Leave { fence: false }));
        assert_eq!(place.end(), Some(End::Left), "though its key still has to go");
        place.handle(Input::Left);
        assert_eq!((place.next(), place.end()), (Action::Stop(End::Left), Some(End::Left)));
    }
}

/// The enter that is still travelling would create the key again, and nobody would ever delete it.
#[test]
fn an_unsure_place_leaves_with_a_fence() {
    let mut entering = entering(Rule::MUTEX);
    entering.handle(Input::Unknown);
    for mut place in [entering, unsure(&[]), unsure(&[elder("q/2-a", 5)])] {
        assert!(place.is_unsure());
        place.leave();
        assert_eq!(place.next(), Action::Leave { fence: true });
        place.handle(Input::Left);
        assert_eq!(place.next(), Action::Stop(End::Left));
    }
}

/// One unlock that timed out kept a key alive for ever (cilium #9855).
#[test]
fn a_leave_of_unknown_outcome_is_sent_again() {
    let mut place = holding(Rule::MUTEX);
    place.leave();
    place.handle(Input::Unknown);
    assert_eq!(place.next(), Action::Leave { fence: false });
}

#[test]
fn from_leave_on_nothing_lets_it_in() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.leave();
    place.handle(deleted("q/2-a", 11));
    place.handle(looked(12, &[]));
    assert_eq!((place.held(), place.next()), (None, Action::Leave { fence: false }));
}

/// The key blocks others: it goes at once, and the straggler is voided when etcd lets us.
#[test]
fn a_refused_fence_deletes_plainly_and_fences_later() {
    let mut place = unsure(&[]);
    place.leave();
    place.handle(Input::Refused);
    assert_eq!(place.next(), Action::Leave { fence: false });
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Leave { fence: true });
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Stop(End::Left));
}

#[test]
fn an_unsure_waiter_whose_key_vanished_fences_before_it_enters_again() {
    let mut place = unsure(&[elder("q/2-a", 5)]);
    place.handle(deleted(OWN, 11));
    assert_eq!((place.next(), place.end()), (Action::Leave { fence: true }, None));
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Seat);
}

#[test]
fn an_unsure_holder_whose_key_vanished_fences_before_it_ends() {
    let mut place = unsure(&[]);
    place.handle(deleted(OWN, 11));
    assert_eq!((place.held(), place.next()), (None, Action::Leave { fence: true }));
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Stop(End::KeyGone));
}

/// It was to enter again, and then its caller went away.
#[test]
fn a_place_that_leaves_while_it_fences_does_not_enter_again() {
    let mut place = unsure(&[elder("q/2-a", 5)]);
    place.handle(deleted(OWN, 11));
    place.leave();
    place.handle(Input::Left);
    assert_eq!(place.next(), Action::Stop(End::Left));
}

#[test]
fn leaving_again_changes_nothing() {
    let mut place = unsure(&[]);
    place.leave();
    place.handle(Input::Refused);
    place.leave();
    assert_eq!(place.next(), Action::Leave { fence: false }, "the plain delete comes first");
}

/// The key went with its lease, and so did every straggler.
#[test]
fn a_lost_lease_ends_a_leave() {
    let mut place = unsure(&[]);
    place.leave();
    place.handle(Input::LeaseLost);
    assert_eq!(place.next(), Action::Stop(End::Left));
    place.handle(Input::LeaseLost);
    assert_eq!(place.next(), Action::Stop(End::Left), "and ends it once");
}

#[test]
fn a_lost_lease_ends_the_fencing_before_the_next_enter() {
    let mut place = unsure(&[elder("q/2-a", 5)]);
    place.handle(deleted(OWN, 11));
    place.handle(Input::LeaseLost);
    assert_eq!(place.next(), Action::Seat);
}

/// A delete that arrives late would take the next place's key (etcd #22082).
#[test]
fn a_key_is_clean_once_every_write_of_it_was_answered() {
    let mut place = holding(Rule::MUTEX);
    place.leave();
    assert!(!place.is_clean(), "the key stands");
    place.handle(Input::Left);
    assert!(place.is_clean());

    let mut place = holding(Rule::MUTEX);
    place.leave();
    place.handle(Input::Unknown);
    place.handle(Input::Left);
    assert_eq!((place.next(), place.is_clean()), (Action::Stop(End::Left), false));
}

/// Whoever deleted it may do so again.
#[test]
fn a_key_that_somebody_else_deleted_is_not_clean() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(deleted(OWN, 11));
    assert_eq!((place.next(), place.is_clean()), (Action::Seat, false));
}
