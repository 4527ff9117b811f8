//! `windlass node`: the daemon beside a kubelet and containerd. What it does is windlass-node; here are its
//! configuration, its log and its signals.
//!
//! Invariants: `keys_that_a_reload_takes_over_are_not_told_as_waiting`, `what_a_reload_cannot_take_over_is_named`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass_core::gc::GcSettings;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_credentials::CredentialSources;
use windlass_node::{
    CollectOptions, Configuration, ContainerdOptions, Control, NodeError, NodeOptions, NodeParts, Reread, Tunables,
};

use crate::config::Loaded;
use crate::config::node::{Log, LogFormat, LogLevel, Node};
use crate::config::resolve::{Effective, Origin};
use crate::failure::Failure;
use crate::process::{self, LogControl};
use crate::session::{Rereader, Session};
use crate::wire;

/// Keys that a reload takes over; those of `gc` are what `node.collect` begins with.
const RELOADED: [&str; 5] = ["node.pinnedImages", "node.pinnedCheckEvery", "node.collect.", "gc.", "log.level"];
/// How long threads that are still writing may take to notice that the daemon is over.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// Threads for the network of pulls; the heavy work has its own.
const WORKERS_MAX: usize = 4;
/// Threads for hashing, unpacking and the disk of pulls. The whole process stays below 64.
const BLOCKING_MAX: usize = 40;
/// Threads that answer on the sockets.
const ANSWERING: usize = 1;
/// Threads for what answers need of the disk: containerd's snapshots, the state of the store.
const ANSWERING_BLOCKING_MAX: usize = 12;
/// Niceness of threads that pull, see setpriority(2).
const PULL_NICENESS: i32 = 10;
/// Status of a process that a second signal ended.
const INTERRUPTED: i32 = 130;
/// Asks for a reload that wait; more than one says nothing new.
const RELOADS_MAX: usize = 1;

/// Arguments of `node`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Signals: SIGTERM and SIGINT finish the pulls under way (node.drainTimeout) and end it, a second \
                        one at once; SIGHUP reads the configuration again, as does a change of its files."
)]
pub(crate) struct Args {
    /// The socket to listen on [default: node.socket].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let loaded = session.load()?;
    let log = process::log(&log_of(&loaded));
    let tunables = tunables(&loaded.node).map_err(|why| Failure::usage("the configuration is not valid", why))?;
    let options = options(&loaded.node, args)?;
    let engine = wire::engine_of_daemon(&loaded.node, &session.globals)?;
    let configuration = Files {
        rereader: session.rereader(),
        began: loaded.effective,
        log: Mutex::new(log),
        sources: engine.sources().clone(),
    };
    let cannot = |error: std::io::Error| Failure::new(Reason::Internal, "cannot start", error.to_string());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pulling = threads("pull", cores.min(WORKERS_MAX), BLOCKING_MAX).on_thread_start(step_back).build();
    let pulling = pulling.map_err(cannot)?;
    let answering = threads("answer", ANSWERING, ANSWERING_BLOCKING_MAX).build().map_err(cannot)?;
    let pulls = pulling.handle().clone();
    let result = answering.block_on(async {
        let control = control().map_err(cannot)?;
        let parts = NodeParts { engine, options, tunables, configuration: Box::new(configuration), control, pulls };
        windlass_node::run(parts).await.map_err(|error| node_failure(&error))
    });
    pulling.shutdown_timeout(SHUTDOWN);
    answering.shutdown_timeout(SHUTDOWN);
    result
}

fn threads(name: &str, workers: usize, blocking: usize) -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name(name).worker_threads(workers).max_blocking_threads(blocking).enable_all();
    builder
}

/// Lets the threads that answer go before this one: a kubelet asks often and wants to know at once, and on a machine of
/// few cores the layers of one pull keep all of them busy.
fn step_back() {
    // Whoever may not lower it pulls as before.
    if let Err(error) = rustix::process::setpriority_process(None, PULL_NICENESS) {
        tracing::debug!(%error, "the priority of a pulling thread stays as it is");
    }
}

fn node_failure(error: &NodeError) -> Failure {
    let failure = Failure::new(error.reason(), "cannot run the daemon", wire::chain(error));
    match error {
        NodeError::Running { .. } => failure.hint("stop the other daemon first, or use another --root"),
        _ => failure,
    }
}

/// A daemon says what an operator wants to know, and to a program in a program's form, unless it is told otherwise.
fn log_of(loaded: &Loaded) -> Log {
    let is_said = |path: &str| {
        loaded.effective.iter().any(|effective| effective.path == path && effective.origin != Origin::Default)
    };
    let mut log = loaded.node.log.clone();
    if !is_said("log.level") {
        log.level = LogLevel::Info;
    }
    if !is_said("log.format") && !std::io::stderr().is_terminal() {
        log.format = LogFormat::Json;
    }
    log
}

