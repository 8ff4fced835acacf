//! The command `tenure`: locks and leadership on etcd, for scripts.
//!
//! The main thread waits, and starts and watches the command; the session lives on a thread of the runtime, so that a
//! terminal that takes no output cannot stop its renewals; and a third thread, the watch-dog, waits for nobody. All of
//! it stands on the crate's public interface.

#[cfg(not(unix))]
compile_error!("the command needs a Unix, for process groups and signals");

mod args;
mod child;
mod connect;
mod failure;
mod guardian;
mod hold;
mod look;
mod observe;
mod output;
mod queues;
mod reader;
mod revoke;
mod run;
mod shim;
mod signals;
mod terminal;
mod top;
mod watchdog;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Arguments, Request};
use failure::{Failure, OTHER, USAGE};
use output::Output;

fn main() -> ExitCode {
    if let Some(code) = shim::run_if_asked().or_else(guardian::run_if_asked) {
        return code.into();
    }
    let Arguments { json, common, request } = arguments();
    let output = Output::new(json);
    // One worker, for the session; what is awaited here runs on this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let answered = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match request {
                Request::Lock(lock) => hold::lock(&common, lock, output).await,
                Request::Elect(elect) => hold::elect(&common, elect, output).await,
                Request::Observe { name } => observe::observe(&common, &name, output).await,
                Request::Ls { prefix } => look::ls(&common, &prefix, output).await,
                Request::Show { name } => look::show(&common, &name, output).await,
                Request::Top(top) => top::top(&common, top, output).await,
                Request::Revoke(revoke) => revoke::revoke(&common, revoke, output).await,
                Request::Completions { shell } => completions(shell),
                Request::Man { command } => man(command.as_deref()),
            }
        }),
        Err(error) => Err(Failure::new(OTHER, error)),
    };
    answered
        .unwrap_or_else(|failure| {
            output.failure(&failure);
            failure.code
        })
        .into()
}

/// What was asked for. A variable that is set to nothing is taken as not set.
fn arguments() -> Arguments {
    let command = Arguments::command().mut_args(|arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    });
    Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tenure", &mut script);
    Ok(io::stdout().write_all(&script).map(|()| 0)?)
}

fn man(of: Option<&str>) -> Result<u8, Failure> {
    let mut whole = Arguments::command();
    whole.build();
    let command = match of {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::new(USAGE, format_args!("{name}: no such command")))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(io::stdout().write_all(&page).map(|()| 0)?)
}
