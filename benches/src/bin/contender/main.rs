//! Tenure on the bench, and the bare requests that it is made of.
//!
//! Called as the contenders beside it are: a subcommand and flags, and one JSON object on one line; latencies in µs.
//! An unknown subcommand, or an unknown kind of measurement, ends with 64: "not offered".

mod bench;
mod clock;
mod contest;
mod distribution;
mod election;
mod failover;
mod floor;
mod handoff;
mod kinds;
mod probe;
mod queue;
mod ring;
mod sessions;
mod share;
mod uncontended;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

const NOT_OFFERED: u8 = 64;

#[derive(Parser)]
#[command(name = "contender", about = "Measures Tenure: one JSON object on one line, latencies in µs")]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// What etcd itself takes: single requests, and a delete to its watch event.
    Floor(floor::Options),
    /// Lock and unlock of a mutex that nobody else wants.
    Uncontended(uncontended::Options),
    /// Every kind of lock, and what can be asked of a holder, beside the plain mutex.
    Kinds(kinds::Options),
    /// Waiters that pass one lock round.
    Handoff(handoff::Options),
    /// Waiters that queue up behind a holder, and are then let through.
    Queue(queue::Options),
    /// Sessions that only renew, renewals as fast as they go, and leases that nobody renews.
    Sessions(sessions::Options),
    /// Leaders that resign, that vanish, and who sees it.
    Election(election::Options),
    /// A part of the waiters, in a process of its own.
    #[command(hide = true)]
    Share(share::Options),
    /// Who hears of deletions, in a process of its own.
    #[command(hide = true)]
    Listen(floor::listener::Options),
    /// Leaders, in a process that will be killed.
    #[command(hide = true)]
    Lead(failover::LeadOptions),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::InvalidSubcommand => ExitCode::from(NOT_OFFERED),
                _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
            };
        }
    };
    let measured = match arguments.measurement {
        Measurement::Floor(options) => floor::run(options).await,
        Measurement::Uncontended(options) => uncontended::run(options).await,
        Measurement::Kinds(options) => kinds::run(options).await,
        Measurement::Handoff(options) => handoff::run(options).await,
        Measurement::Queue(options) => queue::run(options).await,
        Measurement::Sessions(options) => sessions::run(options).await,
        Measurement::Election(options) => election::run(options).await,
        Measurement::Share(options) => share::run(options).await,
        Measurement::Listen(options) => floor::listener::run(options).await,
        Measurement::Lead(options) => failover::lead(options).await,
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contender: {error:?}");
            ExitCode::FAILURE
        }
    }
}
