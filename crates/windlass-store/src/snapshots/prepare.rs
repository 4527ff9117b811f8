//! New snapshots: active ones and views.
//!
//! Labels that map users are kept and otherwise ignored: containerd has made a copy with other owners by then, and the
//! snapshot stands on that. It would leave the mapping to us only if the plugin's configuration promised `remap-ids`.

use super::mounts::Place;
use super::record::{RuntimeRecord, State};
use super::stack;
use super::{Labels, Prepared, SnapshotError, SnapshotMount, Snapshots, dirs, labels};

/// Most records. A node with hundreds of images has some thousands.
const RECORDS_MAX: u64 = 100_000;

#[derive(Clone, Copy)]
enum New {
    Active,
    View,
}

impl Snapshots {
    /// Makes a writable snapshot on a committed one, or on nothing. With a label that asks for a layer of ours, that layer
    /// is adopted instead: nothing is made but its record.
    ///
    /// # Errors
    /// [`SnapshotError::AlreadyExists`] for the key; [`SnapshotError::NotFound`] for the parent;
    /// [`SnapshotError::InvalidArgument`] for a parent that is not committed or not the one below that layer, for
    /// names and labels that are too long.
    pub fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Prepared, SnapshotError> {
        check(key, parent, labels)?;
        let _alone = self.alone();
        let _kept = self.keep_layers()?;
        if let Some(chain) = labels::wanted_chain(labels)
            && self.adopt(&chain, parent, labels)?
        {
            return Ok(Prepared::Held);
        }
        self.make(key, parent, labels, New::Active).map(Prepared::Mounts)
    }

    /// Makes a read-only snapshot of a committed one, or of nothing.
    ///
    /// # Errors
    /// As [`Snapshots::prepare`].
    pub fn view(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<SnapshotMount>, SnapshotError> {
        check(key, parent, labels)?;
        let _alone = self.alone();
        let _kept = self.keep_layers()?;
        self.make(key, parent, labels, New::View)
    }

    fn make(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &Labels,
        new: New,
    ) -> Result<Vec<SnapshotMount>, SnapshotError> {
        let layout = self.store.layout();
        let levels = self.read(|tx| match tx.get::<RuntimeRecord>(key)? {
            Some(_) => Err(SnapshotError::exists(key)),
            None => stack::below(tx, parent),
        })?;
        // Until the record is there, it keeps others from unmounting what nobody needs.
        let place = Place::of(&self.store, &levels)?;
        let lowers = place.lowers(&levels)?;
        let like = lowers.first().map(|lower| lower.directory.as_path());
        let state = match new {
            New::Active => State::Active { dir: dirs::make(layout, like)? },
            New::View if levels.is_empty() => State::View { dir: Some(dirs::make(layout, None)?) },
            New::View => State::View { dir: None },
        };
        let written = self.write(|tx| {
            if tx.get::<RuntimeRecord>(key)?.is_some() {
                return Err(SnapshotError::exists(key));
            }
            if let Some(parent) = parent {
                stack::parent(tx, parent)?;
            }
            if tx.count::<RuntimeRecord>()? >= RECORDS_MAX {
                return Err(SnapshotError::refused(format!("{RECORDS_MAX} snapshots are the most")));
            }
            let record = RuntimeRecord::new(parent, state.clone(), labels::without_empty(labels));
            Ok(tx.put(key, &record)?)
        });
        if let (Err(_), Some(n)) = (&written, state.dir()) {
            dirs::discard(layout, n);
        }
        written?;
        place.mounts(&state, &lowers)
    }
}

fn check(key: &str, parent: Option<&str>, labels: &Labels) -> Result<(), SnapshotError> {
    labels::check_name(key)?;
    parent.map_or(Ok(()), labels::check_name)?;
    labels::check(labels)
}
