//! Runs a file of rule vectors: every case, none skipped, and says on stdout how many passed.
//!
//! The files are those of the repository's `vectors` folder, or of the folder named by `WINDLASS_VECTORS`.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use serde_json::Value;

/// Calls `check` with each case of `file` (as a JSON object with an `id`) and prints the count.
///
/// # Panics
/// When the file is missing, malformed or empty, and with the ids of the failed cases when `check` panicked.
pub(crate) fn run(file: &str, check: impl Fn(&Value)) {
    let cases = load(file);
    assert!(!cases.is_empty(), "{file} has no cases");
    let mut failed = Vec::new();
    let mut first_panic = None;
    for case in &cases {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(case))) {
            failed.push(case["id"].as_str().unwrap_or("(no id)").to_owned());
            first_panic.get_or_insert(panic);
        }
    }
    if let Some(panic) = first_panic {
        say(&format!("vectors {file}: {} of {} cases FAILED: {}\n", failed.len(), cases.len(), failed.join(" ")));
        resume_unwind(panic);
    }
    say(&format!("vectors {file}: {} cases passed\n", cases.len()));
}

/// Written past the test harness' capture, so that a plain `cargo test` shows the counts.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).expect("stdout is open");
}

#[expect(clippy::disallowed_methods, reason = "the loader of test data is the one place that reads files")]
fn load(file: &str) -> Vec<Value> {
    let folder = match std::env::var_os("WINDLASS_VECTORS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors"),
    };
    let path = folder.join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cases = document.get("cases").or_else(|| document.get("vectors"));
    cases.and_then(Value::as_array).unwrap_or_else(|| panic!("{} has no cases", path.display())).clone()
}
