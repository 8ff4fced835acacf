//! The command `tenure`, as processes: what its help says of exit codes, of the child, and of how it is ended.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::{TestResult, World, equals, on_etcd, soon, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The shortest that a command may have.
const TTL: &str = "--ttl=3s";

fn program(program: &str, world: &World, args: &[&str]) -> Command {
    let mut command = common::as_from_a_terminal(program);
    for (variable, _) in std::env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("ETCDCTL_"))
    {
        command.env_remove(variable);
    }
    command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", world.etcd.endpoints().join(","));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn tenure(world: &World, args: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_tenure"), world, args)
}

/// Runs it to its end.
async fn output(mut command: Command) -> TestResult<Output> {
    Ok(soon("it ends", command.output()).await?)
}

async fn code(world: &World, args: &[&str]) -> TestResult<(Option<i32>, String)> {
    let output = output(tenure(world, args)).await?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

async fn json_of(world: &World, args: &[&str]) -> TestResult<Value> {
    let output = output(tenure(world, args)).await?;
    assert!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A process that goes on, and what it prints.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> TestResult<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Ok(Self { child, lines })
    }

    async fn line(&mut self) -> TestResult<String> {
        let line = soon("it says something", self.lines.next_line()).await?;
        Ok(line.ok_or("it ended")?)
    }

    async fn signal(&self, signal: &str) -> TestResult {
        let pid = self.child.id().ok_or("it ended")?.to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await?.success());
        Ok(())
    }

    async fn ends_with(&mut self, code: i32) -> TestResult {
        assert_eq!(soon("it ends", self.child.wait()).await?.code(), Some(code));
        Ok(())
    }
}

/// A file that commands write to, and that ends them when it goes.
struct Log {
    dir: TempDir,
}

