//! Rewrites stored layers into the form that the store unpacks into now: directories into image files, or back.
//!
//! A layer is rewritten from what is here, without a registry:
//!
//! | it is | its compressed blob | rewritten from | the tar of an image file is then |
//! | --- | --- | --- | --- |
//! | an image file | | the tar in it | |
//! | a directory | kept | the blob | exact: it hashes to the diff ID |
//! | a directory | dropped | the tree and its record, read back as a tar | another tar of the same entries |
//!
//! A tar that was read back is never taken for the layer's own: the record says what it hashes to, which is what `fsck`
//! compares it with, and nothing hands it out under the diff ID. Whatever a layer is made from is checked on the way, so
//! a damaged one is refused and stays.
//!
//! Safe at any moment: the new form is made in a stage under the layer's claim, moves to `snapshots/` under a number of
//! its own, is synced, and then one transaction changes the record; only then does the old form go, as the collector
//! takes things. Killed before, the new form is what nobody needs; killed after, the old one is: the next recovery
//! removes it. A layer that a pull under way counts on, or that is mounted, is left alone.
//!
//! Invariants: `layers_are_converted_there_and_back`, `a_tar_that_was_read_back_is_never_the_layers_own`,
//! `a_killed_conversion_leaves_one_whole_layer`, `layers_in_use_are_not_converted`, `a_damaged_layer_is_not_converted`.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

use crate::claim::{Claim, Note};
use crate::durable::{Each, sync_each};
use crate::error::StoreError;
use crate::gc::take_out;
use crate::image_mounts;
use crate::intent::{Intent, needed_beside, sweep_lock};
use crate::layer::{Format, Settled};
use crate::layer_source::LayerSource;
use crate::layers::{self, Opened, Threads};
use crate::layout::make_dir;
use crate::lock::{Share, boot_id};
use crate::meta::record::{Form, ImageRecord, LayerRecord, SnapshotRecord};
use crate::settle::{discard, place};
use crate::snapshots::need;
use crate::snapshots::record::RuntimeRecord;
use crate::space;
use crate::store::Store;
use crate::work::LayerKey;

/// How a layer is kept, as people call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerForm {
    /// A directory of files.
    Directory,
    /// A file that the kernel mounts.
    ImageFile,
}

/// The tar that an image file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TarIs {
    /// The layer's own: it hashes to the diff ID.
    Exact,
    /// Another tar of the same entries, read back from a directory.
    ReadBack,
}

/// What became of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// It was rewritten; with the tar in it where it is an image file now.
    Converted(Option<TarIs>),
    /// It had that form before.
    Already,
    /// It was left as it is, for this reason; it may work another time.
    Skipped(String),
    /// It could not be rewritten and stays as it is.
    Failed {
        /// Why, for people.
        why: String,
        /// The same for programs.
        reason: Reason,
    },
}

/// One layer of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedLayer {
    /// Digest over the layer and all below it: which layer it is.
    pub chain_id: Digest,
    /// Digest of its own tar.
    pub diff_id: Digest,
    /// What became of it.
    pub outcome: Conversion,
}

/// What a conversion did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertReport {
    /// The form that layers were to have.
    pub form: LayerForm,
    /// Every layer of an image, each below those that stand on it.
    pub layers: Vec<ConvertedLayer>,
}

/// A layer and what images say of it.
struct Listed {
    chain: Digest,
    /// Its blobs: images may have it in several compressions.
    blobs: Vec<LayerRecord>,
}

impl Store {
    /// Rewrites the layers of all images, see the module. `each` hears of every layer as it is done, with the number of
    /// all of them.
    ///
    /// # Errors
    /// The metadata cannot be read or written, a sync failed, or the disk is full; layers that were done stay done.
    /// Whatever is wrong with one layer is its outcome, and the others go on.
    pub fn convert(&self, each: &mut dyn FnMut(&ConvertedLayer, usize)) -> Result<ConvertReport, StoreError> {
        self.meta()?;
        let (target, form) = match self.format()? {
            Format::Erofs => (Form::Erofs, LayerForm::ImageFile),
            Format::Overlay if rustix::process::geteuid().is_root() => (Form::Directory, LayerForm::Directory),
            Format::Overlay => (Form::UserDirectory, LayerForm::Directory),
        };
        let listed = self.read(|tx| Ok(listed(tx.all::<ImageRecord>()?)))?;
        let count = listed.len();
        let mut layers = Vec::with_capacity(count);
        for Listed { chain, blobs } in listed {
            let Some(diff_id) = blobs.first().map(|blob| blob.diff_id.clone()) else { continue };
            let outcome = match self.convert_layer(&chain, &blobs, target) {
                Ok(outcome) => outcome,
                Err(error) if ends_all(&error) => return Err(error),
                Err(error) => Conversion::Failed { why: windlass_core::reason::chain(&error), reason: error.reason() },
            };
            let done = ConvertedLayer { chain_id: chain, diff_id, outcome };
            each(&done, count);
            layers.push(done);
        }
        Ok(ConvertReport { form, layers })
    }

