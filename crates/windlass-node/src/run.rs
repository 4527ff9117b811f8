//! A daemon's life: lock, listen, serve, work, drain, end.
//!
//! The socket is listened on before anything slow is done: containerd gives up on a silent one after a second.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windlass_core::reason::chain;
use windlass_cri::containerd::{Handover, HandoverConfig};
use windlass_cri::{ImageServer, ImageServerParts, SnapshotsService, unknown_service};
use windlass_store::Store;

use crate::daemon::Daemon;
use crate::drain::Drain;
use crate::edge::{self, Edge};
use crate::error::NodeError;
use crate::health::{Check, Health};
use crate::inventory::Inventories;
use crate::lock::NodeLock;
use crate::metrics::Metrics;
use crate::parts::{ContainerdOptions, Control, NodeParts};
use crate::serve::serve;
use crate::status::{CollectionStatus, ConfigurationStatus};
use crate::systemd::{self, Moment};
use crate::{api, collect, health_http, page, pinned, reload, socket};

/// Connections on the socket: a kubelet, containerd and some commands have one or two each.
const SOCKET_CONNECTIONS_MAX: usize = 512;
/// Connections on the listener of metrics and page.
const PAGE_CONNECTIONS_MAX: usize = 64;
/// How often it is looked whether the store can be read.
const STORE_LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether containerd is there.
const CONTAINERD_LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long tasks may take to end once everything is cancelled.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a daemon until it is told to stop and has drained.
///
/// # Errors
/// [`NodeError`] when it cannot start: another one runs on the root, or the socket or the address cannot be had.
pub async fn run(parts: NodeParts) -> Result<(), NodeError> {
    let NodeParts { engine, options, tunables, configuration, control, pulls } = parts;
    let Control { stop, reload } = control;
    let (root, path) = (engine.store().root().to_owned(), options.socket.clone());
    let _lock = off_thread(move || NodeLock::take(&root, &path)).await?;
    let socket = socket::take(&options.socket)?;
    let page_listener = match options.metrics_address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };

    let mut checks = vec![Check::Store, Check::Socket, Check::Work];
    checks.extend(options.containerd.is_some().then_some(Check::Containerd));
    let metrics = Arc::new(Metrics::new(options.version));
    metrics.configured();
    let now = Timestamp::now();
    let mut images = ImageServerParts::new(engine.clone());
    images.limits = options.limits.clone();
    let handover = options.containerd.as_ref().map(|containerd| handover(containerd, engine.store().clone()));
    let handover = handover.transpose()?;
    images.handover = handover.clone();
    let daemon = Arc::new(Daemon {
        images: ImageServer::new(images),
        tunables: watch::Sender::new(Arc::new(tunables)),
        configuration,
        configured: Mutex::new(ConfigurationStatus { loaded: now, problem: None, needs_restart: Vec::new() }),
        health: Health::new(&checks),
        metrics,
        drain: Drain::new(),
        inventories: Inventories::new(engine.store().clone()),
        pinned: Mutex::default(),
        collection: Mutex::new(CollectionStatus::default()),
        started: now,
        ended: CancellationToken::new(),
        engine,
        options,
        pulls,
    });

    let mut served = JoinSet::new();
    let router = socket_router(&daemon);
    served.spawn(serve(socket.listener, router, SOCKET_CONNECTIONS_MAX, daemon.ended.clone()));
    daemon.health.set(Check::Socket, Ok(()));
    daemon.health.set(Check::Work, Ok(()));
    if let Some((listener, address)) = page_listener {
        served.spawn(serve(listener, page_router(&daemon, address), PAGE_CONNECTIONS_MAX, daemon.ended.clone()));
        tracing::info!(%address, "metrics and health are served");
    }
    systemd::tell(Moment::Ready);
    tracing::info!(socket = %daemon.options.socket.display(), version = daemon.options.version, "the daemon listens");

    let mut tasks = JoinSet::new();
    // Reads go on while pulls are drained; everything else ends at once.
    let reads = daemon.ended.clone();
    tasks.spawn({
        let daemon = daemon.clone();
        async move { daemon.images.run(reads).await }
    });
    tasks.spawn(systemd::live(daemon.ended.clone()));
    tasks.spawn(restore_mounts(daemon.clone()));
    tasks.spawn(count_pulls(daemon.clone()));
    tasks.spawn(watch_store(daemon.clone()));
    if let Some(handover) = handover {
        tasks.spawn(watch_containerd(daemon.clone(), handover));
    }
    tasks.spawn(pinned::run(daemon.clone(), stop.clone()));
    tasks.spawn(collect::run(daemon.clone(), stop.clone()));
    tasks.spawn(reload::run(daemon.clone(), reload, stop.clone()));

    stop.cancelled().await;
    end(&daemon, served, tasks).await;
    drop(socket.file);
    Ok(())
}

