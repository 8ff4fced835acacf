//! `tenure top`, in a terminal and without one. `script` of util-linux has the terminal, `vt100` tells what it shows.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;

use std::fs;
use std::num::NonZeroU16;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{LIMIT, LONG, TestResult, World, on_etcd, soon, until};
use serde_json::{Value, json};
use tenure::etcd_client::{Client, Permission, PermissionType, PutOptions, Txn, TxnOp};
use tenure::{Guard, Session};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use vt100::{Cell, Color, Parser, Screen};

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

fn program(program: &str, world: &World, args: &[&str]) -> Command {
    let mut command = common::as_from_a_terminal(program);
    for (variable, _) in std::env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("ETCDCTL_"))
    {
        command.env_remove(variable);
    }
    command.env("ETCDCTL_ENDPOINTS", world.etcd.endpoints().join(",")).env_remove("NO_COLOR").env("TERM", "xterm");
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn session(world: &World, identity: &str) -> TestResult<Session> {
    lasting(world, identity, LONG).await
}

async fn lasting(world: &World, identity: &str, ttl: Duration) -> TestResult<Session> {
    Ok(Session::builder(world.etcd.client().await?).ttl(ttl).identity(identity).open().await?)
}

/// A terminal in which `tenure top` runs, with a shell before and after it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    output: ChildStdout,
    unread: Vec<u8>,
    parser: Parser,
}

fn size(size: u16) -> NonZeroU16 {
    NonZeroU16::new(size).expect("it has one")
}

