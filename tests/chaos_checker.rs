//! The check of a history finds what it is there to find: a small history for each promise that is broken, beside one
//! of the same shape in which it is kept or the breach is excused.

#[allow(dead_code, reason = "figures are a run's")]
#[path = "chaos/check/mod.rs"]
mod check;
#[allow(dead_code, reason = "the clock is the workers'")]
#[path = "chaos/history.rs"]
mod history;

use check::{RECOVERY, Rule, SCHEDULING, check};
use history::{
    DIRECTOR, ETCDCTL, Event, Hold, How, Left, Nanos, Outcome, Process, SECOND, Seen, Share, What, lease_of,
};

const TTL: Nanos = 3 * SECOND;

/// Milliseconds.
const MS: Nanos = SECOND / 1_000;

fn hold(token: i64) -> Hold {
    Hold { name: "n".into(), token }
}

fn key(token: i64) -> String {
    format!("chaos/n/{token:x}-1")
}

fn at(at: Nanos, by: Process, what: What) -> Event {
    Event { at, by, what }
}

fn by_director(time: Nanos, what: What) -> Event {
    at(time, DIRECTOR, what)
}

/// A hold of process and token 1, say, that is valid at these instants, until the deadline.
fn held(process: Process, times: &[Nanos], deadline: Nanos) -> Vec<Event> {
    shared(Share::ALONE, process, times, deadline)
}

fn shared(share: Share, process: Process, times: &[Nanos], deadline: Nanos) -> Vec<Event> {
    let token = i64::from(process);
    let granted = What::Granted { ask: 0, hold: hold(token), key: key(token), share };
    let valid = times.iter().map(|&time| at(time, process, What::Valid { hold: hold(token), deadline }));
    [at(times[0], process, granted)].into_iter().chain(valid).collect()
}

fn worked(process: Process, from: Nanos, to: Nanos, deadline: Nanos) -> Vec<Event> {
    let hold = hold(process.into());
    let (began, ended) = (What::WorkBegan { hold: hold.clone() }, What::WorkEnded { hold, deadline });
    vec![at(from, process, began), at(to, process, ended)]
}

fn wrote(process: Process, element: u64, begun: Nanos, to: Nanos) -> Event {
    at(to, process, What::Wrote { hold: hold(process.into()), element, begun })
}

fn stopped(process: Process, from: Nanos, to: Nanos) -> Vec<Event> {
    vec![by_director(from, What::Stopping { process }), by_director(to, What::Woken { process })]
}

fn remains(file: &[u64]) -> Event {
    by_director(100 * SECOND, What::Remains { keys: vec![], leases: vec![], file: file.into() })
}

