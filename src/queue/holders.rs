//! Who holds, as a list of the queue shows it.

use super::rule::{Kind, Rule};
use super::wire::Value;
use crate::etcd_client::KeyValue;
use crate::name::Name;

/// Those that hold among all of the queue's direct children, oldest first.
pub(crate) fn holders<'a>(name: &Name, queue: &'a [KeyValue]) -> Vec<&'a KeyValue> {
    let keys = queue.iter().map(|kv| (kv.key(), kv.value()));
    holding(name, keys).into_iter().map(|place| &queue[place]).collect()
}

fn holding<'a>(name: &Name, queue: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<usize> {
    let readers = [name.prefix(), Rule::READ.lane].concat();
    let (mut ahead, mut alone, mut holding) = (0_u32, true, Vec::new());
    for (place, (key, value)) in queue.enumerate() {
        let reads = key.starts_with(readers.as_bytes());
        let rule = match Value::parse(value) {
            _ if reads => Rule::READ,
            Some(Value { kind: Kind::Semaphore, weight: Some(weight), capacity: Some(permits), .. })
                if (1..=permits).contains(&weight) =>
            {
                Rule::semaphore(permits, weight)
            }
            // Another client's waits for everyone, as a mutex does.
            _ => Rule::MUTEX,
        };
        let holds = match rule.kind {
            Kind::Read => alone,
            Kind::Semaphore => rule.has_room(ahead),
            _ => place == 0,
        };
        if holds {
            holding.push(place);
        }
        // What states no weight fills the queue.
        ahead = ahead.saturating_add(if rule.kind == Kind::Semaphore { rule.weight } else { u32::MAX });
        alone &= reads;
    }
    holding
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which places of a queue hold: keys below `q/`, oldest first, with the weight and the permits of a semaphore's.
    fn hold(queue: &[(&str, Option<(u32, u32)>)]) -> Vec<usize> {
        let name = Name::new("", "q").unwrap();
        let kv = |(tail, stated): &(&str, Option<(u32, u32)>)| {
            let value = stated.map(|(weight, permits)| Value::new("x", Rule::semaphore(permits, weight)).to_bytes());
            let key = format!("q/{tail}").into_bytes();
            (key, value.unwrap_or_default())
        };
        let queue: Vec<_> = queue.iter().map(kv).collect();
        holding(&name, queue.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))
    }

    #[test]
    fn the_oldest_holds_alone_or_all_readers_before_the_first_writer() {
        assert_eq!(hold(&[]), [0; 0]);
        assert_eq!(hold(&[("1-0", None), ("2-0", None), ("r-3-0", None)]), [0]);
        assert_eq!(hold(&[("r-1-0", None), ("r-2-0", None), ("3-0", None), ("r-4-0", None)]), [0, 1]);
    }

    #[test]
    fn permits_are_held_until_there_is_no_room_for_the_next() {
        assert_eq!(hold(&[("1-0", Some((1, 3))), ("2-0", Some((2, 3))), ("3-0", Some((1, 3)))]), [0, 1]);
        // A large request keeps those behind it waiting, and a key that states no weight takes all there is.
        assert_eq!(hold(&[("1-0", Some((2, 3))), ("2-0", Some((2, 3))), ("3-0", Some((1, 3)))]), [0]);
        assert_eq!(hold(&[("1-0", Some((1, 3))), ("2-0", None), ("3-0", Some((1, 3)))]), [0]);
    }
}
