//! Changes of keys, and what they make of the model: no etcd, no terminal.

use std::time::SystemTime;

use tenure::etcd_client::proto::{PbEvent, PbKeyValue};

use super::*;

fn model() -> Model {
    Model::new("", Instant::now())
}

/// A key of the lease that its last part names.
fn kv(key: &str, value: &str, created: i64, modified: i64) -> PbKeyValue {
    let lease = key.rsplit('/').next().unwrap_or_default().trim_start_matches("r-").split('-').next();
    PbKeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: created,
        mod_revision: modified,
        version: 1,
        lease: lease.and_then(|lease| i64::from_str_radix(lease, 16).ok()).unwrap_or(0),
    }
}

fn put(key: &str, value: &str, created: i64) -> Event {
    Event(PbEvent { r#type: 0, kv: Some(kv(key, value, created, created)), prev_kv: None })
}

fn gone(key: &str, revision: i64) -> Event {
    let kv = PbKeyValue { key: key.into(), mod_revision: revision, ..PbKeyValue::default() };
    Event(PbEvent { r#type: 1, kv: Some(kv), prev_kv: None })
}

fn says(identity: &str, kind: &str) -> String {
    format!(r#"{{"identity":"{identity}","kind":"{kind}","since":1700000000}}"#)
}

fn holders(model: &Model, name: &str) -> Vec<String> {
    let queue = &model.name(name).expect("it is known").queue;
    queue.holders().map(|place| model.sessions.identity(place).to_owned()).collect()
}

fn names(model: &Model) -> Vec<&str> {
    model.names().map(|name| &*name.queue.name).collect()
}

fn rate(model: &Model, name: &str) -> f64 {
    model.rate(model.name(name).expect("it is known").handoffs())
}

/// After the counting has become exact.
fn later(model: &Model) -> Instant {
    model.begun + WINDOW
}

#[test]
fn a_hand_off_moves_the_hold_to_the_next_and_is_counted() {
    let mut model = model();
    model.tick(later(&model));
    model.apply(&[put("jobs/a/1-0", &says("one", "mutex"), 5), put("jobs/a/2-0", &says("two", "mutex"), 6)]);
    assert_eq!(holders(&model, "jobs/a"), ["one"]);
    assert_eq!(model.name("jobs/a").unwrap().queue.waiting(), 1);
    model.apply(&[gone("jobs/a/1-0", 7)]);
    assert_eq!(holders(&model, "jobs/a"), ["two"]);
    assert_eq!(rate(&model, "jobs/a"), 2.0 / WINDOW.as_secs_f64());
    assert_eq!(model.revision, 7);
    let since = model.name("jobs/a").unwrap().queue.places()[0].waiter.since();
    assert_eq!(since, SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1_700_000_000)));
}

/// One who leaves from the middle of the queue hands nothing off.
#[test]
fn a_waiter_that_gives_up_is_no_hand_off() {
    let mut model = model();
    model.tick(later(&model));
    model.apply(&[put("a/1-0", "", 5), put("a/2-0", "", 6), gone("a/2-0", 7)]);
    assert_eq!((holders(&model, "a").len(), model.name("a").unwrap().queue.waiting()), (1, 0));
    assert_eq!(rate(&model, "a"), 1.0 / WINDOW.as_secs_f64());
}

/// A lease that ends takes all of its keys at one revision: those between do not hold for a moment.
#[test]
fn what_happens_at_one_revision_happens_at_once() {
    let mut model = model();
    model.tick(later(&model));
    model.apply(&[put("a/1-0", "", 5), put("a/1-1", "", 6), put("a/2-0", "", 7)]);
    model.apply(&[gone("a/1-0", 8), gone("a/1-1", 8)]);
    assert_eq!(rate(&model, "a"), 2.0 / WINDOW.as_secs_f64());
}

#[test]
fn readers_hold_together_and_permits_until_they_run_out() {
    let mut model = model();
    model.apply(&[
        put("config/r-1-0", &says("one", "read"), 5),
        put("config/r-2-0", &says("two", "read"), 6),
        put("config/3-0", &says("three", "write"), 7),
        put("config/r-4-0", &says("four", "read"), 8),
    ]);
    assert_eq!(holders(&model, "config"), ["one", "two"]);
    let permit = r#"{"identity":"x","kind":"semaphore","weight":1,"capacity":2}"#;
    model.apply(&[put("gpu/1-0", permit, 9), put("gpu/2-0", permit, 10), put("gpu/3-0", permit, 11)]);
    let queue = &model.name("gpu").unwrap().queue;
    assert_eq!((queue.holding(), queue.waiting(), queue.places()[0].wish()), (2, 1, "semaphore 1/2".to_owned()));
}

/// A candidate's key says what it proclaims; who it is says its session's.
#[test]
fn a_candidate_is_told_by_its_session_or_by_its_key() {
    let mut model = model();
    model.apply(&[put("office/1f-0", "10.0.0.7:80", 5)]);
    assert_eq!(holders(&model, "office"), ["1f-0"]);
    model.apply(&[put("~session/1f", r#"{"identity":"api-7"}"#, 4)]);
    assert_eq!(holders(&model, "office"), ["api-7"]);
    // What else lies there says nothing of it.
    model.apply(&[put("~session/revoke/office/1f-1", r#"{"identity":"ops"}"#, 6)]);
    model.apply(&[gone("~session/revoke/office/1f-1", 7)]);
    assert_eq!(holders(&model, "office"), ["api-7"]);
    assert_eq!(names(&model), ["office"]);
    // A proclamation is the same term.
    let proclaimed = kv("office/1f-0", "10.0.0.7:90", 5, 8);
    model.apply(&[Event(PbEvent { r#type: 0, kv: Some(proclaimed), prev_kv: None })]);
    let office = model.name("office").unwrap();
    assert_eq!(office.queue.places()[0].value.as_deref(), Some("10.0.0.7:90"));
    assert_eq!((office.handoffs(), model.revision), (1, 8));
    model.apply(&[gone("~session/1f", 9)]);
    assert_eq!(holders(&model, "office"), ["1f-0"]);
}

/// Queues are read after the revision from which on they are watched.
#[test]
fn changes_older_than_what_was_read_take_nothing_back() {
    let mut model = model();
    let place = Place::new(&KeyValue(kv("a/1-0", &says("again", "mutex"), 9, 9)));
    let queues = vec![Queue::new("a".into(), vec![place])];
    model.read(Snapshot { revision: 5, queues, sessions: Sessions::default() });
    model.apply(&[put("a/1-0", &says("before", "mutex"), 6), gone("a/1-0", 7)]);
    assert_eq!(holders(&model, "a"), ["again"]);
    model.apply(&[put("a/1-0", &says("again", "mutex"), 9)]);
    assert_eq!((holders(&model, "a"), model.name("a").unwrap().handoffs()), (vec!["again".to_owned()], 0));
    // And what is read again replaces everything.
    model.read(Snapshot { revision: 10, ..Snapshot::default() });
    assert!(names(&model).is_empty());
}

/// Only where somebody stands is a queue; but what else lies there is waited for.
#[test]
fn keys_that_are_nobodys_are_no_queue_and_yet_block_one() {
    let mut model = model();
    model.apply(&[put("config/colour", "blue", 5)]);
    assert!(names(&model).is_empty());
    model.apply(&[put("config/1-0", &says("one", "mutex"), 6)]);
    assert_eq!((names(&model), holders(&model, "config")), (vec!["config"], vec!["colour".to_owned()]));
    model.apply(&[gone("config/colour", 7), put("config/colour", "red", 8)]);
    assert_eq!((holders(&model, "config"), model.name("config").unwrap().queue.waiting()), (vec!["one".to_owned()], 1));
    model.apply(&[gone("config/1-0", 9)]);
    assert!(holders(&model, "config").is_empty());
    assert_eq!(model.name("config").unwrap().queue.waiting(), 0);
}

#[test]
fn a_name_is_shown_for_a_while_after_its_last_holder() {
    let mut model = model();
    let begun = later(&model);
    model.tick(begun);
    model.apply(&[put("a/1-0", "", 5), gone("a/1-0", 6)]);
    model.tick(begun + WINDOW);
    assert_eq!((names(&model), holders(&model, "a").len()), (vec!["a"], 0));
    model.tick(begun + WINDOW + Duration::from_millis(1));
    assert!(names(&model).is_empty() && model.name("a").is_none());
}

#[test]
fn names_are_relative_to_the_namespace() {
    let mut model = Model::new("prod/", Instant::now());
    model.apply(&[
        put("prod/a/1-0", "", 5),
        put("test/a/1-0", "", 6),
        put("prod/~session/1", r#"{"identity":"x"}"#, 7),
    ]);
    assert_eq!((names(&model), holders(&model, "a")), (vec!["a"], vec!["x".to_owned()]));
}

#[test]
fn leases_are_asked_for_in_turn_and_counted_down_meanwhile() {
    let mut model = model();
    let begun = model.begun;
    assert_eq!(model.due([0, 7, 8]), Some(7));
    model.learn(7, Some((Duration::from_secs(10), Duration::from_secs(9))));
    assert_eq!(model.due([0, 7, 8]), Some(8));
    model.learn(8, None);
    assert_eq!(model.due([0, 7, 8]), None);
    model.tick(begun + Duration::from_secs(4));
    assert_eq!(model.lease(7), Some((Duration::from_secs(10), Duration::from_secs(5))));
    assert_eq!((model.lease(8), model.lease(9)), (None, None));
    assert_eq!(model.due([8, 7]), Some(8));
}
