//! The etcd that every other test stands on: it works, it fails on demand, and it leaves nothing behind.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tenure::testing::{Error, Etcd};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// More than any condition takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_started_etcd_keeps_what_is_put() -> TestResult {
    let etcd = Etcd::start().await?;
    assert_eq!(etcd.endpoints().len(), 1);
    let mut client = etcd.client().await?;
    client.put("key", "value", None).await?;
    let found = etcd.member_client(0).await?.get("key", None).await?;
    assert_eq!(found.kvs()[0].value(), b"value");
    assert_eq!(etcd.leader().await?, 0);
    Ok(())
}

/// Tests of fail-over rest on this one: a crash must be one, and its end too.
#[tokio::test]
async fn a_cluster_survives_a_crash_of_its_leader_and_takes_it_back() -> TestResult {
    let etcd = Etcd::cluster(3).await?;
    let first = etcd.leader().await?;
    etcd.member_client(first).await?.put("key", "before", None).await?;

    etcd.kill(first)?;
    assert_eq!(etcd.pid(first), None);
    assert!(matches!(etcd.kill(first), Err(Error::NotRunning { member }) if member == first));
    let second = etcd.leader().await?;
    assert_ne!(second, first);
    etcd.member_client(second).await?.put("key", "between", None).await?;

    etcd.restart(first).await?;
    let found = etcd.member_client(first).await?.get("key", None).await?;
    assert_eq!(found.kvs()[0].value(), b"between");
    Ok(())
}

/// After a power cut nobody answers until a second member is back, so waiting for an answer would never end.
#[tokio::test]
async fn a_cluster_comes_back_one_by_one_after_all_were_killed() -> TestResult {
    let etcd = Etcd::cluster(3).await?;
    etcd.client().await?.put("key", "value", None).await?;
    for member in 0..3 {
        etcd.kill(member)?;
    }
    for member in 0..3 {
        etcd.restart(member).await?;
    }
    let found = etcd.member_client(2).await?.get("key", None).await?;
    assert_eq!(found.kvs()[0].value(), b"value");
    Ok(())
}

/// What parts members has to see all that they say to each other.
#[tokio::test]
async fn members_reach_each_other_by_way_of_who_stands_in_front() -> TestResult {
    let carried = Arc::new(AtomicUsize::new(0));
    let etcd = Etcd::cluster_behind(3, |peers| {
        let fronts = peers.iter().map(|&peer| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let (address, carried) = (listener.local_addr()?, carried.clone());
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(async move {
                while let Ok((mut from, _)) = listener.accept().await {
                    carried.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        let mut to = tokio::net::TcpStream::connect(peer).await?;
                        tokio::io::copy_bidirectional(&mut from, &mut to).await
                    });
                }
            });
            Ok(address)
        });
        fronts.collect()
    })
    .await?;
    etcd.client().await?.put("key", "value", None).await?;
    assert!(carried.load(Ordering::Relaxed) >= 3, "each has spoken to another");
    Ok(())
}

/// A frozen server keeps its connections and says nothing: the worst that can happen to a holder.
#[tokio::test]
async fn a_paused_member_answers_nothing_until_it_is_resumed() -> TestResult {
    let etcd = Etcd::start().await?;
    let mut client = etcd.client().await?;
    client.put("key", "value", None).await?;

    etcd.pause(0)?;
    let unanswered = tokio::time::timeout(Duration::from_millis(300), client.get("key", None)).await;
    assert!(unanswered.is_err(), "a frozen server answered: {unanswered:?}");

    etcd.resume(0)?;
    until("the server answers again", async || client.get("key", None).await.is_ok()).await;
    Ok(())
}

#[tokio::test]
async fn another_member_leads_while_the_leader_is_paused() -> TestResult {
    let etcd = Etcd::cluster(3).await?;
    let first = etcd.leader().await?;
    etcd.pause(first)?;
    assert_ne!(etcd.leader().await?, first);
    etcd.resume(first)?;
    let mut client = etcd.member_client(first).await?;
    until("the old leader answers again", async || client.get("key", None).await.is_ok()).await;
    Ok(())
}

/// A signal that waits in a frozen process would be waited for in vain.
#[tokio::test]
async fn a_member_stops_in_good_order_even_when_paused() -> TestResult {
    let etcd = Etcd::start().await?;
    etcd.client().await?.put("key", "value", None).await?;
    etcd.pause(0)?;
    etcd.stop(0).await?;
    assert_eq!(etcd.pid(0), None);
    assert!(matches!(etcd.pause(0), Err(Error::NotRunning { member: 0 })));
    etcd.restart(0).await?;
    let found = etcd.client().await?.get("key", None).await?;
    assert_eq!(found.kvs()[0].value(), b"value");
    Ok(())
}

