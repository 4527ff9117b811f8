//! A real containerd with our snapshotter, a store and a registry, in namespaces that end with the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

mod enclosed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::{Channel, Endpoint};
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::platform::Platform;
use windlass_credentials::CredentialSources;
use windlass_cri::SnapshotsService;
use windlass_cri::containerd::{Handover, HandoverConfig};
use windlass_cri::socket;
use windlass_distribution::{Client, ClientConfig};
use windlass_proto::cri::v1;
use windlass_proto::cri::v1::image_service_client::ImageServiceClient;
use windlass_pull::events::Silent;
use windlass_pull::{Credentials, Engine, EngineConfig, PullOptions, PullRequest};
use windlass_store::{Hold, SnapshotFormat, Store, StoreOptions};
use windlass_testkit::images::{Bundle, Entry, Image, Layer};
use windlass_testkit::program::{Then, program};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::run;

pub use enclosed::enclosed;

/// Longest wait for anything; nothing here waits for luck, this only ends what would not end.
const LIMIT: Duration = Duration::from_secs(60);
/// What the program in the images writes.
pub const GREETING: &str = "hello from a layer of ours\n";

/// Everything of a node but the kubelet.
pub struct Rig {
    pub home: PathBuf,
    pub store: Store,
    pub handover: Handover,
    pub registry: TestRegistry,
    serving: Option<JoinHandle<()>>,
    containerd: Option<std::process::Child>,
}

impl Rig {
    pub async fn start(home: &Path) -> Rig {
        let home = home.to_owned();
        let store = open(&home, SnapshotFormat::Auto);
        let handover = Handover::connect(&HandoverConfig::new(home.join("c.sock")), store.clone()).unwrap();
        fs::write(home.join("config.toml"), config(&home)).unwrap();
        let registry = TestRegistry::open();
        let mut rig = Rig { home, store, handover, registry, serving: None, containerd: None };
        rig.serve();
        rig.start_containerd();
        rig
    }

    /// Serves our snapshots.
    pub fn serve(&mut self) {
        let router = SnapshotsService::new(&self.store).router();
        let (listener, file) = socket::bind(&self.home.join("windlass.sock")).unwrap();
        self.serving = Some(tokio::spawn(async move {
            let _file = file;
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away ends its connection.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        }));
    }

    /// Goes away with all its connections.
    pub async fn stop_serving(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }

    pub fn start_containerd(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.join("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.home.join("config.toml")).stdout(log.try_clone().unwrap()).stderr(log);
        self.containerd = Some(command.spawn().unwrap());
        let socket = self.home.join("c.sock");
        until("containerd answers", || {
            socket.exists() && self.command(&["version"]).output().is_ok_and(|output| output.status.success())
        });
    }

    /// Ends containerd as a crash does. Containers go on.
    pub fn kill_containerd(&mut self) {
        let mut containerd = self.containerd.take().unwrap();
        kill_process(Pid::from_child(&containerd), Signal::KILL).unwrap();
        containerd.wait().unwrap();
        fs::remove_file(self.home.join("c.sock")).unwrap();
    }

    /// `ctr`, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.home.join("c.sock")).args(["--namespace", "k8s.io"]).args(args);
        command.stdin(std::process::Stdio::null());
        command
    }

