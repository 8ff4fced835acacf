//! From guard to waiter in the memory of one process, the delete following behind.

use super::*;

/// A neighbour's key, on the same lease.
fn neighbour(text: &str, created: Revision) -> Elder {
    Elder { lease: OURS, ..elder(text, created) }
}

/// The neighbour with this key hands its guard over.
fn handed(text: &str, created: Revision, exclusive: bool) -> Input {
    Input::Handed { key: key(text), created, lease: OURS, exclusive }
}

/// A place that has looked, and whose neighbour is the newest of several elders.
fn behind_several(rule: Rule, newest: Elder) -> Place {
    let mut place = entered_behind(rule, &[]);
    if place.held().is_some() {
        place = entering(rule);
        place.handle(Input::Entered { created: CREATED, listing: cut(CREATED, &[]) });
    }
    place.handle(Input::Looked { own: Some(CREATED), listing: cut(CREATED, &[newest]) });
    cover(&mut place, CREATED);
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
    place
}

#[test]
fn a_guard_of_the_same_lease_is_taken_over() {
    let mut place = waiting_behind(Rule::MUTEX, &[neighbour("q/1-a", 5)]);
    place.handle(handed("q/1-a", 5, true));
    assert_eq!((place.held(), place.next()), (Some(CREATED), Action::Wait));
}

/// The deadline that is known is that of the own lease.
#[test]
fn a_guard_of_another_lease_is_not_taken_over() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Handed { key: key("q/2-a"), created: 5, lease: THEIRS, exclusive: true });
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
}

#[test]
fn an_exclusive_holder_proves_that_all_older_are_gone() {
    let mut place = behind_several(Rule::MUTEX, neighbour("q/1-a", 5));
    place.handle(handed("q/1-a", 5, true));
    assert_eq!(place.held(), Some(CREATED));
}

/// Whether or not it was heard that they are.
#[test]
fn an_exclusive_holder_proves_that_the_older_in_view_are_gone() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 4), neighbour("q/1-a", 5)]);
    place.handle(handed("q/1-a", 5, true));
    assert_eq!(place.held(), Some(CREATED));
}

/// Readers hold beside readers, and permits beside permits.
#[test]
fn a_shared_holder_proves_nothing_but_itself() {
    let mut place = behind_several(Rule::MUTEX, neighbour("q/1-a", 5));
    place.handle(handed("q/1-a", 5, false));
    assert!(place.held().is_none() && is_look(&place));
}

/// The own watch did not stand when the other went: the own key may have gone before.
#[test]
fn a_hand_over_does_not_stand_in_for_the_look_that_a_deletion_asked_for() {
    let light = Elder { weight: Some(1), ..elder("q/2-a", 6) };
    let mut place = entered_behind(Rule::semaphore(2, 1), &[neighbour("q/1-a", 5), light]);
    place.handle(Input::Covered { key: key("q/2-a"), from: CREATED });
    place.handle(deleted("q/2-a", 11));
    place.handle(handed("q/1-a", 5, false));
    assert!(place.held().is_none() && is_look(&place));
}

/// Another elder is listed that is younger than the giver.
#[test]
fn the_others_that_are_known_still_count() {
    let light = Elder { weight: Some(2), ..elder("q/2-a", 6) };
    let mut place = waiting_behind(Rule::semaphore(2, 1), &[neighbour("q/1-a", 5), light]);
    place.handle(handed("q/1-a", 5, true));
    assert_eq!(place.held(), None);
    assert_eq!(watched(&place), [OWN, "q/2-a"]);
}

#[test]
fn a_guard_that_is_no_elder_is_nothing() {
    let mut place = waiting_behind(Rule::MUTEX, &[neighbour("q/1-a", 5)]);
    place.handle(handed("q/1-z", 5, true));
    place.handle(handed("q/1-a", 4, true));
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
}

/// The leader that others read is the oldest key.
#[test]
fn an_office_is_never_handed_over() {
    let mut place = waiting_behind(Rule::ELECTION, &[neighbour("q/1-a", 5)]);
    place.handle(handed("q/1-a", 5, true));
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
}

/// The giver's key still stands when the reply is made.
#[test]
fn a_late_look_that_lists_the_giver_does_not_demote() {
    let mut place = waiting_behind(Rule::MUTEX, &[neighbour("q/1-a", 5)]);
    place.handle(handed("q/1-a", 5, true));
    place.handle(looked(12, &[neighbour("q/1-a", 5)]));
    assert_eq!((place.held(), place.next()), (Some(CREATED), Action::Wait));
}

/// It is known to be gone, whatever the reply says, and takes up some of the limit.
#[test]
fn a_late_look_that_lists_the_giver_does_not_block() {
    let mut place = behind_several(Rule::MUTEX, neighbour("q/1-a", 5));
    place.handle(handed("q/1-a", 5, false));
    assert_eq!(place.next(), Action::Look { limit: Some(4) });
    place.handle(looked(12, &[neighbour("q/1-a", 5)]));
    assert_eq!(place.held(), Some(CREATED));
}

#[test]
fn a_late_look_without_the_own_key_ends_a_hold_that_was_handed_over() {
    let mut place = waiting_behind(Rule::MUTEX, &[neighbour("q/1-a", 5)]);
    place.handle(handed("q/1-a", 5, true));
    place.handle(Input::Looked { own: None, listing: listing(12, &[]) });
    assert_eq!(place.held(), None);
}
