//! In the queue: what counts as a fact, and what only asks for a look.

use super::*;
use crate::queue::place::End;

#[test]
fn the_deletion_of_the_only_elder_is_the_turn() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(deleted("q/2-a", 11));
    assert_eq!((place.held(), place.next()), (Some(CREATED), Action::Wait), "without a request");
}

#[test]
fn behind_a_list_that_was_cut_short_a_deletion_asks_for_a_look() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Looked { own: Some(CREATED), listing: cut(11, &[elder("q/2-a", 5)]) });
    place.handle(deleted("q/2-a", 12));
    assert!(place.held().is_none() && is_look(&place));
}

/// Somebody older may be beyond the window, though those within it leave room.
#[test]
fn a_deletion_does_not_complete_a_list() {
    let mut place = waiting_behind(Rule::semaphore(2, 1), &[elder("q/2-a", 5)]);
    let weighing = |text, created| Elder { weight: Some(1), ..elder(text, created) };
    place.handle(Input::Looked { own: Some(CREATED), listing: cut(11, &[weighing("q/3-a", 7), weighing("q/2-a", 5)]) });
    cover(&mut place, 11);
    place.handle(deleted("q/3-a", 12));
    assert!(place.held().is_none() && is_look(&place));
}

/// Two elders came back where one permit asks for one: there is one more beyond the window.
#[test]
fn an_elder_beyond_the_window_makes_the_list_incomplete() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(looked(11, &[elder("q/3-a", 7), elder("q/4-a", 6), elder("q/2-a", 5)]));
    cover(&mut place, 11);
    place.handle(deleted("q/3-a", 12));
    assert!(place.held().is_none() && is_look(&place));
}

/// The look that shows the last elder to be the last is made while that still holds.
#[test]
fn when_the_last_but_one_goes_a_look_spares_the_hand_off_its_own() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(looked(11, &[elder("q/3-a", 7), elder("q/4-a", 6), elder("q/2-a", 5)]));
    cover(&mut place, 11);
    place.handle(deleted("q/4-a", 12));
    assert!(is_look(&place));
    place.handle(looked(12, &[elder("q/3-a", 7)]));
    assert_eq!(place.next(), Action::Wait);
    place.handle(deleted("q/3-a", 13));
    assert_eq!(place.held(), Some(CREATED));
}

/// A deletion of the own key could have been missed before its watch stood.
#[test]
fn a_deletion_before_the_own_watch_stands_asks_for_a_look() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Covered { key: key("q/2-a"), from: CREATED });
    place.handle(deleted("q/2-a", 11));
    assert!(place.held().is_none() && is_look(&place));
}

/// The same between the reply that showed the own key and its watch.
#[test]
fn a_deletion_asks_for_a_look_if_the_own_watch_came_late() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Covered { key: key("q/2-a"), from: CREATED });
    place.handle(Input::Covered { key: key(OWN), from: 12 });
    place.handle(deleted("q/2-a", 13));
    assert!(place.held().is_none() && is_look(&place));
}

/// Both keys may have gone with their lease, and events of different watches have no order.
#[test]
fn the_deletion_of_an_elder_on_the_own_lease_asks_for_a_look() {
    let ours = Elder { lease: OURS, ..elder("q/1-a", 5) };
    let mut place = waiting_behind(Rule::MUTEX, &[ours]);
    place.handle(deleted("q/1-a", 11));
    assert!(place.held().is_none() && is_look(&place));
    place.handle(looked(11, &[]));
    assert_eq!(place.held(), Some(CREATED));
}

/// A revoke took both keys. A reply from before it shows the own key and the elder, and striking out the elder must
/// not make a turn of it.
#[test]
fn a_late_look_does_not_stand_in_for_the_look_that_a_deletion_asked_for() {
    let ours = Elder { lease: OURS, ..elder("q/1-a", 5) };
    let mut place = waiting_behind(Rule::MUTEX, std::slice::from_ref(&ours));
    place.handle(deleted("q/1-a", 12));
    place.handle(looked(11, &[ours]));
    assert!(place.held().is_none() && is_look(&place));
}

