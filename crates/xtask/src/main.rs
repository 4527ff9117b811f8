//! Automation of this repository: `cargo xtask ci` is exactly what continuous integration runs.
//!
//! Each task is one file; [`shell`] starts programs and says which one failed.

mod bench;
mod ci;
mod clouds;
mod deps;
mod docs;
mod kube;
mod shell;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "usage: cargo xtask <task>

  ci      everything continuous integration checks, ending with the tests
  test    installs test tools where it may, builds, runs every test, counts the vector cases;
          those of a real Kubernetes node need KUBE_BIN, a folder with the Kubernetes programs
  bench   pulls two images made from this machine's files with windlass and with the clients installed; prints ratios
  clouds  fakes of Amazon, Google and Azure with a registry behind them, for tests by hand; runs until Ctrl-C
  deps    checks which crate depends on which, and that versions stand in the root manifest only
  docs    writes the generated pages below docs/ (with --check: fails when they are out of date)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<test::Told>() {
                say(&format!("xtask: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ci"] => ci::run(),
        ["test"] => test::run(test::Extent::Usual, kube::given()),
        ["bench"] => bench::run_all(None),
        ["bench", runs] => bench::run_all(Some(runs)),
        ["clouds"] => clouds::run_until_interrupted(),
        ["deps"] => deps::run(),
        ["docs"] => docs::write(),
        ["docs", "--check"] => docs::check(),
        _ => bail!("{USAGE}"),
    }
}

/// One line for the reader, on standard error, so that it keeps its place among the programs' own lines.
#[expect(clippy::print_stderr, reason = "this is the one place where xtask speaks")]
fn say(line: &str) {
    eprintln!("{line}");
}