#[tokio::test]
async fn a_member_that_runs_is_replaced_by_a_restart() -> TestResult {
    let etcd = Etcd::start().await?;
    let before = etcd.pid(0);
    etcd.restart(0).await?;
    assert!(etcd.pid(0).is_some());
    assert_ne!(etcd.pid(0), before);
    Ok(())
}

/// The cost of a lock is counted in requests that etcd has seen, not in those that we believe to have sent.
#[tokio::test]
async fn metrics_count_the_requests() -> TestResult {
    let etcd = Etcd::start().await?;
    let mut client = etcd.client().await?;
    let puts = async || etcd.metric(0, "grpc_server_handled_total", r#"grpc_method="Put""#).await;
    let before = puts().await?;
    for _ in 0..3 {
        client.put("key", "value", None).await?;
    }
    assert_eq!(puts().await? - before, 3.0);
    assert!(etcd.metrics(0).await?.contains("etcd_server_has_leader 1"));
    let missing = etcd.metric(0, "no_such_metric", "").await.unwrap_err();
    assert!(missing.to_string().contains("no_such_metric"), "{missing}");
    etcd.kill(0)?;
    assert!(matches!(etcd.metrics(0).await, Err(Error::Io { .. })));
    Ok(())
}

/// A start that fails has to say why, or everybody who meets it searches for an hour.
#[tokio::test]
async fn a_failed_start_quotes_the_log() -> TestResult {
    let failed = Etcd::start_with(&["--no-such-flag"]).await.unwrap_err();
    assert!(matches!(failed, Error::Exited { member: 0, .. }), "{failed}");
    assert!(failed.to_string().contains("no-such-flag"), "{failed}");
    Ok(())
}

#[tokio::test]
async fn further_flags_reach_etcd() -> TestResult {
    let etcd = Etcd::start_with(&["--max-txn-ops", "1"]).await?;
    let two = etcd_client::Txn::new().and_then(["a", "b"].map(|key| etcd_client::TxnOp::put(key, "", None)));
    let refused = etcd.client().await?.txn(two).await.unwrap_err();
    assert!(refused.to_string().contains("too many operations"), "{refused}");
    Ok(())
}

/// Tests run in parallel, and each looks for ports. One that was taken in between is no reason to fail, ...
#[tokio::test]
async fn a_start_that_loses_its_ports_is_tried_again() -> TestResult {
    if let Some(base) = playing_a_part() {
        let etcd = Etcd::start().await?;
        assert!(base.join("tried").exists());
        etcd.client().await?.put("key", "value", None).await?;
        return Ok(());
    }
    let base = tempfile::tempdir()?;
    let fake = base.path().join("fake");
    let script = "#!/bin/sh\nif mkdir \"$TENURE_ETCD_DIR/tried\" 2>/dev/null; then\n\
                  echo bind: address already in use; exit 1\nfi\nexec \"${REAL_ETCD:-etcd}\" \"$@\"\n";
    std::fs::write(&fake, script)?;
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755))?;
    let real = std::env::var_os("TENURE_ETCD").unwrap_or_default();
    let mut played = part("a_start_that_loses_its_ports_is_tried_again", base.path());
    assert!(played.env("REAL_ETCD", real).env("TENURE_ETCD", fake).status()?.success());
    Ok(())
}

/// ... but one that stays taken is.
#[tokio::test]
async fn a_start_whose_port_stays_taken_gives_up() -> TestResult {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", taken.local_addr()?);
    let failed = Etcd::start_with(&["--listen-client-urls", &url]).await.unwrap_err();
    assert!(matches!(failed, Error::Exited { member: 0, .. }), "{failed}");
    assert!(failed.to_string().contains("address already in use"), "{failed}");
    Ok(())
}

/// A paused process ignores all but one signal, and one left behind is a frozen etcd for ever.
#[tokio::test]
async fn dropping_ends_every_process_and_removes_the_directory() -> TestResult {
    let etcd = Etcd::cluster(3).await?;
    etcd.pause(0)?;
    etcd.kill(1)?;
    let remains = Remains::of(&etcd);
    assert_eq!(remains.pids.len(), 2);
    assert!(remains.pids.iter().all(|&pid| is_alive(pid)));
    drop(etcd);
    remains.assert_gone();
    Ok(())
}

#[test]
fn a_panic_ends_the_process_and_removes_the_directory() {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        runtime().block_on(async {
            let etcd = Etcd::start().await.unwrap();
            etcd.pause(0).unwrap();
            send.send(Remains::of(&etcd)).unwrap();
            panic!("as a failed assertion would");
        });
    })
    .join();
    assert!(panicked.is_err());
    receive.recv().unwrap().assert_gone();
}

