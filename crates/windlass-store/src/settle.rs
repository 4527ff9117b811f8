//! Settling: what happens to a layer between being unpacked and being finished.
//!
//! A layer that needs its lower layers waits, unpacked, until all of them are finished; whichever thread finishes the
//! last one settles it, and moves it into `snapshots/` with its note. Rarely a layer must be unpacked again with its
//! lower layers at hand: then its work is handed back to the caller.
//!
//! Invariants: `layers_out_of_order_are_settled_when_their_parents_are`, `a_killed_pull_costs_only_the_layers_in_flight`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags};
use windlass_core::digest::Digest;

use crate::claim::{Claim, Note, snapshot_numbers};
use crate::error::StoreError;
use crate::layer::{Extracted, Settled, forget_largest};
use crate::layers;
use crate::layout::Layout;
use crate::lease::{LeaseInner, LeaseState};
use crate::lock::boot_id;
use crate::pending;
use crate::store::Store;
use crate::work::{LayerKey, LayerWork};

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
    pub(crate) claim: Claim,
    pub(crate) key: LayerKey,
    pub(crate) extracted: Extracted,
}

/// Removes what a claim's holder left and gives the claim up.
pub(crate) fn discard(store: &Store, chain: &Digest, claim: Claim) {
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

/// Entries of image files that wait for lower layers are kept in memory up to this; those of the others are read from
/// their tars again.
const DRAFTS_MAX_BYTES: u64 = 32 << 20;

/// Lets go of entries in memory that are too many.
pub(crate) fn forget_drafts(state: &mut LeaseState) {
    let waiting = state.layers.values_mut().filter_map(|slot| match slot {
        Slot::Extracted(waiting) => Some(&mut waiting.extracted),
        Slot::Recorded { .. } | Slot::Finished { .. } | Slot::Working | Slot::Settling => None,
    });
    forget_largest(waiting.collect(), DRAFTS_MAX_BYTES);
}

/// Settles and finishes a layer, or hands it back to be unpacked again.
pub(crate) fn settle_one(
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
            Ok(Some(LayerWork::again(lease.clone(), key, claim, lowers)))
        }
        Outcome::Failed(error, claim) => {
            lease.lock().layers.remove(&chain);
            discard(&lease.store, &chain, claim);
            Err(error)
        }
    }
}

/// Takes a layer that can be settled, `only` that one if given, with the snapshots of its lower layers, topmost first.
pub(crate) fn take_ready(lease: &LeaseInner, only: Option<&Digest>) -> Option<(Waiting, Vec<PathBuf>)> {
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

/// The snapshots below a layer, topmost first; `None` while one of them is not finished.
fn lowers(layout: &Layout, layers: &BTreeMap<Digest, Slot>, parent: Option<&Digest>) -> Option<Vec<PathBuf>> {
    let mut snapshots = Vec::new();
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
        snapshots.push(layout.snapshot(n));
    }
    Some(snapshots)
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
    let Waiting { claim, key, mut extracted } = waiting;
    let layout = lease.store.layout();
    let stage = layout.stage(&key.layer.chain_id);
    let limits = &lease.store.options().limits;
    let settled = lease.opened.all(lowers);
    match settled.and_then(|below| layers::settle(&stage, &mut extracted, &key, &below, limits)) {
        Ok(Settled::Done) => {}
        Ok(Settled::Redo) => return Outcome::Again(key, claim),
        Err(error) => return Outcome::Failed(error, claim),
    }
    let note = Note {
        chain_id: key.layer.chain_id.clone(),
        diff_id: key.layer.diff_id.clone(),
        tar: None,
        parent: key.parent,
        form: layers::form_of(&stage),
        size_bytes: extracted.unpacked_bytes,
        entries: extracted.entries,
        boot_id: boot_id().to_owned(),
    };
    match note.write(&stage).and_then(|()| place(layout, &stage)) {
        Ok(n) => {
            // Not before the layer is known by its note: killed in between, it would be known by neither.
            pending::remove(&layout.snapshot(n));
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
pub(crate) fn place(layout: &Layout, stage: &Path) -> Result<u64, StoreError> {
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
