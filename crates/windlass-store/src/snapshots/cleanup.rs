//! What removals left behind, and what a start needs.

use std::sync::atomic::Ordering;

use super::mounts::Place;
use super::record::{RuntimeRecord, State};
use super::{SnapshotError, Snapshots, drop_dangling, stack, strays};
use crate::error::StoreError;
use crate::gc::{self, GRACE, GcRequest};
use crate::intent::sweep_lock;
use crate::layers;
use crate::lock::Share;
use crate::store::Store;

impl Snapshots {
    /// Deletes what removed snapshots left, unmounts layers that nobody needs any more, and collects those whose last
    /// record went. May take as long as deleting many files takes.
    ///
    /// # Errors
    /// The metadata or a directory cannot be read or written.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        if self.store.shared.let_go.swap(false, Ordering::SeqCst) {
            // Does all of the rest, too.
            self.store.gc(&GcRequest { grace: GRACE, ..GcRequest::sweep() })?;
            return Ok(());
        }
        let layout = self.store.layout();
        let trash = {
            let _sweep = sweep_lock(layout, Share::Alone)?;
            let records = self.read(|tx| Ok(tx.all::<RuntimeRecord>()?))?;
            let strays = strays(layout, records.iter().map(|(_, record)| record))?;
            let trash: Vec<_> = strays.iter().filter_map(|stray| gc::take_out(layout, stray, None)).collect();
            drop_dangling(layout)?;
            trash
        };
        trash.iter().try_for_each(|tree| layers::remove(tree))?;
        gc::empty_trash(layout)?;
        self.store.unmount_unused()?;
        Ok(())
    }
}

impl Store {
    /// Mounts the image files that active snapshots and views stand on, where they are not: after the machine was
    /// started, or somebody unmounted them. [`Snapshots::mounts`] does the same for one. Says how many snapshots have
    /// all of their layers.
    ///
    /// # Errors
    /// The metadata cannot be read; [`StoreError::NotPermitted`]. A snapshot whose layers are gone is logged.
    pub fn restore_mounts(&self) -> Result<usize, StoreError> {
        let snapshots = self.snapshots();
        let kept = snapshots.keep_layers()?;
        let records = self.read(|tx| tx.all::<RuntimeRecord>())?;
        let mut whole = 0;
        for (name, record) in records {
            match record.state {
                State::Active { .. } | State::View { .. } => {}
                State::Layer { .. } | State::Own { .. } => continue,
            }
            let restored = snapshots
                .read(|tx| stack::below(tx, record.parent.as_deref()))
                .and_then(|levels| Place::of_recorded(self, &levels)?.lowers(&levels).map(drop));
            match restored {
                Ok(()) => whole += 1,
                Err(SnapshotError::Store(error)) => return Err(error),
                Err(error) => tracing::warn!(%error, snapshot = name, "not to be mounted"),
            }
        }
        drop(kept);
        Ok(whole)
    }
}