/// Drains, then ends everything that is served, then everything else.
async fn end(daemon: &Daemon, mut served: JoinSet<()>, mut tasks: JoinSet<()>) {
    systemd::tell(Moment::Stopping);
    daemon.health.set(Check::Work, Err("the daemon is ending".to_owned()));
    tracing::info!("the daemon is ending; pulls under way are finished");
    let left = daemon.drain.run(daemon.options.drain_timeout).await;
    if left > 0 {
        tracing::warn!(left, "pulls did not end in time and were cancelled; their finished layers are kept");
    }
    daemon.ended.cancel();
    let all = async {
        while served.join_next().await.is_some() {}
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    tracing::info!("the daemon has ended");
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Address { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn socket_router(daemon: &Arc<Daemon>) -> Router {
    let edge = Edge { metrics: daemon.metrics.clone(), drain: daemon.drain.clone(), pulls: daemon.pulls.clone() };
    daemon
        .images
        .router()
        .merge(SnapshotsService::new(daemon.engine.store()).router())
        .merge(api::router(daemon.clone()))
        .fallback(unknown_service)
        .layer(axum::middleware::from_fn_with_state(edge, edge::pass))
}

/// The page is for loopback only: it names images and the sources of credentials, and asks nobody who they are.
fn page_router(daemon: &Arc<Daemon>, address: SocketAddr) -> Router {
    let router = health_http::router(daemon.clone());
    if address.ip().is_loopback() { router.merge(page::router(daemon.clone())) } else { router }
}

/// Mounts what containers stand on, where the machine was started anew. Each is also mounted when it is asked for.
async fn restore_mounts(daemon: Arc<Daemon>) {
    let store = daemon.engine.store().clone();
    match daemon.in_store(move || store.restore_mounts()).await {
        Ok(snapshots) => tracing::debug!(snapshots, "what containers stand on is mounted"),
        Err((reason, why)) => tracing::error!(%reason, error = why.as_str(), "what containers stand on is not mounted"),
    }
}

/// Counts every pull that ends.
async fn count_pulls(daemon: Arc<Daemon>) {
    let mut endings = daemon.engine.board().endings();
    loop {
        let ending = tokio::select! {
            () = daemon.ended.cancelled() => return,
            ending = endings.recv() => ending,
        };
        match ending {
            Ok(past) => daemon.metrics.pull_ended(&past),
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "pulls are missing from the metrics"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Looks from time to time whether the store can be read.
async fn watch_store(daemon: Arc<Daemon>) {
    loop {
        let inventory = daemon.inventories.within(STORE_LOOK_EVERY / 2).await;
        let outcome = inventory.problem.clone().map_or(Ok(()), Err);
        let problem = outcome.clone().err();
        if daemon.health.set(Check::Store, outcome)
            && let Some(problem) = problem
        {
            tracing::error!(problem, "the store cannot be read");
        }
        systemd::tell(Moment::Status(&daemon.words(inventory.image_count)));
        tokio::select! {
            () = daemon.ended.cancelled() => return,
            () = tokio::time::sleep(STORE_LOOK_EVERY) => {}
        }
    }
}

/// Asks containerd from time to time whether it is there.
async fn watch_containerd(daemon: Arc<Daemon>, handover: Handover) {
    loop {
        let outcome = handover.version().await.map(drop).map_err(|error| chain(&error));
        let is_there = outcome.is_ok();
        if daemon.health.set(Check::Containerd, outcome) {
            tracing::info!(is_there, "containerd");
        }
        tokio::select! {
            () = daemon.ended.cancelled() => return,
            () = tokio::time::sleep(CONTAINERD_LOOK_EVERY) => {}
        }
    }
}

fn handover(options: &ContainerdOptions, store: Store) -> Result<Handover, NodeError> {
    let config = HandoverConfig {
        socket: options.socket.clone(),
        namespace: options.namespace.clone(),
        snapshotter: options.snapshotter.clone(),
    };
    Ok(Handover::connect(&config, store)?)
}

impl Daemon {
    /// Its state in one line.
    fn words(&self, images: usize) -> String {
        let pulls = self.engine.board().state().pulls.len();
        let waiting: Vec<String> = self.health.not_ready().into_iter().map(|check| check.check).collect();
        let not_ready = if waiting.is_empty() { String::new() } else { format!("; not ready: {}", waiting.join(", ")) };
        format!("{images} images, {pulls} pulls under way{not_ready}")
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
