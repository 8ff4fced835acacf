//! What a watch that stands says to who comes later.

use std::sync::Arc;

use super::{Hub, Notice, Sending, Told, Watcher};
use crate::name::Key;

struct Deaf;

impl Watcher for Deaf {
    fn tell(self: Arc<Self>, _: Notice) {}
}

/// Asks for a watch and lets it stand at revision 10.
fn standing(hub: &Hub, key: &Key, watcher: &Arc<dyn Watcher>) -> i64 {
    assert!(hub.watch(key, None, watcher.clone()).is_none());
    let Some(Sending::Create { id, .. }) = hub.next_request() else { panic!("it is asked for") };
    hub.tells(id, 10, false).expect("it is needed");
    id
}

#[test]
fn who_comes_again_hears_of_the_last_deletion() {
    let (hub, key, watcher) = (Hub::default(), Key::from(*b"key"), Arc::new(Deaf) as Arc<dyn Watcher>);
    let id = standing(&hub, &key, &watcher);
    hub.unwatch(&key, &watcher);
    assert!(hub.tells(id, 12, true).expect("it lingers").watchers.is_empty());
    hub.tells(id, 15, true);
    let told = hub.watch(&key, None, watcher.clone());
    assert!(matches!(told, Some(Told { from: 10, deleted: Some(15) })), "{told:?}");
}

/// Between two streams anything may have happened.
#[test]
fn a_watch_that_broke_has_told_nothing() {
    let (hub, key, watcher) = (Hub::default(), Key::from(*b"key"), Arc::new(Deaf) as Arc<dyn Watcher>);
    let id = standing(&hub, &key, &watcher);
    hub.tells(id, 12, true);
    hub.broken();
    assert!(hub.watch(&key, None, watcher.clone()).is_none());
}
