//! What is told to operators: spans of waits and holds, and the metrics of the feature `metrics`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables, dead_code, reason = "what is measured goes nowhere"))]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::Empty;

use crate::error::Loss;
use crate::queue::rule::Kind;
use crate::token::FencingToken;

/// From the wish for a hold to its grant.
#[derive(Debug)]
pub(crate) struct Waiting {
    span: Span,
    kind: Kind,
    since: Instant,
}

/// From the grant of a hold to its end.
#[derive(Debug)]
pub(crate) struct Holding {
    span: Mutex<Option<Span>>,
    kind: Kind,
    since: Instant,
}

impl Waiting {
    pub(crate) fn new(kind: Kind, name: &str, identity: &str) -> Self {
        let kind_label = kind.label();
        let span = tracing::info_span!("wait", kind = kind_label, name, identity, key = Empty, token = Empty);
        Self { span, kind, since: Instant::now() }
    }

    /// Its place has this key from here on.
    pub(crate) fn under(&self, key: &[u8]) {
        self.span.record("key", &*String::from_utf8_lossy(key));
    }

    /// Its place, which was lost, is taken again.
    pub(crate) fn again(&self, name: &str, lost: i64, lease: i64) {
        let told = "a place in the queue was lost and is taken again, at the back";
        tracing::warn!(parent: &self.span, name, lost, lease, "{told}");
        #[cfg(feature = "metrics")]
        metrics::counter!("tenure_reentries_total", "kind" => self.kind.label()).increment(1);
    }

    /// So many stood before it when it was first known.
    pub(crate) fn behind(&self, ahead: usize) {
        #[cfg(feature = "metrics")]
        metrics::histogram!("tenure_queue_length", "kind" => self.kind.label()).record(ahead as f64);
    }

    pub(crate) fn granted(&self, name: &str, identity: &str, key: &str, token: FencingToken) -> Holding {
        let Self { span, kind, since } = self;
        span.record("token", token.0);
        #[cfg(feature = "metrics")]
        metrics::histogram!("tenure_wait_seconds", "kind" => kind.label()).record(since.elapsed());
        let kind_label = kind.label();
        let held = tracing::info_span!("hold", kind = kind_label, name, identity, key, token = token.0);
        held.follows_from(span);
        Holding { span: Mutex::new(Some(held)), kind: *kind, since: Instant::now() }
    }
}

impl Holding {
    /// It ended, and how: `None` for a release.
    pub(crate) fn ended(&self, loss: Option<Loss>) {
        drop(self.span.lock().unwrap_or_else(PoisonError::into_inner).take());
        #[cfg(feature = "metrics")]
        {
            metrics::histogram!("tenure_hold_seconds", "kind" => self.kind.label()).record(self.since.elapsed());
            if let Some(loss) = loss {
                metrics::counter!("tenure_losses_total", "kind" => self.kind.label(), "reason" => reason(loss))
                    .increment(1);
            }
        }
    }
}

#[cfg(feature = "metrics")]
fn reason(loss: Loss) -> &'static str {
    match loss {
        Loss::Expired => "expired",
        Loss::Revoked => "revoked",
        Loss::Deleted => "deleted",
        Loss::Closed => "closed",
        Loss::Released => "released",
    }
}

/// A renewal was acknowledged after `took`, when `left` was left until the deadline.
pub(crate) fn renewed(took: Duration, left: Duration) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!("tenure_renewal_seconds").record(took);
        metrics::histogram!("tenure_renewal_margin_seconds").record(left);
    }
}

pub(crate) fn renewal_failed() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tenure_renewal_failures_total").increment(1);
}

pub(crate) fn watches_restarted() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tenure_watch_restarts_total").increment(1);
}

/// Tells the recorder that is installed what the metrics are.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    {
        use metrics::Unit::{Count, Seconds};
        use metrics::{describe_counter, describe_histogram};

        describe_histogram!("tenure_wait_seconds", Seconds, "From asking for a hold to its grant, by kind of lock");
        describe_histogram!("tenure_hold_seconds", Seconds, "From the grant of a hold to its end, by kind of lock");
        describe_histogram!("tenure_queue_length", Count, "Keys that a place had to wait for as it entered its queue");
        describe_histogram!("tenure_renewal_seconds", Seconds, "From sending a renewal of a lease to its reply");
        describe_histogram!(
            "tenure_renewal_margin_seconds",
            Seconds,
            "What a renewal left of the time to the deadline"
        );
        describe_counter!("tenure_renewal_failures_total", Count, "Streams of renewals that broke");
        describe_counter!("tenure_losses_total", Count, "Holds that ended without a release, by kind and reason");
        describe_counter!("tenure_reentries_total", Count, "Places in a queue that were lost and taken again");
        describe_counter!("tenure_watch_restarts_total", Count, "Watch streams that broke and were opened again");
    }
}