/// The same, where the own watch did not stand when the elder went.
#[test]
fn a_late_look_does_not_stand_in_for_the_own_watch() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Covered { key: key("q/2-a"), from: CREATED });
    place.handle(deleted("q/2-a", 12));
    place.handle(looked(11, &[elder("q/2-a", 5)]));
    assert!(place.held().is_none() && is_look(&place));
}

/// Go uses a key again: this event belongs to its earlier life.
#[test]
fn a_deletion_that_is_older_than_the_listed_key_is_ignored() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/a0", 5)]);
    place.handle(deleted("q/a0", 4));
    place.handle(deleted("q/a0", 5));
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
    assert_eq!(watched(&place), [OWN, "q/a0"]);
}

/// The lookahead of an older reply must not bring an elder back that is known to be gone.
#[test]
fn a_late_look_does_not_bring_back_an_elder() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Looked { own: Some(CREATED), listing: cut(11, &[elder("q/3-a", 7)]) });
    cover(&mut place, 11);
    place.handle(deleted("q/3-a", 12));
    place.handle(looked(11, &[elder("q/3-a", 7), elder("q/2-a", 5)]));
    assert_eq!((place.held(), watched(&place)), (None, vec![OWN, "q/2-a"]));
    assert_eq!(place.next(), Action::Wait, "that reply was older, and shows who else was there all the same");
    cover(&mut place, 12);
    assert!(is_look(&place), "the other may have gone before its watch stood");
}

/// The look that the deletion of the last but one asked for is on its way when the last one goes: nobody else stood then.
#[test]
fn a_look_on_its_way_shows_that_the_last_elder_was_the_last() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Looked { own: Some(CREATED), listing: cut(11, &[elder("q/4-a", 8), elder("q/3-a", 7)]) });
    cover(&mut place, 11);
    place.handle(deleted("q/3-a", 12));
    assert!(is_look(&place));
    place.handle(deleted("q/4-a", 13));
    assert!(place.held().is_none(), "nobody has said that there were but two");
    place.handle(looked(12, &[elder("q/4-a", 8)]));
    assert_eq!(place.held(), Some(CREATED));
}

#[test]
fn a_watch_that_stands_since_the_enter_needs_no_look() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    cover(&mut place, CREATED);
    assert_eq!(place.next(), Action::Wait);
}

/// Between the list and the watch a deletion may have been missed.
#[test]
fn a_watch_that_stands_later_needs_one_look_once_all_do() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Covered { key: key("q/2-a"), from: 12 });
    assert_eq!(place.next(), Action::Wait, "the own watch is still to come");
    place.handle(Input::Covered { key: key(OWN), from: 13 });
    assert_eq!(place.next(), Action::Look { limit: Some(3) });
    place.handle(looked(13, &[elder("q/2-a", 5)]));
    assert_eq!(place.next(), Action::Wait);
}

/// A reply from before the last watch stood is not the look that was needed.
#[test]
fn a_look_older_than_the_watches_is_repeated() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    cover(&mut place, 13);
    place.handle(looked(12, &[elder("q/2-a", 5)]));
    assert!(is_look(&place));
}

#[test]
fn broken_watches_ask_for_one_look_once_they_stand_again() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Broken);
    assert_eq!(place.next(), Action::Wait);
    cover(&mut place, 12);
    assert!(is_look(&place));
    place.handle(looked(12, &[elder("q/2-a", 5)]));
    assert_eq!(place.next(), Action::Wait);
}

/// The elder's watch stands again before the own one does: the own key may have gone in between.
#[test]
fn a_deletion_while_the_own_watch_is_broken_asks_for_a_look() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Broken);
    place.handle(Input::Covered { key: key("q/2-a"), from: CREATED });
    place.handle(deleted("q/2-a", 12));
    assert!(place.held().is_none() && is_look(&place));
}

/// Nothing was deleted in between, so nothing was missed.
#[test]
fn broken_watches_that_stand_again_at_the_same_revision_need_no_look() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Broken);
    cover(&mut place, CREATED);
    assert_eq!(place.next(), Action::Wait);
}

#[test]
fn broken_watches_do_not_end_a_hold() {
    let mut place = holding(Rule::MUTEX);
    cover(&mut place, CREATED);
    place.handle(Input::Broken);
    cover(&mut place, 12);
    assert_eq!(place.held(), Some(CREATED));
    assert!(is_look(&place), "its key may have been deleted unseen");
    place.handle(Input::Looked { own: None, listing: listing(12, &[]) });
    assert_eq!(place.next(), Action::Stop(End::KeyGone));
}

