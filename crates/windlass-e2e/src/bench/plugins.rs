//! How long a kubelet waits for the plugin role where there is nothing to answer: for each image that a configuration matches
//! too generously, before each pull.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Counted runs.
const RUNS: usize = 20;
/// The goal, from the start of the program to its end.
const ANSWER_MAX: Duration = Duration::from_millis(30);

const REQUEST: &str = r#"{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"quay.example/org/app"}"#;

/// Prints the median for each cloud; panics when it misses the goal.
pub(crate) fn print(windlass: &Path) {
    for cloud in ["ecr", "gcp", "acr"] {
        // The first run finds the program on the disk.
        run(windlass, cloud);
        let mut times: Vec<Duration> = (0..RUNS).map(|_| run(windlass, cloud)).collect();
        times.sort();
        let median = times[RUNS / 2];
        println!("plugin   {cloud}: no answer for a foreign image after {:.1} ms", median.as_secs_f64() * 1e3);
        assert!(median < ANSWER_MAX, "{cloud}: {median:?}");
    }
}

fn run(windlass: &Path, cloud: &str) -> Duration {
    let start = Instant::now();
    let mut child = Command::new(windlass)
        .args(["credential-provider", cloud])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("windlass starts");
    // Dropped at once: the program reads to the end.
    child.stdin.take().expect("it was piped").write_all(REQUEST.as_bytes()).expect("windlass reads");
    let output = child.wait_with_output().expect("windlass ends");
    let time = start.elapsed();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(r#""auth":{}"#), "{output:?}");
    time
}
