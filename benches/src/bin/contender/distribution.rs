//! Latencies, and what is said of them.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::clock::Nanos;

/// From a nanosecond to ten minutes, to three digits.
pub struct Distribution(Histogram<u64>);

impl Distribution {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order"))
    }

    pub fn of(latencies: impl IntoIterator<Item = Nanos>) -> Self {
        let mut distribution = Self::new();
        latencies.into_iter().for_each(|latency| distribution.add(latency));
        distribution
    }

    pub fn add(&mut self, latency: Nanos) {
        self.0.saturating_record(latency);
    }

    pub fn summary(&self) -> Value {
        if self.0.is_empty() {
            return json!({ "n": 0 });
        }
        let micros = |nanos: f64| (nanos / 100.0).round() / 10.0;
        let at = |quantile| micros(self.0.value_at_quantile(quantile) as f64);
        json!({
            "n": self.0.len(),
            "mean_us": micros(self.0.mean()),
            "min_us": micros(self.0.min() as f64),
            "p50_us": at(0.5),
            "p90_us": at(0.9),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": micros(self.0.max() as f64),
        })
    }
}
