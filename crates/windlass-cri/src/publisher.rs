//! Keeps the view in step with the store: after each change of ours before it is answered, and within a quarter of a
//! second after changes by other hands. Where containerd runs the containers, it is told first.
//!
//! In: the store. Out: the [`ImageView`] and the numbers of [`FsInfo`], both read elsewhere without waiting. Reads of the
//! store run one after the other on a thread that may block; who asks while one runs shares the next one.
//!
//! Invariants: `changes_by_other_hands_are_seen_within_a_second`, `what_containerd_does_not_know_is_not_shown`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use windlass_core::digest::Digest;
use windlass_core::manifest::DocumentLimits;
use windlass_core::reason;
use windlass_store::{GcRequest, Stamp, Store, StoreError, Usage};

use crate::containerd::{Handover, HandoverError, Removal};
use crate::fs_info::{FsInfo, MEASURE_EVERY};
use crate::handing::{Handing, Task, Told};
use crate::reading::{self, Read};
use crate::rounds::Rounds;
use crate::status;
use crate::view::{ImageView, Index};

/// How often the store is asked whether it changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often it is read although it says it did not: damage to files changes no record.
const READ_EVERY: Duration = Duration::from_secs(60);
/// Images of other hands that are handed over at once.
const HANDED_AT_ONCE: usize = 4;

/// The view and what keeps it.
#[derive(Debug)]
pub(crate) struct Publisher {
    store: Store,
    limits: DocumentLimits,
    handover: Option<Handover>,
    view: ImageView,
    fs: FsInfo,
    loaded: watch::Sender<Loaded>,
    reads: Rounds<Result<(), Status>>,
    handing: Mutex<Handing>,
    /// Handovers under way, so that many calls for one image share them.
    tellings: Mutex<HashMap<Digest, Arc<Telling>>>,
    /// Damage that was logged.
    damaged: Mutex<BTreeMap<Digest, String>>,
    /// What the last read that is shown began with, and when that was.
    last: Mutex<Option<(Stamp, Instant)>>,
    /// The store changed, as somebody knows who changed it.
    changed: Notify,
    /// Something may have become free.
    sweep: Notify,
}

/// The handovers of one image.
type Telling = Rounds<Result<(), Status>>;

/// Whether the view says anything yet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Loaded {
    NotYet,
    Yes,
    /// The store could not be read, in its words; it is tried again all the time.
    Failed(String),
}

impl Publisher {
    pub(crate) fn new(store: Store, limits: DocumentLimits, handover: Option<Handover>) -> Publisher {
        Publisher {
            fs: FsInfo::new(&store),
            store,
            limits,
            handover,
            view: ImageView::default(),
            loaded: watch::Sender::new(Loaded::NotYet),
            reads: Rounds::default(),
            handing: Mutex::default(),
            tellings: Mutex::default(),
            damaged: Mutex::default(),
            last: Mutex::default(),
            changed: Notify::new(),
            sweep: Notify::new(),
        }
    }

    pub(crate) fn view(&self) -> &ImageView {
        &self.view
    }

    pub(crate) fn fs(&self) -> &FsInfo {
        &self.fs
    }

    /// Returns once the view says something; at once but for the first moments of a daemon.
    pub(crate) async fn loaded(&self) -> Result<(), Status> {
        if *self.loaded.borrow() == Loaded::Yes {
            return Ok(());
        }
        let mut loaded = self.loaded.subscribe();
        // The sender lives in `self`, so waiting ends only with an answer.
        let found = loaded.wait_for(|loaded| *loaded != Loaded::NotYet).await.map(|loaded| loaded.clone());
        match found {
            Ok(Loaded::Failed(text)) => Err(Status::unknown(text)),
            Ok(Loaded::Yes | Loaded::NotYet) | Err(_) => Ok(()),
        }
    }

    /// Reads the store and shows what is there. What was true when this was called is shown when it returns.
    ///
    /// # Errors
    /// The store cannot be read; what was shown before stays.
    pub(crate) async fn refresh(&self) -> Result<(), Status> {
        self.reads.share(self.read()).await
    }

