//! What the pages tell people to type works, and what they point at is there.
//!
//! Blocks of Rust are compiled as documentation tests; the rest is looked at here. What needs a tool that is not on the
//! machine, Go or Redis, is skipped, and says so.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use common::{LIMIT, TestResult};
use tokio::time::timeout;

#[cfg(feature = "cli")]
#[allow(dead_code, reason = "parsed, and not done")]
#[path = "../src/bin/tenure/args.rs"]
mod args;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

struct Page {
    path: PathBuf,
    text: String,
}

/// A block between fences.
struct Block<'a> {
    language: &'a str,
    lines: Vec<&'a str>,
}

impl Page {
    fn read(path: impl AsRef<Path>) -> Self {
        let path = Path::new(ROOT).join(path);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    fn all(folder: &str) -> Vec<Self> {
        let files = fs::read_dir(Path::new(ROOT).join(folder)).expect("the folder is there");
        let files = files.map(|file| file.expect("it can be read").path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "md")).map(Self::read).collect()
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                let lines = lines.by_ref().take_while(|line| line.trim_start() != "```").collect();
                blocks.push(Block { language, lines });
            }
        }
        blocks
    }

    /// What stands between back-quotes outside of blocks.
    fn spans(&self) -> Vec<&str> {
        let prose: Vec<_> = self.text.split("```").step_by(2).collect();
        prose.into_iter().flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
    }
}

/// What is read in the repository.
fn pages() -> Vec<Page> {
    let mut pages = Page::all("docs");
    assert!(!pages.is_empty());
    pages.extend(["README.md", "CONTRIBUTING.md", "tests/README.md", "benches/README.md"].map(Page::read));
    pages
}

#[test]
fn every_block_is_compiled_run_or_compared() -> TestResult {
    let compiled = fs::read_to_string(Path::new(ROOT).join("src/lib.rs"))?;
    for page in pages() {
        let languages: BTreeSet<_> = page.blocks().iter().map(|block| block.language).collect();
        let path = page.path.strip_prefix(ROOT)?.display().to_string();
        for language in &languages {
            assert!(["rust", "rust,no_run", "sh", "text", "toml"].contains(language), "{path}: ```{language}");
        }
        let rust = languages.iter().any(|language| language.starts_with("rust"));
        assert!(!rust || compiled.contains(&format!("include_str!(\"../{path}\")")), "nothing compiles {path}");
    }
    for page in Page::all("src/guide") {
        for block in page.blocks() {
            assert!(["", "go", "redis"].contains(&block.language), "{}: ```{}", page.path.display(), block.language);
        }
    }
    Ok(())
}

/// The words of a command line as a shell has them, without its comment and the variables before it.
fn words(line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or_default();
    assert!(!line.contains(['|', ';', '&', '<', '>', '$', '`']), "more than a command: {line}");
    let script = format!("set -- {line}\nprintf '%s\\n' \"$@\"");
    let output = Command::new("sh").args(["-c", &script]).output().expect("there is a shell");
    assert!(output.status.success(), "{line}");
    let words = String::from_utf8(output.stdout).expect("text");
    let words = words.lines().map(str::to_owned);
    words.skip_while(|word| word.split_once('=').is_some_and(|(name, _)| name == name.to_uppercase())).collect()
}

/// Why a command line cannot be right.
fn flaw(line: &str) -> Option<String> {
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => None,
        ["cargo", rest @ ..] => cargo(rest),
        ["tenure", rest @ ..] => tenure(rest),
        [script, flags @ ..] if script.starts_with("scripts/") => {
            // A letter in capitals stands for what is to be filled in.
            let flags: Vec<_> = flags.iter().filter(|flag| flag.starts_with("--")).collect();
            let help = Command::new(Path::new(ROOT).join(script)).arg("--help").stdin(Stdio::null()).output();
            let Ok(help) = help else { return Some("no such script".into()) };
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            flags.iter().find(|flag| !help.contains(**flag)).map(|flag| format!("its help does not know {flag}"))
        }
        _ => Some("nobody knows this command".into()),
    }
}

/// Whether the features and the example are there.
fn cargo(words: &[&str]) -> Option<String> {
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).expect("it can be read");
    let mut own = words.split(|word| *word == "--").next().unwrap_or_default().iter();
    if !["doc", "install", "run", "test"].contains(own.next()?) {
        return Some("an unknown subcommand of cargo".into());
    }
    while let Some(word) = own.next() {
        match *word {
            "--example" => {
                // Without a name in the head of a table.
                let name = own.next()?;
                let at = |path: String| Path::new(ROOT).join("examples").join(path).is_file();
                if !at(format!("{name}.rs")) && !at(format!("{name}/main.rs")) {
                    return Some(format!("there is no example {name}"));
                }
            }
            "--features" => {
                let feature = own.next()?;
                if !manifest.contains(&format!("\n{feature} = [")) {
                    return Some(format!("there is no feature {feature}"));
                }
            }
            "--path" => assert_eq!(own.next(), Some(&".")),
            "--open" | "--no-deps" | "--all-features" => {}
            other => return Some(format!("{other} is not looked at here")),
        }
    }
    None
}