fn options(node: &Node, args: &Args) -> Result<NodeOptions, Failure> {
    let socket = args.socket.clone().unwrap_or_else(|| node.daemon.socket.clone());
    let socket = std::path::absolute(&socket)
        .map_err(|error| Failure::usage(format!("{} is no path of a socket", socket.display()), error.to_string()))?;
    let containerd = node.containerd.socket.clone().map(|socket| ContainerdOptions {
        socket,
        namespace: node.containerd.namespace.clone(),
        snapshotter: node.containerd.snapshotter.clone(),
    });
    Ok(NodeOptions {
        socket,
        metrics_address: node.daemon.metrics_address,
        containerd,
        limits: wire::document_limits(&node.limits),
        drain_timeout: node.daemon.drain_timeout,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// What a reload may change; checked, so that a wrong value is told by its key.
fn tunables(node: &Node) -> Result<Tunables, String> {
    for image in &node.daemon.pinned_images {
        Reference::parse(image).map_err(|error| format!("node.pinnedImages: {image}: {}", wire::chain(&error)))?;
    }
    let percent = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    let settings = GcSettings {
        high_percent: percent(node.collect.high_percent.unwrap_or(node.gc.high_threshold_percent)),
        low_percent: percent(node.collect.low_percent.unwrap_or(node.gc.low_threshold_percent)),
        min_age: node.collect.minimum_age.unwrap_or(node.gc.minimum_age),
        max_age: node.collect.maximum_age.unwrap_or(node.gc.maximum_age),
    };
    if node.collect.enabled {
        settings.check().map_err(|error| format!("node.collect: {}", wire::chain(&error)))?;
    }
    for (key, value) in
        [("node.pinnedCheckEvery", node.daemon.pinned_check_every), ("node.collect.every", node.collect.every)]
    {
        if value.is_zero() {
            return Err(format!("{key}: wants a time that is not nothing"));
        }
    }
    Ok(Tunables {
        pinned_images: node.daemon.pinned_images.clone(),
        pinned_check_every: node.daemon.pinned_check_every,
        collect: node.collect.enabled.then_some(CollectOptions { settings, every: node.collect.every }),
    })
}

/// Signals: end, end at once, read the configuration again.
fn control() -> std::io::Result<Control> {
    let stop = CancellationToken::new();
    let (ask, reload) = mpsc::channel(RELOADS_MAX);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {
                    // One that waits already says the same.
                    let _ = ask.try_send(());
                    continue;
                }
            }
            if stopping.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            stopping.cancel();
        }
    });
    Ok(Control { stop, reload })
}

/// The configuration files of this run.
struct Files {
    rereader: Rereader,
    /// The values that the daemon began with.
    began: Vec<Effective>,
    log: Mutex<LogControl>,
    /// The configuration of credential providers is read again, too.
    sources: Arc<CredentialSources>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("rereader", &self.rereader).finish_non_exhaustive()
    }
}

impl Configuration for Files {
    fn files(&self) -> Vec<PathBuf> {
        let providers = self.sources.provider_config().map(|config| config.path);
        self.rereader.watched().into_iter().chain(providers).collect()
    }

    fn read(&self) -> Result<Reread, String> {
        let loaded = self.rereader.load().map_err(|error| error.to_string())?;
        let tunables = tunables(&loaded.node)?;
        self.sources.reload().map_err(|error| wire::chain(error.as_ref()))?;
        let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log(log_of(&loaded).level);
        Ok(Reread { tunables, needs_restart: needs_restart(&self.began, &loaded.effective) })
    }
}

/// Keys whose values are others now and that no reload takes over.
fn needs_restart(began: &[Effective], now: &[Effective]) -> Vec<String> {
    let is_reloaded =
        |path: &str| RELOADED.iter().any(|key| if key.ends_with('.') { path.starts_with(key) } else { path == *key });
    let before = |path: &str| began.iter().find(|effective| effective.path == path).map(|effective| &effective.value);
    now.iter()
        .filter(|effective| !is_reloaded(&effective.path) && before(&effective.path) != Some(&effective.value))
        .map(|effective| effective.path.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn effective(path: &str, value: Json) -> Effective {
        Effective { path: path.to_owned(), value, origin: Origin::Default }
    }

    #[test]
    fn keys_that_a_reload_takes_over_are_not_told_as_waiting() {
        let keys = Node::keys();
        for key in RELOADED {
            assert!(keys.iter().any(|known| known.path.starts_with(key)), "{key} is a key");
        }
        let began = [effective("node.pinnedImages", json!([])), effective("node.collect.enabled", json!(false))];
        let now = [effective("node.pinnedImages", json!(["a"])), effective("node.collect.enabled", json!(true))];
        assert!(needs_restart(&began, &now).is_empty());
    }

    #[test]
    fn what_a_reload_cannot_take_over_is_named() {
        let began = [effective("root", json!("/a")), effective("node.socket", json!("/s"))];
        let now = [effective("root", json!("/b")), effective("node.socket", json!("/s"))];
        assert_eq!(needs_restart(&began, &now), ["root"]);
    }

    #[test]
    fn wrong_values_of_the_daemon_are_told_by_their_keys() {
        let mut node = crate::config::defaults().node;
        assert_eq!(tunables(&node).map(|tunables| tunables.collect), Ok(None));
        node.daemon.pinned_images = vec!["Team/BAD".to_owned()];
        assert!(tunables(&node).is_err_and(|why| why.starts_with("node.pinnedImages: Team/BAD: ")));
        node.daemon.pinned_images.clear();
        node.collect.enabled = true;
        (node.collect.high_percent, node.collect.low_percent) = (Some(50), Some(60));
        assert!(tunables(&node).is_err_and(|why| why.starts_with("node.collect: ")));
        node.collect.low_percent = Some(40);
        node.collect.every = Duration::ZERO;
        assert!(tunables(&node).is_err_and(|why| why.starts_with("node.collect.every: ")));
    }
}