impl Terminal {
    /// 80 columns, 24 lines.
    fn start(world: &World, args: &str, set: &[(&str, &str)]) -> TestResult<Self> {
        let script = format!(
            "stty rows 24 cols 80; echo tty $(tty); before=$(stty -g); sh -c 'echo pid $$; exec {TENURE} top {args}'; \
             echo code $?; [ $before = $(stty -g) ] && echo as before"
        );
        let mut command = program("script", world, &["-qec", &script, "/dev/null"]);
        let mut child = command.envs(set.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let keys = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        Ok(Self { child, keys, output, unread: Vec::new(), parser: Parser::new(size(24), size(80), 0) })
    }

    async fn types(&mut self, keys: &str) -> TestResult {
        Ok(self.keys.write_all(keys.as_bytes()).await?)
    }

    fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// The line that begins with `name`, in words.
    fn row(&self, name: &str) -> Vec<String> {
        let row = self.text().lines().find(|line| line.starts_with(name)).map(str::to_owned);
        row.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until it is to be seen, be it in one frame alone.
    async fn shows(&mut self, what: &str, is_there: impl Fn(&Self) -> bool) -> TestResult {
        let begun = Instant::now();
        let mut bytes = [0; 4_096];
        while !is_there(self) {
            if self.unread.is_empty() {
                let left = LIMIT.saturating_sub(begun.elapsed());
                match tokio::time::timeout(left, self.output.read(&mut bytes)).await {
                    Ok(Ok(read)) if read > 0 => self.unread.extend(&bytes[..read]),
                    end => panic!("waited in vain, {what}: {end:?}\n{}", self.text()),
                }
            }
            // A frame ends with `\x1b[?25l`, which hides the cursor.
            let end = self.unread.iter().position(|byte| *byte == b'l').map_or(self.unread.len(), |end| end + 1);
            let frame: Vec<u8> = self.unread.drain(..end).collect();
            self.parser.process(&frame);
        }
        Ok(())
    }

    async fn word_after(&mut self, word: &str) -> TestResult<String> {
        self.shows(word, |terminal| terminal.row(word).len() == 2).await?;
        Ok(self.row(word).remove(1))
    }

    /// It has ended with this code, and the terminal is as it was before.
    async fn ends_with(mut self, code: i32) -> TestResult {
        self.shows("it ends", |terminal| terminal.text().contains("as before")).await?;
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bold(), "{}", self.text());
        assert_eq!(self.row("code"), ["code".to_owned(), code.to_string()], "{}", self.text());
        soon("it ends", self.child.wait()).await?;
        Ok(())
    }
}

fn colours(screen: &Screen) -> bool {
    let cells = (0..24).flat_map(|row| (0..80).map(move |column| (row, column)));
    cells.filter_map(|(row, column)| screen.cell(row, column)).any(|cell| cell.fgcolor() != Color::Default)
}

/// A hold, and one who waits for it.
async fn hold_and_wait(world: &World, name: &str) -> TestResult<(Guard, tenure::Ticket)> {
    let (one, two) = (session(world, "api-7").await?, session(world, "api-8").await?);
    let guard = one.mutex(name).lock().await?;
    Ok((guard, two.mutex(name).enqueue().await?))
}

#[tokio::test]
async fn names_appear_and_hand_offs_are_seen_as_they_happen() -> TestResult {
    on_etcd(async |world: &World| {
        let mut top = Terminal::start(world, "jobs/", &[])?;
        top.shows("nothing", |top| top.text().contains("0 names, 0 held, 0 waiting")).await?;
        let (guard, mut ticket) = hold_and_wait(world, "jobs/a").await?;
        let elsewhere = world.session().await?.mutex("elsewhere").lock().await?;
        let held_by = |identity: &'static str, waiting: &'static str| {
            move |top: &Terminal| {
                top.row("jobs/a").get(1..5) == Some(&["mutex", "1", waiting, identity].map(str::to_owned))
            }
        };
        top.shows("who holds and who waits", held_by("api-7", "1")).await?;
        top.shows("what remains of the lease", |top| {
            top.row("jobs/a").get(6).is_some_and(|left| left.starts_with("1m"))
        })
        .await?;
        assert!(!top.text().contains("elsewhere"), "{}", top.text());
        assert!(colours(top.parser.screen()));
        guard.unlock().await?;
        let guard = soon("it is granted", ticket.granted()).await?;
        top.shows("the next one holds", held_by("api-8", "0")).await?;
        top.shows("hand-offs", |top| {
            top.row("jobs/a").get(7).and_then(|rate| rate.parse().ok()).is_some_and(|rate: f64| rate > 0.0)
        })
        .await?;
        guard.unlock().await?;
        elsewhere.unlock().await?;
        top.shows("nobody holds", |top| top.row("jobs/a").get(2..5) == Some(&["0", "0", "-"].map(str::to_owned)))
            .await?;
        top.shows("after a while it is gone", |top| top.row("jobs/a").is_empty()).await?;
        top.types("q").await?;
        top.ends_with(0).await
    })
    .await
}

#[tokio::test]
async fn keys_sort_filter_and_open() -> TestResult {
    on_etcd(async |world: &World| {
        let holding = session(world, "api-7").await?;
        let (alpha, beta) = (holding.mutex("alpha").lock().await?, holding.mutex("beta").lock().await?);
        let waiting = session(world, "api-8").await?.mutex("beta").enqueue().await?;
        let mut top = Terminal::start(world, "", &[("NO_COLOR", "1")])?;
        let order = |top: &Terminal| {
            let text = top.text();
            text.find("\nalpha").zip(text.find("\nbeta")).map(|(alpha, beta)| alpha < beta)
        };
        // One waits there.
        top.shows("by activity", |top| top.text().contains("sort: activity") && order(top) == Some(false)).await?;
        top.types("s").await?;
        top.shows("by waiters", |top| top.text().contains("sort: waiters") && order(top) == Some(false)).await?;
        top.types("s").await?;
        top.shows("by name", |top| top.text().contains("sort: name") && order(top) == Some(true)).await?;
        top.types("/lph\r").await?;
        top.shows("the filter", |top| top.text().contains("filter: lph") && top.row("beta").is_empty()).await?;
        top.types("/\x1b").await?;
        top.shows("no filter", |top| !top.text().contains("filter:") && order(top) == Some(true)).await?;
        top.types("j\r").await?;
        top.shows("the queue", |top| top.text().contains("beta: 1 hold, 1 wait")).await?;
        let token = i64::from(beta.token()).to_string();
        let first = |top: &Terminal| top.row("   0");
        top.shows("holder", |top| first(top).get(1..5) == Some(&["*", "api-7", "mutex", &token].map(str::to_owned)))
            .await?;
        top.shows("its lease", |top| first(top).ends_with(&["of".to_owned(), "2m00s".to_owned()])).await?;
        assert!(top.text().lines().any(|line| line.starts_with("   1   api-8")), "{}", top.text());
        top.types("\x1b").await?;
        top.shows("back", |top| order(top) == Some(true)).await?;
        assert!(!colours(top.parser.screen()));
        top.types("\x1b").await?;
        top.ends_with(0).await?;
        drop((alpha, beta, waiting));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_terminal_is_given_back_however_it_ends() -> TestResult {
    on_etcd(async |world: &World| {
        let mut top = Terminal::start(world, "", &[])?;
        top.shows("it runs", |top| top.text().contains("0 names")).await?;
        top.types("\x03").await?;
        top.ends_with(0).await?;
        for (signal, code) in [("-TERM", 143), ("-HUP", 129)] {
            let mut top = Terminal::start(world, "", &[])?;
            let pid = top.word_after("pid").await?;
            top.shows("it runs", |top| top.text().contains("0 names")).await?;
            assert!(Command::new("kill").args([signal, &pid]).status().await?.success());
            top.ends_with(code).await?;
        }
        Ok(())
    })
    .await
}

/// Only what is visible is drawn, whatever the size.
#[tokio::test]
async fn thousands_of_names_fit_any_terminal() -> TestResult {
    on_etcd(async |world: &World| {
        let lease = world.client().lease_grant(120, None).await?.id();
        for hundred in 0..30 {
            let options = PutOptions::new().with_lease(lease);
            let keys = (0..100).map(|name| format!("many/{hundred:02}{name:02}/{lease:x}"));
            let puts: Vec<_> = keys.map(|key| TxnOp::put(key, "", Some(options.clone()))).collect();
            world.client().txn(Txn::new().and_then(puts)).await?;
        }
        let mut top = Terminal::start(world, "", &[])?;
        let tty = top.word_after("tty").await?;
        let last = |name: &str| {
            let name = name.to_owned();
            move |top: &Terminal| top.text().lines().rev().nth(1).is_some_and(|line| line.starts_with(&name))
        };
        top.shows("as many as fit", last("many/0020")).await?;
        assert!(top.text().contains("3000 names, 3000 held"), "{}", top.text());
        let resize = async |rows: u16, columns: u16| -> TestResult {
            let (rows, columns) = (rows.to_string(), columns.to_string());
            let stty = ["-F", &tty, "rows", &rows, "cols", &columns];
            assert!(Command::new("stty").args(stty).status().await?.success());
            Ok(())
        };
        top.parser.screen_mut().set_size(size(50), size(132));
        resize(50, 132).await?;
        top.shows("more of them", last("many/0046")).await?;
        top.types("\x1b[F").await?;
        top.shows("the end", last("many/2999")).await?;
        top.parser.screen_mut().set_size(size(5), size(80));
        resize(5, 80).await?;
        top.shows("less of them", last("many/2999")).await?;
        top.types("q").await?;
        top.ends_with(0).await?;
        world.client().lease_revoke(lease).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn it_goes_on_when_etcd_is_back() -> TestResult {
    on_etcd(async |world: &World| {
        let (guard, mut ticket) = hold_and_wait(world, "jobs/a").await?;
        let mut top = Terminal::start(world, "jobs/", &[])?;
        top.shows("the holder", |top| top.row("jobs/a").contains(&"api-7".to_owned())).await?;
        world.etcd.kill(0)?;
        top.shows("that etcd is away", |top| top.text().contains("trying again: etcd at")).await?;
        assert!(top.row("jobs/a").contains(&"api-7".to_owned()), "{}", top.text());
        world.etcd.restart(0).await?;
        top.shows("that it is back", |top| top.text().contains("q quit")).await?;
        guard.unlock().await?;
        let guard = soon("it is granted", ticket.granted()).await?;
        top.shows("the next holder", |top| top.row("jobs/a").contains(&"api-8".to_owned())).await?;
        guard.unlock().await?;
        top.types("q").await?;
        top.ends_with(0).await
    })
    .await
}

/// A user with nothing but the permission to read below `jobs/`.
#[tokio::test]
async fn a_role_that_may_read_suffices() -> TestResult {
    on_etcd(async |world: &World| {
        let (guard, mut ticket) = hold_and_wait(world, "jobs/a").await?;
        let term = session(world, "api-9").await?.election("jobs/office").campaign("10.0.0.7:80").await?;
        let mut client = world.client();
        client.user_add("root", "root", None).await?;
        client.role_add("root").await?;
        client.user_grant_role("root", "root").await?;
        client.user_add("reader", "reader", None).await?;
        client.role_add("reading").await?;
        let permission = Permission::new(PermissionType::Read, "jobs/").with_prefix();
        client.role_grant_permission("reading", permission).await?;
        client.user_grant_role("reader", "reading").await?;
        client.auth_enable().await?;
        let root = tenure::connect_options().with_user("root", "root");
        let mut root = Client::connect(world.etcd.endpoints(), Some(root)).await?;

        let user = [("ETCDCTL_USER", "reader"), ("ETCDCTL_PASSWORD", "reader")];
        let mut top = Terminal::start(world, "jobs/", &user)?;
        top.shows("the holder", |top| top.row("jobs/a").contains(&"api-7".to_owned())).await?;
        let candidate = term.key().trim_start_matches("jobs/office/").to_owned();
        top.shows("the leader, by its key", |top| {
            top.row("jobs/office").get(4).is_some_and(|shown| candidate.starts_with(shown))
        })
        .await?;
        let output = async |args: &[&str]| -> TestResult<(Option<i32>, String)> {
            let output = soon("it ends", program(TENURE, world, args).envs(user).output()).await?;
            let text = [output.stdout, output.stderr].concat();
            Ok((output.status.code(), String::from_utf8(text)?))
        };
        let (code, text) = output(&["ls", "jobs/"]).await?;
        assert!(code == Some(0) && text.contains("api-7") && text.contains(&candidate), "{text}");
        let (code, text) = output(&["show", "jobs/a"]).await?;
        assert!(code == Some(0) && text.contains("api-8"), "{text}");
        let (code, text) = output(&["top", "--json"]).await?;
        assert!(code == Some(1) && text.contains("permission denied"), "{text}");

        // Sessions without credentials are refused by now: an operator lets the next one in.
        root.delete(guard.key(), None).await?;
        top.shows("the next holder", |top| top.row("jobs/a").contains(&"api-8".to_owned())).await?;
        top.types("q").await?;
        top.ends_with(0).await?;
        root.auth_disable().await?;
        drop((guard, term));
        soon("it is granted", ticket.granted()).await?.unlock().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_terminal_it_prints_a_document_a_second() -> TestResult {
    on_etcd(async |world: &World| {
        let (guard, mut ticket) = hold_and_wait(world, "jobs/a").await?;
        let mut command = program(TENURE, world, &["top", "jobs/", "--json", "--count=60"]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut next = async |expected: &dyn Fn(&Value) -> bool| -> TestResult<Value> {
            loop {
                let line = soon("a document", lines.next_line()).await?.ok_or("it ended")?;
                let document: Value = serde_json::from_str(&line)?;
                assert_eq!(document["away"], Value::Null, "{document}");
                if expected(&document) {
                    return Ok(document["names"][0].clone());
                }
            }
        };
        let name = next(&|document| document["names"][0]["holders"][0]["remaining"].is_u64()).await?;
        assert_eq!((&name["name"], &name["kind"], &name["waiting"]), (&json!("jobs/a"), &json!("mutex"), &json!(1)));
        let holder = &name["holders"][0];
        assert_eq!((&holder["identity"], &holder["token"]), (&json!("api-7"), &json!(i64::from(guard.token()))));
        assert_eq!((&holder["ttl"], holder["since"].is_u64()), (&json!(120), true));
        guard.unlock().await?;
        let guard = soon("it is granted", ticket.granted()).await?;
        let name = next(&|document| document["names"][0]["holders"][0]["identity"] == "api-8").await?;
        assert!(name["handoffs_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{name}");
        guard.unlock().await?;
        child.kill().await?;

        let ends = async |args: &[&str]| -> TestResult<(Option<i32>, String)> {
            let output = soon("it ends", program(TENURE, world, args).output()).await?;
            Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
        };
        let (code, text) = ends(&["top", "--json", "--count=2"]).await?;
        assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
        let (code, text) = ends(&["top"]).await?;
        assert!(code == Some(2) && text.contains("no terminal") && text.contains("--json"), "{text}");
        assert_eq!(ends(&["top", "--count=2"]).await?.0, Some(2));
        assert_eq!(ends(&["top", "--json", "--endpoints=127.0.0.1:1"]).await?.0, Some(69));
        let (code, help) = ends(&["top", "--help"]).await?;
        assert_eq!(code, Some(0));
        for word in ["H-OFF/S", "hand-offs a second", "PageUp", "NO_COLOR", "--count"] {
            assert!(help.contains(word), "{word}");
        }
        until("it has let go", async || world.watches().await <= 2.0).await;
        Ok(())
    })
    .await
}

/// What the README shows: `scripts/picture` names a file for the picture.
#[tokio::test]
async fn every_kind_moves_side_by_side_in_a_small_terminal() -> TestResult {
    on_etcd(async |world: &World| {
        let mut work = JoinSet::new();
        let session = async |identity: &str| lasting(world, identity, Duration::from_secs(10)).await;
        let mut rounds = Vec::new();
        for n in 1..=3 {
            let api = session(&format!("api-{n}")).await?;
            rounds.push(("jobs/reindex", api.clone(), 400 + 10 * n));
            rounds.push(("config", session(&format!("web-{n}")).await?, 3_000 + 300 * n));
            work.spawn(async move {
                let term = api.election("scheduler").campaign("10.0.0.7:8080").await;
                std::future::pending::<()>().await;
                drop(term);
            });
        }
        for n in 1..=2 {
            rounds.push(("jobs/mail", session(&format!("mail-{n}")).await?, 1_200 + 100 * n));
        }
        for n in 1..=5 {
            rounds.push(("gpu", session(&format!("gpu-{n}")).await?, 2_000 + 100 * n));
        }
        for (name, session, pause) in rounds {
            work.spawn(again(name, session, Duration::from_millis(pause)));
        }
        let mut top = Terminal::start(world, "", &[])?;
        let tty = top.word_after("tty").await?;
        top.parser.screen_mut().set_size(size(9), size(80));
        assert!(Command::new("stty").args(["-F", &tty, "rows", "9"]).status().await?.success());
        top.shows("all of it moves", |top| {
            let word = |name, back: usize| top.row(name).into_iter().rev().nth(back).unwrap_or_default();
            let names = ["gpu", "config", "jobs/mail", "jobs/reindex", "scheduler"];
            let rate = |name| word(name, 0).parse::<f64>().unwrap_or(0.0);
            names.iter().all(|name| word(name, 1).ends_with('s')) && names[..4].iter().all(|name| rate(name) > 0.0)
        })
        .await?;
        if let Some(picture) = std::env::var_os("TENURE_PICTURE") {
            fs::write(picture, svg(top.parser.screen(), 9, 80))?;
        }
        top.types("q").await?;
        top.ends_with(0).await?;
        work.shutdown().await;
        Ok(())
    })
    .await
}

/// Holds, for so long, again and again.
async fn again(name: &'static str, session: Session, time: Duration) {
    loop {
        let guard = match name {
            "gpu" => session.semaphore(name, 3).acquire().await,
            "config" => session.rwlock(name).read().await,
            _ => session.mutex(name).lock().await,
        };
        tokio::time::sleep(time).await;
        drop(guard);
    }
}

/// What a terminal shows, cell by cell.
fn svg(screen: &Screen, rows: u16, columns: u16) -> String {
    let (wide, high) = (8.4, 18.0);
    let (width, height) = (f64::from(columns) * wide + 16.0, f64::from(rows) * high + 16.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"14\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#1b1f24\"/>\n"
    );
    for row in 0..rows {
        let cells: Vec<_> = (0..columns).filter_map(|column| screen.cell(row, column)).collect();
        let mut column = 0;
        for run in cells.chunk_by(|one, next| style(one) == style(next)) {
            let text: String = run.iter().map(|cell| if cell.has_contents() { cell.contents() } else { " " }).collect();
            let (x, y) = (8.0 + column as f64 * wide, 8.0 + f64::from(row) * high);
            column += run.len();
            let (green, bold, inverse, underline) = style(run[0]);
            let colour = if green { "#7ee787" } else { "#d5dae0" };
            let length = run.len() as f64 * wide;
            if inverse {
                svg += &format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{high}\" fill=\"{colour}\"/>\n"
                );
            }
            if text.trim().is_empty() {
                continue;
            }
            let fill = if inverse { "#1b1f24" } else { colour };
            let weight = if bold { " font-weight=\"bold\"" } else { "" };
            let line = if underline { " text-decoration=\"underline\"" } else { "" };
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            svg += &format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" fill=\"{fill}\"{weight}{line} xml:space=\"preserve\">{text}</text>\n",
                y + 13.0
            );
        }
    }
    svg + "</svg>\n"
}

fn style(cell: &Cell) -> (bool, bool, bool, bool) {
    (cell.fgcolor() != Color::Default, cell.bold(), cell.inverse(), cell.underline())
}
