//! A pull's hold on the store: everything it brings or finds is safe from collection until the lease ends.
//!
//! The order is a promise. The intent is durable before anything else; blobs and layers arrive verified, each by a
//! rename; [`PullLease::commit`] makes all of it durable with one sync, then names it in one transaction. Dropped
//! without a commit, a lease leaves no image; finished layers stay for the next pull until they are collected.
//! A clone is the same lease; all methods may be called from many threads.
//!
//! Invariants: `an_image_is_visible_only_after_its_commit`, `two_leases_share_a_layer`,
//! `a_commit_without_all_parts_is_refused`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use windlass_core::digest::Digest;

use crate::blobs::{self, Ingest, Promise};
use crate::durable::{self, Each, sync_each};
use crate::error::StoreError;
use crate::image::{self, Image};
use crate::intent::{Intent, sweep_lock};
use crate::layers::Opened;
use crate::lock::Share;
use crate::meta::WriteTx;
use crate::meta::record::{
    BlobKind, BlobRecord, Form, ImageRecord, LayerRecord, ManifestRecord, NameRecord, SnapshotRecord, Source,
};
use crate::names::Name;
use crate::settle::{self, Slot, settle_ready};
use crate::space;
use crate::store::{KeepLayers, Store};

/// Most sources kept for one image, the latest first.
const SOURCES_MAX: usize = 16;
/// Most manifests kept for one config.
const MANIFESTS_MAX: usize = 16;

/// How a lease begins.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// What it is for, shown to people: usually the reference.
    pub purpose: String,
    /// Whether compressed layers are kept; `None`: as the store is configured. Images that come by `load` keep theirs.
    pub keep_layers: Option<KeepLayers>,
}

impl LeaseOptions {
    /// Options of an ordinary pull.
    pub fn pull(purpose: &str) -> LeaseOptions {
        LeaseOptions { purpose: purpose.to_owned(), keep_layers: None }
    }

    /// Options for an image that no registry could give again.
    pub fn load(purpose: &str) -> LeaseOptions {
        LeaseOptions { purpose: purpose.to_owned(), keep_layers: Some(KeepLayers::Yes) }
    }
}

/// An image about to become visible.
#[derive(Clone, Debug)]
pub struct ImageCommit {
    /// Names it gets; a name that another image has moves. May be empty (an image known by its ID only).
    pub names: Vec<Name>,
    /// Digest of the config: the image ID.
    pub config: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digest of the index the manifest was chosen from.
    pub index: Option<Digest>,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Layers, bottom first.
    pub layers: Vec<LayerRecord>,
    /// Where its parts can be fetched again.
    pub source: Option<Source>,
}

/// A pull's hold on the store.
#[derive(Clone, Debug)]
pub struct PullLease {
    pub(crate) inner: Arc<LeaseInner>,
}

#[derive(Debug)]
pub(crate) struct LeaseInner {
    pub(crate) store: Store,
    pub(crate) intent: Intent,
    pub(crate) ingest_dir: PathBuf,
    pub(crate) keep_layers: KeepLayers,
    pub(crate) state: Mutex<LeaseState>,
    /// Finished layers that others are laid on.
    pub(crate) opened: Opened,
    /// Failed syncs of the store when the lease began.
    failed_syncs: u64,
}

#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    /// Blobs that are here, verified or recorded, and protected.
    pub(crate) blobs: BTreeMap<Digest, HeldBlob>,
    /// Layers by chain ID.
    pub(crate) layers: BTreeMap<Digest, Slot>,
    /// The disk was full: what is not finished goes with the lease.
    pub(crate) is_full: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct HeldBlob {
    pub(crate) size_bytes: u64,
    pub(crate) kind: BlobKind,
}

impl Store {
    /// Begins a pull: writes its intent durably.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::NoSpace`], I/O errors.
    pub fn begin(&self, options: LeaseOptions) -> Result<PullLease, StoreError> {
        self.meta()?;
        let intent = Intent::begin(self.layout(), &options.purpose, Timestamp::now())?;
        let ingest_dir = blobs::make_ingest_dir(self.layout(), intent.id())?;
        self.shared.leases.fetch_add(1, Ordering::SeqCst);
        Ok(PullLease {
            inner: Arc::new(LeaseInner {
                store: self.clone(),
                intent,
                ingest_dir,
                keep_layers: options.keep_layers.unwrap_or(self.options().keep_layers),
                state: Mutex::default(),
                opened: Opened::default(),
                failed_syncs: self.shared.failed_syncs.load(Ordering::SeqCst),
            }),
        })
    }
}

impl LeaseInner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, LeaseState> {
        // The state is changed in single steps, so a thread that panicked left it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        self.store.shared.leases.fetch_sub(1, Ordering::SeqCst);
        let unfinished = std::mem::take(&mut self.lock().layers);
        let is_full = self.lock().is_full;
        for (chain, slot) in unfinished {
            settle::give_up(&self.store, &chain, slot, is_full);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.ingest_dir) {
            tracing::debug!(%error, path = %self.ingest_dir.display(), "ingest left for recovery");
        }
        self.store.shared.flights.ring();
    }
}