    fn convert_layer(&self, chain: &Digest, blobs: &[LayerRecord], target: Form) -> Result<Conversion, StoreError> {
        let kept = self.kept_layer(blobs)?;
        let is_done = |record: &SnapshotRecord| record.form == target && (record.tar.is_none() || kept.is_none());
        if self.stack(chain)?.first().is_some_and(|(_, record)| is_done(record)) {
            return Ok(Conversion::Already);
        }
        let intent = Intent::begin(self.layout(), "conversion", Timestamp::now())?;
        let stack = {
            let _sweep = sweep_lock(self.layout(), Share::Shared)?;
            let stack = self.stack(chain)?;
            // From here on nothing of it is collected or converted by others.
            stack.iter().try_for_each(|(chain, _)| intent.need_chain(chain))?;
            stack
        };
        let Some((_, record)) = stack.first() else {
            return Ok(Conversion::Skipped("it has no record; a pull of its image puts that right".to_owned()));
        };
        if is_done(record) {
            return Ok(Conversion::Already);
        }
        if stack.iter().any(|(_, part)| part.form == Form::UserDirectory && part.form != target) {
            let why = "an ordinary user unpacked it or a layer below it; remove its image and pull it again";
            return Ok(Conversion::Skipped(why.to_owned()));
        }
        let used_by = {
            let _sweep = sweep_lock(self.layout(), Share::Alone)?;
            self.used_by(chain, &intent)?
        };
        if let Some(by) = used_by {
            return Ok(Conversion::Skipped(by));
        }
        let Some((mut claim, _)) = Claim::attempt(self.layout(), chain)? else {
            return Ok(Conversion::Skipped("a pull under way has it in work".to_owned()));
        };
        claim.working()?;
        let converted = self.rewrite(chain, &stack, kept, target, &intent);
        discard(self, chain, claim);
        converted
    }

    /// A layer's record and those below it, topmost first. Empty: it has none.
    fn stack(&self, chain: &Digest) -> Result<Vec<(Digest, SnapshotRecord)>, StoreError> {
        self.read(|tx| {
            let mut stack = Vec::new();
            let mut next = Some(chain.clone());
            while let Some(chain) = next {
                let Some(record) = tx.get::<SnapshotRecord>(chain.as_str())? else { break };
                next = record.parent.clone();
                stack.push((chain, record));
            }
            Ok(stack)
        })
    }

    /// Who counts on a layer standing where it stands. The caller holds the sweep lock alone, so nobody begins to.
    fn used_by(&self, chain: &Digest, own: &Intent) -> Result<Option<String>, StoreError> {
        if needed_beside(self.layout(), own)?.chains.contains(chain.as_str()) {
            return Ok(Some("a pull under way counts on it".to_owned()));
        }
        let runtime = self.read(|tx| tx.all::<RuntimeRecord>())?;
        if let Some(snapshot) = need::used_chains(&runtime).get(chain) {
            return Ok(Some(format!("a container stands on it: snapshot {snapshot}")));
        }
        for (image, target) in self.mounted()? {
            let record = self.read(|tx| tx.get::<ImageRecord>(image.as_str()))?;
            if record.is_some_and(|record| record.layers.iter().any(|layer| layer.chain_id == *chain)) {
                return Ok(Some(format!("an image with it is mounted at {}", target.display())));
            }
        }
        Ok(None)
    }

    /// Makes the new form, and lets it take the place of the old one. The stage is the caller's to remove.
    fn rewrite(
        &self,
        chain: &Digest,
        stack: &[(Digest, SnapshotRecord)],
        kept: Option<LayerRecord>,
        target: Form,
        intent: &Intent,
    ) -> Result<Conversion, StoreError> {
        let failed_syncs = self.shared.failed_syncs.load(Ordering::SeqCst);
        let [(_, old), below @ ..] = stack else { return Ok(Conversion::Already) };
        let below: Vec<PathBuf> = below.iter().map(|(_, record)| self.layout().snapshot(record.n)).collect();
        let source = LayerSource::of(self, chain, old, kept)?;
        let tar = self.make(old, &below, &source)?;
        let stage = self.layout().stage(chain);
        let is_own = tar == old.diff_id;
        let note = Note {
            chain_id: chain.clone(),
            diff_id: old.diff_id.clone(),
            tar: (target == Form::Erofs && !is_own).then_some(tar),
            parent: old.parent.clone(),
            form: target,
            size_bytes: old.size_bytes,
            entries: old.entries,
            boot_id: boot_id().to_owned(),
        };
        note.write(&stage)?;
        let n = place(self.layout(), &stage)?;
        let new = self.layout().snapshot(n);
        let switched =
            self.make_durable(&new, failed_syncs).and_then(|()| self.switch(chain, old, &note.record(n), intent));
        match switched {
            Ok(None) => Ok(Conversion::Converted((target == Form::Erofs).then_some(match is_own {
                true => TarIs::Exact,
                false => TarIs::ReadBack,
            }))),
            Ok(Some(why)) => {
                layers::remove(&new)?;
                Ok(Conversion::Skipped(why))
            }
            Err(error) => {
                if let Err(error) = layers::remove(&new) {
                    tracing::debug!(%error, "half a conversion left for recovery");
                }
                Err(error)
            }
        }
    }

