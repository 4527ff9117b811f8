//! Runs the program in a world of its own: an empty home, no variables of the caller's, a root of its own.
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of it")]

pub(crate) mod browser;
pub(crate) mod node;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value as Json;

/// A folder that stands for a machine: home, store and working directory of every command run in it.
pub(crate) struct World(tempfile::TempDir);

impl World {
    pub(crate) fn new() -> World {
        World(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the temporary folder takes files");
    }

    /// Says that a registry on loopback speaks http, so that nobody tries anything else.
    pub(crate) fn speaks_http(&self, host: &str) {
        let folder = self.path("hosts").join(host);
        std::fs::create_dir_all(&folder).expect("the temporary folder takes folders");
        let text = format!("server = \"http://{host}\"\n");
        std::fs::write(folder.join("hosts.toml"), text).expect("the temporary folder takes files");
    }

    /// The program in this world, to be started by hand.
    pub(crate) fn process(&self, arguments: &[&str]) -> std::process::Command {
        let mut process = process(self.0.path());
        process.args(arguments);
        process
    }

    /// A command line in this world, not yet run.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Windlass {
        Windlass { command: command(self.0.path()), home: None }.args(arguments)
    }
}

/// A command line under test.
pub(crate) struct Windlass {
    command: Command,
    /// A world of its own, where it has one.
    home: Option<tempfile::TempDir>,
}

/// What it printed.
#[derive(Debug)]
pub(crate) struct Output {
    status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    // The world lives as long as its output, so that paths in it can be looked at.
    home: Option<tempfile::TempDir>,
}

/// The program without anything of the caller's environment.
fn command(home: &Path) -> Command {
    Command::from_std(process(home))
}

fn process(home: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("windlass"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
        command.env(name, home);
    }
    command.env("TMPDIR", home).env("WINDLASS_ROOT", home.join("store")).env("WINDLASS_HOSTS_DIR", home.join("hosts"));
    command.current_dir(home);
    command
}

impl Windlass {
    pub(crate) fn new() -> Windlass {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        Windlass { command: command(home.path()), home: Some(home) }
    }

    fn own(&self) -> &Path {
        self.home.as_ref().expect("made by new").path()
    }

    /// Writes a configuration file with this body and names it.
    pub(crate) fn config(mut self, body: &str) -> Windlass {
        let path = self.own().join("config.yaml");
        let head = "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\n";
        std::fs::write(&path, format!("{head}{body}")).expect("the temporary folder takes files");
        self.command.env("WINDLASS_CONFIG", path);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Windlass {
        self.command.env(name, value);
        self
    }

    pub(crate) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Windlass {
        self.command.args(arguments);
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Windlass {
        self.command.write_stdin(text.to_owned());
        self
    }

    /// A file in the working folder.
    pub(crate) fn file(self, name: &str, text: &str) -> Windlass {
        std::fs::write(self.own().join(name), text).expect("the temporary folder takes files");
        self
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Output {
        self.ends(0)
    }

    #[track_caller]
    pub(crate) fn fails(self, status: i32) -> Output {
        self.ends(status)
    }

    #[track_caller]
    fn ends(self, status: i32) -> Output {
        let output = self.ends_somehow();
        assert_eq!(output.status, Some(status), "stdout: {}\nstderr: {}", output.stdout, output.stderr);
        output
    }

    /// Whatever becomes of it; for what depends on the machine.
    pub(crate) fn ends_somehow(mut self) -> Output {
        let output = self.command.output().expect("the program can be started");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Output { status: output.status.code(), stdout, stderr, home: self.home }
    }
}

impl Output {
    pub(crate) fn status(&self) -> Option<i32> {
        self.status
    }

    #[track_caller]
    pub(crate) fn stdout_json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    #[track_caller]
    pub(crate) fn stderr_json(&self) -> Json {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {}", self.stderr))
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.as_ref().expect("run in a world of its own").path()
    }
}
