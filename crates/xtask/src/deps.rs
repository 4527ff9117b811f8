//! Which crate may depend on which, read from `cargo metadata`; a new arrow is a decision, written down first.
//!
//! Test dependencies are free, except that nothing but tests may use the test crates.
//! Also: every manifest takes its versions and lints from the root.
//!
//! Invariants: `arrows_outside_the_table_are_named`, `the_table_has_no_cycle`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::say;
use crate::shell::{cargo, output};

/// What each crate may use of ours, in the order in which they stand on each other.
const TABLE: &[(&str, &[&str])] = &[
    ("windlass-core", &[]),
    ("windlass-distribution", &["windlass-core"]),
    ("windlass-credentials", &["windlass-core", "windlass-distribution"]),
    ("windlass-erofs", &[]),
    ("windlass-isal", &[]),
    ("windlass-store", &["windlass-core", "windlass-erofs", "windlass-isal"]),
    ("windlass-pull", &["windlass-core", "windlass-distribution", "windlass-credentials", "windlass-store"]),
    ("windlass-proto", &[]),
    ("windlass-cri", &["windlass-core", "windlass-proto", "windlass-store", "windlass-pull"]),
    (
        "windlass-node",
        &[
            "windlass-core",
            "windlass-distribution",
            "windlass-credentials",
            "windlass-store",
            "windlass-pull",
            "windlass-cri",
        ],
    ),
    ("windlass-registry", &["windlass-core", "windlass-distribution", "windlass-credentials"]),
    (
        "windlass",
        &[
            "windlass-core",
            "windlass-distribution",
            "windlass-credentials",
            "windlass-store",
            "windlass-pull",
            "windlass-node",
            "windlass-registry",
        ],
    ),
];

/// Crates for tests and automation: they may use anything, and only tests may use them.
const OUTSIDE: &[&str] = &["windlass-testkit", "windlass-e2e", "xtask"];

/// Where C is called: lints of its own, which allow `unsafe` and demand its reasons.
const OWN_LINTS: &[&str] = &["windlass-isal"];

/// What core may use of others: nothing that knows files, sockets, threads or a runtime.
const CORE_USES: &[&str] = &["base64", "jiff", "serde", "serde_json", "sha2", "thiserror", "toml", "url", "zeroize"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

pub(crate) fn run() -> anyhow::Result<()> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cannot read cargo metadata")?;
    let mut findings = arrows(&metadata.packages);
    for package in &metadata.packages {
        findings.extend(manifest(package)?);
    }
    if !findings.is_empty() {
        bail!("dependencies:\n  {}", findings.join("\n  "));
    }
    say(&format!("deps: {} crates follow the table", metadata.packages.len()));
    Ok(())
}

fn arrows(packages: &[Package]) -> Vec<String> {
    let table: BTreeMap<&str, BTreeSet<&str>> =
        TABLE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        if OUTSIDE.contains(&name) {
            continue;
        }
        let Some(allowed) = table.get(name) else {
            findings.push(format!("{name} is not in the table of crates/xtask/src/deps.rs"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
            let used = dependency.name.as_str();
            let ours = table.contains_key(used) || OUTSIDE.contains(&used);
            if ours && !allowed.contains(used) {
                findings.push(format!("{name} must not depend on {used}"));
            }
            if name == "windlass-core" && !ours && !CORE_USES.contains(&used) {
                findings.push(format!("{name} must not depend on {used}: it is pure"));
            }
        }
    }
    findings
}

/// Versions and lints come from the root manifest.
fn manifest(package: &Package) -> anyhow::Result<Vec<String>> {
    let path = Path::new(&package.manifest_path);
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut findings = Vec::new();
    let has_lints = match OWN_LINTS.contains(&package.name.as_str()) {
        true => text.contains("undocumented_unsafe_blocks = \"deny\""),
        false => text.contains("[lints]\nworkspace = true"),
    };
    if !has_lints {
        findings.push(format!("{} does not take the lints of the root", package.name));
    }
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let dependency = section.contains("dependencies") && line.contains('=') && !line.starts_with('#');
        if dependency && !line.contains("workspace = true") && !line.starts_with("optional") {
            findings.push(format!("{}: `{line}` does not take its version from the root", package.name));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and kind of each dependency.
    type Uses = &'static [(&'static str, Option<&'static str>)];

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Package {
        let dependencies = uses
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
            .collect();
        Package { name: name.to_owned(), manifest_path: String::new(), dependencies }
    }

    #[test]
    fn arrows_outside_the_table_are_named() {
        let table: [(&str, Uses, &[&str]); 6] = [
            ("windlass-store", &[("windlass-core", None), ("redb", None)], &[]),
            ("windlass-store", &[("windlass-testkit", Some("dev"))], &[]),
            ("windlass-store", &[("windlass-pull", None)], &["windlass-store must not depend on windlass-pull"]),
            ("windlass-pull", &[("windlass-testkit", None)], &["windlass-pull must not depend on windlass-testkit"]),
            ("windlass-core", &[("tokio", None)], &["windlass-core must not depend on tokio: it is pure"]),
            ("windlass-new", &[], &["windlass-new is not in the table of crates/xtask/src/deps.rs"]),
        ];
        for (name, uses, want) in table {
            assert_eq!(arrows(&[package(name, uses)]), want, "{name}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        let mut seen = BTreeSet::new();
        for (name, uses) in TABLE {
            assert!(uses.iter().all(|used| seen.contains(used)), "{name} stands before what it uses");
            seen.insert(*name);
        }
    }
}
