//! The model itself against a real etcd: the same requests to both, compared reply by reply.
//!
//! The requests go through the wire layer, so that what it makes of etcd's replies is compared too.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::QUEUE;
use super::etcd::{Etcd as Model, Message, Reply, Request};
use crate::error::{Verdict, verdict};
use crate::etcd_client::{Client, DeleteOptions, EventType, LeaseGrantOptions, PutOptions, WatchOptions, WatchStream};
use crate::name::{Key, Name, Revision, fence_key};
use crate::queue::place::{Action, Input};
use crate::queue::rule::Rule;
use crate::queue::wire::{Fence, SeenFence, Sender, Value};
use crate::session::crowd::DEEP;
use crate::testing::Etcd;

const RULES: [Rule; 5] = [Rule::MUTEX, Rule::READ, Rule::semaphore(3, 1), Rule::semaphore(3, 2), Rule::ELECTION];
const LEASES: Range<usize> = 0..3;
const KEYS: Range<usize> = 0..6;

/// What somebody does. Subjects are numbers, so that a shrunk list still makes sense.
#[derive(Clone, Debug)]
enum Step {
    Enter {
        key: usize,
        lease: usize,
        rule: usize,
        stale: bool,
    },
    Try {
        key: usize,
        lease: usize,
        rule: usize,
        stale: bool,
        known: Known,
    },
    Probe {
        key: usize,
        rule: usize,
        limit: Option<usize>,
    },
    Look {
        key: usize,
        rule: usize,
        limit: Option<usize>,
    },
    Glance {
        key: usize,
        view: Vec<usize>,
    },
    Leave {
        key: usize,
        lease: usize,
        rule: usize,
        fence: bool,
        mark: Option<Revision>,
    },
    /// A client of another make.
    Put {
        key: usize,
        lease: usize,
    },
    PutNested(usize),
    Delete(usize),
    DeleteFence(usize),
    Revoke(usize),
}

/// Up to where a try knows the queue.
#[derive(Clone, Copy, Debug)]
enum Known {
    Nothing,
    Now,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rule = 0..RULES.len();
    let limit = prop_oneof![Just(None), (1usize..5).prop_map(Some)];
    let known = prop_oneof![Just(Known::Nothing), Just(Known::Now)];
    let seldom = prop::bool::weighted(0.1);
    let step = prop_oneof![
        8 => (KEYS, LEASES, rule.clone(), seldom)
            .prop_map(|(key, lease, rule, stale)| Step::Enter { key, lease, rule, stale }),
        6 => (KEYS, LEASES, rule.clone(), seldom, known)
            .prop_map(|(key, lease, rule, stale, known)| Step::Try { key, lease, rule, stale, known }),
        3 => (KEYS, rule.clone(), limit.clone()).prop_map(|(key, rule, limit)| Step::Probe { key, rule, limit }),
        6 => (KEYS, rule.clone(), limit).prop_map(|(key, rule, limit)| Step::Look { key, rule, limit }),
        4 => (KEYS, prop::collection::vec(KEYS, 0..3)).prop_map(|(key, view)| Step::Glance { key, view }),
        6 => (KEYS, LEASES, rule, any::<bool>(), prop::option::of(1i64..100))
            .prop_map(|(key, lease, rule, fence, mark)| Step::Leave { key, lease, rule, fence, mark }),
        2 => (KEYS, LEASES).prop_map(|(key, lease)| Step::Put { key, lease }),
        2 => KEYS.prop_map(Step::PutNested),
        2 => KEYS.prop_map(Step::Delete),
        1 => LEASES.prop_map(Step::DeleteFence),
        1 => LEASES.prop_map(Step::Revoke),
    ];
    prop::collection::vec(step, 1..40)
}

/// Everything that the two have in common.
struct Both {
    client: Client,
    model: Model,
    name: Arc<Name>,
    leases: Vec<i64>,
    watch: WatchStream,
}

