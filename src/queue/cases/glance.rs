//! Looks by the keys alone, where many queue up.

use super::*;

/// A list in which many stand, so that the next look is a glance.
fn deep(elders: &[Elder]) -> Place {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    cover(&mut place, CREATED);
    place.handle(Input::Looked { own: Some(CREATED), listing: Listing { deep: true, ..cut(CREATED, elders) } });
    cover(&mut place, CREATED);
    assert_eq!(place.next(), Action::Wait);
    place
}

fn glanced(revision: Revision, elders: &[Elder], mark: Option<Revision>) -> Input {
    Input::Glanced { own: Some(CREATED), revision, elders: elders.to_vec(), mark }
}

/// Whoever is between the two would have been in view.
#[test]
fn the_mark_of_an_elder_that_went_shows_that_the_other_is_the_last() {
    let mut place = deep(&[elder("q/3-a", 7), elder("q/4-a", 6)]);
    place.handle(deleted("q/4-a", 12));
    assert_eq!(place.next(), Action::Glance);
    assert_eq!(place.view(), [key("q/3-a")]);
    place.handle(glanced(12, &[elder("q/3-a", 7)], Some(6)));
    assert_eq!(place.next(), Action::Wait);
    place.handle(deleted("q/3-a", 13));
    assert_eq!(place.held(), Some(CREATED));
}

#[test]
fn a_mark_of_somebody_else_asks_for_a_look() {
    let mut place = deep(&[elder("q/3-a", 7), elder("q/4-a", 6)]);
    place.handle(deleted("q/4-a", 12));
    place.handle(glanced(12, &[elder("q/3-a", 7)], Some(5)));
    assert!(is_look(&place));
}

#[test]
fn a_glance_that_is_refused_asks_for_a_look() {
    let mut place = deep(&[elder("q/3-a", 7), elder("q/4-a", 6)]);
    place.handle(deleted("q/4-a", 12));
    place.handle(Input::Refused);
    assert!(is_look(&place));
}

#[test]
fn a_glance_without_the_own_key_takes_a_new_place() {
    let mut place = deep(&[elder("q/3-a", 7), elder("q/4-a", 6)]);
    place.handle(deleted("q/4-a", 12));
    place.handle(Input::Glanced { own: None, revision: 12, elders: vec![elder("q/3-a", 7)], mark: Some(6) });
    assert_eq!((place.held(), place.next()), (None, Action::Seat));
}

/// Those in view are the newest: while they stand nothing has changed for this place.
#[test]
fn a_glance_that_finds_all_in_view_is_enough() {
    let mut place = deep(&[elder("q/3-a", 7), elder("q/4-a", 6)]);
    place.handle(Input::Broken);
    cover(&mut place, 14);
    assert_eq!(place.next(), Action::Glance);
    place.handle(glanced(14, &[elder("q/3-a", 7), elder("q/4-a", 6)], None));
    assert_eq!(place.next(), Action::Wait);
    place.handle(deleted("q/3-a", 15));
    assert!(place.held().is_none(), "the other stands");
}

/// Only a hold says anything of those before it.
#[test]
fn a_waiter_that_leaves_sets_no_mark() {
    let mut place = deep(&[elder("q/3-a", 7), elder("q/4-a", 6)]);
    place.leave();
    assert_eq!((place.next(), place.mark()), (Action::Leave { fence: false }, None));
}

#[test]
fn a_hold_of_a_deep_queue_sets_its_mark_unless_that_is_refused() {
    let mut place = deep(&[elder("q/3-a", 7)]);
    place.handle(deleted("q/3-a", 12));
    place.handle(glanced(12, &[], Some(7)));
    assert_eq!(place.held(), Some(CREATED));
    place.leave();
    assert_eq!(place.mark(), Some(CREATED));
    place.handle(Input::Refused);
    assert_eq!((place.next(), place.mark()), (Action::Leave { fence: false }, None));
}

/// The key of the giver still stands, and an office goes to the oldest key alone.
#[test]
fn a_hold_that_was_handed_over_sets_no_mark() {
    let giver = Elder { lease: OURS, ..elder("q/1-a", 7) };
    let mut place = deep(&[giver]);
    place.handle(Input::Handed { key: key("q/1-a"), created: 7, lease: OURS, exclusive: true });
    assert_eq!(place.held(), Some(CREATED));
    place.leave();
    assert_eq!((place.next(), place.mark()), (Action::Leave { fence: false }, None));
}
