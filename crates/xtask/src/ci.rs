//! The whole check, cheapest first; the tests come last, so that their summary ends the output. Those that take
//! minutes of waiting are among them only here.

use std::path::PathBuf;

use crate::shell::{self, answers, cargo};
use crate::{deps, docs, kube, say, test};

/// Builds the programs of a Kubernetes node, where it is; without it those tests need `KUBE_BIN`.
const KUBERNETES_SCRIPT: &str = "../shared/tools/kube-node/build";

pub(crate) fn run() -> anyhow::Result<()> {
    shell::run(cargo().args(["fmt", "--all", "--check"]))?;
    deps::run()?;
    shell::run(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    deny()?;
    docs::check()?;
    test::run(test::Extent::WithLong, kube::given_or_built(KUBERNETES_SCRIPT)?)
}

/// Dependencies: bans, licences and sources need no network; advisories only count with a database at hand.
fn deny() -> anyhow::Result<()> {
    if !answers(cargo().args(["deny", "--version"])) {
        say("skipped: cargo deny (not installed)");
        return Ok(());
    }
    // It looks at the dependencies of all platforms, and a build fetches those of one.
    shell::run(cargo().args(["fetch", "--locked"]))?;
    let mut checks = vec!["bans", "licenses", "sources"];
    if advisory_database().is_some_and(|database| database.is_dir()) {
        checks.push("advisories");
    } else {
        say("skipped: cargo deny check advisories (no copy of the advisory database)");
    }
    shell::run(cargo().args(["deny", "--offline", "check"]).args(checks))
}

/// Where cargo-deny keeps its copy of the RustSec database.
fn advisory_database() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    Some(home.join("advisory-dbs"))
}
