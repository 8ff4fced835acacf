//! Where an etcd keeps its data, and of how many members it is.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tenure::testing::Etcd;

/// A file system in memory, on Linux.
const MEMORY: &str = "/dev/shm";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Disk,
    Memory,
    ThreeMembers,
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Disk, Self::Memory, Self::ThreeMembers];

    /// As a word of file names and records.
    pub fn id(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "tmpfs",
            Self::ThreeMembers => "three",
        }
    }

    pub async fn start(self) -> Result<Running> {
        let dir = match self {
            Self::Disk => Some(tempfile::tempdir_in("target").context("the data on disk are kept below target/")?),
            Self::Memory if Path::new(MEMORY).is_dir() => Some(tempfile::tempdir_in(MEMORY)?),
            // `scripts/bench` puts the data of several members into memory too.
            Self::Memory | Self::ThreeMembers => None,
        };
        let flag = dir.as_ref().map(|dir| format!("--data-dir={}", dir.path().join("etcd").display()));
        let etcd = match (self, &flag) {
            (Self::ThreeMembers, _) => Etcd::cluster(3).await?,
            (_, Some(flag)) => Etcd::start_with(&[flag]).await?,
            (_, None) => Etcd::start().await?,
        };
        Ok(Running { etcd, _dir: dir })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "one member, data on disk",
            Self::Memory => "one member, data on tmpfs",
            Self::ThreeMembers => "three members, data on tmpfs",
        })
    }
}

pub struct Running {
    // Dropped in this order: first the processes, then the directory that they write to.
    etcd: Etcd,
    _dir: Option<TempDir>,
}

impl Running {
    /// How a contender is told of this etcd.
    pub fn flags(&self) -> Vec<String> {
        let endpoints = self.etcd.endpoints();
        let metrics: Vec<_> = endpoints.iter().map(|endpoint| format!("http://{endpoint}/metrics")).collect();
        let pids = (0..endpoints.len()).filter_map(|member| self.etcd.pid(member)).map(|pid| pid.to_string());
        let pids: Vec<_> = pids.collect();
        let flags =
            [("--endpoints", endpoints.join(",")), ("--metrics", metrics.join(",")), ("--etcd-pid", pids.join(","))];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}
