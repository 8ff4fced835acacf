//! What an operator sees: a span for every wait and every hold, warnings for what asks for an action and for nothing
//! else, and metrics.
//!
//! Spans and metrics go to whoever listens on the test's own thread, which runs all of it.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use common::{LIMIT, TestResult, World, on_etcd, until};
use metrics_exporter_prometheus::PrometheusBuilder;
use tenure::{Loss, Session};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// The spans of the crate with their fields, and its warnings.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    spans: Vec<Span>,
    warnings: Vec<String>,
}

#[derive(Clone, Default)]
struct Span {
    id: u64,
    name: &'static str,
    fields: Fields,
    closed: bool,
}

#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Seen {
    fn log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest span of this name.
    fn span(&self, name: &str) -> Span {
        self.log(|log| log.spans.iter().rfind(|span| span.name == name).cloned()).expect("there is one")
    }

    fn warnings(&self) -> Vec<String> {
        self.log(|log| log.warnings.clone())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().target().starts_with("tenure") {
            let mut span = Span { id: id.into_u64(), name: attributes.metadata().name(), ..Span::default() };
            attributes.record(&mut span.fields);
            self.log(|log| log.spans.push(span));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.log(|log| {
            let span = log.spans.iter_mut().rfind(|span| span.id == id.into_u64());
            span.into_iter().for_each(|span| values.record(&mut span.fields));
        });
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("tenure") && *event.metadata().level() <= Level::WARN {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.log(|log| log.warnings.push(format!("{:?}", fields.0)));
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.log(|log| {
            let span = log.spans.iter_mut().rfind(|span| span.id == id.into_u64());
            span.into_iter().for_each(|span| span.closed = true);
        });
    }
}

fn listen() -> (Seen, tracing::subscriber::DefaultGuard) {
    let seen = Seen::default();
    let listening = tracing::subscriber::set_default(Registry::default().with(seen.clone()));
    (seen, listening)
}

async fn session(world: &World) -> TestResult<Session> {
    Ok(Session::builder(world.etcd.client().await?).ttl(common::LONG).identity("api-7").open().await?)
}

/// So that a trace shows what a request waited for, and by which token its writes can be told.
#[tokio::test]
async fn a_wait_and_a_hold_are_spans() -> TestResult {
    let (seen, _listening) = listen();
    on_etcd(async |world| {
        let session = session(world).await?;
        let guard = session.mutex("name").lock().await?;
        let token = guard.token().to_string();
        for name in ["wait", "hold"] {
            let fields = seen.span(name).fields.0;
            let field = |name: &str| fields.get(name).map(String::as_str);
            assert_eq!(field("kind"), Some("mutex"));
            assert_eq!(field("name"), Some("name"));
            assert_eq!(field("identity"), Some("api-7"));
            assert_eq!(field("key"), Some(guard.key()));
            assert_eq!(field("token"), Some(&*token));
        }
        let held = seen.span("hold");
        assert!(!held.closed, "it is held");
        guard.unlock().await?;
        until("the span of the hold is closed", async || seen.span("hold").closed).await;

        let term = session.election("office").campaign("here").await?;
        assert_eq!(seen.span("hold").fields.0.get("kind").map(String::as_str), Some("election"));
        term.resign().await?;
        Ok(session.close().await?)
    })
    .await
}

/// Who is woken by a warning finds something to do.
#[tokio::test]
async fn what_goes_well_warns_of_nothing() -> TestResult {
    let (seen, _listening) = listen();
    on_etcd(async |world| {
        let session = session(world).await?;
        let mutex = session.mutex("name");
        let guard = mutex.lock().await?;
        assert!(mutex.try_lock().await?.is_none());
        let mut waiting = mutex.enqueue().await?;
        drop(mutex.enqueue().await?);
        guard.unlock().await?;
        drop(waiting.granted().await?);
        Ok(session.close().await?)
    })
    .await?;
    assert_eq!(seen.warnings(), Vec::<String>::new());
    Ok(())
}

/// A place that has to be taken again is one that others have passed.
#[tokio::test]
async fn a_lost_place_is_a_warning_that_names_it() -> TestResult {
    let (seen, _listening) = listen();
    on_etcd(async |world| {
        let [holder, waiter] = [session(world).await?, session(world).await?];
        let guard = holder.mutex("name").lock().await?;
        let mut ticket = waiter.mutex("name").enqueue().await?;
        world.client().lease_revoke(waiter.lease_id()).await?;
        let mut granted = std::pin::pin!(ticket.granted());
        until("the place is taken again", async || {
            assert!(timeout(std::time::Duration::from_millis(10), &mut granted).await.is_err(), "it is held");
            seen.warnings().iter().any(|warning| warning.contains("taken again") && warning.contains("\"name\""))
        })
        .await;
        guard.unlock().await?;
        timeout(LIMIT, granted).await??.unlock().await?;
        holder.close().await?;
        Ok(waiter.close().await?)
    })
    .await
}

#[tokio::test]
async fn metrics_count_what_happens() -> TestResult {
    let recorder = PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let has = |line: &str| page.render().lines().any(|found| found == line);
    on_etcd(async |world| {
        let session = session(world).await?;
        let other = self::session(world).await?;
        let mutex = session.mutex("name");
        let guard = mutex.lock().await?;
        let mut ticket = other.mutex("name").enqueue().await?;
        guard.unlock().await?;
        let guard = ticket.granted().await?;
        assert!(has("tenure_wait_seconds_count{kind=\"mutex\"} 2"), "{}", page.render());
        assert!(has("tenure_hold_seconds_count{kind=\"mutex\"} 1"), "{}", page.render());
        assert!(has("tenure_queue_length_count{kind=\"mutex\"} 2"), "{}", page.render());
        assert!(has("tenure_queue_length_sum{kind=\"mutex\"} 1"), "{}", page.render());

        let mut ticket = mutex.enqueue().await?;
        world.client().delete(guard.key(), None).await?;
        assert_eq!(guard.lost().await, Loss::Deleted);
        drop(guard);
        assert!(has("tenure_losses_total{kind=\"mutex\",reason=\"deleted\"} 1"), "{}", page.render());
        let guard = ticket.granted().await?;
        let mut ticket = other.mutex("name").enqueue().await?;
        let mut granted = std::pin::pin!(ticket.granted());
        // Each time once, whether it hears first that its key is gone or that its lease is.
        for losses in 1..=10 {
            world.client().lease_revoke(other.lease_id()).await?;
            until("the place is taken again", async || {
                assert!(timeout(std::time::Duration::from_millis(10), &mut granted).await.is_err(), "it is held");
                // It has heard that it stands: a place whose loss comes before that was never known to be one.
                has(&format!("tenure_queue_length_count{{kind=\"mutex\"}} {}", 4 + losses))
            })
            .await;
            assert!(has(&format!("tenure_reentries_total{{kind=\"mutex\"}} {losses}")), "{}", page.render());
        }
        guard.unlock().await?;
        granted.await?.unlock().await?;

        let acknowledged = |line: &str| line.starts_with("tenure_renewal_seconds_count");
        assert!(page.render().lines().any(acknowledged), "{}", page.render());
        assert!(page.render().contains("tenure_renewal_margin_seconds"), "{}", page.render());
        session.close().await?;
        Ok(other.close().await?)
    })
    .await
}

#[tokio::test]
async fn metrics_count_streams_that_break() -> TestResult {
    let recorder = PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    on_etcd(async |world| {
        let session = session(world).await?;
        let guard = session.mutex("name").lock().await?;
        world.etcd.kill(0)?;
        world.etcd.restart(0).await?;
        until("the streams are opened again", async || {
            let page = page.render();
            page.contains("tenure_watch_restarts_total ") && page.contains("tenure_renewal_failures_total ")
        })
        .await;
        guard.unlock().await?;
        Ok(session.close().await?)
    })
    .await
}
