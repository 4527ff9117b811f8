//! `windlass node` in the cluster: what it is told, its death and its return.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use windlass_testkit::tools::free_port;

use super::Options;
use super::control::running_until;
use super::daemon::Daemon;
use super::enclosure::Enclosure;
use crate::world::{Snapshots, subject};

/// Longest wait for its socket.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The running daemon.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) daemon: Daemon,
    folder: PathBuf,
    pub(super) socket: PathBuf,
    /// Where metrics, health and the status page are.
    pub(super) address: String,
    environment: Vec<(String, String)>,
}

impl Node {
    /// Where its socket will be.
    pub(super) fn socket_in(folder: &Path) -> PathBuf {
        folder.join("windlass/w.sock")
    }

    /// Starts it; containerd need not run yet. The error says why not.
    pub(super) fn start(
        enclosure: &Enclosure,
        cluster: &Path,
        containerd: &Path,
        options: &Options,
    ) -> Result<Node, String> {
        let folder = cluster.join("windlass");
        fs::create_dir(&folder).expect("a directory");
        fs::create_dir(folder.join("hosts")).expect("a directory");
        let socket = Node::socket_in(cluster);
        let address = format!("127.0.0.1:{}", free_port());
        let mut node = json!({
            "socket": socket,
            "metricsAddress": address,
            "containerd": { "socket": containerd },
            "pinnedImages": options.sandbox.as_slice(),
        });
        if let (Some(all), Some(changes)) = (node.as_object_mut(), options.node.as_object()) {
            all.extend(changes.clone());
        }
        let mut configuration = json!({
            "apiVersion": "config.windlass.dev/v1alpha1",
            "kind": "NodeConfiguration",
            "root": folder.join("store"),
            "hostsDir": [folder.join("hosts")],
            "log": { "level": "info" },
            "node": node,
        });
        if let (Some(all), Some(sections)) = (configuration.as_object_mut(), options.sections.as_object()) {
            all.extend(sections.clone());
        }
        fs::write(folder.join("windlass.yaml"), configuration.to_string()).expect("a file");
        let environment = options.node_environment.clone();
        let daemon = Node::spawn(enclosure, &folder, &environment, Snapshots::Default);
        let mut node = Node { daemon, folder, socket, address, environment };
        node.wait()?;
        Ok(node)
    }

    fn spawn(enclosure: &Enclosure, folder: &Path, environment: &[(String, String)], snapshots: Snapshots) -> Daemon {
        let mut command = enclosure.command(subject());
        command.envs(environment.iter().cloned());
        snapshots.tell(&mut command);
        command.args(["node", "--config"]).arg(folder.join("windlass.yaml"));
        Daemon::start("windlass-node", command, folder.parent().expect("the cluster's folder"))
    }

    /// A socket that takes connections: a killed daemon leaves one that does not.
    fn wait(&mut self) -> Result<(), String> {
        let Node { daemon, socket, .. } = self;
        running_until(daemon, START_LIMIT, || std::os::unix::net::UnixStream::connect(&*socket).is_ok())
    }

    /// Its store.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Tells it how to reach a registry, by a `hosts.toml`.
    pub(super) fn tell_host(&self, host: &str, hosts_toml: &str) {
        let folder = self.folder.join("hosts").join(host);
        fs::create_dir_all(&folder).expect("a directory");
        fs::write(folder.join("hosts.toml"), hosts_toml).expect("a file");
    }

    /// Ends it as a crash does.
    pub(super) fn kill(&mut self) {
        self.daemon.end(Signal::KILL);
    }

    /// Starts it again after its end; it keeps new layers as this.
    pub(super) fn start_again(&mut self, enclosure: &Enclosure, snapshots: Snapshots) {
        self.daemon = Node::spawn(enclosure, &self.folder, &self.environment, snapshots);
        self.wait().unwrap_or_else(|why| panic!("windlass node does not start again: {why}"));
    }
}