#[cfg(feature = "cli")]
fn tenure(words: &[&str]) -> Option<String> {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    // The name of a subcommand stands for it.
    if let [name] = words
        && args::Arguments::command().find_subcommand(name).is_some()
    {
        return None;
    }
    let filled = words.iter().map(|word| if *word == "TOKEN" { "7" } else { word });
    let error = args::Arguments::try_parse_from(["tenure"].into_iter().chain(filled)).err()?;
    let help = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind());
    (!help).then(|| error.to_string())
}

#[cfg(not(feature = "cli"))]
fn tenure(_: &[&str]) -> Option<String> {
    None
}

#[test]
fn every_command_line_can_be_typed() {
    let mut found = 0;
    let mut wrong = Vec::new();
    let mut look = |page: &Page, line: &str| {
        found += 1;
        if let Some(flaw) = flaw(line) {
            wrong.push(format!("{}: {line}: {flaw}", page.path.display()));
        }
    };
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "sh") {
            block.lines.iter().filter(|line| !line.is_empty()).for_each(|line| look(&page, line));
        }
    }
    for page in pages().into_iter().chain(Page::all("src/guide")) {
        let typed = |span: &&str| ["cargo ", "scripts/", "tenure "].iter().any(|begin| span.starts_with(begin));
        page.spans().into_iter().filter(typed).for_each(|span| look(&page, span));
    }
    assert!(found > 30, "looked in the wrong place: {found}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_command_lines_are_found() {
    for line in [
        "cargo run --example nowhere",
        "cargo install --path . --features nowhere",
        "scripts/nowhere",
        "scripts/test --nowhere",
        "etcd --version",
    ] {
        assert!(flaw(line).is_some(), "{line}");
    }
    if cfg!(feature = "cli") {
        for line in ["tenure nowhere", "tenure lock --nowhere name", "tenure show --json"] {
            assert!(flaw(line).is_some(), "{line}");
        }
    }
}

/// What the demo prints, shortened: its headings and its events are those of the source.
#[test]
fn the_demo_prints_what_the_page_shows() -> TestResult {
    let sources = fs::read_dir(Path::new(ROOT).join("examples/failover"))?;
    let sources: String = sources.map(|file| fs::read_to_string(file?.path())).collect::<Result<Vec<_>, _>>()?.concat();
    let page = Page::read("docs/examples.md");
    let output: Vec<_> = page.blocks().into_iter().filter(|block| block.language == "text").collect();
    let [output] = output.as_slice() else { return Err("one block of output".into()) };
    let headings: Vec<_> = output.lines.iter().filter(|line| line.starts_with(char::is_alphabetic)).collect();
    assert!(headings.len() > 3);
    for heading in headings {
        // The last one ends with how long it took.
        let text = heading.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        assert!(sources.contains(text), "the demo has no heading {heading:?}");
    }
    Ok(())
}

/// The lines for Cargo.toml, in a package beside this one.
#[tokio::test]
async fn the_dependencies_that_the_readme_shows_are_a_manifest() -> TestResult {
    let readme = Page::read("README.md");
    let block = readme.blocks().into_iter().find(|block| block.language == "toml").ok_or("no block")?;
    let lines = block.lines.join("\n").replace("../tenure", ROOT);
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("src"))?;
    fs::write(dir.path().join("src/main.rs"), "fn main() {}")?;
    let package = "[package]\nname = \"service\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(dir.path().join("Cargo.toml"), format!("{package}{lines}\n"))?;
    fs::copy(Path::new(ROOT).join("Cargo.lock"), dir.path().join("Cargo.lock"))?;
    let mut cargo = tokio::process::Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--offline"]).current_dir(dir.path()).kill_on_drop(true);
    let output = timeout(LIMIT, cargo.output()).await??;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Links to items and pages of the documentation, and to files.
#[test]
fn every_link_leads_somewhere() -> TestResult {
    let sources = sources(&Path::new(ROOT).join("src"))?;
    let mut found = 0;
    for page in pages().into_iter().chain(Page::all("src/guide")) {
        for target in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).chain(references(&page)) {
            let there = if let Some(item) = target.strip_prefix("https://docs.rs/tenure/latest/tenure/") {
                documented(item, &sources)
            } else if let Some(file) = target.strip_prefix("https://docs.rs/crate/tenure/latest/source/") {
                Path::new(ROOT).join(file).exists()
            } else if let Some(heading) = target.strip_prefix('#') {
                page.text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
            } else if target.contains("::") || target.starts_with("http") {
                continue; // rustdoc's, or others'
            } else {
                page.path.parent().ok_or("no folder")?.join(target).exists()
            };
            found += 1;
            assert!(there, "{}: {target} leads nowhere", page.path.display());
        }
    }
    assert!(found > 30, "looked in the wrong place: {found}");
    Ok(())
}