impl PullLease {
    /// The store it belongs to.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Whether this lease keeps compressed layers.
    pub fn keep_layers(&self) -> KeepLayers {
        self.inner.keep_layers
    }

    /// Refuses when `need_bytes` more do not fit beside the reserve. Ask with the sum of what is to come.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] with need and free bytes.
    pub fn require_space(&self, need_bytes: u64) -> Result<(), StoreError> {
        space::require(self.inner.store.root(), need_bytes, self.inner.store.options().reserve)
    }

    /// Whether a blob is here, whole and with its promised digest; from now on it stays. Reads and hashes it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn has_blob(&self, kind: BlobKind, digest: &Digest, size_bytes: u64) -> Result<bool, StoreError> {
        let promise = Promise { digest: digest.clone(), size_bytes };
        {
            let _sweep = sweep_lock(self.inner.store.layout(), Share::Shared)?;
            self.inner.intent.need_blob(digest)?;
        }
        if !blobs::is_sound(self.inner.store.layout(), &promise)? {
            return Ok(false);
        }
        self.hold(promise, kind);
        Ok(true)
    }

    /// Stores a blob that is in memory: a manifest, an index, a config. One that is here already is left as it is.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`], [`StoreError::NoSpace`], I/O errors.
    pub fn put_blob(&self, kind: BlobKind, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_blob_from(kind, digest, bytes.len() as u64, &mut { bytes })
    }

    /// Stores a blob from a reader, at most one byte more than `size_bytes` is read.
    ///
    /// # Errors
    /// [`StoreError::SizeMismatch`], [`StoreError::DigestMismatch`], [`StoreError::Input`] for the reader's own
    /// error, [`StoreError::NoSpace`], I/O errors.
    pub fn put_blob_from(
        &self,
        kind: BlobKind,
        digest: &Digest,
        size_bytes: u64,
        input: &mut dyn Read,
    ) -> Result<(), StoreError> {
        if self.has_blob(kind, digest, size_bytes)? {
            return Ok(());
        }
        let promise = Promise { digest: digest.clone(), size_bytes };
        let ingest = Ingest::begin(&self.inner.ingest_dir, promise.clone())?;
        blobs::copy(input, ingest, self.inner.store.layout())?;
        self.hold(promise, kind);
        Ok(())
    }

    pub(crate) fn hold(&self, promise: Promise, kind: BlobKind) {
        let held = HeldBlob { size_bytes: promise.size_bytes, kind };
        self.inner.lock().blobs.insert(promise.digest, held);
    }

    /// Makes the image durable and visible: one sync, then one transaction. Finished when it returns.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] when a part is missing, [`StoreError::Sync`] when the disk failed: then nothing of
    /// this pull counts, and none of it is visible.
    pub fn commit(&self, image: ImageCommit) -> Result<Image, StoreError> {
        let id = image.config.clone();
        let mut images = self.commit_all(vec![image])?;
        images.pop().ok_or_else(|| StoreError::UnknownImage { name: id.to_string() })
    }

    /// Makes several images visible in one step, as an archive of them wants: all or none.
    ///
    /// # Errors
    /// As [`PullLease::commit`].
    pub fn commit_all(&self, images: Vec<ImageCommit>) -> Result<Vec<Image>, StoreError> {
        if let Some(work) = settle_ready(&self.inner)?.first() {
            // Resumed layers whose lower ones came last. The next try unpacks them with those at hand.
            return Err(StoreError::Incomplete { part: "layer", digest: work.key().layer.chain_id.clone() });
        }
        let parts = self.parts(&images)?;
        self.make_durable(&parts)?;
        let store = &self.inner.store;
        let now = Timestamp::now();
        store.write(|tx| {
            for (digest, held) in &parts.blobs {
                let record = BlobRecord { size_bytes: held.size_bytes, kind: held.kind };
                tx.put(digest.as_str(), &record)?;
            }
            for (chain, record) in &parts.layers {
                tx.put(chain.as_str(), record)?;
            }
            for image in &images {
                let id = image.config.as_str();
                tx.put(id, &merge(tx.get::<ImageRecord>(id)?, image, now))?;
                image.names.iter().try_for_each(|name| put_name(tx, name, image, now))?;
            }
            Ok(())
        })?;
        self.recorded(&parts);
        store.read(|tx| {
            let found = images.iter().map(|image| image::image(tx, &image.config, store.layout()));
            found.filter_map(Result::transpose).collect()
        })
    }

    /// Everything the image is made of, or what is missing.
    fn parts(&self, images: &[ImageCommit]) -> Result<Parts, StoreError> {
        let state = self.inner.lock();
        let mut layers = BTreeMap::new();
        for image in images {
            Self::add_parts(&state, image, &mut layers)?;
        }
        Ok(Parts { blobs: state.blobs.clone(), layers })
    }

    fn add_parts(
        state: &LeaseState,
        image: &ImageCommit,
        layers: &mut BTreeMap<Digest, SnapshotRecord>,
    ) -> Result<(), StoreError> {
        let named =
            [("config", Some(&image.config)), ("manifest", Some(&image.manifest)), ("index", image.index.as_ref())];
        for (part, digest) in named {
            if let Some(digest) = digest.filter(|digest| !state.blobs.contains_key(*digest)) {
                return Err(StoreError::Incomplete { part, digest: digest.clone() });
            }
        }
        for layer in &image.layers {
            match state.layers.get(&layer.chain_id) {
                Some(Slot::Recorded { .. }) => {}
                Some(Slot::Finished { n, note }) => {
                    layers.insert(layer.chain_id.clone(), note.record(*n));
                }
                Some(Slot::Working | Slot::Settling | Slot::Extracted(_)) | None => {
                    return Err(StoreError::Incomplete { part: "layer", digest: layer.chain_id.clone() });
                }
            }
        }
        Ok(())
    }

    fn make_durable(&self, parts: &Parts) -> Result<(), StoreError> {
        let failed = &self.inner.store.shared.failed_syncs;
        if failed.load(Ordering::SeqCst) != self.inner.failed_syncs {
            // The kernel reports a write-back error once; whose bytes were lost it does not say.
            let source = std::io::Error::other("an earlier sync failed since this pull began");
            return Err(StoreError::sync(self.inner.store.root(), source));
        }
        let synced = self.sync(parts);
        if synced.is_err() {
            failed.fetch_add(1, Ordering::SeqCst);
        }
        synced
    }

    fn sync(&self, parts: &Parts) -> Result<(), StoreError> {
        let store = &self.inner.store;
        let files = |layer: &SnapshotRecord| match layer.form {
            Form::Directory | Form::UserDirectory => 1 + layer.entries,
            // Its directory, the image and the note.
            Form::Erofs => 3,
        };
        if durable::one_by_one(parts.blobs.len() as u64 + parts.layers.values().map(files).sum::<u64>()) {
            let blobs = parts.blobs.keys().map(|digest| store.layout().blob(digest));
            let trees = parts.layers.values().map(|layer| store.layout().snapshot(layer.n));
            if sync_each(&blobs.chain(trees).collect::<Vec<_>>())? == Each::Done {
                return Ok(());
            }
        }
        let others = store.shared.leases.load(Ordering::SeqCst).saturating_sub(1);
        let root = store.root();
        let synced = store.shared.syncs.run(others, || {
            let Some(dir) = &store.shared.root_dir else { return Err("the store is not open for writing".to_owned()) };
            rustix::fs::syncfs(dir).map_err(|errno| std::io::Error::from(errno).to_string())
        });
        tracing::debug!(layers = parts.layers.len(), blobs = parts.blobs.len(), "synced");
        synced.map_err(|text| StoreError::sync(root, std::io::Error::other(text)))
    }

    /// The claims of layers that are recorded now have served.
    fn recorded(&self, parts: &Parts) {
        let mut state = self.inner.lock();
        for (chain, record) in &parts.layers {
            state.layers.insert(chain.clone(), Slot::Recorded { n: record.n, parent: record.parent.clone() });
            // A claim file that stays is removed by the next recovery.
            drop(std::fs::remove_file(self.inner.store.layout().claim(chain)));
        }
    }
}

