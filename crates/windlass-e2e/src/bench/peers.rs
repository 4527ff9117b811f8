//! The programs that pull, each into an empty store of its own.

use std::path::PathBuf;
use std::process::Command;

use windlass_e2e::cluster::machine::Machine;
use windlass_testkit::tools::{Containerd, Sandbox, Tool, is_root};

use crate::measure::{self, Cost};

const ASKER: &str = "bench";

/// A program that can pull an image from a registry on loopback.
#[derive(Debug)]
pub(crate) enum Peer {
    /// Ours, the program at this path.
    Windlass(PathBuf),
    /// Ours, the daemon with containerd, asked as a kubelet asks it; handed over to containerd in the end.
    Node,
    /// containerd, asked through `ctr`.
    Containerd,
    /// podman with overlay storage.
    Podman,
    /// skopeo into an OCI layout: it fetches and does not unpack.
    Skopeo,
}

impl Peer {
    /// Ours first, then what is installed; what is missing is named.
    pub(crate) fn installed(windlass: PathBuf) -> Vec<Peer> {
        let mut peers = vec![Peer::Windlass(windlass)];
        if Tool::Containerd.find(ASKER).is_some() && is_root() {
            peers.extend([Peer::Node, Peer::Containerd]);
        }
        if Tool::Podman.find(ASKER).is_some() && is_root() {
            peers.push(Peer::Podman);
        }
        if Tool::Skopeo.find(ASKER).is_some() {
            peers.push(Peer::Skopeo);
        }
        peers
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Peer::Windlass(_) => "windlass",
            Peer::Node => "windlass node",
            Peer::Containerd => "containerd (ctr)",
            Peer::Podman => "podman",
            Peer::Skopeo => "skopeo (no unpack)",
        }
    }

    /// One cold pull.
    pub(crate) fn pull(&self, reference: &str) -> Cost {
        let sandbox = Sandbox::new();
        match self {
            Peer::Windlass(program) => {
                let mut command = sandbox.command(program);
                command.args(["pull", "--plain-http", "-q", "--root"]).arg(sandbox.path("root")).arg(reference);
                measure::run(command, None)
            }
            Peer::Node => {
                let machine = Machine::start(ASKER).expect("containerd was found");
                let mut command = Command::new(std::env::current_exe().expect("a program knows itself"));
                command.arg(crate::CRI_PULL).arg(machine.node_socket()).arg(reference);
                measure::run(command, Some(machine.node_pid()))
            }
            Peer::Containerd => {
                let containerd = Containerd::start(ASKER).expect("it was found");
                let command = containerd.ctr(["-n", "k8s.io", "images", "pull", "--plain-http", reference]);
                measure::run(command, Some(containerd.id()))
            }
            Peer::Podman => {
                let mut command = sandbox.command("podman");
                command.arg("--root").arg(sandbox.path("storage")).arg("--runroot").arg(sandbox.path("run"));
                command.args(["--storage-driver", "overlay", "--events-backend", "file", "pull", "-q"]);
                command.args(["--tls-verify=false", reference]);
                measure::run(command, None)
            }
            Peer::Skopeo => {
                let to = format!("oci:{}:bench", sandbox.path("layout").display());
                let from = format!("docker://{reference}");
                measure::run(sandbox.skopeo(["copy", "-q", "--src-tls-verify=false", &from, &to]), None)
            }
        }
    }
}
