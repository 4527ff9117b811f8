//! What a daemon is made of, as the program that starts it says. No behaviour here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass_core::gc::GcSettings;
use windlass_core::manifest::DocumentLimits;
use windlass_pull::Engine;

/// All of it.
#[derive(Debug)]
pub struct NodeParts {
    /// The engine; its store is the daemon's.
    pub engine: Engine,
    /// What holds for the daemon's life.
    pub options: NodeOptions,
    /// What a reload may change, as it is now.
    pub tunables: Tunables,
    /// Where the configuration comes from.
    pub configuration: Box<dyn Configuration>,
    /// How the daemon is told things.
    pub control: Control,
    /// Where pulls are done: threads of their own, so that no answer waits behind layers.
    pub pulls: Handle,
}

/// What holds for the daemon's life.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The socket for the kubelet, containerd and the command line.
    pub socket: PathBuf,
    /// Where metrics, health and the status page are; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// The containerd that runs the containers; `None`: the daemon works alone.
    pub containerd: Option<ContainerdOptions>,
    /// Bounds on manifests and configs, those of the engine.
    pub limits: DocumentLimits,
    /// How long pulls under way may go on once the daemon is told to stop.
    pub drain_timeout: Duration,
    /// The program's version, for those who ask.
    pub version: &'static str,
}

/// The containerd that runs the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdOptions {
    /// Its socket.
    pub socket: PathBuf,
    /// The namespace of the kubelet's containers.
    pub namespace: String,
    /// The name under which containerd knows this daemon.
    pub snapshotter: String,
}

/// What a reload may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tunables {
    /// Images that are always here.
    pub pinned_images: Vec<String>,
    /// How often their tags are looked up again.
    pub pinned_check_every: Duration,
    /// Collection by the daemon itself; `None`: it does none.
    pub collect: Option<CollectOptions>,
}

/// How the daemon collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectOptions {
    /// When images go.
    pub settings: GcSettings,
    /// How often it is looked.
    pub every: Duration,
}

/// Where the configuration comes from: read again when a file changes or when somebody asks for it.
pub trait Configuration: std::fmt::Debug + Send + Sync {
    /// The files that count now, and folders whose content does, so that a change of them is seen.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads it again. What is wrong with it comes as text for people; nothing has changed then.
    ///
    /// # Errors
    /// Every problem that was found, one a line.
    fn read(&self) -> Result<Reread, String>;
}

/// A configuration that was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reread {
    /// What the daemon takes over.
    pub tunables: Tunables,
    /// Keys that have changed and are taken over only by a restart.
    pub needs_restart: Vec<String>,
}

/// How the daemon is told things.
#[derive(Debug)]
pub struct Control {
    /// Fires when it is to drain and end.
    pub stop: CancellationToken,
    /// Each message asks for the configuration to be read again.
    pub reload: mpsc::Receiver<()>,
}
