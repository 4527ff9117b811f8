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
//! Invariants: `two_leases_share_a_layer`, `layers_out_of_order_are_settled_when_their_parents_are`,
//! `dropped_work_leaves_nothing`.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

use crate::blobs::{Ingest, Promise};
use crate::claim::{Claim, Left, find_finished};
use crate::error::StoreError;
use crate::intent::sweep_lock;
use crate::layer::Progress;
use crate::layer::{Extracted, LayerError, Stored, Warning};
use crate::layers::{self, Threads};
use crate::layout::make_dir;
use crate::lease::{LeaseInner, PullLease};
use crate::lock::Share;
use crate::meta::record::{BlobKind, LayerRecord, SnapshotRecord};
use crate::partial::{self, Partial};
use crate::pending;
use crate::settle::{Slot, Waiting, discard, forget_drafts, settle_one, settle_ready, take_ready};
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

/// Work on one layer. Dropped, nothing of it stays and others may claim it.
#[derive(Debug)]
pub struct LayerWork {
    lease: Arc<LeaseInner>,
    key: LayerKey,
    claim: Option<Claim>,
    /// Snapshots of the lower layers, topmost first: given when the layer is unpacked again.
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
    /// What the layer came to.
    pub size: LayerSize,
    /// What is odd about it without being wrong.
    pub warnings: Vec<Warning>,
}

/// How much an unpacked layer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSize {
    /// Bytes of its tar, holes of sparse files included.
    pub unpacked_bytes: u64,
    /// Entries of its tar.
    pub entries: u64,
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
        let limits = &store.options().limits;
        let unpacked = pending::read(&stage, chain, &key.layer.diff_id, limits);
        match unpacked.filter(|_| left == Left::Unknown) {
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
    /// gave up. One thread that waits for several layers waits for the lowest first and calls [`PullLease::settle`]
    /// after each `Present`: two pulls may hold layers that wait for each other's.
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

    /// Settles unpacked layers whose lower layers were finished by other pulls. To be called after a claim that waited
    /// answered `Present`: another pull may be waiting for what can be finished only now. Returns layers that must be
    /// fetched and unpacked once more, as [`Unpacked::again`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn settle(&self) -> Result<Vec<LayerWork>, StoreError> {
        settle_ready(&self.inner)
    }

    /// How much a layer is that this lease found or made; `None` while it is in work.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn layer_size(&self, chain: &Digest) -> Result<Option<LayerSize>, StoreError> {
        match self.inner.lock().layers.get(chain) {
            Some(Slot::Finished { note, .. }) => {
                return Ok(Some(LayerSize { unpacked_bytes: note.size_bytes, entries: note.entries }));
            }
            Some(Slot::Extracted(waiting)) => return Ok(Some(waiting.extracted.size())),
            Some(Slot::Working | Slot::Settling) | None => return Ok(None),
            Some(Slot::Recorded { .. }) => {}
        }
        let record = self.inner.store.read(|tx| tx.get::<SnapshotRecord>(chain.as_str()))?;
        Ok(record.map(|record| LayerSize { unpacked_bytes: record.size_bytes, entries: record.entries }))
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
            // The lowest layer has nothing below it, and that is known.
            lowers: key.parent.is_none().then(Vec::new),
            threads: Threads::One,
        })
    }
}

/// The directory of a layer that is recorded and there.
fn recorded(store: &Store, chain: &Digest) -> Result<Option<Slot>, StoreError> {
    let record = store.read(|tx| tx.get::<SnapshotRecord>(chain.as_str()))?;
    let there = record.filter(|record| layers::is_there(&store.layout().snapshot(record.n), record.form));
    Ok(there.map(|record| Slot::Recorded { n: record.n, parent: record.parent }))
}

impl LayerWork {
    /// Work on a layer whose lower layers, topmost first, are at hand.
    pub(crate) fn again(lease: Arc<LeaseInner>, key: LayerKey, claim: Claim, lowers: Vec<PathBuf>) -> LayerWork {
        LayerWork { lease, key, claim: Some(claim), lowers: Some(lowers), threads: Threads::One }
    }

    /// The layer.
    pub fn key(&self) -> &LayerKey {
        &self.key
    }

    /// Whether it is unpacked once more because its lower layers had to be at hand.
    pub fn is_again(&self) -> bool {
        self.lowers.as_ref().is_some_and(|below| !below.is_empty())
    }

