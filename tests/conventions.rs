//! Habits that a reader relies on and no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

/// So that a file can be read in one sitting.
const MOST_LINES: usize = 350;

/// Files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];

/// Whoever puts a future into a `select!` has to know what dropping it does, and looks for it under one heading.
#[test]
fn every_public_async_function_says_what_dropping_it_does() {
    let mut missing = Vec::new();
    let mut found = 0;
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub async fn ")) {
            found += 1;
            let above = lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
            if !above.into_iter().any(|line| *line == "/// # Cancel safety") {
                missing.push(format!("{}:{}: {line}", path.display(), at + 1));
            }
        }
    }
    assert!(found > 10, "looked in the wrong place");
    assert!(missing.is_empty(), "without `# Cancel safety`:\n{}", missing.join("\n"));
}

/// Two spellings would make half of the answers impossible to find.
#[test]
fn the_heading_is_spelled_in_one_way() {
    for (path, text) in sources() {
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let heading = line.trim_start_matches(['/', '!', ' ']).to_lowercase();
            let heading = heading.strip_prefix('#').map(|heading| heading.trim_start_matches(['#', ' ']));
            if heading.is_some_and(|heading| heading.starts_with("cancel")) {
                assert_eq!(line, "/// # Cancel safety", "{}:{}", path.display(), at + 1);
            }
        }
    }
}

#[test]
fn no_file_is_too_long() {
    let length = |text: &str| text.lines().count();
    let allowed = |path: &Path| LONGER.iter().any(|(longer, _)| path.ends_with(longer));
    let long = sources().into_iter().filter(|(path, text)| length(text) > MOST_LINES && !allowed(path));
    let long: Vec<_> = long.map(|(path, text)| format!("{}: {}", path.display(), length(&text))).collect();
    assert!(long.is_empty(), "longer than {MOST_LINES} lines:\n{}", long.join("\n"));
}

/// All source files, from the root of the repository.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![root.join("src")];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("the sources are there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("it can be read");
                found.push((path.strip_prefix(root).expect("it is below").to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}