impl Both {
    /// An empty queue, and leases with a fence each.
    async fn new(client: &Client, case: i64) -> Self {
        let mut client = client.clone();
        // What a case that failed has left.
        client.delete(format!("{QUEUE}/"), Some(DeleteOptions::new().with_prefix())).await.unwrap();
        let name = Arc::new(Name::new("", QUEUE).unwrap());
        client.delete(name.mark_key(), None).await.unwrap();
        let watch = client.watch(format!("{QUEUE}/"), Some(WatchOptions::new().with_prefix())).await.unwrap();
        let leases: Vec<i64> = LEASES.map(|lease| case * 100 + 1 + i64::try_from(lease).unwrap()).collect();
        let mut model = Model::new(usize::MAX);
        for lease in &leases {
            client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(*lease))).await.unwrap();
            let options = PutOptions::new().with_lease(*lease);
            let put = client.put(fence_key("", *lease), "", Some(options)).await.unwrap();
            model.revision = put.header().unwrap().revision() - 1;
            model.move_fence(*lease);
        }
        Self { client, model, name, leases, watch }
    }

    /// Readers' keys lie in a lane of their own.
    fn key(key: usize, rule: Rule) -> Key {
        Key::from(format!("{QUEUE}/{}{key:x}", rule.lane).into_bytes())
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Enter { key, lease, rule, stale } => {
                let fence = self.fence(lease, stale);
                let action = Action::Enter;
                self.ask(key, lease, RULES[rule], Request::Enter { fence, list: Some(DEEP) }, action, fence).await;
            }
            Step::Try { key, lease, rule, stale, known } => {
                let fence = self.fence(lease, stale);
                let known = match known {
                    Known::Nothing => 0,
                    Known::Now => self.model.revision,
                };
                let action = Action::Try { known };
                self.ask(key, lease, RULES[rule], Request::Try { fence, known }, action, fence).await;
            }
            Step::Probe { key, rule, limit } => {
                self.ask(key, 0, RULES[rule], Request::Probe { limit }, Action::Probe { limit }, 0).await;
            }
            Step::Look { key, rule, limit } => {
                let Some(created) = self.model.created(&Self::key(key, RULES[rule])) else { return };
                let request = Request::Look { created, limit };
                self.ask(key, 0, RULES[rule], request, Action::Look { limit }, 0).await;
            }
            Step::Glance { key, ref view } => {
                let view = view.iter().map(|key| Self::key(*key, Rule::MUTEX)).collect();
                self.ask(key, 0, Rule::MUTEX, Request::Glance { view }, Action::Glance, 0).await;
            }
            Step::Leave { key, lease, rule, fence, mark } => {
                let keys = vec![Self::key(key, RULES[rule])];
                let request = Request::Leave { keys, fence, mark };
                self.ask(key, lease, RULES[rule], request, Action::Leave { fence }, 0).await;
            }
            Step::Put { key, lease } => self.put(Self::key(key, Rule::MUTEX), lease).await,
            Step::PutNested(key) => self.put(Key::from(format!("{QUEUE}/{key:x}/nested").into_bytes()), 0).await,
            Step::Delete(key) => {
                let key = Self::key(key, Rule::MUTEX);
                self.client.delete(key.to_vec(), None).await.unwrap();
                self.model.delete(|kv| kv.key == key);
            }
            Step::DeleteFence(lease) => {
                let lease = self.leases[lease];
                let deleted = self.client.delete(fence_key("", lease), None).await.unwrap().deleted();
                assert_eq!(deleted, i64::from(self.model.fence(lease).is_some()));
                self.model.fences.retain(|(owner, _)| *owner != lease);
                self.model.revision += deleted;
            }
            Step::Revoke(lease) => {
                let lease = self.leases[lease];
                if self.model.is_dead(lease) {
                    return;
                }
                // A revoke that deletes nothing is no revision; the fence counts, and the mark.
                let fenced = self.model.fence(lease).is_some() || self.model.marked(lease);
                self.client.lease_revoke(lease).await.unwrap();
                let before = self.model.revision;
                self.model.expire(lease);
                self.model.revision = self.model.revision.max(before + i64::from(fenced));
            }
        }
    }

    /// A key of another client's making, if there is none.
    async fn put(&mut self, key: Key, lease: usize) {
        let lease = self.leases[lease];
        if self.model.is_dead(lease) || self.model.created(&key).is_some() {
            return;
        }
        self.client.put(key.to_vec(), "", Some(PutOptions::new().with_lease(lease))).await.unwrap();
        self.model.put(key, lease, None);
    }

    fn fence(&self, lease: usize, stale: bool) -> Revision {
        match self.model.fence(self.leases[lease]) {
            Some(fence) if stale => fence - 1,
            Some(fence) => fence,
            // A fence is never believed to be missing.
            None => 1,
        }
    }

    /// Sends one request to both, and compares what comes back.
    async fn ask(&mut self, key: usize, lease: usize, rule: Rule, request: Request, action: Action, fence: Revision) {
        let (key, lease) = (Self::key(key, rule), self.leases[lease]);
        let (view, mark) = match &request {
            Request::Glance { view } => (view.clone(), None),
            Request::Leave { mark, .. } => (Vec::new(), *mark),
            _ => (Vec::new(), None),
        };
        let sender = Sender {
            kv: self.client.kv_client(),
            name: self.name.clone(),
            crowd: Arc::default(),
            rule,
            key: key.clone(),
            created: self.model.created(&key).unwrap_or(0),
            view,
            mark,
            value: Value::new("model", rule).to_bytes().into(),
            lease,
            fence: Fence { key: fence_key("", lease), value: "".into(), revision: fence },
        };
        let expected = self.model.commit(&Message { key, lease, rule, request });
        let seen = match sender.send(action).await {
            Ok(reply) => Ok((reply.input, reply.fence)),
            Err(error) if verdict(&error) == Verdict::NoLease => Err(()),
            Err(error) => panic!("{action:?}: {error}"),
        };
        match (&expected, &seen) {
            (Reply::Seen(expected), Ok((seen, _))) => {
                let (expected, seen) = (in_key_order(expected.clone()), in_key_order(seen.clone()));
                // What a try put is decided by its compare: whom it lists is not looked at.
                let is_put = matches!(action, Action::Try { .. }) && matches!(expected, Input::Entered { .. });
                if is_put {
                    let (Input::Entered { created: a, .. }, Input::Entered { created: b, .. }) = (expected, seen)
                    else {
                        panic!("{action:?}: the model put, etcd did not");
                    };
                    assert_eq!(a, b, "{action:?}");
                } else {
                    assert_eq!(expected, seen, "{action:?}");
                }
            }
            (Reply::Fenced(at), Ok((Input::Fenced, fence))) => {
                assert_eq!(Some(at.map_or(SeenFence::Missing, SeenFence::At)), *fence, "{action:?}");
            }
            (Reply::Left { fence: moved }, Ok((Input::Left, fence))) => {
                assert_eq!(moved.map(SeenFence::At), *fence, "{action:?}");
            }
            (Reply::NoLease, Err(())) => {}
            other => panic!("{action:?}: {other:?}"),
        }
    }

    /// Both tell of the same deletions.
    async fn finish(mut self) {
        self.client.put(format!("{QUEUE}/end"), "", None).await.unwrap();
        let mut deleted = Vec::new();
        'watch: while let Some(response) = self.watch.message().await.unwrap() {
            for event in response.events() {
                let kv = event.kv().unwrap();
                match event.event_type() {
                    EventType::Delete => deleted.push((Key::from(kv.key()), kv.mod_revision())),
                    EventType::Put if kv.key().ends_with(b"/end") => break 'watch,
                    EventType::Put => {}
                }
            }
        }
        let mut expected: Vec<_> = self.model.past.iter().map(|(kv, at)| (kv.key.clone(), *at)).collect();
        for list in [&mut deleted, &mut expected] {
            list.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        }
        assert_eq!(expected, deleted);
    }
}

/// Lists are compared as sets: which end a limit leaves shows in who is missing.
fn in_key_order(mut input: Input) -> Input {
    if let Input::Entered { listing, .. }
    | Input::Looked { listing, .. }
    | Input::Occupied(listing)
    | Input::Probed(listing) = &mut input
    {
        listing.elders.sort_by(|a, b| a.key.cmp(&b.key));
    }
    input
}

#[test]
fn the_model_answers_as_etcd_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (etcd, client) = runtime.block_on(async {
        let etcd = Etcd::start().await.unwrap();
        let client = etcd.client().await.unwrap();
        (etcd, client)
    });
    let case = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let compared = runner.run(&steps(), |steps| {
        case.set(case.get() + 1);
        runtime.block_on(async {
            let mut both = Both::new(&client, case.get()).await;
            for step in &steps {
                both.step(step).await;
            }
            both.finish().await;
        });
        Ok(())
    });
    compared.unwrap_or_else(|error| panic!("{error}"));
    drop(etcd);
}
