//! A real Kubernetes node on loopback with everything that belongs to it, for one test.
//!
//! etcd, kube-apiserver and kube-controller-manager, containerd, `windlass node` and kubelet, all in one temporary
//! folder, on free ports of the loopback address and in namespaces of their own. The Kubernetes programs are not
//! Debian's to give: the environment variable `KUBE_BIN` names the folder with `kube-apiserver`,
//! `kube-controller-manager` and `kubelet` (1.20; later ones have other flags); without it the tests say loudly that
//! they are skipped.
//!
//! - [`Cluster`]: start, kubectl, pods and what comes of them, containers seen from outside, death and return.
//! - [`pods`]: pods and secrets as documents, the answers about them.
//! - [`cases`]: many promises of one cluster, kept side by side.
//! - [`machine`]: `windlass node` and containerd without Kubernetes.
//! - [`daemon`], [`enclosure`], [`wait`]: programs, the namespaces around them, patience with a limit.
//!
//! A cluster takes some 20 seconds to start, so a test starts one and tries many things on it.

mod acts;
pub mod cases;
mod control;
pub mod daemon;
pub mod enclosure;
mod kubelet;
pub mod machine;
pub mod pods;
pub mod runtime;
mod subject;
pub mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use windlass_testkit::tools::{is_root, skipped};

use control::{Control, running_until};
use daemon::Daemon;
use enclosure::{Enclosure, find};
use kubelet::Kubelet;
use runtime::{IMPORTED_SANDBOX_IMAGE, Runtime};
use subject::Node;

/// The node's name.
pub const NODE: &str = "node1";
/// Longest wait for the kubelet to be ready.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for a pod to run: an image of some megabytes, on a busy machine.
pub const POD_LIMIT: Duration = Duration::from_secs(120);
/// A port that was free may be taken before its program listens; then everything is tried again.
const STARTS: usize = 3;
/// What the Kubernetes folder has to hold.
const KUBERNETES: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubelet"];
/// What else has to be installed.
const INSTALLED: [&str; 5] = ["etcd", "kubectl", "containerd", "ctr", "runc"];

/// Who serves images to the kubelet and snapshots to containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// containerd itself: the cluster as it is without us, for comparisons.
    Containerd,
    /// `windlass node`.
    Windlass,
}

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who serves images.
    pub images: Images,
    /// Keys of the kubelet's configuration file that are to be otherwise.
    pub kubelet: Json,
    /// The sandboxes' image, which the daemon pulls at its start and pins; `None`: containerd imports one from an archive.
    pub sandbox: Option<String>,
    /// Keys of the section `node` of the daemon's configuration that are to be otherwise.
    pub node: Json,
    /// Whole sections of the daemon's configuration.
    pub sections: Json,
    /// More arguments of the kubelet.
    pub kubelet_arguments: Vec<String>,
    /// Variables of the kubelet, which it hands on to the programs that it starts.
    pub kubelet_environment: Vec<(String, String)>,
    /// Variables of the daemon.
    pub node_environment: Vec<(String, String)>,
    /// containerd's `certs.d`.
    pub certs_dir: Option<PathBuf>,
}

impl Options {
    /// Images from these, everything else as usual.
    pub fn new(images: Images) -> Options {
        Options {
            images,
            sandbox: None,
            kubelet: json!({}),
            node: json!({}),
            sections: json!({}),
            kubelet_arguments: Vec::new(),
            kubelet_environment: Vec::new(),
            node_environment: Vec::new(),
            certs_dir: None,
        }
    }

    fn sandbox_image(&self) -> &str {
        self.sandbox.as_deref().unwrap_or(IMPORTED_SANDBOX_IMAGE)
    }
}

/// A running cluster; everything of it ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    control: Control,
    runtime: Mutex<Runtime>,
    node: Option<Mutex<Node>>,
    kubelet: Mutex<Daemon>,
    seen: Mutex<Seen>,
    options: Options,
    programs: PathBuf,
    // Ends before the folder goes, and ends whatever uses it.
    enclosure: Option<Enclosure>,
    folder: TempDir,
}

/// The last answer about all pods.
#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    pods: Vec<Json>,
}

