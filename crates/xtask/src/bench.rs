//! Builds the release program and measures its pulls beside those of the clients that are installed.

use crate::shell::{cargo, command, run, target};
use crate::tools;

/// `runs` is the number of counted runs for each program, as written.
pub(crate) fn run_all(runs: Option<&str>) -> anyhow::Result<()> {
    tools::prepare();
    run(cargo().args(["build", "--release", "--locked", "-p", "windlass", "-p", "windlass-e2e", "--bins"]))?;
    let release = target()?.join("release");
    let mut bench = command(release.join("bench"));
    bench.arg(release.join("windlass")).args(runs);
    run(&mut bench)
}
