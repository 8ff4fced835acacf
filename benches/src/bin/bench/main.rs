//! Tenure beside the floor and its peers: runs everybody alternately against the same etcds, and reports.

mod contenders;
mod figure;
mod machine;
mod place;
mod plan;
mod plot;
mod records;
mod run;
mod table;
mod targets;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use crate::contenders::Contenders;
use crate::machine::Machine;
use crate::plan::Extent;
use crate::records::Records;
use crate::run::Run;

#[derive(Parser)]
#[command(
    name = "scripts/bench",
    about = "Measures Tenure, what etcd itself takes, and Tenure's peers, alternately against the same etcds",
    after_help = "Writes records.jsonl, report.md and plots into target/bench-results. A run takes ten minutes at most.\n\n\
                  \x20 TENURE_ETCD   the etcd server to measure with, rather than the newest that can be had"
)]
struct Options {
    /// The essential rows, in three minutes.
    #[arg(long)]
    quick: bool,
    /// Prints every target that was missed, and what went wrong, and fails if there is either.
    #[arg(long)]
    check: bool,
    /// Only this row; may be repeated.
    #[arg(long, value_name = "ROW", value_parser = plan::ROWS)]
    only: Vec<String>,
    /// Ends the measuring after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Who else runs: lines of `NAME PROGRAM`, or `NAME - REASON` for who cannot.
    #[arg(long, hide = true)]
    peers: Option<PathBuf>,
    #[arg(long, hide = true, default_value = "target/bench-results")]
    results: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench(Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: Options) -> Result<ExitCode> {
    let begun = Instant::now();
    let extent = if options.quick { Extent::Quick } else { Extent::Full };
    let budget = options.budget.map_or(extent.budget(), Duration::from_secs);
    let contenders = Contenders::find(options.peers.as_deref())?;
    let work = plan::work(extent, &options.only);
    let machine = Machine::here().await?;
    fs::create_dir_all(&options.results).with_context(|| format!("cannot make {}", options.results.display()))?;
    let mut records = Records::create(&options.results.join("records.jsonl"), &machine)?;
    for (name, reason) in &contenders.missing {
        eprintln!("{name} is left out: {reason}");
    }

    let run = Run::new(&contenders, &work, begun + budget);
    run.everything(&mut records).await?;

    let verdicts = targets::judge(&records, &work, &contenders);
    let report = table::report(&machine, &records, &work, &contenders, &verdicts);
    fs::write(options.results.join("report.md"), &report)?;
    let plots = plot::all(&options.results, &machine, &records, &work)?;
    println!("{report}");
    eprintln!("{}: records.jsonl, report.md, {plots} plots", options.results.display());
    eprintln!("measured for {:.0} s", begun.elapsed().as_secs_f64());

    if !options.check {
        return Ok(ExitCode::SUCCESS);
    }
    let missed: Vec<_> = verdicts.iter().filter(|verdict| verdict.missed()).collect();
    for verdict in &missed {
        println!("MISSED {verdict}");
    }
    let faults = records.faults(Some(contenders::TENURE));
    for fault in &faults {
        println!("FAULT {fault}");
    }
    println!("{} of {} targets missed, {} faults", missed.len(), verdicts.len(), faults.len());
    Ok(if missed.is_empty() && faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