    /// The beginning of the blob that an earlier pull left, where that is configured. Give [`LayerWork::unpack`] these
    /// bytes and then the rest; an error other than of the input throws the beginning away.
    pub fn partial(&self) -> Option<Partial> {
        self.lease.store.options().keep_partial_above_bytes?;
        partial::open(self.lease.store.layout(), &self.key.layer.blob, self.key.layer.size_bytes)
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
    pub fn unpack(self, input: &mut (dyn BufRead + Send), progress: &dyn Progress) -> Result<Unpacked, StoreError> {
        let lease = self.lease.clone();
        let unpacked = self.run(input, progress);
        if unpacked.as_ref().is_err_and(|error| error.reason() == Reason::NoSpace) {
            lease.lock().is_full = true;
        }
        unpacked
    }

    /// The layers below, where they are to be at hand.
    fn below(&self) -> Result<Option<Vec<Stored>>, StoreError> {
        self.lowers.as_ref().map(|lowers| self.lease.opened.all(lowers)).transpose()
    }

    /// Whether the blob is copied while it is unpacked: to keep it, or so that a cut-off beginning can be kept.
    fn is_copied(&self) -> bool {
        let keep_above = self.lease.store.options().keep_partial_above_bytes;
        self.lease.keep_layers == KeepLayers::Yes || keep_above.is_some_and(|above| self.key.layer.size_bytes >= above)
    }

    fn extract_and_copy(
        &self,
        input: &mut (dyn BufRead + Send),
        stage: &Path,
        progress: &dyn Progress,
    ) -> Result<Extracted, StoreError> {
        let store = &self.lease.store;
        let promise = Promise { digest: self.key.layer.blob.clone(), size_bytes: self.key.layer.size_bytes };
        let mut tee = Tee::new(input, Ingest::begin(&self.lease.ingest_dir, promise.clone())?);
        let below = self.below()?;
        let extracted = layers::extract(&mut tee, &self.key, store, stage, below.as_deref(), self.threads, progress);
        // A copy that could not be written made the reading stop: its error is the cause.
        let copy = tee.end()?;
        match extracted {
            Ok(extracted) => {
                partial::forget(store.layout(), &promise.digest);
                if self.lease.keep_layers == KeepLayers::Yes {
                    copy.publish(store.layout())?;
                    PullLease { inner: self.lease.clone() }.hold(promise, BlobKind::Layer);
                }
                Ok(extracted)
            }
            Err(error) => {
                match store.options().keep_partial_above_bytes {
                    Some(above) if is_cut_off(&error) => copy.keep_beginning(store.layout(), above)?,
                    Some(_) | None => partial::forget(store.layout(), &promise.digest),
                }
                Err(error)
            }
        }
    }

    fn run(mut self, input: &mut (dyn BufRead + Send), progress: &dyn Progress) -> Result<Unpacked, StoreError> {
        let store = self.lease.store.clone();
        let layout = store.layout();
        let stage = layout.stage(&self.key.layer.chain_id);
        layers::remove(&stage)?;
        make_dir(&stage)?;
        let extracted = if self.is_copied() {
            self.extract_and_copy(input, &stage, progress)?
        } else {
            layers::extract(input, &self.key, &store, &stage, self.below()?.as_deref(), self.threads, progress)?
        };
        if !extracted.needs.is_empty() {
            pending::write(&stage, &self.key.layer.chain_id, &self.key.layer.diff_id, &extracted)?;
        }
        let Some(claim) = self.claim.take() else { return Err(StoreError::Canceled) };
        let (size, warnings) = (extracted.size(), extracted.warnings.clone());
        let waiting = Waiting { claim, key: self.key.clone(), extracted };
        let chain = self.key.layer.chain_id.clone();
        self.lease.lock().layers.insert(chain, Slot::Extracted(Box::new(waiting)));
        let again = settle_ready(&self.lease)?;
        forget_drafts(&mut self.lease.lock());
        Ok(Unpacked { again, size, warnings })
    }
}

impl Extracted {
    pub(crate) fn size(&self) -> LayerSize {
        LayerSize { unpacked_bytes: self.unpacked_bytes, entries: self.entries }
    }
}

/// Whether the bytes stopped, rather than being wrong.
fn is_cut_off(error: &StoreError) -> bool {
    let StoreError::Layer { source, .. } = error else { return false };
    matches!(source, LayerError::Input { .. } | LayerError::Canceled)
}

impl Drop for LayerWork {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.lease.lock().layers.remove(&self.key.layer.chain_id);
            discard(&self.lease.store, &self.key.layer.chain_id, claim);
        }
    }
}