impl Cluster {
    /// Starts one and waits until its node is ready. `None`, said loudly, where the programs or the rights are missing.
    ///
    /// It lasts no longer than the calling thread.
    pub fn start(test: &str, options: &Options) -> Option<Cluster> {
        let programs = programs(test)?;
        let mut starts = 1;
        loop {
            match Cluster::attempt(test, &programs, options)? {
                Ok(cluster) => return Some(cluster),
                Err(why) => {
                    let is_taken = why.contains("address already in use");
                    assert!(is_taken && starts < STARTS, "{test}: the cluster does not start: {why}");
                    starts += 1;
                }
            }
        }
    }

    fn attempt(test: &str, programs: &Path, options: &Options) -> Option<Result<Cluster, String>> {
        // Sockets have short paths.
        let folder = tempfile::Builder::new().prefix("wk").tempdir().expect("a temporary directory");
        let enclosure = Enclosure::start(test, folder.path())?;
        Some(Cluster::parts(programs, options, enclosure, folder))
    }

    fn parts(programs: &Path, options: &Options, enclosure: Enclosure, folder: TempDir) -> Result<Cluster, String> {
        let path = folder.path();
        let (control, images) = std::thread::scope(|scope| {
            let images = scope.spawn(|| node_and_runtime(&enclosure, path, options));
            (Control::start(&enclosure, programs, path), images.join().expect("it answers with errors"))
        });
        let (control, (node, runtime)) = (control?, images?);
        let kubelet = Kubelet {
            programs,
            folder: path,
            user: &control.node,
            runtime: &runtime.socket,
            images: node.as_ref().map(|node| node.socket.as_path()),
            sandbox_image: options.sandbox_image(),
            options,
        };
        let kubelet = kubelet.start(&enclosure);
        let cluster = Cluster {
            control,
            runtime: Mutex::new(runtime),
            node: node.map(Mutex::new),
            kubelet: Mutex::new(kubelet),
            seen: Mutex::default(),
            options: options.clone(),
            programs: programs.to_owned(),
            enclosure: Some(enclosure),
            folder,
        };
        cluster.wait_for_kubelet()?;
        Ok(cluster)
    }

    fn wait_for_kubelet(&self) -> Result<(), String> {
        let is_ready = || {
            let answer = self.kubectl(["get", "node", NODE, "-o", "json"]).output().ok()?;
            let node: Json = serde_json::from_slice(&answer.stdout).ok()?;
            let conditions = node["status"]["conditions"].as_array()?;
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            (ready["status"] == "True").then_some(())
        };
        running_until(&mut lock(&self.kubelet), START_LIMIT, || is_ready().is_some())
    }
}

/// The daemon and containerd, in the order of a node that starts.
fn node_and_runtime(
    enclosure: &Enclosure,
    folder: &Path,
    options: &Options,
) -> Result<(Option<Node>, Runtime), String> {
    let node = match options.images {
        Images::Containerd => None,
        Images::Windlass => Some(Node::start(enclosure, folder, &Runtime::socket_in(folder), options)?),
    };
    let snapshotter = node.as_ref().map(|node| node.socket.as_path());
    let runtime = Runtime::start(enclosure, folder, snapshotter, options)?;
    match &options.sandbox {
        Some(image) => runtime.wait_for_image(image)?,
        None => runtime.import_sandbox_image(),
    }
    Ok((node, runtime))
}

/// The folder of the Kubernetes programs, when everything that a cluster needs is here; says loudly what is missing.
fn programs(test: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("KUBE_BIN") else {
        skipped(test, "KUBE_BIN does not name a folder with the Kubernetes programs");
        return None;
    };
    if !windlass_testkit::program::RUNS_HERE {
        skipped(test, "the program in its images is for x86-64");
        return None;
    }
    if !is_root() {
        skipped(test, "a kubelet needs root");
        return None;
    }
    if let Some(missing) = INSTALLED.iter().find(|program| find(program).is_none()) {
        skipped(test, &format!("{missing} is not installed"));
        return None;
    }
    let folder = fs::canonicalize(&folder).unwrap_or_else(|error| panic!("KUBE_BIN, {}: {error}", folder.display()));
    for program in KUBERNETES {
        assert!(folder.join(program).is_file(), "KUBE_BIN, {}, has no {program}", folder.display());
    }
    Some(folder)
}

/// A case that panicked has said so itself; what it held is still good for the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