/// A key that somebody put again is not the key that was granted.
#[test]
fn an_own_key_of_another_revision_is_not_the_own_key() {
    let mut place = holding(Rule::MUTEX);
    cover(&mut place, 12);
    place.handle(Input::Looked { own: Some(11), listing: listing(12, &[]) });
    assert_eq!(place.next(), Action::Stop(End::KeyGone));
}

#[test]
fn nested_keys_that_fill_the_window_are_read_past() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    cover(&mut place, 12);
    let only_nested = Listing { revision: 12, more: true, nested: true, ..Listing::default() };
    place.handle(Input::Looked { own: Some(CREATED), listing: only_nested });
    assert_eq!((place.held(), place.next()), (None, Action::Look { limit: None }));
    place.handle(looked(13, &[elder("q/2-a", 5)]));
    assert_eq!((place.held(), place.next()), (None, Action::Wait));
}

#[test]
fn nested_keys_in_a_whole_list_are_no_reason_to_look_again() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::Looked {
        own: Some(CREATED),
        listing: Listing { nested: true, ..listing(12, &[elder("q/2-a", 5)]) },
    });
    assert_eq!(place.next(), Action::Wait);
}

/// The limit of a look allows for whoever a late reply may still list, and for nobody else.
#[test]
fn who_is_gone_from_the_list_too_is_forgotten() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    cover(&mut place, CREATED);
    for (text, next, at) in [("q/2-a", "q/3-a", 11), ("q/3-a", "q/4-a", 13)] {
        place.handle(Input::Looked { own: Some(CREATED), listing: cut(at - 1, &[elder(text, 5)]) });
        place.handle(deleted(text, at));
        assert_eq!(place.next(), Action::Look { limit: Some(4) });
        place.handle(Input::Looked { own: Some(CREATED), listing: cut(at, &[elder(next, 5)]) });
        cover(&mut place, CREATED);
        assert_eq!(place.next(), Action::Wait);
    }
}

/// Of a semaphore's elders whichever goes makes room.
#[test]
fn a_permit_is_free_when_any_elder_goes() {
    let light = |text, created| Elder { weight: Some(1), ..elder(text, created) };
    let mut place = waiting_behind(Rule::semaphore(2, 1), &[light("q/2-a", 5), light("q/3-a", 6)]);
    place.handle(deleted("q/3-a", 11));
    assert_eq!(place.held(), Some(CREATED));
}

#[test]
fn the_newest_elders_are_the_ones_to_watch_whatever_their_order() {
    let mut place = entered_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(looked(11, &[elder("q/2-a", 5), elder("q/3-a", 7), elder("q/4-a", 6)]));
    assert_eq!(watched(&place), [OWN, "q/3-a", "q/4-a"]);
}

/// A lease can expire while its owner waits. The predecessor leaving must not let the owner in (etcd #16221), and
/// the owner need not wait for that to notice (etcd #19597).
#[test]
fn a_waiter_whose_key_vanished_does_not_hold() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(deleted(OWN, 11));
    place.handle(deleted("q/2-a", 12));
    assert_eq!((place.held(), place.next()), (None, Action::Seat), "at the back, under a new key");
}

#[test]
fn an_event_of_an_earlier_life_of_the_own_key_is_ignored() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(deleted(OWN, CREATED));
    assert_eq!(place.next(), Action::Wait);
}

#[test]
fn a_holder_hears_that_its_key_is_gone() {
    let mut place = holding(Rule::MUTEX);
    place.handle(deleted(OWN, 11));
    assert_eq!((place.held(), place.next()), (None, Action::Stop(End::KeyGone)));
}

#[test]
fn a_lost_lease_sends_a_waiter_to_the_back_and_ends_a_hold() {
    let mut place = waiting_behind(Rule::MUTEX, &[elder("q/2-a", 5)]);
    place.handle(Input::LeaseLost);
    assert_eq!(place.next(), Action::Seat);
    let mut place = holding(Rule::MUTEX);
    place.handle(Input::LeaseLost);
    assert_eq!((place.held(), place.next()), (None, Action::Stop(End::LeaseLost)));
}
