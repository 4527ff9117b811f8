//! The pages below `docs/` that are generated, and the tests that ARCHITECTURE.md and module headers promise.
//!
//! The windlass crate knows its commands, keys and reasons, so the pages come from its example `docs`.
//!
//! Invariants: `promises_are_the_names_in_back_quotes`, `a_test_is_a_function_of_that_name`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::say;
use crate::shell::{cargo, root, run};

/// Writes the pages.
pub(crate) fn write() -> anyhow::Result<()> {
    generate(&[])
}

/// Fails when a page is out of date, or when a promised test does not exist.
pub(crate) fn check() -> anyhow::Result<()> {
    generate(&["--check"])?;
    let tests = functions(&root().join("crates"))?;
    let mut missing = Vec::new();
    let map = root().join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&map).with_context(|| format!("cannot read {}", map.display()))?;
    let promised = promises(&text);
    missing.extend(promised.difference(&tests).map(|name| format!("ARCHITECTURE.md names the test `{name}`")));
    if !missing.is_empty() {
        bail!("no such test:\n  {}", missing.join("\n  "));
    }
    say(&format!("docs: pages are up to date, {} promised tests exist", promised.len()));
    Ok(())
}

fn generate(arguments: &[&str]) -> anyhow::Result<()> {
    run(cargo()
        .args(["run", "--quiet", "--locked", "-p", "windlass", "--example", "docs", "--"])
        .args(arguments)
        .arg(root().join("docs")))
}

/// The test names in parentheses that begin with `test:`, as in "(tests: `name`, `other_name`)".
fn promises(text: &str) -> BTreeSet<String> {
    let lists = ["(test:", "(tests:"].into_iter().flat_map(|opening| text.split(opening).skip(1));
    let names = lists.filter_map(|list| list.split(')').next()).flat_map(|list| list.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// Every function name in the Rust files below a folder.
fn functions(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in rust_files(folder)? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        names.extend(text.lines().filter_map(function_name));
    }
    Ok(names)
}

fn function_name(line: &str) -> Option<String> {
    let after = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?;
    Some(after.split(['(', '<']).next()?.to_owned())
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_the_names_in_back_quotes() {
        let text = "- `core` is pure (test: `one`, `two`).\n- nothing `here`\n- more (tests: `three`,\n  `four`)\n";
        let want: BTreeSet<String> = ["one", "two", "three", "four"].map(str::to_owned).into();
        assert_eq!(promises(text), want);
    }

    #[test]
    fn a_test_is_a_function_of_that_name() {
        let table = [
            ("    fn plain() {", Some("plain")),
            ("    async fn waits() {", Some("waits")),
            ("fn generic<T>(t: T) {}", Some("generic")),
            ("// fn comment", None),
        ];
        for (line, want) in table {
            assert_eq!(function_name(line).as_deref(), want, "{line}");
        }
    }
}
