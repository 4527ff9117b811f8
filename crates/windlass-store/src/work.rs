//! Layers of a pull: claimed, unpacked in any order, settled from the bottom up, finished by a rename.
//!
//! Layers are unpacked in parallel, without their parents. A layer that turned out to need its lower layers waits,
//! unpacked, until all of them are finished; whichever thread finishes the last one settles it. Rarely a layer must be
//! unpacked again with its lower layers at hand: then its work is handed back to the caller in
//! [`Unpacked::again`], who fetches the blob once more.
//!
//! A claim that another pull holds does not block what that pull waits for: try all layers first
//! ([`PullLease::try_claim_layer`]) and wait only when nothing else is left.
//!
//! Invariants: `two_leases_share_a_layer`, `a_layer_out_of_order_is_settled_when_its_parent_is`,
//! `dropped_work_leaves_nothing`.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags};
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

use crate::blobs::{Ingest, Promise};
use crate::claim::{Claim, Left, Note, find_finished, snapshot_numbers};
use crate::error::StoreError;
use crate::intent::sweep_lock;
use crate::layer::Progress;
use crate::layer::{Extracted, Settled};
use crate::layers::{self, TREE, Threads};
use crate::layout::{Layout, make_dir};
use crate::lease::{LeaseInner, PullLease};
use crate::lock::{Share, boot_id};
use crate::meta::record::{BlobKind, LayerRecord, SnapshotRecord};
use crate::pending;
use crate::store::{KeepLayers, Store};
use crate::tee::Tee;

/// A layer's place in an image: what it is made of and what lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerKey {
    /// The layer as manifest and config name it.
    pub layer: LayerRecord,
    /// Chain ID of all layers below; `None` for the lowest.
    pub parent: Option<Digest>,
}

impl LayerKey {
    /// Keys of an image's layers, bottom first, from blob digest, size, media type and diff ID of each.
    ///
    /// The chain ID of a layer is its diff ID for the lowest, else SHA-256 of `<chain below> <diff ID>`
    /// (OCI image-spec `config.md`, "Layer ChainID").
    pub fn stack(layers: impl IntoIterator<Item = (Digest, u64, String, Digest)>) -> Vec<LayerKey> {
        let layers: Vec<_> = layers.into_iter().collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, _, _, diff_id)| diff_id.clone()).collect();
        let chains = windlass_core::manifest::chain_ids(&diff_ids);
        let parents = std::iter::once(None).chain(chains.iter().cloned().map(Some));
        let keys = layers.into_iter().zip(&chains).zip(parents);
        keys.map(|(((blob, size_bytes, media_type, diff_id), chain_id), parent)| {
            let layer = LayerRecord { blob, size_bytes, media_type, diff_id, chain_id: chain_id.clone() };
            LayerKey { layer, parent }
        })
        .collect()
    }
}

/// The answer to a claim.
#[derive(Debug)]
pub enum LayerClaim {
    /// The layer is here; nothing to do.
    Present,
    /// It is this caller's to unpack.
    Work(LayerWork),
}

/// How a layer of a lease stands.
#[derive(Debug)]
pub(crate) enum Slot {
    /// In the database.
    Recorded { n: u64, parent: Option<Digest> },
    /// In `snapshots/`, not recorded yet.
    Finished { n: u64, note: Note },
    /// A [`LayerWork`] is out.
    Working,
    /// Unpacked, waiting for lower layers.
    Extracted(Box<Waiting>),
    /// A thread is settling it.
    Settling,
}

/// A layer that is unpacked and waits for its lower layers.
#[derive(Debug)]
pub(crate) struct Waiting {
    claim: Claim,
    key: LayerKey,
    extracted: Extracted,
}

/// Work on one layer. Dropped, nothing of it stays and others may claim it.
#[derive(Debug)]
pub struct LayerWork {
    lease: Arc<LeaseInner>,
    key: LayerKey,
    claim: Option<Claim>,
    /// Trees of the lower layers, topmost first: given when the layer is unpacked again.
    lowers: Option<Vec<PathBuf>>,
    threads: Threads,
}

/// What unpacking a layer led to.
#[derive(Debug)]
#[must_use = "layers in `again` must be fetched and unpacked again"]
pub struct Unpacked {
    /// Layers, this one or others of the lease, that must be fetched and unpacked once more, now with their lower
    /// layers at hand. Usually empty.
    pub again: Vec<LayerWork>,
}

