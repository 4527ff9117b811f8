//! Keeps the view in step with the store: after each change of ours before it is answered, and within a quarter of a
//! second after changes by other hands.
//!
//! In: the store. Out: the [`ImageView`] and the numbers of [`FsInfo`], both read elsewhere without waiting. Reads of the
//! store run one after the other on a thread that may block; who asks while one runs shares the next one.
//! An image that is damaged is not shown: the kubelet then pulls it again, which repairs it.
//!
//! Invariants: `changes_by_other_hands_are_seen_within_a_second`, `a_damaged_image_is_not_present`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use windlass_core::digest::Digest;
use windlass_core::manifest::{DocumentLimits, parse_config};
use windlass_core::reason;
use windlass_store::{GcRequest, Image, Name, Stamp, Store, StoreError, Usage};

use crate::fs_info::{FsInfo, MEASURE_EVERY};
use crate::status;
use crate::view::{ImageEntry, ImageUser, ImageView, Index};

/// How often the store is asked whether it changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often it is read although it says it did not: damage to files changes no record.
const READ_EVERY: Duration = Duration::from_secs(60);

/// Whether the view says anything yet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Loaded {
    NotYet,
    Yes,
    /// The store could not be read, in its words; it is tried again all the time.
    Failed(String),
}

/// The view and what keeps it.
#[derive(Debug)]
pub(crate) struct Publisher {
    store: Store,
    limits: DocumentLimits,
    view: ImageView,
    fs: FsInfo,
    loaded: watch::Sender<Loaded>,
    /// Reads of the store that have begun.
    begun: AtomicU64,
    turn: Mutex<Turn>,
    /// Something may have become free.
    sweep: Notify,
}

/// The last read that was shown.
#[derive(Debug, Default)]
struct Turn {
    number: u64,
    stamp: Option<Stamp>,
    at: Option<Instant>,
}

impl Publisher {
    pub(crate) fn new(store: Store, limits: DocumentLimits) -> Publisher {
        Publisher {
            fs: FsInfo::new(&store),
            store,
            limits,
            view: ImageView::default(),
            loaded: watch::Sender::new(Loaded::NotYet),
            begun: AtomicU64::new(0),
            turn: Mutex::default(),
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
            Ok(Loaded::Failed(text)) => Err(Status::unknown(format!("the image store cannot be read: {text}"))),
            Ok(Loaded::Yes | Loaded::NotYet) | Err(_) => Ok(()),
        }
    }

    /// Reads the store and shows what is there. What was true when this was called is shown when it returns.
    ///
    /// # Errors
    /// The store cannot be read; what was shown before stays.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut turn = self.turn.lock().await;
        if turn.number > before {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (store, limits, shown) = (self.store.clone(), self.limits.clone(), self.view.index());
        let read = blocking(move || read(&store, &limits, &shown)).await;
        match read {
            Ok((index, stamp)) => {
                self.view.show(index);
                *turn = Turn { number, stamp: Some(stamp), at: Some(Instant::now()) };
                self.loaded.send_if_modified(|loaded| std::mem::replace(loaded, Loaded::Yes) != Loaded::Yes);
                Ok(())
            }
            Err(error) => {
                self.loaded.send_if_modified(|loaded| match loaded {
                    Loaded::Yes => false,
                    Loaded::NotYet | Loaded::Failed(_) => {
                        *loaded = Loaded::Failed(
                            status::status(tonic::Code::Unknown, reason::chain(&error)).message().to_owned(),
                        );
                        true
                    }
                });
                Err(error)
            }
        }
    }

    /// Says that something may have become free. It is collected soon, by nobody who waits for an answer.
    pub(crate) fn sweep_soon(&self) {
        self.sweep.notify_one();
    }