/// A timeout around a start drops it half-way. In a process of its own, for the sake of its environment.
#[tokio::test]
async fn a_start_that_is_dropped_leaves_nothing_behind() -> TestResult {
    if let Some(base) = playing_a_part() {
        let mut start = Box::pin(Etcd::cluster(3));
        until("the members are starting", async || {
            let unfinished = tokio::time::timeout(Duration::from_millis(1), &mut start).await;
            assert!(unfinished.is_err(), "started before it could be dropped");
            entries(&base) == 1
        })
        .await;
        drop(start);
        assert_eq!(entries(&base), 0);
        return Ok(());
    }
    let base = tempfile::tempdir()?;
    let played = part("a_start_that_is_dropped_leaves_nothing_behind", base.path()).status()?;
    assert!(played.success());
    Ok(())
}

/// Linux ends a child with the thread that spawned it, if asked to end it with its parent. The threads of tests end.
#[tokio::test]
async fn a_member_outlives_the_thread_that_started_it() -> TestResult {
    let started = thread::spawn(|| runtime().block_on(Etcd::start()));
    let etcd = started.join().expect("the thread did not panic")?;
    etcd.client().await?.put("key", "value", None).await?;
    Ok(())
}

/// Whoever interrupts a test run, or has it killed by a time limit, must not find etcds a week later.
#[cfg(target_os = "linux")]
#[test]
fn no_member_outlives_a_killed_process() -> TestResult {
    if let Some(base) = playing_a_part() {
        return runtime().block_on(async {
            let etcd = Etcd::cluster(3).await?;
            etcd.pause(0)?;
            let pids: Vec<_> = (0..3).filter_map(|member| etcd.pid(member)).map(|pid| pid.to_string()).collect();
            std::fs::write(base.join("written"), pids.join(" "))?;
            std::fs::rename(base.join("written"), base.join("pids"))?;
            std::future::pending().await
        });
    }
    let able = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status();
    if !able.is_ok_and(|status| status.success()) {
        return Ok(()); // No util-linux: not promised.
    }
    let base = tempfile::tempdir()?;
    let mut victim = part("no_member_outlives_a_killed_process", base.path()).spawn()?;
    let begun = Instant::now();
    let pids = loop {
        if let Ok(pids) = std::fs::read_to_string(base.path().join("pids")) {
            break pids;
        }
        assert_eq!(victim.try_wait()?, None, "it ended before it could be killed");
        assert!(begun.elapsed() < LIMIT, "it did not start its members");
        thread::sleep(Duration::from_millis(10));
    };
    victim.kill()?;
    victim.wait()?;
    let pids: Vec<u32> = pids.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!(pids.len(), 3);
    for pid in pids {
        let begun = Instant::now();
        while is_alive(pid) {
            assert!(begun.elapsed() < LIMIT, "etcd {pid} outlives the process that started it");
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// A Ctrl-C goes to the terminal's whole process group. What is held is released while etcd still answers.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_ctrl_c_does_not_reach_a_member() -> TestResult {
    let etcd = Etcd::start().await?;
    let pid = etcd.pid(0).and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    assert_ne!(rustix::process::getpgid(pid)?, rustix::process::getpgrp());
    Ok(())
}

/// Tests hand it to their tasks.
#[test]
fn it_can_be_shared_and_sent() {
    fn check<T: Send + Sync + 'static>() {}
    fn check_future<F: Future + Send + 'static>(_: F) {}
    check::<Etcd>();
    check::<Error>();
    check_future(Etcd::cluster(3));
}

/// What must not be left of an etcd.
#[derive(Debug)]
struct Remains {
    pids: Vec<u32>,
    dir: PathBuf,
}

impl Remains {
    fn of(etcd: &Etcd) -> Self {
        let pids = (0..etcd.endpoints().len()).filter_map(|member| etcd.pid(member)).collect();
        Self { pids, dir: etcd.dir().to_path_buf() }
    }

    fn assert_gone(&self) {
        for &pid in &self.pids {
            assert!(!is_alive(pid), "process {pid} is left");
        }
        assert!(!self.dir.exists(), "{} is left", self.dir.display());
    }
}

/// Whether there is such a process. An orphan that has ended, and that nobody has reaped yet, is none.
fn is_alive(pid: u32) -> bool {
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        return !stat.contains(") Z ");
    }
    let asked = Command::new("kill").args(["-0", &pid.to_string()]).stderr(Stdio::null()).status();
    asked.expect("there is a `kill`").success()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A test of this file in another process, whose etcds keep their data in `base`.
fn part(test: &str, base: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this is a program"));
    command.args([test, "--exact"]).env("TENURE_TEST_PART", base).env("TENURE_ETCD_DIR", base).stdout(Stdio::null());
    command
}

/// In that other process: the directory.
fn playing_a_part() -> Option<PathBuf> {
    std::env::var_os("TENURE_TEST_PART").map(PathBuf::from)
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("it can be read").count()
}