impl PullLease {
    /// Claims a layer, once: `None` when another pull, of this process or another, has it in work.
    ///
    /// # Errors
    /// I/O errors.
    pub fn try_claim_layer(&self, key: &LayerKey) -> Result<Option<LayerClaim>, StoreError> {
        let chain = &key.layer.chain_id;
        let store = &self.inner.store;
        {
            let state = self.inner.lock();
            match state.layers.get(chain) {
                Some(Slot::Recorded { .. } | Slot::Finished { .. }) => return Ok(Some(LayerClaim::Present)),
                Some(Slot::Working | Slot::Extracted(_) | Slot::Settling) => return Ok(None),
                None => {}
            }
        }
        {
            let _sweep = sweep_lock(store.layout(), Share::Shared)?;
            self.inner.intent.need_chain(chain)?;
        }
        if let Some(slot) = recorded(store, chain)? {
            return Ok(Some(self.present(chain, slot)));
        }
        let Some((claim, left)) = Claim::attempt(store.layout(), chain)? else { return Ok(None) };
        // Its last holder may have committed between the look-up and the lock.
        if let Some(slot) = recorded(store, chain)? {
            claim.abandon();
            return Ok(Some(self.present(chain, slot)));
        }
        if let Some((n, note)) = find_finished(store.layout(), chain, left)? {
            claim.finished(n)?;
            return Ok(Some(self.present(chain, Slot::Finished { n, note })));
        }
        let stage = store.layout().stage(chain);
        match pending::read(&stage, chain, &key.layer.diff_id).filter(|_| left == Left::Unknown) {
            Some(extracted) => self.resume(Waiting { claim, key: key.clone(), extracted }).map(Some),
            None => self.work(key, claim, left).map(|work| Some(LayerClaim::Work(work))),
        }
    }

    /// Goes on with a layer that a pull had unpacked when it was killed. Layers above that waited for it are settled
    /// with the next one, or by the commit.
    fn resume(&self, waiting: Waiting) -> Result<LayerClaim, StoreError> {
        let chain = waiting.key.layer.chain_id.clone();
        self.inner.lock().layers.insert(chain.clone(), Slot::Extracted(Box::new(waiting)));
        match take_ready(&self.inner, Some(&chain)) {
            Some((waiting, lowers)) => match settle_one(&self.inner, waiting, lowers)? {
                Some(work) => Ok(LayerClaim::Work(work)),
                None => Ok(LayerClaim::Present),
            },
            None => Ok(LayerClaim::Present),
        }
    }

    /// Claims a layer, waiting for whoever has it in work: `Present` once that one finished, `Work` once it died or
    /// gave up.
    ///
    /// # Errors
    /// [`StoreError::Canceled`] once `is_canceled` says so, asked at least every 20 ms; I/O errors.
    pub fn claim_layer(&self, key: &LayerKey, is_canceled: &dyn Fn() -> bool) -> Result<LayerClaim, StoreError> {
        let flights = &self.inner.store.shared.flights;
        loop {
            let seen = flights.seen();
            if let Some(claim) = self.try_claim_layer(key)? {
                return Ok(claim);
            }
            if is_canceled() {
                return Err(StoreError::Canceled);
            }
            flights.wait(seen);
        }
    }

    fn present(&self, chain: &Digest, slot: Slot) -> LayerClaim {
        self.inner.lock().layers.insert(chain.clone(), slot);
        LayerClaim::Present
    }

    fn work(&self, key: &LayerKey, mut claim: Claim, left: Left) -> Result<LayerWork, StoreError> {
        let layout = self.inner.store.layout();
        claim.working()?;
        match left {
            Left::Nothing => {}
            Left::Unknown | Left::Finished(_) => layers::remove(&layout.stage(&key.layer.chain_id))?,
        }
        let mut state = self.inner.lock();
        // Two threads of one lease: the claim's lock let only one of them come here.
        state.layers.insert(key.layer.chain_id.clone(), Slot::Working);
        Ok(LayerWork {
            lease: self.inner.clone(),
            key: key.clone(),
            claim: Some(claim),
            lowers: None,
            threads: Threads::One,
        })
    }
}

/// The directory of a layer that is recorded and there.
fn recorded(store: &Store, chain: &Digest) -> Result<Option<Slot>, StoreError> {
    let record = store.read(|tx| tx.get::<SnapshotRecord>(chain.as_str()))?;
    let there = record.filter(|record| store.layout().snapshot(record.n).join(TREE).is_dir());
    Ok(there.map(|record| Slot::Recorded { n: record.n, parent: record.parent }))
}

impl LayerWork {
    /// The layer.
    pub fn key(&self) -> &LayerKey {
        &self.key
    }

    /// Whether it is unpacked once more because its lower layers had to be at hand.
    pub fn is_again(&self) -> bool {
        self.lowers.is_some()
    }

