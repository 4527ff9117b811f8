//! Putting damage aside: nothing is deleted that could be looked at later.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use windlass_core::digest::Digest;

use super::tables::Tables;
use super::{Finding, FindingClass, Outcome, Repair, Subject, Suspect, check_layer};
use crate::blobs::{self, Promise};
use crate::claim::{Note, snapshot_numbers};
use crate::error::StoreError;
use crate::image_mounts;
use crate::layer::Depth;
use crate::layout::{Layout, Sync, make_dir, write_whole};
use crate::meta::Record as _;
use crate::meta::record::{BlobKind, BlobRecord, ImageRecord, NameRecord, SnapshotRecord, UseRecord};
use crate::recover;
use crate::snapshots;
use crate::snapshots::record::RuntimeRecord;
use crate::store::Store;

impl Store {
    pub(super) fn database_damaged(&self, error: &StoreError, repair: Repair) -> Result<Finding, StoreError> {
        let detail = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        let what = self.layout().database().display().to_string();
        let outcome = match repair {
            Repair::No => Outcome::Left,
            Repair::Yes => {
                let dir = self.layout().quarantine().join("meta");
                make_dir(&dir)?;
                // Containers may be writing into them: moved, they serve those, and nobody takes them for leftovers.
                set_uppers_aside(self.layout(), &[])?;
                self.meta()?.replace(&dir.join(format!("store.redb.{}", Timestamp::now().as_second())))?;
                recover::run(self.layout(), self.meta()?, self.options().keep_partial_above_bytes)?;
                Outcome::Repaired
            }
        };
        Ok(Finding { class: FindingClass::Database, what, detail, images: Vec::new(), outcome })
    }

    pub(super) fn repair(&self, suspect: &Suspect, images: &[Digest], now: &Tables) -> Result<Outcome, StoreError> {
        let layout = self.layout();
        match &suspect.subject {
            Subject::Garbage => return Ok(Outcome::Harmless),
            // Removed, it would be missed by the runtime for good; with its layer back it is whole again.
            Subject::Snapshot => return Ok(Outcome::Left),
            Subject::Record(table) => {
                let key = suspect.what.strip_prefix(table).unwrap_or_default().trim_start();
                self.drop_record(table, key)?;
            }
            Subject::Name => self.write(|tx| tx.remove::<NameRecord>(&suspect.what).map(drop))?,
            Subject::Blob(digest) => {
                set_aside(layout, &layout.blob(digest), digest)?;
                self.write(|tx| tx.remove::<BlobRecord>(digest.as_str()).map(drop))?;
            }
            Subject::Layer { chain, dir } => {
                if let Some(n) = dir.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                    image_mounts::detach(layout, n, chain);
                }
                set_aside(layout, dir, chain)?;
                self.write(|tx| tx.remove::<SnapshotRecord>(chain.as_str()).map(drop))?;
            }
            Subject::BlobRecord { digest, kind } => {
                if let Some(record) = self.lost_blob(digest, *kind)? {
                    self.write(|tx| tx.put(digest.as_str(), &record))?;
                    return Ok(Outcome::Repaired);
                }
            }
            Subject::LayerRecord(chain) => {
                if let Some(record) = self.lost_layer(chain, now)? {
                    self.write(|tx| tx.put(chain.as_str(), &record))?;
                    return Ok(Outcome::Repaired);
                }
            }
        }
        self.make_absent(images)?;
        Ok(Outcome::Repaired)
    }

    /// Removes images and their names; pins stay for when the image comes back.
    fn make_absent(&self, images: &[Digest]) -> Result<(), StoreError> {
        if images.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for image in images {
                tx.remove::<ImageRecord>(image.as_str())?;
                tx.remove::<UseRecord>(image.as_str())?;
            }
            for (key, name) in tx.all_readable::<NameRecord>()? {
                if images.contains(&name.image) {
                    tx.remove::<NameRecord>(&key)?;
                }
            }
            Ok(())
        })
    }

    fn drop_record(&self, table: &'static str, key: &str) -> Result<(), StoreError> {
        let raw = self.read(|tx| tx.raw(table, key))?;
        let dir = self.layout().quarantine().join("meta");
        make_dir(&dir)?;
        let name = format!("{table}-{}.{}", Digest::sha256(key.as_bytes()).short(), Timestamp::now().as_second());
        write_whole(&dir.join(name), &raw.unwrap_or_default(), Sync::Durable)?;
        self.write(|tx| tx.remove_raw(table, key))?;
        if table == RuntimeRecord::TABLE {
            let sound = self.read(|tx| tx.sound::<RuntimeRecord>())?.into_iter().map(|(_, record)| record);
            // While others cannot be read, theirs would go, too. The last one takes care of all.
            if let Ok(records) = sound.collect::<Result<Vec<_>, _>>() {
                set_uppers_aside(self.layout(), &records)?;
            }
        }
        Ok(())
    }

    fn lost_blob(&self, digest: &Digest, kind: BlobKind) -> Result<Option<BlobRecord>, StoreError> {
        let Ok(found) = fs::symlink_metadata(self.layout().blob(digest)) else { return Ok(None) };
        let promise = Promise { digest: digest.clone(), size_bytes: found.len() };
        let record = BlobRecord { size_bytes: promise.size_bytes, kind };
        Ok(blobs::is_sound(self.layout(), &promise)?.then_some(record))
    }

    fn lost_layer(&self, chain: &Digest, now: &Tables) -> Result<Option<SnapshotRecord>, StoreError> {
        let recorded: BTreeSet<u64> = now.snapshots.values().map(|record| record.n).collect();
        for n in snapshot_numbers(self.layout())?.into_iter().filter(|n| !recorded.contains(n)) {
            let dir = self.layout().snapshot(n);
            let Some(note) = Note::read(&dir).filter(|note| note.chain_id == *chain) else { continue };
            let record = note.record(n);
            if check_layer(&dir, &record, Depth::Full)?.is_none() {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

/// Moves directories of snapshots that none of these records names to `quarantine/upper/<n>.<time>`.
fn set_uppers_aside(layout: &Layout, records: &[RuntimeRecord]) -> Result<(), StoreError> {
    let dir = layout.quarantine().join("upper");
    for stray in snapshots::strays(layout, records)? {
        make_dir(&dir)?;
        let name = stray.file_name().unwrap_or_default().to_string_lossy();
        let target = dir.join(format!("{name}.{}", Timestamp::now().as_nanosecond()));
        fs::rename(&stray, &target).map_err(|source| StoreError::io("quarantine", &stray, source))?;
    }
    Ok(())
}

/// Moves damaged content to `quarantine/<alg>/<hex>.<time>`. What is gone already needs no moving.
fn set_aside(layout: &Layout, path: &Path, digest: &Digest) -> Result<(), StoreError> {
    let dir = layout.quarantine().join(digest.algorithm().as_str());
    make_dir(&dir)?;
    let target = dir.join(format!("{}.{}", digest.hex(), Timestamp::now().as_nanosecond()));
    match fs::rename(path, &target) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("quarantine", path, source)),
    }
}