    /// Follows the store until told to end.
    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        tokio::join!(self.follow(cancel), self.measure(cancel), self.collect(cancel));
    }

    async fn follow(&self, cancel: &CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        while next(&mut ticks, cancel).await {
            if !self.is_stale().await {
                continue;
            }
            let result = self.refresh().await;
            match &result {
                Err(error) if !failing => {
                    tracing::error!(error = %reason::chain(error), "the image store cannot be read")
                }
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
        let turn = self.turn.lock().await;
        turn.stamp != Some(stamp) || turn.at.is_none_or(|at| at.elapsed() >= READ_EVERY)
    }

    async fn measure(&self, cancel: &CancellationToken) {
        let mut ticks = tokio::time::interval(MEASURE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.sweep.notified() => {}
            }
            let store = self.store.clone();
            match blocking(move || store.gc(&GcRequest::sweep())).await {
                Ok(report) => tracing::debug!(freed_bytes = report.freed_bytes, "collected after a removal"),
                Err(error) => tracing::warn!(error = %reason::chain(&error), "not collected after a removal"),
            }
        }
    }
}

/// Waits for the next tick; `false`: it is over.
async fn next(ticks: &mut tokio::time::Interval, cancel: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = cancel.cancelled() => false,
        _ = ticks.tick() => true,
    }
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

/// What the store holds now. What is known from `shown` is not read again.
fn read(store: &Store, limits: &DocumentLimits, shown: &Index) -> Result<(Index, Stamp), StoreError> {
    let stamp = store.stamp();
    let implied = store.implied_names()?;
    let mut entries = Vec::new();
    for image in store.images()? {
        if let Some(damage) = &image.damage {
            tracing::warn!(image = %image.id, damage, "a damaged image is not shown");
            continue;
        }
        match entry(store, limits, shown, &image, &implied) {
            Ok(entry) => entries.push(entry),
            Err(problem) => tracing::warn!(image = %image.id, problem, "an image that cannot be read is not shown"),
        }
    }
    Ok((Index::new(entries), stamp))
}

fn entry(
    store: &Store,
    limits: &DocumentLimits,
    shown: &Index,
    image: &Image,
    implied: &BTreeSet<Name>,
) -> Result<ImageEntry, String> {
    let manifest = image.manifests.last().cloned().ok_or("it has no manifest")?;
    let known = shown.by_id(&image.id).filter(|known| known.manifest == manifest);
    let (size_bytes, user) = match known {
        Some(known) => (known.size_bytes, known.user.clone()),
        None => details(store, limits, image, &manifest)?,
    };
    let of_index = |name: &&Name| implied.contains(*name) && is_of_index(image, name);
    let (more, digests): (Vec<&Name>, Vec<&Name>) = image.repo_digests.iter().partition(of_index);
    Ok(ImageEntry {
        id: image.id.clone(),
        repo_tags: sorted(&image.repo_tags.iter().collect::<Vec<_>>()),
        repo_digests: sorted(&digests),
        more_digests: sorted(&more),
        size_bytes,
        user,
        pinned: !image.pins.is_empty(),
        manifest,
    })
}

/// Whether a name is that of a manifest which was reached through an index: the index is what the tag resolved to.
fn is_of_index(image: &Image, name: &Name) -> bool {
    let through = |manifest: &Digest, index: &Option<Digest>| {
        *name == Name::digested(name.repository(), manifest)
            && index
                .as_ref()
                .is_some_and(|index| image.repo_digests.contains(&Name::digested(name.repository(), index)))
    };
    image.manifests.iter().any(|(manifest, index)| through(manifest, index))
}

/// Bytes of all descriptors on the way, and the config's user.
fn details(
    store: &Store,
    limits: &DocumentLimits,
    image: &Image,
    (manifest, index): &(Digest, Option<Digest>),
) -> Result<(u64, ImageUser), String> {
    let blob = |digest: &Digest, limit| match store.read_blob(digest, limit) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("blob {digest} is missing")),
        Err(error) => Err(reason::chain(&error)),
    };
    let config = blob(&image.id, limits.config_bytes)?;
    let mut size_bytes = image.compressed_bytes + config.len() as u64;
    for document in std::iter::once(manifest).chain(index) {
        size_bytes += blob(document, limits.manifest_bytes)?.len() as u64;
    }
    let config = parse_config(&config, limits).map_err(|error| reason::chain(&error))?;
    Ok((size_bytes, ImageUser::of_config(&config.run.user)))
}

fn sorted(names: &[&Name]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}
