//! Builds and runs every test, then says how many cases of each rule vector passed.
//!
//! Tests that read `vectors/` print `vectors <file>: N cases passed`; the lines are collected and shown
//! together before the runner's summary, which is always the last line.
//!
//! Invariants: `the_summary_is_the_last_line`, `vector_lines_are_found_in_any_output`,
//! `every_vector_file_must_be_reported`, `what_was_skipped_is_said`,
//! `results_of_plain_cargo_are_added_up`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::Context;

use crate::shell::{answers, cargo, root, run as shell_run};
use crate::tools;
use crate::{kube, say};

/// Which tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All but those that wait for minutes.
    Usual,
    /// Those too.
    WithLong,
}

/// Tells the tests that they may wait for minutes.
const LONG: &str = "WINDLASS_LONG_TESTS";

/// `kubernetes` is where the Kubernetes programs are, if they are anywhere.
pub(crate) fn run(extent: Extent, kubernetes: Option<PathBuf>) -> anyhow::Result<()> {
    tools::prepare();
    features()?;
    shell_run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]))?;
    let told = |command: &mut Command| {
        command.envs(kubernetes.iter().map(|folder| (kube::VARIABLE, folder)));
        if extent == Extent::WithLong {
            command.env(LONG, "1");
        }
    };
    if answers(cargo().args(["nextest", "--version"])) { with_nextest(told) } else { with_cargo(told) }
}

/// What a feature changes, tested with that feature alone.
fn features() -> anyhow::Result<()> {
    if !tools::can_build_isal() {
        say("skipped: tests of the feature isal (ISA-L cannot be built)");
        return Ok(());
    }
    let test = |package: &str, arguments: &[&str]| {
        let base = ["test", "--locked", "--features", "isal", "-p", package];
        shell_run(cargo().args(base).args(arguments))
    };
    test("windlass-isal", &["--lib"])?;
    test("windlass-store", &["--lib", "compress"])?;
    test("windlass-store", &["--test", "layer_corpus"])
}

fn with_nextest(told: impl Fn(&mut Command)) -> anyhow::Result<()> {
    let mut command = cargo();
    told(command.args(["nextest", "run", "--workspace", "--locked"]));
    let (status, shown) = follow(&mut command, Stream::Error, nextest_holds_back)?;
    // nextest keeps its reports here wherever cargo builds.
    let report = root().join("target/nextest/default/junit.xml");
    let recorded = std::fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    end(status, &recorded, summary_last(shown))
}

fn with_cargo(told: impl Fn(&mut Command)) -> anyhow::Result<()> {
    say("cargo nextest is not installed: running cargo test");
    let mut command = cargo();
    told(command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--", "--show-output"]));
    let (status, shown) = follow(&mut command, Stream::Output, |_| true)?;
    let text = shown.join("\n");
    let mut lines: Vec<String> = shown.iter().filter(|line| cargo_shows(line)).cloned().collect();
    lines.push(added_up(&text));
    end(status, &text, lines)
}

fn end(status: ExitStatus, recorded: &str, shown: Vec<String>) -> anyhow::Result<()> {
    let (vectors, skipped) = (vector_lines(recorded), skipped_lines(recorded));
    let files = vector_files()?;
    let missing: Vec<&String> = files.iter().filter(|file| !is_reported(&vectors, file)).collect();
    if !missing.is_empty() {
        say(&format!("no test passed every case of {missing:?}"));
    }
    for line in skipped.iter().chain(&vectors).chain([&total(&vectors)]).chain(&shown) {
        say(line);
    }
    if status.success() && missing.is_empty() { Ok(()) } else { Err(Told.into()) }
}

/// Tests failed, and everything about it was said: the summary stays the last line.
#[derive(Debug)]
pub(crate) struct Told;

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tests failed")
    }
}

impl std::error::Error for Told {}

/// The rule vectors of this repository, by file name.
fn vector_files() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("vectors")).context("cannot list vectors/")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_reported(vectors: &BTreeSet<String>, file: &str) -> bool {
    let start = format!("vectors {file}: ");
    vectors.iter().any(|line| line.starts_with(&start))
}

/// `vectors: 905 cases in 15 files passed`.
fn total(vectors: &BTreeSet<String>) -> String {
    let count = |line: &String| line.split(' ').nth(2)?.parse::<u64>().ok();
    format!("vectors: {} cases in {} files passed", vectors.iter().filter_map(count).sum::<u64>(), vectors.len())
}

enum Stream {
    Output,
    Error,
}

