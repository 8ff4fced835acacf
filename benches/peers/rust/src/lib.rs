//! Measures a lock that somebody else wrote as `benches/peers/go` measures Go's: the same subcommands, flags and keys.
//!
//! A program of this package says what it can do by matching [`Command`], and how its lock is taken by [`Session`].

mod args;
pub mod handoff;
pub mod line;
mod probe;
pub mod queue;
mod report;
mod sample;
pub mod uncontended;

use std::collections::HashSet;
use std::future::Future;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::json;

pub use args::{Command, Election, Floor, Handoff, Queue, Settings, Uncontended};
pub use probe::Probe;
pub use report::Report;
pub use sample::Sample;

pub type Result<T> = anyhow::Result<T>;

/// One who takes locks, with a connection and a lease of its own where the peer has them.
pub trait Session: Send + 'static {
    type Held: Send;

    fn lock(&mut self, name: &str) -> impl Future<Output = Result<Self::Held>> + Send;
    fn unlock(&mut self, held: Self::Held) -> impl Future<Output = Result<()>> + Send;
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// What a program is, for the report.
pub struct Peer {
    pub name: &'static str,
    /// The package in Cargo.lock.
    pub package: &'static str,
}

/// The peer has nothing like this subcommand.
#[derive(Debug)]
pub struct NotOffered;

impl std::fmt::Display for NotOffered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not offered")
    }
}

impl std::error::Error for NotOffered {}

/// EX_USAGE of sysexits.h.
const NOT_OFFERED: u8 = 64;

/// Reads the arguments, lets `run` measure, and prints the report.
pub async fn main(peer: Peer, run: impl AsyncFnOnce(&Command, &mut Report) -> Result<()>) -> ExitCode {
    let command = match args::Program::try_parse() {
        Ok(program) => program.command,
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand => {
            eprintln!("{error}");
            return NOT_OFFERED.into();
        }
        Err(error) => error.exit(),
    };
    let (started, clock) = (SystemTime::now(), Instant::now());
    let mut report = Report::default();
    if let Err(error) = run(&command, &mut report).await {
        eprintln!("{} {}: {error:#}", peer.name, command.name());
        return if error.is::<NotOffered>() { NOT_OFFERED.into() } else { ExitCode::FAILURE };
    }
    let settings = command.settings();
    report.set("bench", command.name());
    report.set("impl", peer.name);
    report.set("impl_version", version(peer.package));
    report.set("label", settings.label.as_str());
    report.or_set("endpoints", settings.endpoints.as_str());
    report.or_set("clients", settings.clients);
    report.set("workers", tokio::runtime::Handle::current().metrics().num_workers());
    report.set("started", humantime::format_rfc3339_seconds(started).to_string());
    report.set("total_s", json!(sample::round(clock.elapsed().as_secs_f64(), 3)));
    println!("{report}");
    ExitCode::SUCCESS
}

/// The version that was built in. Where two are, the newer: the other one is a dependency of the first.
fn version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    let found: HashSet<_> = include_str!("../Cargo.lock")
        .split("[[package]]")
        .filter(|entry| entry.lines().any(|line| line == name))
        .filter_map(|entry| entry.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')))
        .collect();
    let numbers = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    found.into_iter().max_by_key(|version| numbers(version)).unwrap_or("unknown")
}

/// A name that no other run uses.
pub fn unique(what: &str) -> String {
    let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("peers/{}-{nanos}/{what}", std::process::id())
}
