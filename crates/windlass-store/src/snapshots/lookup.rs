//! Looking at snapshots, and changing their labels.

use jiff::Timestamp;

use super::record::{RuntimeRecord, State};
use super::{LabelMask, Labels, SnapshotError, SnapshotInfo, Snapshots, dirs, labels, usage};
use crate::image::Usage;
use crate::meta::record::SnapshotRecord;

impl Snapshots {
    /// What there is to know of a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`].
    pub fn stat(&self, key: &str) -> Result<SnapshotInfo, SnapshotError> {
        let record = self.read(|tx| Ok(tx.get::<RuntimeRecord>(key)?))?;
        record.map(|record| record.info(key.to_owned())).ok_or_else(|| SnapshotError::not_found(key))
    }

    /// Every snapshot, in the order of their names. Layers that nobody adopted are none.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let records = self.read(|tx| Ok(tx.all::<RuntimeRecord>()?))?;
        Ok(records.into_iter().map(|(name, record)| record.info(name)).collect())
    }

    /// Changes labels, as the mask says; nothing else of a snapshot can be changed.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::InvalidArgument`] for labels that are too large.
    pub fn update(&self, name: &str, given: &Labels, mask: &LabelMask) -> Result<SnapshotInfo, SnapshotError> {
        let _alone = self.alone();
        self.write(|tx| {
            let mut record = tx.get::<RuntimeRecord>(name)?.ok_or_else(|| SnapshotError::not_found(name))?;
            record.labels = mask.apply(&record.labels, given);
            labels::check(&record.labels)?;
            record.updated = Timestamp::now();
            tx.put(name, &record)?;
            Ok(record.info(name.to_owned()))
        })
    }

    /// The room that a snapshot takes by itself, without its parents: a number from its record for a committed one; for
    /// others its directory is walked, so ask on a thread that may block.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; the directory cannot be read.
    pub fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        let (state, layer) = self.read(|tx| {
            let record = tx.get::<RuntimeRecord>(key)?.ok_or_else(|| SnapshotError::not_found(key))?;
            let layer = match &record.state {
                State::Layer { chain } => tx.get::<SnapshotRecord>(chain.as_str())?,
                State::Active { .. } | State::View { .. } | State::Own { .. } => None,
            };
            Ok((record.state, layer))
        })?;
        match state {
            State::Layer { .. } => {
                let of = |layer: SnapshotRecord| Usage { used_bytes: layer.size_bytes, inodes: layer.entries };
                Ok(layer.map(of).unwrap_or_default())
            }
            State::Own { .. } => Ok(state.recorded_usage()),
            State::View { dir: None } => Ok(Usage::default()),
            State::Active { dir } | State::View { dir: Some(dir) } => {
                Ok(usage::of(&self.store.layout().upper(dir).join(dirs::CONTENT))?)
            }
        }
    }

    /// The room that all active snapshots take. Walks their directories: keep the answer for some seconds.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn writable_usage(&self) -> Result<Usage, SnapshotError> {
        let records = self.read(|tx| Ok(tx.all::<RuntimeRecord>()?))?;
        let mut sum = Usage::default();
        for (name, record) in records {
            let State::Active { dir } = record.state else { continue };
            match usage::of(&self.store.layout().upper(dir).join(dirs::CONTENT)) {
                Ok(found) => {
                    sum.used_bytes += found.used_bytes;
                    sum.inodes += found.inodes;
                }
                // Removed while we look.
                Err(error) => tracing::debug!(%error, snapshot = name, "not counted"),
            }
        }
        Ok(sum)
    }
}