/// Which promises a history breaks, each once. Processes that finish are none of these histories' business.
fn broken(parts: &[Vec<Event>]) -> Vec<Rule> {
    let mut events = parts.concat();
    for process in 1..5 {
        if events.iter().any(|event| event.by == process) {
            events.push(at(90 * SECOND, process, What::Finished));
        }
    }
    let mut rules: Vec<_> = check(&events, TTL).into_iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

const NOTHING: [Rule; 0] = [];

#[test]
fn holds_that_follow_each_other_are_fine() {
    assert_eq!(broken(&[held(1, &[10, 20], 90), held(2, &[21, 30], 90)]), NOTHING);
}

#[test]
fn two_valid_guards_at_one_instant_are_found() {
    assert_eq!(broken(&[held(1, &[10, 30], 90), held(2, &[20, 40], 90)]), [Rule::Exclusion]);
}

/// Even if a shorter hold lies between the two.
#[test]
fn a_guard_that_is_valid_long_after_is_found() {
    assert_eq!(broken(&[held(1, &[10, 90], 99), held(2, &[91, 92], 99), held(3, &[50, 60], 99)]), [Rule::Exclusion]);
}

#[test]
fn a_token_that_goes_back_is_found() {
    assert_eq!(broken(&[held(2, &[10, 20], 90), held(1, &[30, 40], 90)]), [Rule::Exclusion]);
}

#[test]
fn a_token_that_is_granted_twice_is_found() {
    let again = at(30, 2, What::Granted { ask: 1, hold: hold(1), key: key(1), share: Share::ALONE });
    assert_eq!(broken(&[held(1, &[10, 20], 90), vec![again]]), [Rule::Exclusion]);
}

#[test]
fn readers_hold_at_once_and_a_writer_beside_one_is_found() {
    let (read, write) = (Share::READ, Share::WRITE);
    let readers = [shared(read, 1, &[10, 50], 90), shared(read, 2, &[20, 40], 90)].concat();
    assert_eq!(broken(&[readers.clone(), shared(write, 3, &[51, 60], 90)]), NOTHING);
    assert_eq!(broken(&[readers.clone(), shared(write, 3, &[50, 60], 90)]), [Rule::Exclusion], "beside the longer");
    assert_eq!(broken(&[readers, shared(write, 3, &[41, 45], 90)]), [Rule::Exclusion], "within the longer");
    let writer = shared(write, 1, &[10, 20], 90);
    assert_eq!(broken(&[writer.clone(), shared(read, 2, &[21], 90), shared(read, 3, &[21], 90)]), NOTHING);
    assert_eq!(broken(&[writer.clone(), shared(read, 2, &[15], 90)]), [Rule::Exclusion], "a reader beside a writer");
    assert_eq!(broken(&[writer, shared(write, 2, &[15], 90)]), [Rule::Exclusion], "two writers");
    // A reader that passed a writer who was before it in the queue.
    assert_eq!(broken(&[shared(read, 2, &[5, 6], 90), shared(write, 1, &[10, 20], 90)]), [Rule::Exclusion]);
}

#[test]
fn more_weight_than_there_are_permits_is_found() {
    let permits = |weight, process, times: &[Nanos]| shared(Share { weight, of: 4 }, process, times, 90);
    assert_eq!(broken(&[permits(1, 1, &[10, 50]), permits(1, 2, &[20, 40]), permits(2, 3, &[30, 60])]), NOTHING);
    let three = [permits(1, 1, &[10, 50]), permits(1, 2, &[20, 40]), permits(3, 3, &[30, 60])];
    assert_eq!(broken(&three), [Rule::Exclusion]);
    // One goes in time, or is taken away by an operator.
    assert_eq!(broken(&[permits(1, 1, &[10, 50]), permits(1, 2, &[20, 29]), permits(3, 3, &[30, 60])]), NOTHING);
    let deleted = by_director(25, What::Deleting { key: key(2) });
    assert_eq!(broken(&[three.concat(), vec![deleted]]), NOTHING);
    // Who comes later may be seen earlier, if both were let in.
    assert_eq!(broken(&[permits(2, 2, &[10, 50]), permits(2, 1, &[20, 40])]), NOTHING);
    assert_eq!(broken(&[permits(3, 2, &[10, 50]), permits(2, 1, &[20, 40])]), [Rule::Exclusion]);
}

#[test]
fn work_of_too_many_at_once_is_found() {
    let working = |share, process: Process, from, to| {
        [shared(share, process, &[from], 90), worked(process, from, to, 90)].concat()
    };
    assert_eq!(broken(&[working(Share::READ, 1, 10, 30), working(Share::READ, 2, 11, 29)]), NOTHING);
    let writer = working(Share::WRITE, 3, 29, 40);
    let readers = [working(Share::READ, 1, 10, 30), working(Share::READ, 2, 11, 20)].concat();
    assert_eq!(broken(&[readers, writer]), [Rule::Work]);
}

#[test]
fn a_reader_s_key_is_of_its_lease_too() {
    assert_eq!(lease_of("chaos/n/1f-2"), Some(0x1f));
    assert_eq!(lease_of("chaos/n/r-1f-2"), Some(0x1f));
}

/// etcd gives the lock to the next at once; the holder hears of it a little later.
#[test]
fn two_guards_are_excused_once_an_operator_has_taken_the_key() {
    let overlap = [held(1, &[10, 30], 90), held(2, &[20, 40], 90)].concat();
    let deleted = by_director(15, What::Deleting { key: key(1) });
    assert_eq!(broken(&[overlap.clone(), vec![deleted]]), NOTHING);
    let revoked = by_director(15, What::Revoking { lease: 1 });
    assert_eq!(broken(&[overlap.clone(), vec![revoked]]), NOTHING);
    let too_late = by_director(25, What::Deleting { key: key(1) });
    assert_eq!(broken(&[overlap, vec![too_late]]), [Rule::Exclusion]);
}

/// A session uses its keys again.
#[test]
fn a_key_that_was_taken_long_ago_excuses_nobody() {
    let late = |times: [Nanos; 2]| times.map(|time| time + 20 * SECOND);
    let overlap = [held(1, &late([10, 30]), 90 * SECOND), held(2, &late([20, 40]), 90 * SECOND)].concat();
    let deleted = |time| vec![by_director(time, What::Deleting { key: key(1) })];
    assert_eq!(broken(&[overlap.clone(), deleted(5)]), [Rule::Exclusion]);
    assert_eq!(broken(&[overlap.clone(), deleted(5), deleted(20 * SECOND + 15)]), NOTHING);
    assert_eq!(broken(&[overlap, deleted(15 * SECOND)]), NOTHING, "it may have hung");
}

/// A leader that was frozen revokes, on waking, what was renewed meanwhile (etcd #15247).
#[test]
fn two_guards_are_excused_once_etcd_has_given_the_lease_away() {
    let overlap = [held(1, &[10, 30], 90), held(2, &[20, 40], 90)].concat();
    let woken = |kind: &str| by_director(18, What::FaultOver { kind: kind.into() });
    let deleted = |key: &str| by_director(19, What::Deleted { revision: 5, key: key.into() });
    let lease = deleted("chaos/~session/1");
    assert_eq!(broken(&[overlap.clone(), vec![woken("StopLeaderForLong"), lease.clone()]]), NOTHING);
    assert_eq!(broken(&[overlap.clone(), vec![woken("KillWaiter"), lease]]), [Rule::Exclusion], "no leader has woken");
    let key = deleted(&key(1));
    assert_eq!(broken(&[overlap, vec![woken("StopLeaderForLong"), key]]), [Rule::Exclusion], "the lease still stands");
}

/// A guard looks at the clock when it is asked: that its process was stopped is no excuse.
#[test]
fn a_guard_that_is_valid_after_its_deadline_is_found() {
    assert_eq!(broken(&[held(1, &[10, 91], 90), stopped(1, 80, 91)]), [Rule::Deadline]);
}

#[test]
fn a_loss_that_is_told_late_is_found() {
    let told = |time| vec![at(time, 1, What::Ended { hold: hold(1), why: "Expired".into() })];
    assert_eq!(broken(&[held(1, &[10, 20], 90), told(90 + SCHEDULING)]), NOTHING);
    assert_eq!(broken(&[held(1, &[10, 20], 90), told(91 + SCHEDULING)]), [Rule::Deadline]);
    assert_eq!(broken(&[held(1, &[10, 20], 90), told(91 + SCHEDULING), stopped(1, 30, 100)]), NOTHING);
    // Lost before it was looked at: until when it held is not known.
    let granted = at(10, 1, What::Granted { ask: 0, hold: hold(1), key: key(1), share: Share::ALONE });
    assert_eq!(broken(&[vec![granted], told(91 + SCHEDULING)]), NOTHING);
}

#[test]
fn work_that_outlives_its_deadline_is_found() {
    let late = 91 * MS + SCHEDULING;
    let work = [held(1, &[10], 90 * MS), worked(1, 10, late, 90 * MS)].concat();
    assert_eq!(broken(std::slice::from_ref(&work)), [Rule::Work]);
    assert_eq!(broken(&[work.clone(), stopped(1, 20, 80 * MS)]), [Rule::Work], "awake before its deadline");
    assert_eq!(broken(&[work, stopped(1, 20, late - 1)]), NOTHING);
}

#[test]
fn work_of_two_at_once_is_found() {
    let first = [held(1, &[10], 90), worked(1, 10, 30, 90)].concat();
    assert_eq!(broken(&[first.clone(), held(2, &[31], 90), worked(2, 31, 40, 90)]), NOTHING);
    assert_eq!(broken(&[first.clone(), held(2, &[25], 90), worked(2, 25, 40, 90)]), [Rule::Work]);
    let deleted = by_director(15, What::Deleting { key: key(1) });
    assert_eq!(broken(&[first, held(2, &[25], 90), worked(2, 25, 40, 90), vec![deleted]]), NOTHING);
}

#[test]
fn work_that_never_ends_is_found_unless_its_process_was_killed() {
    let began = vec![at(10, 1, What::WorkBegan { hold: hold(1) })];
    assert_eq!(broken(&[held(1, &[10], 90), began.clone()]), [Rule::Work]);
    let killed = by_director(20, What::Killed { process: 1 });
    assert_eq!(broken(&[held(1, &[10], 90), began, vec![killed]]), NOTHING);
}

#[test]
fn unfenced_writes_at_once_are_found_unless_one_was_stopped_past_its_deadline() {
    let first = [held(1, &[10], 90), vec![wrote(1, 1, 10, 200)]].concat();
    let second = [held(2, &[100], 900), vec![wrote(2, 2, 100, 110)]].concat();
    // Its deadline had not passed when it wrote, and somebody else wrote.
    let early = [held(1, &[10], 300), vec![wrote(1, 1, 10, 200)]].concat();
    assert_eq!(broken(&[early, second.clone(), vec![remains(&[1, 2])]]), [Rule::Unfenced]);
    assert_eq!(broken(&[first.clone(), second.clone(), stopped(1, 20, 190), vec![remains(&[1])]]), NOTHING);
    // So late that the machine cannot be blamed.
    let late = [held(1, &[10], 90), vec![wrote(1, 1, 10, 91 + SCHEDULING)]].concat();
    assert_eq!(broken(&[late, second, vec![remains(&[1, 2])]]), [Rule::Unfenced]);
}

#[test]
fn an_unfenced_write_that_is_lost_for_no_reason_is_found() {
    let write = [held(1, &[10], 90), vec![wrote(1, 1, 10, 20)]].concat();
    assert_eq!(broken(&[write.clone(), vec![remains(&[1])]]), NOTHING);
    assert_eq!(broken(&[write, vec![remains(&[])]]), [Rule::Unfenced]);
}

fn put(revision: i64, key: &str, value: &str) -> Event {
    let created = revision;
    by_director(revision.unsigned_abs(), What::Put { revision, key: key.into(), created, value: value.into() })
}

fn element(revision: i64, place: u64, token: i64) -> Vec<Event> {
    let count = put(revision, "set/n/count", &(place + 1).to_string());
    vec![count, put(revision, &format!("set/n/e/{place}"), &format!("{token} {revision}"))]
}

#[test]
fn fenced_writes_out_of_order_are_found() {
    assert_eq!(broken(&[element(10, 0, 1), element(11, 1, 2), element(12, 2, 2)]), NOTHING);
    assert_eq!(broken(&[element(10, 0, 2), element(11, 1, 1)]), [Rule::Fenced]);
}

#[test]
fn a_fenced_write_that_is_lost_is_found() {
    let acknowledged = |place, element| vec![at(20, 1, What::Fenced { hold: hold(1), place, element })];
    assert_eq!(broken(&[element(10, 0, 1), acknowledged(0, 10)]), NOTHING);
    assert_eq!(broken(&[element(10, 0, 1), acknowledged(1, 11)]), [Rule::Fenced], "not there");
    assert_eq!(broken(&[element(10, 0, 1), acknowledged(0, 11)]), [Rule::Fenced], "another's");
    assert_eq!(broken(&[element(10, 0, 1), element(11, 0, 2)]), [Rule::Fenced], "written over");
    assert_eq!(broken(&[element(10, 1, 1)]), [Rule::Fenced], "the count is not that of the elements");
}

/// What is locked together is written together, each by the token of its own name.
#[test]
fn the_sets_of_two_names_are_told_apart() {
    let other = |revision, place: u64, token: i64| {
        let count = put(revision, "set/m/count", &(place + 1).to_string());
        vec![count, put(revision, &format!("set/m/e/{place}"), &format!("{token} {revision}"))]
    };
    assert_eq!(broken(&[element(10, 0, 5), other(10, 0, 2), element(11, 1, 6), other(12, 1, 3)]), NOTHING);
    assert_eq!(broken(&[element(10, 0, 5), other(10, 0, 2), element(11, 1, 6), other(12, 1, 1)]), [Rule::Fenced]);
    let hold = Hold { name: "m".into(), token: 5 };
    let acknowledged = vec![at(20, 1, What::Fenced { hold, place: 0, element: 10 })];
    assert_eq!(broken(&[element(10, 0, 5), acknowledged]), [Rule::Fenced], "written to another name");
}

/// One that is granted for several names at once overlaps in none of them.
#[test]
fn locks_taken_together_that_overlap_in_one_name_are_found() {
    let one = |name: &str, token, times: &[Nanos]| {
        let mut events = held(token, times, 90);
        for event in &mut events {
            if let What::Granted { hold, .. } | What::Valid { hold, .. } = &mut event.what {
                hold.name = name.into();
            }
        }
        events
    };
    assert_eq!(broken(&[one("a", 1, &[10, 20]), one("b", 1, &[10, 20]), one("b", 2, &[21, 30])]), NOTHING);
    assert_eq!(broken(&[one("a", 1, &[10, 20]), one("b", 1, &[10, 20]), one("b", 2, &[15])]), [Rule::Exclusion]);
}

/// The command of `etcdctl lock` is a hold as long as its key stands.
#[test]
fn a_command_of_etcdctl_beside_a_guard_is_found() {
    let command = |begun, ended| {
        let (hold, key) = (hold(5), "chaos/n/5".to_owned());
        let granted = What::Granted { ask: 0, hold: hold.clone(), key, share: Share::ALONE };
        let valid = |time| at(time, ETCDCTL, What::Valid { hold: hold.clone(), deadline: ended });
        let finished = at(90 * SECOND, ETCDCTL, What::Finished);
        vec![at(begun, ETCDCTL, granted), valid(begun), valid(ended), finished]
    };
    assert_eq!(broken(&[held(1, &[10, 20], 90), command(21, 30)]), NOTHING);
    assert_eq!(broken(&[held(1, &[10, 20], 90), command(15, 30)]), [Rule::Exclusion]);
    assert_eq!(broken(&[command(15, 30), held(1, &[31, 40], 90)]), [Rule::Exclusion], "it was before it in the queue");
    let last = |what| vec![by_director(20, What::Healed), at(30, ETCDCTL, what)];
    let asked = What::Asked { ask: 9, name: "n".into(), how: How::Lock };
    let waits = |granted: &[Event]| broken(&[last(asked.clone()), granted.to_vec()]);
    assert_eq!(waits(&[]), [Rule::Ending]);
    let granted = What::Granted { ask: 9, hold: hold(5), key: key(5), share: Share::ALONE };
    assert_eq!(waits(&[at(40, ETCDCTL, granted), at(50, ETCDCTL, What::Finished)]), NOTHING);
}

const CANDIDATE: &str = "chaos/leader/1-1";
const RIVAL: &str = "chaos/leader/2-1";

fn saw(time: Nanos, leader: Option<(i64, &str)>) -> Event {
    let seen = |(token, key): (i64, &str)| Seen { token, key: key.into(), value: key.into() };
    at(time, 1, What::Saw { election: "leader".into(), leader: leader.map(seen) })
}

/// The candidate leads from 10, and at 20 its rival, which stood at 15, does.
fn reigns() -> Vec<Event> {
    let gone = by_director(20, What::Deleted { revision: 20, key: CANDIDATE.into() });
    vec![put(10, CANDIDATE, CANDIDATE), put(15, RIVAL, RIVAL), gone]
}

#[test]
fn an_observer_that_sees_what_was_is_fine() {
    let seen = vec![saw(5, None), saw(11, Some((10, CANDIDATE))), saw(21, Some((15, RIVAL)))];
    assert_eq!(broken(&[reigns(), seen]), NOTHING);
    assert_eq!(broken(&[reigns(), vec![saw(21, Some((15, RIVAL)))]]), NOTHING);
}

#[test]
fn an_observer_that_goes_back_is_found() {
    let back = vec![saw(21, Some((15, RIVAL))), saw(22, Some((10, CANDIDATE)))];
    assert_eq!(broken(&[reigns(), back]), [Rule::Observers]);
}

/// At revision 15 the candidate leads, and nobody else.
#[test]
fn an_observer_that_sees_a_leader_who_never_was_is_found() {
    assert_eq!(broken(&[reigns(), vec![saw(16, Some((15, CANDIDATE)))]]), [Rule::Observers]);
    let vacancy = vec![saw(11, Some((10, CANDIDATE))), saw(21, None)];
    assert_eq!(broken(&[reigns(), vacancy]), [Rule::Observers]);
}

#[test]
fn an_observer_that_falls_asleep_is_found() {
    let healed = vec![by_director(30, What::Healed), at(40 + RECOVERY, 1, What::Finished)];
    assert_eq!(broken(&[reigns(), healed.clone(), vec![saw(11, Some((10, CANDIDATE)))]]), [Rule::Observers]);
    assert_eq!(broken(&[reigns(), healed, vec![saw(31, Some((15, RIVAL))), saw(11, None)]]), NOTHING);
}

/// The term of the one who leads in [`reigns`], whose rival is called by its key.
fn term() -> Vec<Event> {
    let hold = Hold { name: "leader".into(), token: 10 };
    vec![at(11, 1, What::Granted { ask: 0, hold, key: CANDIDATE.into(), share: Share::ALONE })]
}

fn handed_over(to: &str, outcome: Outcome) -> Vec<Event> {
    let hold = Hold { name: "leader".into(), token: 10 };
    let told = What::HandedOver { hold: hold.clone(), to: to.into(), outcome: outcome.clone() };
    let mut events = vec![at(25, 1, told)];
    if outcome != Outcome::Done {
        events.push(at(26, 1, What::Releasing { hold }));
    }
    events
}

#[test]
fn a_hand_over_to_somebody_else_is_found() {
    assert_eq!(broken(&[reigns(), term(), handed_over(RIVAL, Outcome::Done)]), NOTHING);
    assert_eq!(broken(&[reigns(), term(), handed_over("chaos/leader/3-1", Outcome::Done)]), [Rule::Transfer]);
    let between = vec![put(12, "chaos/leader/3-1", "between")];
    assert_eq!(broken(&[reigns(), between, term(), handed_over(RIVAL, Outcome::Done)]), [Rule::Transfer]);
    let gone = by_director(19, What::Deleted { revision: 19, key: RIVAL.into() });
    assert_eq!(broken(&[reigns(), vec![gone], term(), handed_over(RIVAL, Outcome::Done)]), [Rule::Transfer]);
    let still = reigns()[..2].to_vec();
    assert_eq!(broken(&[still, term(), handed_over(RIVAL, Outcome::Done)]), [Rule::Transfer], "it leads still");
}

/// An error leaves the term as it is.
#[test]
fn a_hand_over_that_fails_and_ends_the_term_is_found() {
    let refused = || handed_over(RIVAL, Outcome::Refused("CannotBeAsked".into()));
    assert_eq!(broken(&[reigns(), term(), refused()]), [Rule::Transfer]);
    let later = [put(10, CANDIDATE, CANDIDATE), by_director(30, What::Deleted { revision: 20, key: CANDIDATE.into() })];
    assert_eq!(broken(&[later.to_vec(), term(), refused()]), NOTHING, "it was let go");
    let deleting = by_director(18, What::Deleting { key: CANDIDATE.into() });
    assert_eq!(broken(&[reigns(), term(), refused(), vec![deleting]]), NOTHING);
    let expired = by_director(20, What::Deleted { revision: 20, key: "chaos/~session/1".into() });
    assert_eq!(broken(&[reigns(), term(), refused(), vec![expired]]), NOTHING);
    // The key is used again: what becomes of it then is another term's.
    let before = by_director(5, What::Deleted { revision: 5, key: CANDIDATE.into() });
    assert_eq!(broken(&[vec![before], later.to_vec(), term(), refused()]), NOTHING);
    assert_eq!(broken(&[reigns(), term(), handed_over(RIVAL, Outcome::Lost)]), NOTHING);
}

#[test]
fn a_request_that_nobody_made_is_found() {
    let heard = || vec![at(20, 1, What::Heard { hold: hold(1) })];
    let request = |name: &str, tokens: &str| {
        vec![put(15, &format!("chaos/~session/revoke/{name}/2-1"), &format!("{{\"tokens\":{tokens}}}"))]
    };
    assert_eq!(broken(&[request("n", "[3,1]"), heard()]), NOTHING);
    assert_eq!(broken(&[request("n", "[3]"), heard()]), [Rule::Requests], "made to another");
    assert_eq!(broken(&[request("n/n", "[1]"), heard()]), [Rule::Requests], "by another name");
    assert_eq!(broken(&[heard()]), [Rule::Requests]);
}

#[test]
fn a_request_that_stays_is_found() {
    let left = |keys: &[String]| vec![at(20, 1, What::Requests { keys: keys.into() })];
    assert_eq!(broken(&[left(&[])]), NOTHING);
    assert_eq!(broken(&[left(&["chaos/~session/revoke/n/1-1".into()])]), [Rule::Requests]);
}

fn asked(time: Nanos, how: How) -> Event {
    at(time, 1, What::Asked { ask: 7, name: "n".into(), how })
}

fn left(time: Nanos, why: Left) -> Event {
    at(time, 1, What::Left { ask: 7, why })
}

#[test]
fn whoever_waits_without_a_limit_and_is_turned_away_is_found() {
    let failed = || left(20, Left::Failed("no leader".into()));
    assert_eq!(broken(&[vec![asked(10, How::Lock), failed()]]), [Rule::Patience]);
    assert_eq!(broken(&[vec![asked(10, How::Try), failed()]]), NOTHING);
}

#[test]
fn a_limit_that_is_cut_short_is_found() {
    let limited = |to| vec![asked(10, How::TryFor { millis: 5 }), left(to, Left::NotFree)];
    assert_eq!(broken(&[limited(10 + 5 * MS)]), NOTHING);
    assert_eq!(broken(&[limited(9 + 5 * MS)]), [Rule::Limit]);
}

#[test]
fn a_waiter_who_is_left_waiting_is_found() {
    let due = 20 + 2 * TTL + RECOVERY;
    let healed = || by_director(20, What::Healed);
    assert_eq!(broken(&[vec![asked(10, How::Lock), healed(), left(due, Left::GaveUp)]]), NOTHING);
    assert_eq!(broken(&[vec![asked(10, How::Lock), healed(), left(due + 1, Left::GaveUp)]]), [Rule::Ending]);
    assert_eq!(broken(&[vec![asked(10, How::Lock), healed()]]), [Rule::Ending]);
    let killed = by_director(15, What::Killed { process: 1 });
    assert_eq!(broken(&[vec![asked(10, How::Lock), healed(), killed]]), NOTHING);
}

#[test]
fn a_process_that_does_not_finish_is_found() {
    let events = [asked(10, How::Try), left(11, Left::NotFree), by_director(20, What::Healed)];
    let rules: Vec<_> = check(&events, TTL).into_iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::Ending]);
}

#[test]
fn what_remains_is_found() {
    let healed = by_director(20, What::Healed);
    let left = |keys: &[String], leases: &[i64]| {
        vec![healed.clone(), by_director(30, What::Remains { keys: keys.into(), leases: leases.into(), file: vec![] })]
    };
    assert_eq!(broken(&[left(&[], &[])]), NOTHING);
    assert_eq!(broken(&[left(&[key(1)], &[])]), [Rule::Remains]);
    assert_eq!(broken(&[left(&[], &[1])]), [Rule::Remains]);
}
