//! Real faults on a real cluster: what must hold, holds for real processes too, whatever happens to them.
//!
//! Four worker processes lock, one name and several, stand for election, hand over, ask each other to let go and observe,
//! with `etcdctl` among them, on a cluster of three members, while members, workers
//! and the connections between all of them are killed, stopped, cut and slowed down. All that they do becomes one
//! history, which is checked afterwards.
//!
//! `TENURE_CHAOS_SECONDS` is for how long (120), `TENURE_SEED` what it begins from: by time and by the machine two
//! runs of one seed differ all the same. A run that fails leaves its history and all logs behind, and says where, and
//! so does one with `TENURE_CHAOS_KEEP`;
//! `cargo test --test chaos -- --check FILE` checks a history again.

mod check;
mod etcdctl;
mod faults;
mod figures;
mod held;
mod history;
mod locks;
mod office;
#[path = "../common/proxy.rs"]
mod proxy;
mod requests;
mod stage;
mod store;
mod together;
mod work;
mod worker;

use std::env;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::check::{Measures, RECOVERY, Violation};
use crate::faults::Injector;
use crate::figures::Figures;
use crate::history::{Event, Nanos, What};
use crate::stage::{Result, SLOTS, Stage};
use crate::store::Store;

const TTL: Duration = Duration::from_secs(3);

const SECONDS: u64 = 120;

fn main() -> ExitCode {
    if let Ok(config) = env::var(worker::VARIABLE) {
        worker::main(&config);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [option, file] = arguments.as_slice()
        && option == "--check"
    {
        return check_again(Path::new(file));
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("chaos: test");
        return ExitCode::SUCCESS;
    }
    // As with any other test, names on the command line choose.
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    if names.peek().is_some() && !names.any(|name| "chaos".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    match direct() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

fn direct() -> Result {
    let number = |variable| env::var(variable).ok().map(|value| value.parse::<u64>()).transpose();
    let seed = number("TENURE_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let length = Duration::from_secs(number("TENURE_CHAOS_SECONDS")?.unwrap_or(SECONDS));
    println!("chaos: seed {seed}, {} s (TENURE_SEED, TENURE_CHAOS_SECONDS)", length.as_secs());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = play(seed, length) => outcome,
            () = interrupted() => Err("interrupted".into()),
        }
    })
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be heard");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn play(seed: u64, length: Duration) -> Result {
    let stage = Arc::new(Stage::build(seed, TTL).await?);
    let played = act(&stage, seed, length).await;
    let mut events = stage.close();
    events.sort_by_key(|event| event.at);
    let violations = check::check(&events, nanos(TTL));
    println!("{}", Figures::of(&events));
    let Measures { latest, given_away } = check::measure(&events, nanos(TTL));
    println!("latest end of work after its deadline: {:.1} ms", latest as f64 / 1e6);
    println!("leases that etcd gave away before their time: {given_away}");
    let passed = played.is_ok() && violations.is_empty();
    if passed && env::var_os("TENURE_CHAOS_KEEP").is_none() {
        return Ok(());
    }
    let dir = keep(&stage, seed, &events, &violations)?;
    println!("the history and the logs are in {}", dir.display());
    report(&violations);
    played?;
    if passed {
        return Ok(());
    }
    Err(format!("{} violations, with seed {seed}: see {}", violations.len(), dir.display()).into())
}

async fn act(stage: &Arc<Stage>, seed: u64, length: Duration) -> Result {
    let store = Store::new(stage).await?;
    let (follow, compact, probe) = (store.clone().follow(), store.clone().compact(), store.clone().probe());
    let scribes = [tokio::spawn(follow), tokio::spawn(compact), tokio::spawn(probe)];
    for slot in 0..SLOTS {
        stage.start(slot)?;
    }
    let over = CancellationToken::new();
    let injector = Arc::new(Injector::new(stage.clone(), store.clone()));
    let injecting = injector.run(fastrand::Rng::with_seed(seed), over.clone());
    let commanding = tokio::spawn({
        let (stage, over) = (stage.clone(), over.clone());
        async move { etcdctl::commands(&stage, over).await }
    });
    let (mut injecting, begun) = (std::pin::pin!(injecting), Instant::now());
    loop {
        tokio::select! {
            outcome = &mut injecting => break outcome?,
            () = sleep(Duration::from_secs(10)) => {}
        }
        println!(
            "chaos: {} of {} s, {}",
            begun.elapsed().as_secs(),
            length.as_secs(),
            Figures::of(&stage.history()).short()
        );
        if begun.elapsed() >= length {
            over.cancel();
        }
    }
    heal(stage).await?;
    commanding.await?;
    let deserter = stage.deserter();
    stage.finish();
    let limit = 2 * stage.ttl + Duration::from_nanos(RECOVERY);
    let ended = async {
        while !stage.all_ended() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    // Those that do not finish are found by the check.
    tokio::join!(timeout(limit + Duration::from_nanos(RECOVERY), ended), etcdctl::last_turn(stage, limit)).0.ok();
    stage.note(store.remains(limit).await?);
    store.catch_up().await?;
    scribes.iter().for_each(|scribe| scribe.abort());
    deserter.map_or(Ok(()), |deserter| Err(deserter.into()))
}

/// Waits until every member answers.
async fn heal(stage: &Stage) -> Result {
    for member in 0..stage::MEMBERS {
        let answered = async {
            loop {
                let mut client = stage.etcd.member_client(member).await?;
                if let Ok(Ok(_)) = timeout(worker::ASK, client.get("nothing", None)).await {
                    return Ok::<_, tenure::testing::Error>(());
                }
            }
        };
        timeout(Duration::from_secs(60), answered).await??;
    }
    stage.note(What::Healed);
    Ok(())
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).expect("it is short")
}

/// Keeps what is needed to find out what happened.
fn keep(stage: &Stage, seed: u64, events: &[Event], violations: &[Violation]) -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target directory");
    let dir = target.join("chaos").join(format!("{seed}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    stage.copy_logs(&dir)?;
    let mut history = BufWriter::new(File::create(dir.join("history.jsonl"))?);
    for event in events {
        serde_json::to_writer(&mut history, event)?;
        history.write_all(b"\n")?;
    }
    history.flush()?;
    let mut notes = format!("seed {seed}\n");
    violations.iter().for_each(|violation| notes += &format!("{violation}\n"));
    fs::write(dir.join("violations"), notes)?;
    Ok(dir)
}

fn report(violations: &[Violation]) {
    violations.iter().take(50).for_each(|violation| println!("VIOLATED {violation}"));
}

fn check_again(file: &Path) -> ExitCode {
    let text = fs::read_to_string(file).expect("the history can be read");
    let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    let violations = check::check(&events, nanos(TTL));
    println!("{}", Figures::of(&events));
    report(&violations);
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
