//! `windlass node` by itself, without containerd: images for a kubelet and nothing else.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use windlass_testkit::tools::Daemon;

use crate::world::World;

/// Longest wait for its socket.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The running daemon; it is killed when dropped.
#[derive(Debug)]
pub struct LoneNode {
    daemon: Daemon,
    socket: PathBuf,
    world: World,
}

impl LoneNode {
    /// Starts it on the store of a machine and waits until its socket takes connections.
    pub fn start(world: World) -> LoneNode {
        LoneNode::configured(world, serde_json::json!({}))
    }

    /// The same with more configuration.
    pub fn configured(world: World, more: Json) -> LoneNode {
        let socket = world.path("node.sock");
        let mut configuration = serde_json::json!({
            "apiVersion": "config.windlass.dev/v1alpha1",
            "kind": "NodeConfiguration",
            "node": { "socket": socket, "metricsAddress": "127.0.0.1:0" },
        });
        for (key, value) in more.as_object().expect("an object") {
            configuration[key] = value.clone();
        }
        let file = world.write("node.yaml", configuration.to_string());
        let mut command = world.command(["node", "--config"]);
        command.arg(file);
        let daemon = Daemon::start(command, &world.path("node.log"));
        let deadline = Instant::now() + START_LIMIT;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "windlass node does not listen:\n{}", daemon.output());
            std::thread::sleep(LOOK_PAUSE);
        }
        LoneNode { daemon, socket, world }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its page and metrics are, as its log says.
    pub fn metrics_address(&self) -> SocketAddr {
        let log = self.output();
        let told = log
            .lines()
            .find_map(|line| serde_json::from_str::<Json>(line).ok()?["fields"]["address"].as_str()?.parse().ok());
        told.expect("the log tells the address")
    }

    /// The machine it runs on.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        self.daemon.output()
    }
}