    async fn read(&self) -> Result<(), Status> {
        let (store, limits, shown) = (self.store.clone(), self.limits.clone(), self.view.index());
        let began = Instant::now();
        let read = blocking(move || reading::read(&store, &limits, &shown)).await;
        let Read { entries, ids, damaged, stamp } = read.map_err(|error| {
            let status = status::store("the image store cannot be read", &error);
            self.load(Loaded::Failed(status.message().to_owned()));
            status
        })?;
        self.say_damaged(damaged);
        let shown = match &self.handover {
            Some(handover) => lock(&self.handing).look(&ids, entries, |name| handover.heard(name)),
            None => entries,
        };
        self.view.show(Index::new(shown));
        *lock(&self.last) = Some((stamp, began));
        self.load(Loaded::Yes);
        Ok(())
    }

    /// Says what is damaged, once.
    fn say_damaged(&self, damaged: BTreeMap<Digest, String>) {
        let mut said = lock(&self.damaged);
        for (image, damage) in damaged.iter().filter(|(image, damage)| said.get(image) != Some(damage)) {
            tracing::warn!(%image, damage, "a damaged image is not shown");
        }
        *said = damaged;
    }

    /// Once there is something to show, it stays.
    fn load(&self, now: Loaded) {
        self.loaded.send_if_modified(|loaded| {
            let news = *loaded != Loaded::Yes && *loaded != now;
            if news {
                *loaded = now;
            }
            news
        });
    }

    /// Makes an image known to containerd, then shown.
    pub(crate) async fn tell(&self, id: &Digest) -> Result<(), Status> {
        let Some(handover) = &self.handover else { return self.refresh().await };
        let telling = lock(&self.tellings).entry(id.clone()).or_default().clone();
        let told = telling.share(self.hand_over(handover, id)).await;
        drop(telling);
        lock(&self.tellings).retain(|_, telling| Arc::strong_count(telling) > 1);
        told
    }

    async fn hand_over(&self, handover: &Handover, id: &Digest) -> Result<(), Status> {
        // Names that come after this are news again.
        let (store, limits, wanted) = (self.store.clone(), self.limits.clone(), id.clone());
        let entry = blocking(move || reading::one(&store, &limits, &wanted)).await;
        let entry = entry.map_err(|error| status::store("the image store cannot be read", &error))?;
        match handover.after_pull(id).await {
            Ok(_) => {
                if let Some(entry) = entry {
                    lock(&self.handing).told(id, Told::of(&entry));
                }
                self.refresh().await
            }
            Err(error) => {
                lock(&self.handing).failed(id, Instant::now());
                Err(handover_status("hand the image over to containerd", &error))
            }
        }
    }

    /// Takes an image away from containerd. While the answer lives, nobody hands it over again.
    pub(crate) async fn take_back(&self, id: &Digest) -> Result<Option<Removal>, Status> {
        let Some(handover) = &self.handover else { return Ok(None) };
        let removal = handover.remove(id).await;
        let removal = removal.map_err(|error| handover_status("remove the image from containerd", &error))?;
        lock(&self.handing).taken_back(id);
        Ok(Some(removal))
    }

    /// Says that something may have become free. It is collected soon, by nobody who waits for an answer.
    pub(crate) fn sweep_soon(&self) {
        self.sweep.notify_one();
    }