impl Log {
    fn new() -> TestResult<Self> {
        let log = Self { dir: tempfile::tempdir()? };
        fs::write(log.path(), "")?;
        Ok(log)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// A script that writes `word` again and again; SIGTERM does not end it.
    fn keeps_writing(&self, word: &str) -> String {
        let path = self.path().display().to_string();
        format!("trap '' TERM; while [ -e {path} ]; do echo {word} >>{path}; sleep 0.02; done")
    }

    fn lines(&self) -> Vec<String> {
        lines(&self.path())
    }

    async fn has(&self, word: &str) {
        until(&format!("{word} is at work"), async || self.lines().iter().any(|line| line == word)).await;
    }

    /// Nobody writes any more: the loop above would, 50 times a second.
    async fn is_quiet(&self) -> bool {
        let before = self.lines().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.lines().len() == before
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_exit_code_is_the_commands_own() -> TestResult {
    on_etcd(async |world: &World| {
        for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
            assert_eq!(code(world, &["lock", "name", "--", "sh", "-c", script]).await?.0, Some(expected), "{script}");
        }
        let (missing, text) = code(world, &["lock", "name", "--", "no-such-command"]).await?;
        assert_eq!(missing, Some(127));
        assert!(text.contains("no-such-command"), "{text}");
        assert_eq!(code(world, &["lock", "name", "--", "/etc/passwd"]).await?.0, Some(126));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_it_cannot_do_it_says_with_a_code_of_its_own() -> TestResult {
    on_etcd(async |world: &World| {
        let guard = world.session().await?.mutex("name").lock().await?;
        for args in [
            &["lock", "--try", "name"][..],
            &["lock", "--timeout", "100ms", "name", "--", "true"],
            &["elect", "--try", "name", "x"],
        ] {
            let (not_free, text) = code(world, args).await?;
            assert_eq!(not_free, Some(124), "{text}");
            assert!(text.contains("name: not free") && text.contains("held by"), "{text}");
        }
        guard.unlock().await?;

        let nobody = ["--endpoints=127.0.0.1:1", "lock", "name", "--", "true"];
        for args in [&nobody[..], &["ls", "--endpoints=127.0.0.1:1"], &["observe", "x", "--endpoints=127.0.0.1:1"]] {
            let (unreachable, text) = code(world, args).await?;
            assert_eq!(unreachable, Some(69), "{text}");
            assert!(text.contains("127.0.0.1:1"), "{text}");
        }

        assert_eq!(code(world, &["lock", "--count=2", "gpu"]).await?.0, Some(2));
        let short = ["lock", "--ttl=2s", "name", "--", "true"];
        for args in [
            &["lock"][..],
            &["lock", "a/"],
            &["lock", "--try", "--timeout=1s", "a"],
            &short,
            &["lock", "--ttl=3500ms", "a"],
        ] {
            assert_eq!(code(world, args).await?.0, Some(2), "{args:?}");
        }

        let _permit = world.session().await?.semaphore("gpu", 4).acquire().await?;
        for (args, says) in
            [(&["lock", "gpu"][..], "semaphore instead of mutex"), (&["lock", "gpu", "--permits=5"], "4 instead of 5")]
        {
            let (mismatch, text) = code(world, args).await?;
            assert_eq!(mismatch, Some(1), "{text}");
            assert!(text.contains(says), "{text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_command_has_the_environment_and_the_standard_streams() -> TestResult {
    on_etcd(async |world: &World| {
        let script = r#"cat; echo "$TENURE_NAME $TENURE_KEY $TENURE_TOKEN $TENURE_LEASE $ETCD_LOCK_KEY $ETCD_LOCK_REV"; echo aside >&2"#;
        let mut command = tenure(world, &["--namespace=prod/", "lock", "jobs/a", "--", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().expect("it is piped").write_all(b"from outside\n").await?;
        let output = soon("it ends", child.wait_with_output()).await?;
        let out = String::from_utf8(output.stdout)?;
        let (read, told) = out.split_once('\n').ok_or("it says two lines")?;
        let told: Vec<_> = told.split_whitespace().collect();
        let [name, key, token, lease, etcdctl_key, etcdctl_revision] = told[..] else { panic!("{told:?}") };
        assert_eq!((read, &*output.stderr), ("from outside", &b"aside\n"[..]));
        assert_eq!((name, key), ("jobs/a", &*format!("prod/jobs/a/{lease}-0")));
        assert_eq!((key, token), (etcdctl_key, etcdctl_revision));
        assert!(token.parse::<i64>()? > 0 && i64::from_str_radix(lease, 16)? != 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn commands_run_one_after_the_other() -> TestResult {
    on_etcd(async |world: &World| {
        let log = Log::new()?;
        let path = log.path().display().to_string();
        let script = format!("echo begin >>{path}; sleep 0.05; echo end >>{path}");
        let start = || Running::start(tenure(world, &["lock", "name", "--", "sh", "-c", &script]));
        let mut commands = [start()?, start()?, start()?, start()?];
        for command in &mut commands {
            command.ends_with(0).await?;
        }
        assert_eq!(log.lines(), ["begin", "end"].repeat(4));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn readers_and_permits_are_held_beside_each_other() -> TestResult {
    on_etcd(async |world: &World| {
        let shared = ["lock", "--shared", "config"];
        let permits = ["lock", "--permits=4", "--count=2", "gpu"];
        for args in [&shared[..], &permits] {
            let mut two = [Running::start(tenure(world, args))?, Running::start(tenure(world, args))?];
            for one in &mut two {
                assert!(one.line().await?.starts_with("held "));
            }
            let queue = json_of(world, &["show", args[args.len() - 1], "--json"]).await?;
            assert_eq!((&queue[0]["holds"], &queue[1]["holds"]), (&json!(true), &json!(true)), "{queue}");
            // Nor a writer, nor a fifth permit.
            let third = if args == shared {
                &["lock", "--try", "config"][..]
            } else {
                &["lock", "--try", "--permits=4", "gpu"]
            };
            assert_eq!(code(world, third).await?.0, Some(124));
            for one in &mut two {
                one.signal("-INT").await?;
                one.ends_with(0).await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn signals_are_forwarded() -> TestResult {
    on_etcd(async |world: &World| {
        let script = "trap 'echo usr' USR1; trap 'echo int; exit 3' INT; echo ready; while :; do sleep 0.02; done";
        let mut running = Running::start(tenure(world, &["lock", "name", "--", "sh", "-c", script]))?;
        assert_eq!(running.line().await?, "ready");
        running.signal("-USR1").await?;
        assert_eq!(running.line().await?, "usr");
        running.signal("-INT").await?;
        assert_eq!(running.line().await?, "int");
        running.ends_with(3).await?;

        let mut running =
            Running::start(tenure(world, &["lock", "name", "--", "sh", "-c", "echo ready; exec sleep 100"]))?;
        assert_eq!(running.line().await?, "ready");
        running.signal("-TERM").await?;
        running.ends_with(143).await
    })
    .await
}

/// As under a shell: what is typed is the command's, from its first moment, and Ctrl-C reaches it once. `script` of
/// util-linux has the terminal.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_command_has_the_terminal() -> TestResult {
    on_etcd(async |world: &World| {
        let script = "read word; trap 'echo interrupted; exit 3' INT; echo got \\$word; while :; do sleep 0.02; done";
        let lock = format!("{} lock name -- sh -c \"{script}\"", env!("CARGO_BIN_EXE_tenure"));
        let mut typing = program("script", world, &["-qec", &lock, "/dev/null"]);
        typing.stdin(Stdio::piped());
        let mut typing = Running::start(typing)?;
        let mut keys = typing.child.stdin.take().expect("it is piped");
        keys.write_all(b"hello\n").await?;
        while !typing.line().await?.ends_with("got hello") {}
        keys.write_all(b"\x03").await?;
        let mut said = String::new();
        while let Some(line) = soon("it ends", typing.lines.next_line()).await? {
            said.push_str(&line);
        }
        assert_eq!(said.matches("interrupted").count(), 1, "{said}");
        typing.ends_with(3).await
    })
    .await
}

/// No key is left behind, so that nobody waits for one who has given up.
#[tokio::test]
async fn an_interrupt_while_waiting_gives_the_place_up() -> TestResult {
    on_etcd(async |world: &World| {
        let session = world.session().await?;
        let guard = session.mutex("name").lock().await?;
        for (signal, expected) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
            let mut waiting = Running::start(tenure(world, &["lock", "name", "--", "true"]))?;
            equals("it queues", 2, async || world.keys("name/").await.len()).await;
            waiting.signal(signal).await?;
            waiting.ends_with(expected).await?;
            assert_eq!(world.keys("name/").await, [guard.key()]);
            assert_eq!(world.leases().await, [session.lease_id()]);
        }
        guard.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_command_it_holds_until_it_is_interrupted() -> TestResult {
    on_etcd(async |world: &World| {
        let mut holding = Running::start(tenure(world, &["lock", "--ttl=2", "jobs/a"]))?;
        let key = || async { world.keys("jobs/a/").await.pop() };
        let held = holding.line().await?;
        let lease = key().await.ok_or("it holds")?.replace("jobs/a/", "").replace("-0", "");
        assert!(held.starts_with("held jobs/a token ") && held.ends_with(&format!(" lease {lease}")), "{held}");
        holding.signal("-INT").await?;
        assert!(holding.line().await?.starts_with("released jobs/a "));
        holding.ends_with(0).await?;

        let mut holding = Running::start(tenure(world, &["lock", "--json", "jobs/a"]))?;
        let held: Value = serde_json::from_str(&holding.line().await?)?;
        let key = key().await.ok_or("it holds")?;
        assert_eq!((&held["event"], &held["name"], &held["key"]), (&json!("held"), &json!("jobs/a"), &json!(key)));
        world.client().delete(key, None).await?;
        let lost: Value = serde_json::from_str(&holding.line().await?)?;
        assert_eq!((&lost["event"], &lost["reason"]), (&json!("lost"), &json!("the key was deleted")));
        holding.ends_with(125).await
    })
    .await
}

/// A lost lock ends what runs under it at once, with all that it has started.
#[tokio::test]
async fn a_lost_lock_kills_the_whole_group() -> TestResult {
    on_etcd(async |world: &World| {
        let log = Log::new()?;
        // The loop is a grandchild.
        let script = format!("({}) & wait", log.keeps_writing("work"));
        let mut running = Running::start(tenure(world, &["lock", "name", "--", "sh", "-c", &script]))?;
        log.has("work").await;
        let key = world.keys("name/").await.pop().ok_or("it holds")?;
        world.client().delete(key, None).await?;
        running.ends_with(125).await?;
        assert!(log.is_quiet().await);
        Ok(())
    })
    .await
}

/// Nobody is there to give the lock back, and nobody goes on under it: the guardian sees to that, and on Linux the
/// kernel.
#[tokio::test]
async fn the_command_dies_if_tenure_is_killed() -> TestResult {
    on_etcd(async |world: &World| {
        let log = Log::new()?;
        let script = format!("({}) & wait", log.keeps_writing("work"));
        let mut running = Running::start(tenure(world, &["lock", TTL, "name", "--", "sh", "-c", &script]))?;
        log.has("work").await;
        running.signal("-KILL").await?;
        soon("it ends", running.child.wait()).await?;
        until("the group has ended", async || log.is_quiet().await).await;
        assert_eq!(world.keys("name/").await.len(), 1, "the lease has not expired: the next one does not hold yet");
        equals("the lease expires", 0, async || world.keys("").await.len()).await;
        Ok(())
    })
    .await
}

/// As by a stray Ctrl-Z, or a debugger: it cannot renew, and it cannot kill.
#[tokio::test]
async fn the_command_dies_in_time_if_tenure_is_stopped() -> TestResult {
    on_etcd(async |world: &World| {
        let log = Log::new()?;
        let script = log.keeps_writing("first");
        let mut first = Running::start(tenure(world, &["lock", TTL, "name", "--", "sh", "-c", &script]))?;
        log.has("first").await;
        let path = log.path().display().to_string();
        let second = format!("echo second >>{path}");
        let mut second = Running::start(tenure(world, &["lock", "name", "--", "sh", "-c", &second]))?;
        equals("it queues", 2, async || world.keys("name/").await.len()).await;
        first.signal("-STOP").await?;
        second.ends_with(0).await?;
        assert!(log.is_quiet().await);
        assert_eq!(log.lines().last().map(String::as_str), Some("second"));
        first.signal("-CONT").await?;
        first.ends_with(125).await
    })
    .await
}

/// etcd stands still for longer than the TTL. Under `tenure lock` the first command is dead when the second begins;
/// under `etcdctl lock` it goes on beside it.
#[tokio::test]
async fn commands_do_not_overlap_when_etcd_stands_still() -> TestResult {
    on_etcd(async |world: &World| {
        let (ours, theirs) = (Log::new()?, Log::new()?);
        let first = ours.keeps_writing("first");
        let mut first = Running::start(tenure(world, &["lock", TTL, "ours", "--", "sh", "-c", &first]))?;
        let etcdctl = theirs.keeps_writing("first");
        let etcdctl = ["lock", "--ttl=3", "theirs", "--", "sh", "-c", &etcdctl];
        let _etcdctl = Running::start(program("etcdctl", world, &etcdctl))?;
        let mut seconds = Vec::new();
        for (name, log) in [("ours", &ours), ("theirs", &theirs)] {
            log.has("first").await;
            let script = format!("echo second >>{}", log.path().display());
            seconds.push(Running::start(tenure(world, &["lock", TTL, name, "--", "sh", "-c", &script]))?);
            equals("it queues", 2, async || world.keys(&format!("{name}/")).await.len()).await;
        }

        world.etcd.pause(0)?;
        let paused = (SystemTime::now(), Instant::now());
        first.ends_with(125).await?;
        let written = fs::metadata(ours.path())?.modified()?;
        assert!(written < paused.0 + Duration::from_secs(3), "it went on for {:?}", written.duration_since(paused.0));
        // So that the leases have expired when etcd wakes up.
        tokio::time::sleep_until((paused.1 + Duration::from_millis(3_500)).into()).await;
        world.etcd.resume(0)?;

        for second in &mut seconds {
            second.ends_with(0).await?;
        }
        assert!(ours.is_quiet().await);
        assert_eq!(ours.lines().iter().position(|line| line == "second"), Some(ours.lines().len() - 1));
        until("etcdctl's first command writes after the second", async || {
            theirs.lines().iter().skip_while(|line| *line != "second").any(|line| line == "first")
        })
        .await;
        drop(theirs);
        equals("etcdctl leaves nothing", 0, async || world.keys("").await.len()).await;
        Ok(())
    })
    .await
}

/// A quarter of the TTL before the deadline the command is asked to end, and may do so in good order.
#[tokio::test]
async fn a_command_is_asked_before_it_is_killed() -> TestResult {
    on_etcd(async |world: &World| {
        let log = Log::new()?;
        let path = log.path().display().to_string();
        let start = |name: &str, flag: &str, code: i32| {
            let script = format!(
                "trap 'echo {name} >>{path}; exit {code}' TERM; echo {name} ready; while :; do sleep 0.02; done"
            );
            Running::start(tenure(world, &["lock", "--ttl=4s", name, flag, "--", "sh", "-c", &script]))
        };
        let mut tidy = start("tidy", "--on-jeopardy=term", 0)?;
        let mut failed = start("failed", "--on-jeopardy=term", 5)?;
        let mut unasked = start("unasked", "--on-jeopardy=ignore", 0)?;
        for command in [&mut tidy, &mut failed, &mut unasked] {
            assert!(command.line().await?.ends_with("ready"));
        }
        world.etcd.pause(0)?;
        tidy.ends_with(0).await?;
        failed.ends_with(125).await?;
        unasked.ends_with(125).await?;
        world.etcd.resume(0)?;
        let mut asked = log.lines();
        asked.sort();
        assert_eq!(asked, ["failed", "tidy"]);
        equals("the leases expire", 0, async || world.keys("").await.len()).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ls_and_show_tell_who_holds_and_who_waits() -> TestResult {
    on_etcd(async |world: &World| {
        world.client().put("config/nobodys", "no lease, no queue", None).await?;
        let first = ["lock", "--identity=api-7", "jobs/a", "--", "sh", "-c", "echo ready; exec sleep 100"];
        let mut first = Running::start(tenure(world, &first))?;
        assert_eq!(first.line().await?, "ready");
        let mut second = Running::start(program("etcdctl", world, &["lock", "--ttl=2", "jobs/a"]))?;
        equals("etcdctl queues", 2, async || world.keys("jobs/a/").await.len()).await;
        let mut third = Running::start(tenure(world, &["lock", "--shared", "--identity=api-8", "jobs/a"]))?;
        equals("it queues", 3, async || world.keys("jobs/a/").await.len()).await;
        let mut office = Running::start(tenure(world, &["elect", "--identity=api-9", "office", "10.0.0.7:80"]))?;
        assert!(office.line().await?.starts_with("held "));

        let all = json_of(world, &["ls", "--json"]).await?;
        let names: Vec<_> = all.as_array().ok_or("an array")?.iter().map(|queue| queue["name"].clone()).collect();
        assert_eq!(names, ["jobs/a", "office"]);
        assert_eq!(json_of(world, &["ls", "--json", "jobs/"]).await?.as_array().map(Vec::len), Some(1));
        assert_eq!(json_of(world, &["ls", "--json", "no/such"]).await?, json!([]));

        let queue = json_of(world, &["show", "jobs/a", "--json"]).await?;
        let tell = |field: &str| queue.as_array().unwrap().iter().map(|place| place[field].clone()).collect::<Vec<_>>();
        let keys = world.keys("jobs/a/").await;
        let theirs = keys.iter().find(|key| !key.contains('-')).ok_or("etcdctl's")?;
        let theirs = theirs.trim_start_matches("jobs/a/");
        assert_eq!(tell("identity"), ["api-7", theirs, "api-8"]);
        assert_eq!(tell("kind"), ["mutex", "mutex", "read"]);
        assert_eq!(tell("holds"), [true, false, false]);
        assert_eq!(tell("ttl"), [10, 2, 10]);
        assert!(tell("remaining").iter().all(|left| left.as_u64().is_some_and(|left| left <= 10)), "{queue}");
        let tokens: Vec<_> = tell("token").iter().filter_map(Value::as_i64).collect();
        assert!(tokens.len() == 3 && tokens.is_sorted(), "{queue}");
        assert!(tell("since")[0].is_u64() && tell("since")[1].is_null() && tell("since")[2].is_u64(), "{queue}");

        let queue = json_of(world, &["show", "office", "--json"]).await?;
        let leader = &queue[0];
        assert_eq!(
            (&leader["identity"], &leader["kind"], &leader["value"]),
            (&json!("api-9"), &json!("election"), &json!("10.0.0.7:80"))
        );

        // And for people.
        let text = String::from_utf8(output(tenure(world, &["show", "jobs/a"])).await?.stdout)?;
        let rows: Vec<_> = text.lines().collect();
        assert!(rows.len() == 4 && rows[1].starts_with("*  api-7 ") && rows[3].contains("api-8"), "{text}");
        let text = String::from_utf8(output(tenure(world, &["ls"])).await?.stdout)?;
        assert!(text.contains("jobs/a") && text.contains("api-9"), "{text}");

        // etcdctl's own lease is left to expire.
        first.signal("-TERM").await?;
        second.line().await?;
        second.signal("-INT").await?;
        assert!(third.line().await?.starts_with("held "));
        for other in [&third, &office] {
            other.signal("-INT").await?;
        }
        first.ends_with(143).await?;
        third.ends_with(0).await?;
        office.ends_with(0).await?;
        soon("etcdctl ends", second.child.wait()).await?;
        world.client().delete("config/nobodys", None).await?;
        equals("etcdctl's lease has expired", 0, async || world.leases().await.len()).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_observer_sees_leaders_come_and_go() -> TestResult {
    on_etcd(async |world: &World| {
        let mut observer = Running::start(tenure(world, &["observe", "office", "--json"]))?;
        let mut in_words = Running::start(tenure(world, &["observe", "office"]))?;
        let mut next = async || -> TestResult<Value> { Ok(serde_json::from_str(&observer.line().await?)?) };
        assert_eq!(next().await?["event"], "vacant");
        assert_eq!(in_words.line().await?, "vacant office");
        let mut leader = Running::start(tenure(
            world,
            &["elect", "office", "10.0.0.7:80", "--", "sh", "-c", "echo $TENURE_TOKEN; exec sleep 100"],
        ))?;
        let token: i64 = leader.line().await?.parse()?;
        let seen = next().await?;
        assert_eq!(
            (&seen["event"], &seen["value"], &seen["token"]),
            (&json!("leader"), &json!("10.0.0.7:80"), &json!(token))
        );
        assert_eq!(in_words.line().await?, format!("leader office token {token}: 10.0.0.7:80"));
        leader.signal("-TERM").await?;
        leader.ends_with(143).await?;
        assert_eq!(next().await?["event"], "vacant");
        for observer in [&mut observer, &mut in_words] {
            observer.signal("-INT").await?;
            observer.ends_with(130).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_holder_is_asked_to_let_go_or_ended_by_force() -> TestResult {
    on_etcd(async |world: &World| {
        let script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done";
        let on = |flag| ["lock", flag, "--identity=api-7", "name", "--", "sh", "-c", script];
        let mut willing = tenure(world, &on("--on-revocation=term"));
        willing.stderr(Stdio::piped());
        let mut willing = Running::start(willing)?;
        assert_eq!(willing.line().await?, "ready");
        let ask = ["revoke", "name", "--reason=the disk is full", "--identity=ops"];
        let asked = String::from_utf8(output(tenure(world, &ask)).await?.stdout)?;
        assert!(asked.starts_with("asked api-7 token ") && asked.ends_with("released name\n"), "{asked}");
        willing.ends_with(4).await?;
        let mut said = String::new();
        willing.child.stderr.take().expect("it is piped").read_to_string(&mut said).await?;
        // And what the shell says of its `sleep`.
        assert_eq!(said.lines().next(), Some("tenure: name: ops asks to let go: the disk is full"));

        let mut unwilling = Running::start(tenure(world, &on("--on-revocation=ignore")))?;
        assert_eq!(unwilling.line().await?, "ready");
        assert_eq!(code(world, &["revoke", "name", "--timeout=300ms"]).await?.0, Some(124));
        assert_eq!(code(world, &["revoke", "name", "--force=1"]).await?.0, Some(1));
        let token = json_of(world, &["show", "name", "--json"]).await?[0]["token"].to_string();
        assert_eq!(code(world, &["revoke", "name", "--force", &token]).await?.0, Some(0));
        unwilling.ends_with(125).await?;
        assert_eq!(code(world, &["revoke", "name"]).await?, (Some(0), "tenure: name: nobody holds it\n".to_owned()));

        // An office, and without a command.
        let mut leader = Running::start(tenure(world, &["elect", "name", "x", "--on-revocation=term"]))?;
        assert!(leader.line().await?.starts_with("held "));
        assert_eq!(code(world, &["revoke", "name"]).await?.0, Some(0));
        leader.ends_with(0).await
    })
    .await
}

/// As etcdctl has it.
#[tokio::test]
async fn a_flag_wins_over_the_environment() -> TestResult {
    on_etcd(async |world: &World| {
        let endpoints = format!("--endpoints={}", world.etcd.endpoints().join(","));
        let mut command = tenure(world, &["ls", &endpoints]);
        command.env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").env("ETCDCTL_CACERT", "").env("ETCDCTL_DIAL_TIMEOUT", "1s");
        assert_eq!(output(command).await?.status.code(), Some(0));
        let mut command = tenure(world, &["ls"]);
        command.env("ETCDCTL_ENDPOINTS", "127.0.0.1:1");
        assert_eq!(output(command).await?.status.code(), Some(69));
        let mut command = tenure(world, &["ls"]);
        command.env("ETCDCTL_CACERT", "/no/such/file");
        assert_eq!(output(command).await?.status.code(), Some(2));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn it_explains_itself() -> TestResult {
    on_etcd(async |world: &World| {
        let text = async |args: &[&str]| -> TestResult<String> {
            let output = output(tenure(world, args)).await?;
            assert!(output.status.success(), "{args:?}");
            Ok(String::from_utf8(output.stdout)?)
        };
        let help = text(&["--help"]).await?;
        for word in ["Exit codes", "124", "125", "126", "127", "69", "ETCDCTL_ENDPOINTS", "TENURE_TOKEN"] {
            assert!(help.contains(word), "{word}");
        }
        assert!(text(&["lock", "--help"]).await?.contains("tenure lock --try jobs/reindex -- ./reindex"));
        for shell in ["bash", "zsh", "fish"] {
            assert!(text(&["completions", shell]).await?.contains("observe"));
        }
        assert!(text(&["man"]).await?.contains(".TH tenure 1"));
        assert!(text(&["man", "lock"]).await?.contains("on\\-jeopardy"));
        Ok(())
    })
    .await
}
