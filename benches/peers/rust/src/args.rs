//! The flags, as `benches/peers/go` has them.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Prints one line of JSON; latencies are in microseconds")]
pub(crate) struct Program {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Lock and unlock what nobody else wants
    Uncontended(Uncontended),
    /// Sessions passing one lock round
    Handoff(Handoff),
    /// What the server itself costs: single requests and one watch event
    Floor(Floor),
    /// Queue waiters up behind a holder, then drain the queue
    Queue(Queue),
    /// Campaign and resign, what an observer sees, fail-over
    Election(Election),
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uncontended(_) => "uncontended",
            Self::Handoff(_) => "handoff",
            Self::Floor(_) => "floor",
            Self::Queue(_) => "queue",
            Self::Election(_) => "election",
        }
    }

    /// How many sessions it takes.
    pub fn sessions(&self) -> usize {
        match self {
            Self::Uncontended(_) | Self::Floor(_) => 1,
            Self::Handoff(flags) => flags.waiters,
            Self::Queue(flags) => flags.waiters + 1,
            // And one that observes.
            Self::Election(flags) => flags.candidates + 1,
        }
    }

    pub fn settings(&self) -> &Settings {
        match self {
            Self::Uncontended(Uncontended { settings, .. })
            | Self::Handoff(Handoff { settings, .. })
            | Self::Floor(Floor { settings, .. })
            | Self::Queue(Queue { settings, .. })
            | Self::Election(Election { settings, .. }) => settings,
        }
    }
}

#[derive(Args, Clone)]
pub struct Settings {
    /// Endpoints of etcd, comma separated
    #[arg(long, default_value = "127.0.0.1:2379")]
    pub endpoints: String,
    /// URLs of etcd's /metrics, comma separated (summed); empty: no server counters
    #[arg(long, default_value = "", hide_default_value = true)]
    pub metrics: String,
    /// Process ids of etcd, comma separated; empty: no server memory and CPU
    #[arg(long, default_value = "", hide_default_value = true)]
    pub etcd_pid: String,
    /// Copied into the output
    #[arg(long, default_value = "", hide_default_value = true)]
    pub label: String,
    /// Connections; session i uses connection i mod N; 0: one for each session
    #[arg(long, default_value_t = 0)]
    pub clients: usize,
    /// TTL of a session in seconds
    #[arg(long, default_value_t = 60)]
    pub ttl: u64,
}

impl Settings {
    pub fn endpoints(&self) -> Vec<&str> {
        split(&self.endpoints)
    }

    /// How many there are for so many sessions.
    pub fn connections(&self, sessions: usize) -> usize {
        if self.clients == 0 { sessions } else { self.clients }
    }
}

pub(crate) fn split(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[derive(Args, Clone)]
pub struct Uncontended {
    #[command(flatten)]
    pub settings: Settings,
    /// Cycles of lock and unlock
    #[arg(long, default_value_t = 2000)]
    pub n: usize,
    /// Cycles before measuring
    #[arg(long, default_value_t = 200)]
    pub warmup: usize,
}

#[derive(Args, Clone)]
pub struct Handoff {
    #[command(flatten)]
    pub settings: Settings,
    /// Contending sessions
    #[arg(long, default_value_t = 8)]
    pub waiters: usize,
    /// Hand-offs measured, all sessions together
    #[arg(long, default_value_t = 2000)]
    pub cycles: usize,
    /// Hand-offs before measuring; -1: the larger of waiters and 50
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub warmup: isize,
    /// How long each holder keeps the lock
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
}

impl Handoff {
    /// How many hand-offs go unmeasured.
    pub fn unmeasured(&self) -> usize {
        usize::try_from(self.warmup).unwrap_or(self.waiters.max(50))
    }
}

#[derive(Args)]
pub struct Floor {
    #[command(flatten)]
    pub settings: Settings,
    /// Repetitions of each request
    #[arg(long, default_value_t = 2000)]
    pub n: usize,
    /// Taken for the sake of likeness: no watches are opened anew here
    #[arg(long, default_value_t = 0)]
    pub fresh: usize,
    /// Pause before each request; above 0: only the watch event and the linearizable get
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub pace: Duration,
}

#[derive(Args)]
pub struct Queue {
    #[command(flatten)]
    pub settings: Settings,
    /// Waiters behind the holder
    #[arg(long, default_value_t = 100)]
    pub waiters: usize,
    /// Sessions opened or closed at a time
    #[arg(long, default_value_t = 64)]
    pub parallel: usize,
    /// Waiters that may be joining the queue at a time; 0: all at once
    #[arg(long, default_value_t = 0)]
    pub join: usize,
}

#[derive(Args, Clone)]
pub struct Election {
    #[command(flatten)]
    pub settings: Settings,
    /// Hand-overs measured
    #[arg(long, default_value_t = 300)]
    pub n: usize,
    /// Hand-overs before measuring
    #[arg(long, default_value_t = 20)]
    pub warmup: usize,
    /// How long a leader stays before it resigns
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// Candidates
    #[arg(long, default_value_t = 3)]
    pub candidates: usize,
    /// Fail-overs measured, side by side in elections of their own
    #[arg(long, default_value_t = 8)]
    pub failovers: usize,
    /// TTL of a session that is orphaned, in seconds
    #[arg(long, default_value_t = 5)]
    pub failover_ttl: u64,
}
