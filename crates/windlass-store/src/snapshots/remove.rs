//! Removal: the record at once, what it leaves behind later.

use std::sync::atomic::Ordering;

use super::record::{RuntimeRecord, State};
use super::{SnapshotError, Snapshots};
use crate::gc::take_out;

impl Snapshots {
    /// Removes a snapshot. A layer of the store stays for whoever else needs it; a directory is moved aside and deleted
    /// by [`Snapshots::cleanup`] or the next collection, so this is quick whatever is in it.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::FailedPrecondition`] while others stand on it.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let _alone = self.alone();
        let state = self.write(|tx| {
            let record = tx.get::<RuntimeRecord>(key)?.ok_or_else(|| SnapshotError::not_found(key))?;
            if tx.has_beginning::<RuntimeRecord>(&RuntimeRecord::beginning(key))? {
                return Err(SnapshotError::refused(format!("others stand on snapshot {key}")));
            }
            tx.remove::<RuntimeRecord>(key)?;
            Ok(record.state)
        })?;
        if let Some(n) = state.dir() {
            take_out(self.store.layout(), &self.store.layout().upper(n), None);
        }
        match state {
            State::Layer { .. } => self.store.shared.let_go.store(true, Ordering::SeqCst),
            State::Active { .. } | State::View { .. } | State::Own { .. } => {}
        }
        Ok(())
    }
}