/// Points a name at the image. A name by digest is implied by a tag of its repository, unless it was asked for before.
fn put_name(tx: &WriteTx<'_>, name: &Name, image: &ImageCommit, now: Timestamp) -> Result<(), StoreError> {
    let key = name.to_string();
    let before = tx.get::<NameRecord>(&key)?.filter(|before| before.image == image.config);
    let has_tag = image.names.iter().any(|other| other.tag().is_some() && other.repository() == name.repository());
    let implied = name.tag().is_none() && has_tag && before.as_ref().is_none_or(|before| before.implied);
    let record = NameRecord {
        image: image.config.clone(),
        manifest: image.manifest.clone(),
        index: image.index.clone(),
        implied,
        since: now,
    };
    tx.put(&key, &record)
}

/// What a commit makes durable and records.
struct Parts {
    blobs: BTreeMap<Digest, HeldBlob>,
    /// Layers that are not recorded yet, by chain ID.
    layers: BTreeMap<Digest, SnapshotRecord>,
}

/// The image's record, with what was known about it before.
fn merge(before: Option<ImageRecord>, image: &ImageCommit, now: Timestamp) -> ImageRecord {
    let mut record = before.unwrap_or_else(|| ImageRecord {
        manifests: Vec::new(),
        platform: String::new(),
        layers: Vec::new(),
        first_seen: now,
        sources: Vec::new(),
    });
    let manifest = ManifestRecord { manifest: image.manifest.clone(), index: image.index.clone() };
    record.manifests.retain(|known| *known != manifest);
    record.manifests.push(manifest);
    let surplus = record.manifests.len().saturating_sub(MANIFESTS_MAX);
    record.manifests.drain(..surplus);
    if let Some(source) = &image.source {
        record.sources.retain(|known| known != source);
        record.sources.insert(0, source.clone());
        record.sources.truncate(SOURCES_MAX);
    }
    record.platform.clone_from(&image.platform);
    record.layers.clone_from(&image.layers);
    record
}
