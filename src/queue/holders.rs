//! Who holds, as a list of the queue shows it.

use super::rule::{Kind, Rule};
use crate::token::Waiter;

impl Waiter {
    /// Those who hold, of all who stand in a queue, which are given oldest first, as
    /// [`Mutex::queue`](crate::Mutex::queue) returns them: the first one; all readers before anybody else; those whom
    /// a semaphore's permits suffice for.
    ///
    /// It is what the list shows, at the revision at which it was read. Of a hold of one's own, the guard tells.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let etcd = tenure::testing::Etcd::start().await?;
    /// # let session = tenure::Session::open(etcd.client().await?).await?;
    /// let gpu = session.semaphore("gpu", 3);
    /// let (one, two) = (gpu.acquire().await?, gpu.acquire_many(2).await?);
    /// let third = gpu.enqueue().await?;
    ///
    /// let queue = gpu.queue().await?;
    /// let tokens: Vec<_> = tenure::Waiter::holders(&queue).iter().map(|holder| holder.token()).collect();
    /// assert_eq!((queue.len(), tokens), (3, vec![one.token(), two.token()]));
    /// # drop((one, two, third));
    /// # session.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn holders<'a>(queue: impl IntoIterator<Item = &'a Self>) -> Vec<&'a Self> {
        holding(queue).into_iter().map(|(_, holder)| holder).collect()
    }
}

/// Those that hold, with their places in the queue.
pub(crate) fn holding<'a>(queue: impl IntoIterator<Item = &'a Waiter>) -> Vec<(usize, &'a Waiter)> {
    let (mut ahead, mut alone, mut holding) = (0_u32, true, Vec::new());
    for (place, waiter) in queue.into_iter().enumerate() {
        let rule = rule(waiter);
        let holds = match rule.kind {
            Kind::Read => alone,
            Kind::Semaphore => rule.has_room(ahead),
            _ => place == 0,
        };
        if holds {
            holding.push((place, waiter));
        }
        // What states no weight fills the queue.
        ahead = ahead.saturating_add(if rule.kind == Kind::Semaphore { rule.weight } else { u32::MAX });
        alone &= rule.kind == Kind::Read;
        if ahead == u32::MAX && !alone {
            break;
        }
    }
    holding
}

/// By its lane, as the others in the queue see it, and by what it states.
fn rule(waiter: &Waiter) -> Rule {
    let tail = waiter.key().rsplit('/').next().unwrap_or_default();
    match (waiter.kind(), waiter.permits(), waiter.capacity()) {
        _ if tail.starts_with(Rule::READ.lane) => Rule::READ,
        (Some(Kind::Semaphore), Some(weight), Some(permits)) if (1..=permits).contains(&weight) => {
            Rule::semaphore(permits, weight)
        }
        // Another client's waits for everyone, as a mutex does.
        _ => Rule::MUTEX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd_client::KeyValue;
    use crate::etcd_client::proto::PbKeyValue;
    use crate::queue::wire::Value;

    /// Which places of a queue hold: keys below `q/`, oldest first, with the weight and the permits of a semaphore's.
    fn hold(queue: &[(&str, Option<(u32, u32)>)]) -> Vec<usize> {
        let waiter = |(tail, stated): &(&str, Option<(u32, u32)>)| {
            let value = stated.map(|(weight, permits)| Value::new("x", Rule::semaphore(permits, weight)).to_bytes());
            let (key, value) = (format!("q/{tail}").into_bytes(), value.unwrap_or_default());
            Waiter::from(&KeyValue(PbKeyValue { key, value, ..PbKeyValue::default() }))
        };
        let queue: Vec<_> = queue.iter().map(waiter).collect();
        holding(&queue).into_iter().map(|(place, _)| place).collect()
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