    /// Unpacks the layer into its stage, in the form of the store. Says what the tar hashes to.
    fn make(&self, old: &SnapshotRecord, below: &[PathBuf], source: &LayerSource) -> Result<Digest, StoreError> {
        let layer = source.layer().clone();
        let need_bytes = layer.size_bytes.max(old.size_bytes);
        space::require(self.root(), need_bytes, self.options().reserve)?;
        let tar = layer.diff_id.clone();
        let key = LayerKey { layer, parent: old.parent.clone() };
        // As in a pull: without the layers below first, and once more with them where that does not do.
        let first = key.parent.is_none().then_some(below);
        match self.unpack(&key, source, first, below)? {
            Settled::Done => Ok(tar),
            Settled::Redo => match self.unpack(&key, source, Some(below), below)? {
                Settled::Done => Ok(tar),
                Settled::Redo => Err(StoreError::Incomplete { part: "layer", digest: key.layer.chain_id }),
            },
        }
    }

    fn unpack(
        &self,
        key: &LayerKey,
        source: &LayerSource,
        at_hand: Option<&[PathBuf]>,
        below: &[PathBuf],
    ) -> Result<Settled, StoreError> {
        let stage = self.layout().stage(&key.layer.chain_id);
        layers::remove(&stage)?;
        make_dir(&stage)?;
        let opened = Opened::default();
        let (at_hand, below) = (at_hand.map(|at_hand| opened.all(at_hand)).transpose()?, opened.all(below)?);
        let at_hand = at_hand.as_deref();
        let extract =
            |input: &mut (dyn BufRead + Send)| layers::extract(input, key, self, &stage, at_hand, Threads::One, &());
        let mut extracted = source.feed(self, extract)?;
        layers::settle(&stage, &mut extracted, key, &below, &self.options().limits)
    }

    fn make_durable(&self, new: &Path, failed_before: u64) -> Result<(), StoreError> {
        let failed = &self.shared.failed_syncs;
        if failed.load(Ordering::SeqCst) != failed_before {
            // The kernel reports a write-back error once; whose bytes were lost it does not say.
            let source = io::Error::other("another sync failed meanwhile");
            return Err(StoreError::sync(self.root(), source));
        }
        let synced = sync_each(&[new.to_owned()]).and_then(|each| match (each, &self.shared.root_dir) {
            (Each::Done, _) => Ok(()),
            (Each::Unfit, Some(dir)) => rustix::fs::syncfs(dir).map_err(|errno| StoreError::sync(self.root(), errno)),
            (Each::Unfit, None) => Err(StoreError::ReadOnly { root: self.root().to_owned() }),
        });
        if synced.is_err() {
            failed.fetch_add(1, Ordering::SeqCst);
        }
        synced
    }

    /// Changes the record in one transaction and takes the old form away; says why it did not.
    fn switch(
        &self,
        chain: &Digest,
        old: &SnapshotRecord,
        new: &SnapshotRecord,
        intent: &Intent,
    ) -> Result<Option<String>, StoreError> {
        let sweep = sweep_lock(self.layout(), Share::Alone)?;
        if let Some(by) = self.used_by(chain, intent)? {
            return Ok(Some(by));
        }
        let is_changed = self.write(|tx| {
            if tx.get::<SnapshotRecord>(chain.as_str())?.as_ref() != Some(old) {
                return Ok(false);
            }
            tx.put(chain.as_str(), new).map(|()| true)
        })?;
        if !is_changed {
            return Ok(Some("it was removed or repaired meanwhile".to_owned()));
        }
        image_mounts::detach(self.layout(), old.n, chain);
        // Its claim is ours, and still held.
        let trash = take_out(self.layout(), &self.layout().snapshot(old.n), None);
        drop(sweep);
        if let Some(Err(error)) = trash.as_deref().map(layers::remove) {
            // The layer is converted; what is left of the old form goes with the next collection.
            tracing::warn!(%error, %chain, "the old form of a layer is not gone");
        }
        Ok(None)
    }
}

/// Whether an error is about the store and not about a layer.
fn ends_all(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Sync { .. }
            | StoreError::NoSpace { .. }
            | StoreError::Meta { .. }
            | StoreError::Locked { .. }
            | StoreError::NoImageFiles { .. }
    ) || error.reason() == Reason::NoSpace
}

/// Every layer of the images, each after those below it.
fn listed(images: Vec<(String, ImageRecord)>) -> Vec<Listed> {
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut all: Vec<Listed> = Vec::new();
    for layer in images.into_iter().flat_map(|(_, record)| record.layers) {
        let at = *places.entry(layer.chain_id.clone()).or_insert(all.len());
        match all.get_mut(at) {
            Some(known) if known.blobs.contains(&layer) => {}
            Some(known) => known.blobs.push(layer),
            None => all.push(Listed { chain: layer.chain_id.clone(), blobs: vec![layer] }),
        }
    }
    all
}