/// Runs the command, shows its lines as they come, and gives back those that `hold_back` chose.
/// Once one line is held back so are all that follow it.
fn follow(
    command: &mut Command,
    stream: Stream,
    hold_back: fn(&str) -> bool,
) -> anyhow::Result<(ExitStatus, Vec<String>)> {
    match stream {
        Stream::Output => command.stdout(Stdio::piped()),
        Stream::Error => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().context("cannot start the test runner")?;
    let lines: Box<dyn BufRead> = match stream {
        Stream::Output => Box::new(BufReader::new(child.stdout.take().expect("it was piped above"))),
        Stream::Error => Box::new(BufReader::new(child.stderr.take().expect("it was piped above"))),
    };
    let mut held = Vec::new();
    for line in lines.split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("the test runner's output broke off")?).into_owned();
        if !held.is_empty() || hold_back(&line) {
            held.push(line);
        } else {
            std::io::stderr().write_all(format!("{line}\n").as_bytes())?;
        }
    }
    Ok((child.wait().context("the test runner vanished")?, held))
}

fn nextest_holds_back(line: &str) -> bool {
    line.trim_start().starts_with("Summary [")
}

/// Puts the summary behind the list of failures that nextest prints after it.
fn summary_last(mut lines: Vec<String>) -> Vec<String> {
    if !lines.is_empty() {
        lines.rotate_left(1);
    }
    lines
}

/// What is worth showing of plain cargo's output: failures and the line of each test program.
fn cargo_shows(line: &str) -> bool {
    line.contains("FAILED") || line.contains("panicked at") || line.starts_with("test result:")
}

/// One result line for all test programs, in the form of a single one.
fn added_up(text: &str) -> String {
    let count = |what: &str| -> u64 {
        let results = text.lines().filter(|line| line.starts_with("test result:"));
        let words = results.flat_map(|line| line.split([';', '.'])).map(str::trim);
        words.filter_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok()).sum()
    };
    let failed = count("failed");
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    format!("test result: {verdict}. {} passed; {failed} failed; {} ignored", count("passed"), count("ignored"))
}

/// The distinct lines `vectors <file>: N cases passed` in a text, wherever they stand in a line.
fn vector_lines(text: &str) -> BTreeSet<String> {
    lines_from(text, "vectors ").filter(|line| line.ends_with("cases passed")).map(str::to_owned).collect()
}

/// The distinct lines `SKIPPED <test>: <why>`: what a test says when a program it needs is not here.
fn skipped_lines(text: &str) -> BTreeSet<String> {
    lines_from(text, "SKIPPED ").filter(|line| line.contains(": ")).map(str::to_owned).collect()
}

/// Each place where `start` stands, up to the end of its line or of the XML around it.
fn lines_from<'t>(text: &'t str, start: &'static str) -> impl Iterator<Item = &'t str> {
    let ends = ["\n", "]]>", "<"];
    text.match_indices(start).map(move |(at, _)| {
        let rest = &text[at..];
        let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        rest[..end].trim_end()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn the_summary_is_the_last_line() {
        assert!(nextest_holds_back("     Summary [  2.1s] 10 tests run: 10 passed, 0 skipped"));
        assert!(!nextest_holds_back("        PASS [  0.1s] a b"));
        assert_eq!(summary_last(owned(&["Summary", "FAIL a", "FAIL b"])), owned(&["FAIL a", "FAIL b", "Summary"]));
        assert_eq!(summary_last(owned(&["Summary"])), owned(&["Summary"]));
        assert!(summary_last(Vec::new()).is_empty());
    }

    #[test]
    fn vector_lines_are_found_in_any_output() {
        let text = "<system-out>\nvectors b.json: 2 cases passed\n</system-out>x vectors a.json: 1 cases passed]]>\n\
                    vectors b.json: 2 cases passed\nvectors are fun\n";
        let found: Vec<String> = vector_lines(text).into_iter().collect();
        assert_eq!(found, ["vectors a.json: 1 cases passed", "vectors b.json: 2 cases passed"]);
    }

    #[test]
    fn what_was_skipped_is_said() {
        let text = "<system-err>SKIPPED a::b: podman is not installed\nmore</system-err>";
        assert_eq!(skipped_lines(text).into_iter().collect::<Vec<_>>(), ["SKIPPED a::b: podman is not installed"]);
    }

    #[test]
    fn every_vector_file_must_be_reported() {
        let lines: BTreeSet<String> =
            owned(&["vectors a.json: 3 cases passed", "vectors b.json: 4 cases passed"]).into_iter().collect();
        assert!(is_reported(&lines, "a.json") && !is_reported(&lines, "c.json"));
        assert_eq!(total(&lines), "vectors: 7 cases in 2 files passed");
    }

    #[test]
    fn results_of_plain_cargo_are_added_up() {
        let text = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n\
                    test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(added_up(text), "test result: FAILED. 7 passed; 2 failed; 0 ignored");
    }
}
