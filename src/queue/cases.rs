//! One transition of a place each, with the reason for it. The simulator finds what nobody thought of; these say
//! what was thought of.

mod enter;
mod glance;
mod hand_over;
mod leave;
mod trying;
mod wait;

use super::place::{Action, Elder, Input, Listing, Patience, Place, Revision};
use super::rule::Rule;
use crate::name::Key;

/// The lease of the place under test.
const OURS: i64 = 1;
/// The lease of another session.
const THEIRS: i64 = 2;
/// The key of the place under test.
const OWN: &str = "q/1-b";
/// The revision that creates it.
const CREATED: Revision = 10;

fn key(text: &str) -> Key {
    text.as_bytes().into()
}

/// Somebody else's key, of another session.
fn elder(text: &str, created: Revision) -> Elder {
    Elder { key: key(text), created, lease: THEIRS, weight: None }
}

/// A complete list.
fn listing(revision: Revision, elders: &[Elder]) -> Listing {
    Listing { revision, elders: elders.to_vec(), ..Listing::default() }
}

/// A list that the limit cut short.
fn cut(revision: Revision, elders: &[Elder]) -> Listing {
    Listing { more: true, ..listing(revision, elders) }
}

/// A place that has its key and has asked for nothing yet.
fn seated(rule: Rule, patience: Patience) -> Place {
    let mut place = Place::new(rule, patience);
    place.seat(key(OWN), OURS);
    place
}

fn entering(rule: Rule) -> Place {
    seated(rule, Patience::Wait)
}

/// A place whose enter found these, before any watch stands.
fn entered_behind(rule: Rule, elders: &[Elder]) -> Place {
    let mut place = entering(rule);
    place.handle(Input::Entered { created: CREATED, listing: listing(CREATED, elders) });
    place
}

/// A place that waits behind these, and all its watches stand since its enter.
fn waiting_behind(rule: Rule, elders: &[Elder]) -> Place {
    let mut place = entered_behind(rule, elders);
    cover(&mut place, CREATED);
    assert_eq!((place.next(), place.held()), (Action::Wait, None));
    place
}

fn holding(rule: Rule) -> Place {
    let place = entered_behind(rule, &[]);
    assert_eq!(place.held(), Some(CREATED));
    place
}

/// All its watches stand, and report what happens after `from`.
fn cover(place: &mut Place, from: Revision) {
    let keys: Vec<Key> = place.watching().cloned().collect();
    for key in keys {
        place.handle(Input::Covered { key, from });
    }
}

fn deleted(text: &str, at: Revision) -> Input {
    Input::Deleted { key: key(text), at }
}

/// A look that found the own key and these.
fn looked(revision: Revision, elders: &[Elder]) -> Input {
    Input::Looked { own: Some(CREATED), listing: listing(revision, elders) }
}

fn watched(place: &Place) -> Vec<&str> {
    place.watching().map(|key| std::str::from_utf8(key).unwrap()).collect()
}

fn is_look(place: &Place) -> bool {
    matches!(place.next(), Action::Look { .. })
}
