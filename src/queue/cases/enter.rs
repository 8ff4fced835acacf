//! Into the queue.

use super::*;

/// One request and one commit, like a bare put.
#[test]
fn an_uncontended_enter_holds() {
    let mut place = entering(Rule::MUTEX);
    assert_eq!(place.next(), Action::Enter);
    place.handle(Input::Entered { created: 10, listing: listing(10, &[]) });
    assert_eq!((place.held(), place.next()), (Some(10), Action::Wait));
    assert_eq!(place.key(), &key(OWN));
}

/// Two are in view, and what is known of older ones grows old: a look is due before the older of the two is the last.
#[test]
fn an_enter_behind_many_keeps_the_newest_two_in_view() {
    let ahead = [elder("q/1-a", 7), elder("q/2-a", 5), elder("q/3-a", 6)];
    let mut place = entered_behind(Rule::MUTEX, &ahead);
    assert_eq!(watched(&place), [OWN, "q/1-a", "q/3-a"]);
    place.handle(deleted("q/3-a", 11));
    assert!(matches!(place.next(), Action::Look { .. }), "{:?}", place.next());
}

#[test]
fn an_enter_behind_an_elder_waits_and_watches_both_keys() {
    let place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
    assert_eq!(watched(&place), [OWN, "q/2-a"]);
    assert_eq!((place.created(), place.is_behind()), (Some(CREATED), true));
}

/// Until it has looked nobody can say whether others are ahead.
#[test]
fn a_place_that_has_to_look_is_behind_nobody_yet() {
    let mut place = entering(Rule::MUTEX);
    assert_eq!((place.created(), place.is_behind()), (None, false));
    place.handle(Input::Entered { created: 10, listing: cut(10, &[elder("q/2-a", 5)]) });
    assert_eq!((place.created(), place.is_behind()), (Some(10), false));
    assert!(!holding(Rule::MUTEX).is_behind());
}

/// The first keys in key order need not be the newest.
#[test]
fn a_truncated_enter_proves_nothing_but_the_own_key() {
    let mut place = entering(Rule::MUTEX);
    place.handle(Input::Entered { created: 10, listing: cut(10, &[elder("q/2-a", 5)]) });
    assert_eq!((place.held(), place.next()), (None, Action::Look { limit: Some(3) }));
    assert_eq!(watched(&place), [OWN]);
    place.handle(looked(11, &[elder("q/3-a", 9), elder("q/2-a", 5)]));
    assert_eq!(watched(&place), [OWN, "q/3-a", "q/2-a"]);
}

/// Younger keys alone can cut the list: even then it does not hold before it has looked.
#[test]
fn a_truncated_enter_without_elders_looks() {
    let mut place = entering(Rule::MUTEX);
    place.handle(Input::Entered { created: 10, listing: cut(12, &[elder("q/2-a", 11)]) });
    assert!(place.held().is_none() && is_look(&place));
    place.handle(looked(13, &[]));
    assert_eq!(place.held(), Some(10));
}

/// Go's `Lock` leaves such a key behind.
#[test]
fn an_enter_whose_reply_was_lost_is_found_by_the_next() {
    let mut place = entering(Rule::MUTEX);
    place.handle(Input::Unknown);
    assert_eq!(place.next(), Action::Enter);
    place.handle(Input::Entered { created: 10, listing: listing(14, &[elder("q/2-a", 5)]) });
    place.handle(looked(15, &[]));
    assert_eq!(place.held(), Some(10), "the token is that of the first enter");
}

#[test]
fn a_fenced_enter_is_sent_again() {
    let mut place = entering(Rule::MUTEX);
    place.handle(Input::Fenced);
    assert_eq!(place.next(), Action::Enter);
}

#[test]
fn an_enter_under_a_lost_lease_is_begun_anew_under_the_next() {
    let mut place = entering(Rule::MUTEX);
    place.handle(Input::Unknown);
    place.handle(Input::LeaseLost);
    assert_eq!(place.next(), Action::Seat);
    place.seat(key("q/3-c"), 3);
    place.leave();
    assert_eq!(place.next(), Action::Stop(super::super::place::End::Left), "nothing can arrive under a dead lease");
}

#[test]
fn readers_hold_beside_readers_and_wait_for_a_writer() {
    assert_eq!(holding(Rule::READ).held(), Some(CREATED), "other readers are outside its range");
    let mut place = waiting_behind(Rule::READ, &[elder("q/2-a", 5)]);
    place.handle(deleted("q/2-a", 11));
    assert_eq!(place.held(), Some(CREATED));
}

fn weighing(text: &str, created: Revision, weight: u32) -> Elder {
    Elder { weight: Some(weight), ..elder(text, created) }
}

#[test]
fn weights_hold_side_by_side_while_they_fit() {
    let ahead = [weighing("q/2-a", 5, 2)];
    assert_eq!(entered_behind(Rule::semaphore(4, 2), &ahead).held(), Some(CREATED));
    assert_eq!(entered_behind(Rule::semaphore(4, 3), &ahead).held(), None);
}

/// One of weight 1 would fit beside the holder, but the big request was there first.
#[test]
fn a_big_request_is_not_starved_by_small_ones_behind_it() {
    let ahead = [weighing("q/2-a", 5, 2), weighing("q/3-a", 6, 4)];
    let place = entered_behind(Rule::semaphore(4, 1), &ahead);
    assert_eq!(place.held(), None);
    assert_eq!(watched(&place), [OWN, "q/3-a", "q/2-a"], "whoever of them goes may make room");
}

#[test]
fn a_key_without_a_weight_fills_the_semaphore() {
    assert_eq!(entered_behind(Rule::semaphore(4, 1), &[elder("q/a0", 5)]).held(), None);
}
