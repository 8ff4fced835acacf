//! Every example runs as it stands, and the page of examples lists it.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::{env, fs};

use common::{LIMIT, TestResult, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// They go on until they are stopped: each has a test of its own.
const SERVERS: [&str; 2] = ["leader", "service"];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What `cargo test` has built already, unless this file is run alone.
fn built() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        let built = cargo.args(["build", "--quiet", "--examples", "--all-features"]).current_dir(ROOT).status();
        assert!(built.expect("cargo is there").success());
        let test = env::current_exe().expect("it has a path");
        test.ancestors().nth(2).expect("below the profile's directory").join("examples")
    };
    BUILT.get_or_init(build).clone()
}

/// The names of all examples.
fn all() -> BTreeSet<String> {
    let files = fs::read_dir(Path::new(ROOT).join("examples")).expect("the examples are there");
    let names = files.map(|file| file.expect("it can be read").path().file_stem().expect("a name").to_owned());
    names.map(|name| name.into_string().expect("text")).filter(|name| name != "common").collect()
}

fn command(example: &str) -> Command {
    let mut command = Command::new(built().join(example));
    command.current_dir(ROOT).env_remove("ETCD_ENDPOINTS").stdin(Stdio::null()).stdout(Stdio::piped());
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn every_example_that_ends_by_itself_succeeds() -> TestResult {
    for example in all().iter().filter(|name| !SERVERS.contains(&name.as_str())) {
        let output = timeout(LIMIT, command(example).output()).await??;
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(!output.stdout.is_empty(), "{example} shows nothing");
    }
    Ok(())
}

#[test]
fn the_page_of_examples_lists_every_example() -> TestResult {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/examples.md"))?;
    for example in all() {
        assert!(page.contains(&format!("| `{example}` |")), "{example} is not on the page of examples");
    }
    Ok(())
}

/// A program that goes on, and what it prints.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(mut command: Command) -> TestResult<Self> {
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().expect("it was asked for");
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    async fn line(&mut self) -> TestResult<String> {
        Ok(timeout(LIMIT, self.lines.next_line()).await??.ok_or("it prints no more")?)
    }

    /// Asks it to end, as a supervisor does, and returns what it says to that.
    async fn stop(mut self) -> TestResult<Vec<String>> {
        signal(self.child.id().ok_or("it has ended")?, Signal::TERM)?;
        let mut lines = Vec::new();
        while let Some(line) = timeout(LIMIT, self.lines.next_line()).await?? {
            lines.push(line);
        }
        let status = timeout(LIMIT, self.child.wait()).await??;
        assert!(status.success(), "{status}: {lines:?}");
        Ok(lines)
    }
}

fn signal(process: u32, signal: Signal) -> TestResult {
    let pid = Pid::from_raw(i32::try_from(process)?).ok_or("no process")?;
    Ok(kill_process(pid, signal)?)
}

#[tokio::test]
async fn the_leader_leads_and_resigns_when_it_is_stopped() -> TestResult {
    let mut leader = Server::start(command("leader"))?;
    while !leader.line().await?.starts_with("leading with token") {}
    let last = leader.stop().await?;
    assert!(last.iter().any(|line| line == "no longer leading"), "{last:?}");
    Ok(())
}

/// The status and the body of an HTTP resource.
async fn get(url: &str) -> TestResult<(u16, Value)> {
    let rest = url.strip_prefix("http://").ok_or("another scheme")?;
    let (address, path) = rest.split_once('/').ok_or("no path")?;
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let status = reply.split(' ').nth(1).ok_or("no status")?.parse()?;
    let (_, body) = reply.split_once("\r\n\r\n").ok_or("no body")?;
    Ok((status, serde_json::from_str(body)?))
}

/// What an operator sees with curl: one leader, known to all, and another one after it was killed.
#[tokio::test]
async fn three_replicas_of_the_service_have_one_leader_though_it_is_killed() -> TestResult {
    let mut service = command("service");
    service.args(["--replicas", "3", "--port", "0"]);
    let mut service = Server::start(service)?;
    // A replica to a line: `replica N (process PID): curl URL/ready URL/leader`
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let line = service.line().await?;
        let process: u32 =
            line.split(['(', ')']).nth(1).and_then(|s| s.strip_prefix("process ")).ok_or("no pid")?.parse()?;
        let url = line.split(' ').find_map(|word| word.strip_suffix("/ready")).ok_or("no address")?.to_owned();
        replicas.push((process, url));
    }

    let leaders = async |replicas: &[(u32, String)]| {
        let mut leaders = Vec::new();
        for (_, url) in replicas {
            leaders.push(get(&format!("{url}/leader")).await.ok());
        }
        leaders
    };
    let agreed = async |replicas: &[(u32, String)]| {
        let leaders: Option<Vec<_>> = leaders(replicas).await.into_iter().collect();
        let leaders: Vec<_> = leaders?.into_iter().map(|(status, body)| (status == 200).then_some(body)).collect();
        let leaders: Vec<Value> = leaders.into_iter().collect::<Option<_>>()?;
        let same = leaders.iter().all(|body| body["leader"] == leaders[0]["leader"]);
        let certain = leaders.iter().filter(|body| body["certain_for_seconds"].as_f64() > Some(0.0)).count();
        (same && certain == 1).then(|| leaders[0]["leader"].as_str().map(str::to_owned)).flatten()
    };
    until("one leads, it is certain of it, and all know it", async || agreed(&replicas).await.is_some()).await;
    for (_, url) in &replicas {
        assert_eq!(get(&format!("{url}/ready")).await?.0, 200);
    }

    let first = agreed(&replicas).await.ok_or("nobody leads")?;
    let killed = replicas.iter().position(|(_, url)| url.ends_with(&first)).ok_or("a stranger leads")?;
    let (process, _) = replicas.remove(killed);
    signal(process, Signal::KILL)?;
    until("another one leads", async || agreed(&replicas).await.is_some_and(|leader| leader != first)).await;

    let last = service.stop().await?;
    assert_eq!(last.iter().filter(|line| line.ends_with("has left")).count(), 2, "{last:?}");
    Ok(())
}
