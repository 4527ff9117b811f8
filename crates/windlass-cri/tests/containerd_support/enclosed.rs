//! Namespaces around a test: it runs itself again in them. When it ends, in whatever way, the kernel ends every process
//! that it started and takes every mount away.

use std::path::Path;
use std::process::{Command, Stdio};

use windlass_testkit::program::RUNS_HERE;
use windlass_testkit::tools::{is_root, skipped};

/// Tells the inner run of a test where its home is.
const HOME: &str = "WINDLASS_TEST_ENCLOSED_HOME";
/// Programs of the test, and those of util-linux that make the namespaces.
const PROGRAMS: [&str; 7] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "setpriv", "unshare", "mount"];
/// The only `PATH` inside.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Covers what containerd and runc keep at fixed places, then becomes the test, which is the first process.
const SCRIPT: &str = "for place in /run/containerd /run/runc; do mkdir -p $place; mount -t tmpfs cover $place; done\n\
                      exec \"$0\" \"$@\"";

/// Runs the body of the test of this name, in a folder that goes with it; says loudly where it cannot.
pub fn enclosed<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Box<Path>) -> F) {
    if let Some(home) = std::env::var_os(HOME) {
        // Shown when the test fails.
        let filter = tracing_subscriber::EnvFilter::new("warn,windlass_cri=debug,windlass_store=debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        return runtime.block_on(body(Path::new(&home).into()));
    }
    let find = |program: &&str| std::env::split_paths(PATH).any(|folder| folder.join(program).is_file());
    if !is_root() || !RUNS_HERE {
        return skipped(test, "needs root and an x86-64 Linux");
    }
    if let Some(missing) = PROGRAMS.iter().find(|program| !find(program)) {
        return skipped(test, &format!("{missing} is not installed"));
    }
    let home = tempfile::tempdir().unwrap();
    let namespaces = ["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut command = Command::new("setpriv");
    command.args(namespaces).args(["sh", "-ec", SCRIPT]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command.env("PATH", PATH).env("TMPDIR", home.path()).env(HOME, home.path());
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("unshare failed") {
        return skipped(test, &format!("no namespaces of its own: {}", err.trim()));
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{test} is not the name of the test");
}