    /// What `ctr` writes; it has to succeed.
    pub fn ctr(&self, args: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(args)).stdout).unwrap()
    }

    /// Runs a container of an image to its end; what it wrote.
    pub fn run_once(&self, image: &str, id: &str) -> String {
        self.ctr(&["run", "--rm", "--snapshotter", "windlass", image, id])
    }

    /// Starts a container that stays; its root as it is mounted.
    pub fn run_on(&self, image: &str, id: &str) -> PathBuf {
        self.ctr(&["run", "--detach", "--snapshotter", "windlass", image, id, "/stay"]);
        self.home.join("state/io.containerd.runtime.v2.task/k8s.io").join(id).join("rootfs")
    }

    /// Ends it.
    pub fn end(&self, id: &str) {
        self.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]);
        until("the container ends", || self.ctr(&["tasks", "ls"]).lines().all(|line| !is_running(line, id)));
        self.ctr(&["tasks", "rm", id]);
        self.ctr(&["containers", "rm", id]);
    }

    pub fn runs(&self, id: &str) -> bool {
        self.ctr(&["tasks", "ls"]).lines().any(|line| is_running(line, id))
    }

    /// Makes containerd collect now.
    pub fn collect(&self) {
        self.ctr(&["leases", "create", "--id", "forced"]);
        self.ctr(&["leases", "rm", "--sync", "forced"]);
    }

    /// The first column of a list, without its head.
    pub fn names(&self, args: &[&str]) -> Vec<String> {
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        self.ctr(args).lines().skip(1).map(first).collect()
    }

    pub fn image_names(&self) -> Vec<String> {
        self.names(&["images", "ls"])
    }

    pub fn snapshots(&self) -> Vec<String> {
        self.names(&["snapshots", "--snapshotter", "windlass", "ls"])
    }

    /// Pulls an image into the store, with its new layers in this form.
    pub async fn pull(&self, image: &str, format: SnapshotFormat) -> Digest {
        let client = Client::new(ClientConfig { plain_http_everywhere: true, ..ClientConfig::default() }).unwrap();
        let sources = Arc::new(CredentialSources::builder().build());
        let store = if format == SnapshotFormat::Auto { self.store.clone() } else { open(&self.home, format) };
        let engine = Engine::new(EngineConfig::new(store, client, sources, Platform::new("linux", "amd64", None)));
        let request = PullRequest {
            image: image.to_owned(),
            mode: Mode::Windlass,
            credentials: Credentials::default(),
            options: PullOptions::default(),
        };
        engine.pull(request, Arc::new(Silent)).await.unwrap().id
    }

    /// Places an image in the registry, pulls it and hands it over.
    pub async fn deliver(&self, bundle: &Bundle, repository: &str, format: SnapshotFormat) -> (String, Digest) {
        let name = self.registry.place(bundle, repository, "1");
        let id = self.pull(&name, format).await;
        assert_eq!(self.handover.after_pull(&id).await.unwrap(), windlass_cri::containerd::Seen::Yes);
        (name, id)
    }

    /// containerd's own CRI.
    pub fn cri(&self) -> ImageServiceClient<Channel> {
        let path = self.home.join("c.sock");
        let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        ImageServiceClient::new(Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector))
    }

    /// Waits until containerd's CRI shows the image by this name. It labels a record some time after that came, and makes
    /// one anew that went meanwhile.
    pub async fn knows(&self, image: &str, id: &str) {
        let is_known = async || self.shown(image).await.is_some_and(|found| found.id == id);
        eventually("containerd's CRI knows the name", is_known).await;
    }

    /// The image as containerd's CRI shows it.
    pub async fn shown(&self, image: &str) -> Option<v1::Image> {
        let image = Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() });
        let request = v1::ImageStatusRequest { image, verbose: false };
        self.cri().image_status(request).await.ok()?.into_inner().image
    }
}

impl Drop for Rig {
    /// Everything ends with the namespaces; only the log would be missed.
    #[expect(clippy::print_stderr, reason = "what a failed test is found by")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.join("containerd.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of containerd's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

fn is_running(line: &str, id: &str) -> bool {
    let mut columns = line.split_whitespace();
    columns.next() == Some(id) && columns.nth(1) == Some("RUNNING")
}

/// A handle on the store as the daemon has it; several on one root do not mind each other.
fn open(home: &Path, format: SnapshotFormat) -> Store {
    let mut options = StoreOptions::default();
    options.snapshot_format = format;
    options.hold = Hold::Transaction;
    Store::open(&home.join("store"), options).unwrap()
}

fn config(home: &Path) -> String {
    let home = home.display();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        r#"version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
address = "{home}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"
[{cri}]
disable_tcp_service = true
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{home}/cni"
conf_dir = "{home}/cni"
[{cri}.containerd]
snapshotter = "windlass"
[proxy_plugins.windlass]
type = "snapshot"
address = "{home}/windlass.sock"
"#
    )
}

/// Looks again and again until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}: not in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for what is asked asynchronously; how long it took.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LIMIT, "{what}: not in {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// The lowest layer of all test images: programs that greet, and end or stay.
pub fn base() -> Layer {
    Layer::new([
        Entry::file("greet", program(GREETING, Then::Ends)).mode(0o755),
        Entry::file("stay", program(GREETING, Then::Stays)).mode(0o755),
        Entry::dir("etc"),
        Entry::file("etc/text", "lowest\n"),
        Entry::file("etc/gone", "to be hidden\n"),
    ])
}

/// An image on [`base`] with so many layers; each adds `layers/<n>` and replaces `etc/text`.
pub fn stacked(marker: &str, layers: usize) -> Image {
    let mut image = Image::build().layer(base());
    for n in 1..layers {
        let mut entries = vec![
            Entry::dir("layers"),
            Entry::file(format!("layers/{n}"), format!("{n} of {marker}\n")),
            Entry::file("etc/text", format!("{n} of {marker}\n")),
        ];
        if n == 1 {
            entries.push(Entry::whiteout("etc/gone"));
        }
        image = image.layer(Layer::new(entries));
    }
    image.config(serde_json::json!({ "Entrypoint": ["/greet"], "WorkingDir": "/" })).finish()
}

/// Whether a container's root is what the layers of [`stacked`] say.
pub fn check_root(root: &Path, marker: &str, layers: usize) {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    for n in 1..layers {
        assert_eq!(read(&format!("layers/{n}")), format!("{n} of {marker}\n"));
    }
    assert_eq!(read("etc/text"), format!("{} of {marker}\n", layers - 1));
    assert!(!root.join("etc/gone").exists(), "a file of the lowest layer shows through");
    fs::write(root.join("etc/written"), "by the container").unwrap();
}
