//! Steps of an observer, one at a time.

use super::*;
use crate::token::FencingToken;

fn candidate(token: i64, value: &str) -> (Key, Leader) {
    let key = format!("e/{token}");
    let value = value.as_bytes().into();
    let leader = Leader { value, key: key.as_str().into(), token: FencingToken(token), lease: 1 };
    (Key::from(key.into_bytes()), leader)
}

fn everyone(revision: i64, candidates: &[(i64, &str)]) -> Event {
    let candidates = candidates.iter().map(|(token, value)| candidate(*token, value)).collect();
    Event { revision, what: What::Everyone(candidates) }
}

fn put(revision: i64, token: i64, value: &str) -> Event {
    let (key, leader) = candidate(token, value);
    Event { revision, what: What::Changed(vec![(key, Some(leader))]) }
}

fn gone(revision: i64, tokens: &[i64]) -> Event {
    let changes = tokens.iter().map(|token| (candidate(*token, "").0, None)).collect();
    Event { revision, what: What::Changed(changes) }
}

fn leads(token: i64, value: &str) -> Option<Observation> {
    Some(Observation::Leader(candidate(token, value).1))
}

/// What is observed over these events.
fn observe(events: impl IntoIterator<Item = Event>) -> Vec<Option<Observation>> {
    let mut state = State::default();
    let mut observe = |event| {
        let (observation, next) = step(std::mem::take(&mut state), event);
        state = next;
        observation
    };
    events.into_iter().map(&mut observe).collect()
}

#[test]
fn the_present_comes_first_be_it_a_vacancy() {
    assert_eq!(observe([everyone(5, &[])]), [Some(Observation::Vacant)]);
    assert_eq!(observe([everyone(5, &[(4, "b"), (3, "a")])]), [leads(3, "a")]);
}

#[test]
fn a_vacancy_between_two_leaders_is_seen() {
    let events = [everyone(5, &[(5, "a")]), gone(6, &[5]), put(7, 7, "b")];
    assert_eq!(observe(events), [leads(5, "a"), Some(Observation::Vacant), leads(7, "b")]);
}

#[test]
fn the_next_candidate_leads_in_the_revision_in_which_the_leader_goes() {
    let events = [everyone(6, &[(5, "a"), (6, "b")]), gone(7, &[5])];
    assert_eq!(observe(events), [leads(5, "a"), leads(6, "b")]);
}

#[test]
fn candidates_who_come_or_go_behind_the_leader_are_no_news() {
    let events = [everyone(5, &[(5, "a")]), put(6, 6, "b"), gone(7, &[6])];
    assert_eq!(observe(events), [leads(5, "a"), None, None]);
}

#[test]
fn a_proclamation_is_news_of_the_same_leader() {
    assert_eq!(observe([everyone(5, &[(5, "a")]), put(6, 5, "b")]), [leads(5, "a"), leads(5, "b")]);
}

/// A revoked lease takes all of its keys in one revision: the second never led.
#[test]
fn candidates_who_go_together_do_not_lead_one_after_the_other() {
    let events = [everyone(7, &[(5, "a"), (6, "b"), (7, "c")]), gone(8, &[5, 6])];
    assert_eq!(observe(events), [leads(5, "a"), leads(7, "c")]);
}

/// A watch made before the look reports what the look has shown already.
#[test]
fn what_a_look_has_shown_is_not_told_again_and_never_goes_back() {
    let events = [everyone(9, &[(8, "b")]), put(5, 5, "a"), gone(6, &[5]), put(8, 8, "b")];
    assert_eq!(observe(events), [leads(8, "b"), None, None, None]);
}

#[test]
fn a_look_after_a_compaction_skips_to_the_present() {
    let events = [everyone(5, &[(5, "a")]), everyone(90, &[(80, "z")])];
    assert_eq!(observe(events), [leads(5, "a"), leads(80, "z")]);
}

#[test]
fn a_watch_goes_on_with_the_revision_after_the_last() {
    assert_eq!(State::default().resume(), None);
    let (_, state) = step(State::default(), everyone(5, &[]));
    assert_eq!(state.resume(), Some(6));
}

/// What a consumer of the stream gets to hear, and what it does not.
#[test]
fn only_what_waiting_cannot_mend_ends_an_observer() {
    let denied = "etcdserver: permission denied";
    assert!(matches!(Break::cancelled(denied, 0), Break::Failed(Error::Etcd { code: code::PERMISSION_DENIED, .. })));
    assert!(matches!(Break::cancelled("etcdserver: mvcc: required revision has been compacted", 7), Break::Compacted));
    assert!(matches!(Break::cancelled("etcdserver: no leader", 0), Break::Broken(_)));
    assert!(matches!(Break::from(Some(etcd_client::Error::InvalidArgs("no".into()))), Break::Failed(_)));
    assert!(matches!(Break::from(Some(etcd_client::Error::WatchError("gone".into()))), Break::Broken(_)));
    assert!(matches!(Break::from(None), Break::Broken(_)));
}
