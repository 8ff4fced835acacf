//! The result: one object on one line.

use std::fmt;

use serde_json::{Map, Value};

#[derive(Default)]
pub struct Report(Map<String, Value>);

impl Report {
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Unless the peer has said otherwise.
    pub fn or_set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.entry(key).or_insert_with(|| value.into());
    }
}

impl From<Report> for Value {
    fn from(report: Report) -> Self {
        Self::Object(report.0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(&self.0).map_err(|_| fmt::Error)?)
    }
}