/// `[name]: target`
fn references(page: &Page) -> impl Iterator<Item = &str> {
    page.text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: ")).map(|(_, to)| to)
}

fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches(['#', ' ']).to_lowercase();
    words.replace(' ', "-").chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}

/// `struct.Mutex.html#method.lock`, `guide/ttl/`, `testing/struct.Etcd.html`
fn documented(item: &str, sources: &str) -> bool {
    if let Some(page) = item.strip_prefix("guide/") {
        let page = page.split('/').next().unwrap_or_default();
        return sources.contains(&format!("pub mod {page} {{}}"));
    }
    let item = item.rsplit('/').next().unwrap_or_default();
    let (item, method) = item.split_once("#method.").map_or((item, None), |(item, method)| (item, Some(method)));
    let mut parts = item.split('.');
    let (Some(kind), Some(name), Some("html")) = (parts.next(), parts.next(), parts.next()) else { return false };
    let declared = [" ", "<", "(", ";"].iter().any(|end| sources.contains(&format!("pub {kind} {name}{end}")));
    let has = |method: &str| {
        ["fn", "async fn"]
            .iter()
            .any(|kind| ["(", "<"].iter().any(|end| sources.contains(&format!("pub {kind} {method}{end}"))))
    };
    declared && method.is_none_or(has)
}

/// All of them, one after the other.
fn sources(folder: &Path) -> TestResult<String> {
    let mut all = String::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.push_str(&sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            all.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(all)
}

/// Whoever reads about an item learns which example shows it.
#[test]
fn the_documentation_names_every_example() -> TestResult {
    let sources = sources(&Path::new(ROOT).join("src"))?;
    for file in fs::read_dir(Path::new(ROOT).join("examples"))? {
        let name = file?.path().file_stem().and_then(|name| name.to_str()).ok_or("no name")?.to_owned();
        assert!(name == "common" || sources.contains(&format!("--example {name}`")), "nothing in src/ names {name}");
    }
    Ok(())
}

/// A program on PATH, or where the bench has put it.
fn tool(name: &str, elsewhere: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let elsewhere = Path::new(ROOT).join("target").join(elsewhere);
    folders.into_iter().chain([elsewhere]).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn guides(language: &str) -> Vec<String> {
    let pages = Page::all("src/guide");
    let blocks = pages.iter().flat_map(Page::blocks).filter(|block| block.language == language);
    blocks.map(|block| block.lines.join("\n")).collect()
}

/// Skipped where there is no Go.
#[test]
fn the_go_before_is_go() -> TestResult {
    let blocks = guides("go");
    assert!(!blocks.is_empty());
    let Some(gofmt) = tool("gofmt", "peers/go/toolchain/go/bin") else {
        eprintln!("skipped: no gofmt here");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    for (index, block) in blocks.iter().enumerate() {
        let file = dir.path().join(format!("before{index}.go"));
        let text = format!("package before\n\n{block}\n");
        fs::write(&file, &text)?;
        let output = Command::new(&gofmt).arg("-e").arg(&file).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout)?, text, "gofmt writes it in another way");
    }
    Ok(())
}

/// Locked, taken for somebody else, and given back. Skipped where there is no Redis.
#[tokio::test]
async fn the_redis_before_is_a_lock() -> TestResult {
    let blocks = guides("redis");
    let [block] = blocks.as_slice() else { return Err("one block".into()) };
    let (Some(server), Some(cli)) = (tool("redis-server", "peers"), tool("redis-cli", "peers")) else {
        eprintln!("skipped: no redis-server here");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("redis.sock");
    let mut redis = tokio::process::Command::new(server);
    redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
    let _redis = redis.current_dir(dir.path()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    let send = async |line: &str| -> TestResult<String> {
        let mut cli = Command::new(&cli);
        // redis-cli splits a line that it reads as it should be typed.
        let mut cli = cli.arg("-s").arg(&socket).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut cli.stdin.take().ok_or("no input")?, format!("{line}\n").as_bytes())?;
        Ok(String::from_utf8(cli.wait_with_output()?.stdout)?.trim().to_owned())
    };
    common::until("Redis answers", async || send("PING").await.is_ok_and(|reply| reply == "PONG")).await;
    let [lock, unlock] = block.lines().collect::<Vec<_>>()[..] else { return Err("two lines".into()) };
    assert_eq!(send(lock).await?, "OK");
    assert_eq!(send(lock).await?, "", "it was taken twice");
    assert_eq!(send(&unlock.replace("7f3a9c", "another")).await?, "0");
    assert_eq!(send(unlock).await?, "1");
    Ok(())
}
