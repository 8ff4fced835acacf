//! What the programs of the bench have in common.

/// The version of what is measured, as its manifest says.
pub fn version() -> &'static str {
    let manifest = include_str!("../../Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.expect("a package has a version")
}

#[cfg(test)]
mod tests {
    /// A report without it could not be told from that of another version.
    #[test]
    fn the_version_is_found() {
        assert!(super::version().contains('.'));
    }
}