    /// Follows the store, and containerd where there is one, until told to end.
    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        let containerd = async {
            if let Some(handover) = &self.handover {
                handover.run(|| self.changed.notify_one(), cancel.clone()).await;
            }
        };
        tokio::join!(self.follow(cancel), self.mend(cancel), self.measure(cancel), self.collect(cancel), containerd);
    }

    async fn follow(&self, cancel: &CancellationToken) {
        let mut ticks = ticks(LOOK_EVERY);
        let mut failing = false;
        loop {
            let told = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.changed.notified() => true,
                _ = ticks.tick() => false,
            };
            if !told && !self.is_stale().await {
                continue;
            }
            let result = self.refresh().await;
            match &result {
                Err(error) if !failing => tracing::error!(error = error.message(), "images are shown as they were"),
                Ok(()) if failing => tracing::info!("the image store can be read again"),
                Ok(()) | Err(_) => {}
            }
            failing = result.is_err();
        }
    }

    /// Whether the store may say something else than what is shown.
    async fn is_stale(&self) -> bool {
        let store = self.store.clone();
        let Ok(stamp) = tokio::task::spawn_blocking(move || store.stamp()).await else { return true };
        lock(&self.last).as_ref().is_none_or(|(shown, at)| *shown != stamp || at.elapsed() >= READ_EVERY)
    }

    /// Tells containerd what other hands did to the store.
    async fn mend(&self, cancel: &CancellationToken) {
        let mut ticks = ticks(LOOK_EVERY);
        while self.handover.is_some() && next(&mut ticks, cancel).await {
            let mut due = lock(&self.handing).due(Instant::now());
            // A pull tells by itself.
            due.retain(|(id, _)| !lock(&self.tellings).contains_key(id));
            // Named, so that the compiler sees that they may run on any thread.
            let doing: Vec<BoxFuture<'_, ()>> =
                due.into_iter().map(|(id, task)| self.do_one(id, task).boxed()).collect();
            let work = stream::iter(doing).buffer_unordered(HANDED_AT_ONCE).collect::<()>();
            if cancel.run_until_cancelled(work).await.is_none() {
                return;
            }
        }
    }

    async fn do_one(&self, id: Digest, task: Task) {
        let done = match task {
            Task::HandOver => self.tell(&id).await,
            Task::TakeBack => self.undo(&id).await,
        };
        if let Err(error) = done {
            tracing::warn!(image = %id, ?task, error = error.message(), "containerd was not told");
        }
    }

    /// Takes back an image that another hand removed. Should it come again meanwhile, it is handed over again.
    async fn undo(&self, id: &Digest) -> Result<(), Status> {
        let Some(handover) = &self.handover else { return self.refresh().await };
        match handover.remove_forgotten(id).await {
            Ok(None) => {}
            Ok(Some(removal)) => {
                lock(&self.handing).taken_back(id);
                drop(removal);
                self.sweep_soon();
            }
            Err(error) => {
                lock(&self.handing).failed(id, Instant::now());
                return Err(handover_status("remove the image from containerd", &error));
            }
        }
        self.refresh().await
    }

    async fn measure(&self, cancel: &CancellationToken) {
        let mut ticks = ticks(MEASURE_EVERY);
        while next(&mut ticks, cancel).await {
            let store = self.store.clone();
            match blocking(move || store.usage()).await {
                Ok(usage) => self.fs.measured(usage),
                // The last numbers stay, with their time; without any, a file system without images.
                Err(error) => {
                    tracing::warn!(error = %reason::chain(&error), "the image store cannot be measured");
                    self.fs.measured_once(Usage::default());
                }
            }
        }
    }

    async fn collect(&self, cancel: &CancellationToken) {
        while cancel.run_until_cancelled(self.sweep.notified()).await.is_some() {
            let store = self.store.clone();
            match blocking(move || store.gc(&GcRequest::sweep())).await {
                Ok(report) => tracing::debug!(freed_bytes = report.freed_bytes, "collected after a removal"),
                Err(error) => tracing::warn!(error = %reason::chain(&error), "not collected after a removal"),
            }
        }
    }
}

fn handover_status(doing: &str, error: &HandoverError) -> Status {
    status::status(Code::Unknown, format!("failed to {doing}: {}", reason::chain(error)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next tick; `false`: it is over.
async fn next(ticks: &mut tokio::time::Interval, cancel: &CancellationToken) -> bool {
    cancel.run_until_cancelled(ticks.tick()).await.is_some()
}

/// Runs work of the store on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // It panicked, which is a bug, or the runtime ends.
        Err(_) => Err(StoreError::Canceled),
    }
}