    /// Says on how many threads it is unpacked; one unless said otherwise.
    pub fn on(mut self, threads: Threads) -> LayerWork {
        self.threads = threads;
        self
    }

    /// Unpacks the layer from the bytes of its blob: hashes, inflates, hashes and writes in one pass, checks size,
    /// digest and diff ID. Blocks; every byte of `input` is read, and at most one byte too many.
    ///
    /// # Errors
    /// [`StoreError::Layer`] for whatever is wrong with the layer or its bytes; nothing of it stays then.
    pub fn unpack(self, input: &mut dyn BufRead, progress: &dyn Progress) -> Result<Unpacked, StoreError> {
        let lease = self.lease.clone();
        let unpacked = self.run(input, progress);
        if unpacked.as_ref().is_err_and(|error| error.reason() == Reason::NoSpace) {
            lease.lock().is_full = true;
        }
        unpacked
    }

    fn run(mut self, input: &mut dyn BufRead, progress: &dyn Progress) -> Result<Unpacked, StoreError> {
        let store = self.lease.store.clone();
        let layout = store.layout();
        let stage = layout.stage(&self.key.layer.chain_id);
        layers::remove(&stage)?;
        make_dir(&stage)?;
        let extracted = match self.lease.keep_layers {
            KeepLayers::No => {
                layers::extract(input, &self.key, &store, &stage, self.lowers.as_deref(), self.threads, progress)?
            }
            KeepLayers::Yes => {
                let promise = Promise { digest: self.key.layer.blob.clone(), size_bytes: self.key.layer.size_bytes };
                let mut tee = Tee::new(input, Ingest::begin(&self.lease.ingest_dir, promise.clone())?);
                let lowers = self.lowers.as_deref();
                let extracted = layers::extract(&mut tee, &self.key, &store, &stage, lowers, self.threads, progress);
                // A copy that could not be written made the reading stop: its error is the cause.
                let copy = tee.end()?;
                let extracted = extracted?;
                copy.publish(layout)?;
                PullLease { inner: self.lease.clone() }.hold(promise, BlobKind::Layer);
                extracted
            }
        };
        if !extracted.needs.is_empty() {
            pending::write(&stage, &self.key.layer.chain_id, &self.key.layer.diff_id, &extracted)?;
        }
        let Some(claim) = self.claim.take() else { return Err(StoreError::Canceled) };
        let waiting = Waiting { claim, key: self.key.clone(), extracted };
        let chain = self.key.layer.chain_id.clone();
        self.lease.lock().layers.insert(chain, Slot::Extracted(Box::new(waiting)));
        let again = settle_ready(&self.lease)?;
        Ok(Unpacked { again })
    }
}

impl Drop for LayerWork {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.lease.lock().layers.remove(&self.key.layer.chain_id);
            discard(&self.lease.store, &self.key.layer.chain_id, claim);
        }
    }
}

/// Removes what a claim's holder left and gives the claim up.
fn discard(store: &Store, chain: &Digest, claim: Claim) {
    if let Err(error) = layers::remove(&store.layout().stage(chain)) {
        tracing::debug!(%error, %chain, "stage left for recovery");
    }
    claim.abandon();
    store.shared.flights.ring();
}

/// A lease ends: a layer that waits for lower ones stays for the next pull, until it is collected; on a full disk it
/// goes at once.
pub(crate) fn give_up(store: &Store, chain: &Digest, slot: Slot, is_full: bool) {
    match slot {
        Slot::Extracted(waiting) if is_full => discard(store, chain, waiting.claim),
        Slot::Extracted(waiting) => drop(waiting.claim),
        // Work and settling hold the lease, so they cannot be out here.
        Slot::Recorded { .. } | Slot::Finished { .. } | Slot::Working | Slot::Settling => {}
    }
}

/// Settles and finishes every layer whose lower layers are all finished. Returns those to be unpacked again.
pub(crate) fn settle_ready(lease: &Arc<LeaseInner>) -> Result<Vec<LayerWork>, StoreError> {
    let mut again = Vec::new();
    while let Some((waiting, lowers)) = take_ready(lease, None) {
        again.extend(settle_one(lease, waiting, lowers)?);
    }
    Ok(again)
}

