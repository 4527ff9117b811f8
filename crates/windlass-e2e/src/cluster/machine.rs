//! The half of a cluster that needs no Kubernetes: containerd with `windlass node` as its snapshotter.

use std::path::Path;

use tempfile::TempDir;
use windlass_testkit::tools::{Tool, is_root, skipped};

use super::enclosure::Enclosure;
use super::runtime::Runtime;
use super::{Images, Options, node_and_runtime, subject};

/// The running pair; everything of it ends when it is dropped.
#[derive(Debug)]
pub struct Machine {
    node: subject::Node,
    runtime: Runtime,
    // Ends before the folder goes, and ends whatever uses it.
    _enclosure: Enclosure,
    _folder: TempDir,
}

impl Machine {
    /// Starts it; `None`, said loudly, where containerd or the rights are missing.
    ///
    /// It lasts no longer than the calling thread.
    pub fn start(test: &str) -> Option<Machine> {
        Tool::Containerd.find(test)?;
        if !is_root() {
            skipped(test, "containerd needs root");
            return None;
        }
        // Sockets have short paths.
        let folder = tempfile::Builder::new().prefix("wm").tempdir().expect("a temporary directory");
        let enclosure = Enclosure::start(test, folder.path())?;
        let started = node_and_runtime(&enclosure, folder.path(), &Options::new(Images::Windlass));
        let (node, runtime) = started.unwrap_or_else(|why| panic!("{test}: {why}"));
        let node = node.expect("it was asked for");
        Some(Machine { node, runtime, _enclosure: enclosure, _folder: folder })
    }

    /// The daemon's socket.
    pub fn node_socket(&self) -> &Path {
        &self.node.socket
    }

    /// The daemon's process, by its number out here.
    pub fn node_pid(&self) -> u32 {
        self.node.daemon.pid().expect("the daemon runs")
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> &Path {
        &self.runtime.socket
    }
}
