//! What the tables say, with what does not decode kept apart, and what follows from them alone.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::digest::Digest;

use super::{FindingClass, Subject, Suspect};
use crate::error::StoreError;
use crate::image::needed_blobs;
use crate::layout::Layout;
use crate::meta::record::{BlobKind, BlobRecord, ImageRecord, NameRecord, PinRecord, SnapshotRecord, UseRecord};
use crate::meta::{ReadTx, Record};
use crate::snapshots::need;
use crate::snapshots::record::{RuntimeRecord, State};

/// Everything the tables say.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) names: BTreeMap<String, NameRecord>,
    pub(super) images: BTreeMap<String, ImageRecord>,
    pub(super) blobs: BTreeMap<String, BlobRecord>,
    pub(super) snapshots: BTreeMap<String, SnapshotRecord>,
    /// Snapshots of a container runtime.
    pub(super) runtime: BTreeMap<String, RuntimeRecord>,
    pub(super) unreadable: Vec<Unreadable>,
}

pub(super) struct Unreadable {
    pub(super) table: &'static str,
    pub(super) key: String,
    pub(super) detail: String,
}

impl Tables {
    pub(super) fn read(tx: &ReadTx<'_>) -> Result<Tables, StoreError> {
        let mut unreadable = Vec::new();
        let tables = Tables {
            names: sort(tx, &mut unreadable)?,
            images: sort(tx, &mut unreadable)?,
            blobs: sort(tx, &mut unreadable)?,
            snapshots: sort(tx, &mut unreadable)?,
            runtime: sort(tx, &mut unreadable)?,
            unreadable: Vec::new(),
        };
        let _uses: BTreeMap<String, UseRecord> = sort(tx, &mut unreadable)?;
        let _pins: BTreeMap<String, PinRecord> = sort(tx, &mut unreadable)?;
        Ok(Tables { unreadable, ..tables })
    }

    /// Blobs and chains that images and snapshots of a container runtime refer to, kept layers included.
    pub(super) fn referenced(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut blobs, mut chains) = (BTreeSet::new(), BTreeSet::new());
        for (id, record) in &self.images {
            let Ok(id) = Digest::parse(id) else { continue };
            blobs.extend(needed_blobs(&id, record).map(ToString::to_string));
            blobs.extend(record.layers.iter().map(|layer| layer.blob.to_string()));
            chains.extend(record.layers.iter().map(|layer| layer.chain_id.to_string()));
        }
        chains.extend(need::recorded_chains(self.runtime.iter()));
        (blobs, chains)
    }

    /// Snapshots of a container runtime that lead to what is not there.
    pub(super) fn dangling_snapshots(&self, layout: &Layout) -> Vec<Suspect> {
        let dangling = self.runtime.iter().filter_map(|(name, record)| {
            let detail = self.dangles(record, layout)?;
            let class = FindingClass::SnapshotDangling;
            Some(Suspect { class, what: name.clone(), detail, subject: Subject::Snapshot })
        });
        dangling.collect()
    }

    /// What a snapshot leads to and is not there.
    pub(super) fn dangles(&self, record: &RuntimeRecord, layout: &Layout) -> Option<String> {
        if let Some(parent) = record.parent.as_ref().filter(|parent| !self.runtime.contains_key(*parent)) {
            return Some(format!("its parent {parent} has no record"));
        }
        match &record.state {
            State::Layer { chain } if !self.snapshots.contains_key(chain.as_str()) => {
                Some(format!("layer {chain} is gone: pull its image again"))
            }
            State::Own { dir, .. } if !layout.upper(*dir).is_dir() => {
                Some(format!("{} is gone", layout.upper(*dir).display()))
            }
            // What an active snapshot or a view lost before it was on disk is made again when it is mounted.
            State::Layer { .. } | State::Own { .. } | State::Active { .. } | State::View { .. } => None,
        }
    }

    pub(super) fn lost_records(&self) -> Vec<Suspect> {
        let mut lost = BTreeMap::new();
        for (id, record) in &self.images {
            let Ok(id) = Digest::parse(id) else { continue };
            for digest in needed_blobs(&id, record).filter(|digest| !self.blobs.contains_key(digest.as_str())) {
                let kind = if *digest == id { BlobKind::Config } else { BlobKind::Manifest };
                lost.insert(digest.to_string(), Subject::BlobRecord { digest: digest.clone(), kind });
            }
            for layer in record.layers.iter().filter(|layer| !self.snapshots.contains_key(layer.chain_id.as_str())) {
                lost.insert(layer.chain_id.to_string(), Subject::LayerRecord(layer.chain_id.clone()));
            }
        }
        let class = FindingClass::RecordMissing;
        let detail = "an image refers to it";
        lost.into_iter().map(|(what, subject)| Suspect { class, what, detail: detail.to_owned(), subject }).collect()
    }

    /// Images that are not whole without it.
    pub(super) fn images_with(&self, subject: &Subject) -> Vec<Digest> {
        let images = self.images.iter().filter_map(|(id, record)| Some((Digest::parse(id).ok()?, record)));
        let affected = images.filter(|(id, record)| match subject {
            Subject::Blob(digest) | Subject::BlobRecord { digest, .. } => {
                needed_blobs(id, record).any(|need| need == digest)
            }
            Subject::Layer { chain, .. } | Subject::LayerRecord(chain) => {
                record.layers.iter().any(|layer| layer.chain_id == *chain)
            }
            Subject::Record(_) | Subject::Name | Subject::Snapshot | Subject::Garbage => false,
        });
        affected.map(|(id, _)| id).collect()
    }
}

fn sort<R: Record>(tx: &ReadTx<'_>, unreadable: &mut Vec<Unreadable>) -> Result<BTreeMap<String, R>, StoreError> {
    let mut good = BTreeMap::new();
    for (key, record) in tx.sound::<R>()? {
        match record {
            Ok(record) => drop(good.insert(key, record)),
            Err(error) => {
                let detail = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                unreadable.push(Unreadable { table: R::TABLE, key, detail });
            }
        }
    }
    Ok(good)
}
