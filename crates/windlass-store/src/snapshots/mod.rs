//! Snapshots as a container runtime wants them: containerd's snapshotter over the layers of this store.
//!
//! A *record* is a name that the runtime knows. Several records may stand for one layer of ours; a layer that nobody has
//! adopted has none and is not listed, since containerd removes what it lists and does not know.
//!
//! | record | made by | its content |
//! | --- | --- | --- |
//! | committed, a layer of ours | [`Snapshots::prepare`] with the layer's chain ID in a label | where the store keeps the layer |
//! | committed, the runtime's own | [`Snapshots::commit`] | `upper/<n>/fs` |
//! | active | [`Snapshots::prepare`] | `upper/<n>/{fs,work}` over its parents |
//! | view | [`Snapshots::view`] | its parents, read-only |
//!
//! Mounts name every layer by a link in one directory, `l/`, with a name of a few letters: containerd cuts the common
//! beginning off `lowerdir`, so hundreds of layers fit into the one page that the kernel takes. Layers that are image
//! files are mounted first (see `image_mounts`), again after the machine was started.
//!
//! A record is on disk before the call that makes it returns. A directory is made before its record and goes after it:
//! killed in between, what is left is a directory without a record, which the next collection or recovery removes.
//! A layer under a record is never collected, and one under an active snapshot or a view stays where and as it is.
//! All calls block.
//!
//! Source of truth: containerd `core/snapshots/snapshotter.go`, `plugins/snapshots/overlay/overlay.go`,
//! `core/metadata/snapshot.go`.
//!
//! Invariants: `records_follow_a_simple_model`, `a_layer_of_ours_is_adopted_and_never_copied`,
//! `a_layer_under_a_record_is_never_collected`, `four_hundred_and_fifty_layers_mount_as_containerd_mounts_them`,
//! `a_kill_leaves_no_record_without_its_directory`.

mod adopt;
mod cleanup;
mod commit;
mod dirs;
mod error;
mod labels;
mod links;
mod lookup;
mod mounts;
pub(crate) mod need;
mod prepare;
pub(crate) mod record;
mod remove;
mod stack;
mod usage;

use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;

pub(crate) use dirs::strays;
pub use error::SnapshotError;
pub use labels::{LabelMask, Labels};
pub(crate) use links::drop_dangling;

use crate::error::StoreError;
use crate::intent::sweep_lock;
use crate::lock::{Lock, Share};
use crate::meta::{ReadTx, WriteTx};
use crate::store::Store;

/// One mount, as containerd makes it: `mount -t fs_type -o options source target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMount {
    /// `overlay`, or `bind` for a single directory.
    pub fs_type: String,
    /// The directory of a bind mount; `overlay` otherwise.
    pub source: String,
    /// Options, one each.
    pub options: Vec<String>,
}

/// What kind of snapshot it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Read-only, on a committed one or on nothing.
    View,
    /// Writable; may be committed.
    Active,
    /// Finished; others stand on it.
    Committed,
}

/// What there is to know of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name: the key it was prepared with, or the name it was committed by.
    pub name: String,
    /// The committed snapshot it stands on.
    pub parent: Option<String>,
    /// What kind it is.
    pub kind: SnapshotKind,
    /// Its labels.
    pub labels: Labels,
    /// When it was made or committed.
    pub created: Timestamp,
    /// When its labels last changed.
    pub updated: Timestamp,
}

/// The answer to [`Snapshots::prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// A writable snapshot, to be mounted like this.
    Mounts(Vec<SnapshotMount>),
    /// The layer that was asked for is here: a committed record with the label and the parent of the request stands for
    /// it, on disk. In containerd's protocol: `ALREADY_EXISTS`.
    Held,
}

/// The snapshots of a store; a cheap clone that any thread may use.
#[derive(Clone, Debug)]
pub struct Snapshots {
    store: Store,
}

impl Store {
    /// The snapshots that a container runtime has here.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { store: self.clone() }
    }
}

impl Snapshots {
    /// One change of snapshots at a time: waiting here is cheaper than asking the store's lock again and again.
    fn alone(&self) -> MutexGuard<'_, ()> {
        // It guards nothing in memory, so a thread that panicked left nothing behind.
        self.store.shared.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While it is held, nothing is collected or converted.
    fn keep_layers(&self) -> Result<Lock, StoreError> {
        sweep_lock(self.store.layout(), Share::Shared)
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTx<'_>) -> Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        self.store.meta()?.read(work)
    }

    /// Runs one durable transaction; an error leaves everything as it was.
    fn write<T>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        self.store.meta()?.write(work)
    }
}

#[cfg(test)]
mod tests;
