//! Many promises tried on one cluster, side by side, each under its own name.
//!
//! The test runner gives each test a process of its own, so what shares a cluster is one test. Its cases are functions
//! whose names state the promises; all of them are run, whatever becomes of the others, and those that failed are named
//! in the end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

/// Cases at once. They mostly wait for the kubelet, which looks at a pod that failed every ten seconds only.
const AT_ONCE: usize = 6;

/// A promise.
pub struct Case<S> {
    /// Its name.
    pub name: &'static str,
    /// Tries it; panics when it does not hold.
    pub try_it: fn(&S),
}

impl<S> std::fmt::Debug for Case<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The functions as cases under their own names.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        [$($crate::cluster::cases::Case { name: stringify!($name), try_it: $name }),*]
    };
}

/// Tries all of them; panics with the names of those that failed and why.
///
/// `WINDLASS_CASES` with a part of a name tries only those that have it.
pub fn try_all<S: Sync>(scene: &S, cases: &[Case<S>]) {
    try_some(scene, cases, AT_ONCE);
}

/// The same, one after the other, for cases that disturb others.
pub fn try_one_by_one<S: Sync>(scene: &S, cases: &[Case<S>]) {
    try_some(scene, cases, 1);
}

#[expect(clippy::print_stdout, reason = "the cases belong into the report of the test run")]
fn try_some<S: Sync>(scene: &S, cases: &[Case<S>], at_once: usize) {
    let only = std::env::var("WINDLASS_CASES").unwrap_or_default();
    let waiting = Mutex::new(cases.iter().filter(|case| case.name.contains(&only)));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let next = || waiting.lock().expect("the lock covers no panic").next();
                while let Some(case) = next() {
                    let started = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| (case.try_it)(scene)));
                    let seconds = started.elapsed().as_secs();
                    println!("case {}: {} after {seconds} s", case.name, if result.is_ok() { "ok" } else { "FAILED" });
                    if let Err(panic) = result {
                        let failure = format!("{}: {}", case.name, text(&*panic));
                        failures.lock().expect("the lock covers no panic").push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("the lock covers no panic");
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), cases.len(), failures.join("\n\n"));
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}
