//! An interrupted command stops in good order, with the status that shells expect.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// Waits until the program has connected, so that it is in the middle of its work.
fn interrupted(signal: &str) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/team/app:1", silent.local_addr().unwrap());
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("windlass"))
        .args(["--plain-http", "pull", &reference, "-o", "json"])
        .env_clear()
        .env("HOME", home.path())
        .env("WINDLASS_ROOT", home.path().join("store"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn the_first_signal_ends_a_pull_with_130() {
    for signal in ["-INT", "-TERM"] {
        let (status, said) = interrupted(signal);
        assert_eq!(status, Some(130), "{signal}: {said}");
        let error: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(error["error"]["class"], "canceled", "{error}");
    }
}
