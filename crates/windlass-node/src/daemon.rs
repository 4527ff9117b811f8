//! The daemon's state: what its tasks share, and what it says of itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use windlass_cri::ImageServer;
use windlass_pull::Engine;

use crate::drain::Drain;
use crate::health::{Check, Health};
use crate::inventory::Inventories;
use crate::logins::logins;
use crate::metrics::Metrics;
use crate::parts::{Configuration, NodeOptions, Tunables};
use crate::rows::{rows, shortened};
use crate::status::{
    BackOffRow, CollectionStatus, ConfigurationStatus, ContainerdStatus, DaemonState, NodeStatus, PinnedRow,
};

/// How old the list of images may be that is shown.
const INVENTORY_AGE: Duration = Duration::from_secs(2);
/// Images in the back-off that are shown.
const BACK_OFF_MAX: usize = 200;

/// Whether the images are wanted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Images {
    /// All there is.
    Listed,
    /// Their number only.
    Counted,
}

/// What the tasks of a daemon share.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    /// Where pulls are done.
    pub(crate) pulls: Handle,
    pub(crate) images: ImageServer,
    pub(crate) options: NodeOptions,
    pub(crate) tunables: watch::Sender<Arc<Tunables>>,
    pub(crate) configuration: Box<dyn Configuration>,
    pub(crate) configured: Mutex<ConfigurationStatus>,
    pub(crate) health: Health,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    pub(crate) inventories: Inventories,
    pub(crate) pinned: Mutex<Vec<PinnedRow>>,
    pub(crate) collection: Mutex<CollectionStatus>,
    pub(crate) started: Timestamp,
    /// Fires when everything that is served ends: after the drain.
    pub(crate) ended: CancellationToken,
}

/// Never poisoned for long: what it holds is replaced whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    pub(crate) fn tunables(&self) -> Arc<Tunables> {
        self.tunables.borrow().clone()
    }

    /// What it says of itself.
    pub(crate) async fn status(&self, images: Images) -> NodeStatus {
        let inventory = self.inventories.within(INVENTORY_AGE).await;
        let board = self.engine.board().state();
        let pull_count = board.pulls.len();
        let (pulls, recent) = rows(board);
        let not_ready = self.health.not_ready();
        let state = match (self.drain.is_draining(), not_ready.is_empty()) {
            (true, _) => DaemonState::Draining,
            (false, true) => DaemonState::Ready,
            (false, false) => DaemonState::Waiting,
        };
        let containerd = self.options.containerd.as_ref().map(|containerd| ContainerdStatus {
            socket: containerd.socket.clone(),
            namespace: containerd.namespace.clone(),
            problem: self.health.problem(Check::Containerd),
        });
        NodeStatus {
            version: self.options.version.to_owned(),
            pid: std::process::id(),
            root: self.engine.store().root().to_owned(),
            socket: self.options.socket.clone(),
            started: self.started,
            now: Timestamp::now(),
            state,
            not_ready,
            configuration: locked(&self.configured).clone(),
            containerd,
            pulls,
            pull_count,
            recent,
            back_off: self.back_off(),
            pinned: locked(&self.pinned).clone(),
            images: (images == Images::Listed).then(|| inventory.images.clone()),
            image_count: inventory.image_count,
            disk: inventory.disk.clone(),
            collection: locked(&self.collection).clone(),
            logins: logins(self.engine.sources(), Timestamp::now()),
        }
    }

    /// Pods' images that `ensure` waits for, then pinned ones that failed.
    fn back_off(&self) -> Vec<BackOffRow> {
        let now = Timestamp::now();
        let at = |left: Duration| now.checked_add(SignedDuration::try_from(left).unwrap_or_default()).unwrap_or(now);
        let pods = self.engine.back_off().into_iter().map(|waiting| BackOffRow {
            image: shortened(waiting.image),
            who: format!("pod {}", waiting.pod),
            cause: shortened(waiting.previous),
            next_try: at(waiting.left),
        });
        let pinned = locked(&self.pinned);
        let pinned = pinned.iter().filter_map(|row| {
            Some(BackOffRow {
                image: row.image.clone(),
                who: "node.pinnedImages".to_owned(),
                cause: row.problem.clone()?,
                next_try: row.next_check.filter(|next| *next > now)?,
            })
        });
        let mut rows: Vec<BackOffRow> = pods.chain(pinned).collect();
        rows.sort_by(|a, b| a.next_try.cmp(&b.next_try).then_with(|| a.image.cmp(&b.image)));
        rows.truncate(BACK_OFF_MAX);
        rows
    }
}