/// Settles and finishes a layer, or hands it back to be unpacked again.
fn settle_one(
    lease: &Arc<LeaseInner>,
    waiting: Waiting,
    lowers: Vec<PathBuf>,
) -> Result<Option<LayerWork>, StoreError> {
    let chain = waiting.key.layer.chain_id.clone();
    match finish(lease, waiting, &lowers) {
        Outcome::Finished(n, note) => {
            lease.lock().layers.insert(chain, Slot::Finished { n, note });
            lease.store.shared.flights.ring();
            Ok(None)
        }
        Outcome::Again(key, claim) => {
            lease.lock().layers.insert(chain, Slot::Working);
            let (claim, lowers) = (Some(claim), Some(lowers));
            Ok(Some(LayerWork { lease: lease.clone(), key, claim, lowers, threads: Threads::One }))
        }
        Outcome::Failed(error, claim) => {
            lease.lock().layers.remove(&chain);
            discard(&lease.store, &chain, claim);
            Err(error)
        }
    }
}

/// Takes a layer that can be settled, `only` that one if given, with the trees of its lower layers, topmost first.
fn take_ready(lease: &LeaseInner, only: Option<&Digest>) -> Option<(Waiting, Vec<PathBuf>)> {
    let layout = lease.store.layout();
    let mut state = lease.lock();
    let wanted = state.layers.iter().filter(|(chain, _)| only.is_none_or(|only| only == *chain));
    let ready = wanted.into_iter().find_map(|(chain, slot)| match slot {
        Slot::Extracted(waiting) if waiting.extracted.needs.is_empty() => Some((chain.clone(), Vec::new())),
        Slot::Extracted(waiting) => {
            let lowers = lowers(layout, &state.layers, waiting.key.parent.as_ref())?;
            Some((chain.clone(), lowers))
        }
        Slot::Recorded { .. } | Slot::Finished { .. } | Slot::Working | Slot::Settling => None,
    });
    let (chain, lowers) = ready?;
    match state.layers.insert(chain, Slot::Settling) {
        Some(Slot::Extracted(waiting)) => Some((*waiting, lowers)),
        Some(Slot::Recorded { .. } | Slot::Finished { .. } | Slot::Working | Slot::Settling) | None => None,
    }
}

/// The trees below a layer, topmost first; `None` while one of them is not finished.
fn lowers(layout: &Layout, layers: &BTreeMap<Digest, Slot>, parent: Option<&Digest>) -> Option<Vec<PathBuf>> {
    let mut trees = Vec::new();
    let mut next = parent;
    while let Some(chain) = next {
        let n = match layers.get(chain)? {
            Slot::Recorded { n, parent } => {
                next = parent.as_ref();
                *n
            }
            Slot::Finished { n, note } => {
                next = note.parent.as_ref();
                *n
            }
            Slot::Working | Slot::Extracted(_) | Slot::Settling => return None,
        };
        trees.push(layout.snapshot(n).join(TREE));
    }
    Some(trees)
}

enum Outcome {
    /// It could not be settled or placed.
    Failed(StoreError, Claim),
    /// It stands in `snapshots/<n>`.
    Finished(u64, Note),
    /// It must be unpacked with its lower layers at hand.
    Again(LayerKey, Claim),
}

/// Settles a layer and moves it from its stage into `snapshots/`.
fn finish(lease: &LeaseInner, waiting: Waiting, lowers: &[PathBuf]) -> Outcome {
    let Waiting { claim, key, extracted } = waiting;
    let layout = lease.store.layout();
    let stage = layout.stage(&key.layer.chain_id);
    match layers::settle(&stage, &extracted, lowers) {
        Ok(Settled::Done) => {}
        Ok(Settled::Redo) => return Outcome::Again(key, claim),
        Err(error) => return Outcome::Failed(error, claim),
    }
    let note = Note {
        chain_id: key.layer.chain_id.clone(),
        diff_id: key.layer.diff_id.clone(),
        parent: key.parent,
        form: layers::form(),
        size_bytes: extracted.unpacked_bytes,
        entries: extracted.entries,
        boot_id: boot_id().to_owned(),
    };
    match note.write(&stage).and_then(|()| place(layout, &stage)) {
        Ok(n) => {
            if let Err(error) = claim.finished(n) {
                // The layer stands; that its claim does not say so costs a search at most.
                tracing::debug!(%error, "claim not marked");
            }
            Outcome::Finished(n, note)
        }
        Err(error) => Outcome::Failed(error, claim),
    }
}

/// Renames a stage to the next free number in `snapshots/`.
fn place(layout: &Layout, stage: &Path) -> Result<u64, StoreError> {
    let mut n = snapshot_numbers(layout)?.into_iter().max().unwrap_or(0);
    loop {
        n += 1;
        match rustix::fs::renameat_with(CWD, stage, CWD, layout.snapshot(n), RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(n),
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {}
            Err(errno) => return Err(StoreError::io("rename", stage, errno)),
        }
    }
}
