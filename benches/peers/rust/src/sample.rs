//! Distributions of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

pub(crate) fn round(value: f64, places: i32) -> f64 {
    let power = 10_f64.powi(places);
    (value * power).round() / power
}

pub(crate) fn milliseconds(took: Duration) -> f64 {
    round(took.as_secs_f64() * 1e3, 2)
}

/// Latencies in nanoseconds, to three digits.
pub struct Sample {
    histogram: Histogram<u64>,
    sum: Duration,
}

impl Default for Sample {
    fn default() -> Self {
        Self { histogram: Histogram::new(3).expect("three digits are allowed"), sum: Duration::ZERO }
    }
}

impl Sample {
    pub fn add(&mut self, took: Duration) {
        self.sum += took;
        let nanos = u64::try_from(took.as_nanos()).expect("less than 584 years");
        self.histogram.record(nanos).expect("the histogram grows");
    }

    pub fn summary(&self) -> Value {
        let n = self.histogram.len();
        if n == 0 {
            return json!({"n": 0});
        }
        let us = |nanos: f64| round(nanos / 1e3, 1);
        let at = |quantile| us(self.histogram.value_at_quantile(quantile) as f64);
        json!({
            "n": n,
            "mean_us": us(self.sum.as_nanos() as f64 / n as f64),
            "min_us": us(self.histogram.min() as f64),
            "p50_us": at(0.50),
            "p90_us": at(0.90),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": us(self.histogram.max() as f64),
        })
    }

    /// The rate of one caller that does nothing else.
    pub fn per_second(&self) -> f64 {
        if self.sum.is_zero() { 0.0 } else { round(self.histogram.len() as f64 / self.sum.as_secs_f64(), 1) }
    }
}
