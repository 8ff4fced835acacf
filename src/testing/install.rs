//! Where the etcd to run is.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};

const ADVICE: &str = "install `etcd-server` (apt) or `etcd` (brew), or set TENURE_ETCD to its path";

/// The etcd that is `named`, else the first one on the search path.
pub(super) fn find(named: Option<&OsStr>, search_path: Option<&OsStr>) -> Result<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        let looked = || format!("TENURE_ETCD is {}, which is no executable file", named.display());
        return if is_executable(&named) { Ok(named) } else { Err(not_installed(looked())) };
    }
    let mut candidates = env::split_paths(search_path.unwrap_or_default()).map(|dir| dir.join("etcd"));
    let found = candidates.find(|path| is_executable(path));
    found.ok_or_else(|| not_installed("TENURE_ETCD is not set, and there is none on PATH".into()))
}

fn not_installed(looked: String) -> Error {
    Error::NotInstalled { looked, advice: ADVICE }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first thing that happens to a newcomer: the message has to say what to do.
    #[test]
    fn a_missing_etcd_is_an_error_that_says_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let error = find(None, Some(empty.path().as_os_str())).unwrap_err();
        // `unwrap` prints the latter.
        for message in [error.to_string(), format!("{error:?}")] {
            for word in ["etcd-server", "apt", "brew", "TENURE_ETCD"] {
                assert!(message.contains(word), "{word} is missing from: {message}");
            }
        }
        assert!(matches!(find(None, None), Err(Error::NotInstalled { .. })));
    }

    /// A mistyped variable must not silently run another etcd.
    #[test]
    fn a_named_etcd_that_is_missing_is_not_replaced_by_one_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let etcd = dir.path().join("etcd");
        fs::write(&etcd, "").unwrap();
        assert!(find(None, Some(dir.path().as_os_str())).is_err(), "not executable");
        fs::set_permissions(&etcd, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(None, Some(dir.path().as_os_str())).unwrap(), etcd);
        assert_eq!(find(Some(etcd.as_os_str()), None).unwrap(), etcd);

        let message = find(Some(OsStr::new("/nowhere/etcd")), Some(dir.path().as_os_str())).unwrap_err().to_string();
        assert!(message.contains("/nowhere/etcd"), "{message}");
    }
}
