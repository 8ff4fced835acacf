//! Who is measured: programs that speak alike.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The bare requests, by Tenure's client.
pub const FLOOR: &str = "floor";
/// A queue of the bare requests.
pub const RING: &str = "ring";
pub const TENURE: &str = "tenure";
/// Go's `client/v3/concurrency`.
pub const GO: &str = "go-concurrency";
/// Redis' Redlock.
pub const REDIS: &str = "rslock";

pub struct Contenders {
    ours: PathBuf,
    peers: Vec<(String, PathBuf)>,
    /// Who cannot be had here, and why.
    pub missing: Vec<(String, String)>,
}

impl Contenders {
    pub fn find(list: Option<&Path>) -> Result<Self> {
        let ours = env::current_exe()?.with_file_name("contender");
        let (mut peers, mut missing) = (Vec::new(), Vec::new());
        let list = list.map(|list| fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display())));
        for line in list.transpose()?.unwrap_or_default().lines() {
            let (name, program) = line.split_once(' ').with_context(|| format!("`{line}` names no program"))?;
            match program.strip_prefix("- ") {
                Some(reason) => missing.push((name.to_owned(), reason.to_owned())),
                None => peers.push((name.to_owned(), PathBuf::from(program))),
            }
        }
        Ok(Self { ours, peers, missing })
    }

    /// Names, in the order in which they run and are shown.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [FLOOR, RING, TENURE].into_iter().chain(self.peers.iter().map(|(name, _)| name.as_str()))
    }

    pub fn program(&self, name: &str) -> &Path {
        let peer = self.peers.iter().find(|(peer, _)| peer == name);
        peer.map_or(&self.ours, |(_, program)| program)
    }

    pub fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }
}
