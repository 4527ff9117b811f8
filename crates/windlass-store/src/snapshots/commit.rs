//! Commit: what the runtime wrote becomes a layer that others stand on.
//!
//! If it is a layer that the store has, on the same parent, the copy is dropped and the record stands for ours.

use std::sync::atomic::Ordering;

use windlass_core::digest::Digest;

use super::record::{RuntimeRecord, State};
use super::stack::{self, Held};
use super::{Labels, SnapshotError, Snapshots, dirs, labels, usage};
use crate::error::StoreError;
use crate::gc::take_out;
use crate::image::Usage;
use crate::meta::Look;

impl Snapshots {
    /// Makes an active snapshot a committed one, under another name. Its content is on disk when it returns.
    ///
    /// # Errors
    /// [`SnapshotError::AlreadyExists`] for the name, [`SnapshotError::NotFound`] for the key,
    /// [`SnapshotError::FailedPrecondition`] for one that is not active; [`StoreError::Sync`].
    pub fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<(), SnapshotError> {
        labels::check_name(name)?;
        labels::check(labels)?;
        let chain = labels::wanted_chain(labels).or_else(|| labels::chain_in_name(name));
        let looked = self.read(|tx| self.to_commit(tx, name, key, chain.as_ref()))?;
        // Takes its time, so nobody waits for it yet.
        let measured = match looked.held {
            Held::Here => None,
            Held::No | Held::OnAnother(_) => Some(self.measure(looked.dir)?),
        };
        let _alone = self.alone();
        let _kept = self.keep_layers()?;
        // From here on nothing is collected; until here it may have been.
        let measured = match (self.read(|tx| self.to_commit(tx, name, key, chain.as_ref()))?.held, measured) {
            (Held::No | Held::OnAnother(_), None) => Some(self.measure(looked.dir)?),
            (Held::Here | Held::No | Held::OnAnother(_), measured) => measured,
        };
        let is_ours = self.write(|tx| {
            let ToCommit { dir, parent, held } = self.to_commit(tx, name, key, chain.as_ref())?;
            if dir != looked.dir {
                return Err(SnapshotError::refused(format!("snapshot {key} was made anew meanwhile")));
            }
            let (state, is_ours) = match (chain, held, measured) {
                (Some(chain), Held::Here, _) => (State::Layer { chain }, true),
                (chain, _, Some(found)) => {
                    let (size_bytes, inodes) = (found.used_bytes, found.inodes);
                    (State::Own { dir, chain, size_bytes, inodes }, false)
                }
                (_, _, None) => {
                    return Err(SnapshotError::refused(format!("the layer of snapshot {key} went away meanwhile")));
                }
            };
            tx.remove::<RuntimeRecord>(key)?;
            tx.put(name, &RuntimeRecord::new(parent.as_deref(), state, labels::without_empty(labels)))?;
            Ok(is_ours)
        })?;
        if is_ours {
            take_out(self.store.layout(), &self.store.layout().upper(looked.dir), None);
        }
        Ok(())
    }

    /// An active snapshot whose name-to-be is free, and whether the store has the layer that it says it is.
    fn to_commit(
        &self,
        tx: &impl Look,
        name: &str,
        key: &str,
        chain: Option<&Digest>,
    ) -> Result<ToCommit, SnapshotError> {
        if tx.look::<RuntimeRecord>(name)?.is_some() {
            return Err(SnapshotError::exists(name));
        }
        let record = tx.look::<RuntimeRecord>(key)?.ok_or_else(|| SnapshotError::not_found(key))?;
        let dir = match record.state {
            State::Active { dir } => dir,
            State::View { .. } | State::Layer { .. } | State::Own { .. } => {
                return Err(SnapshotError::refused(format!("snapshot {key} is not active")));
            }
        };
        let held = match chain {
            Some(chain) => stack::held(tx, self.store.layout(), chain, record.parent.as_deref())?,
            None => Held::No,
        };
        Ok(ToCommit { dir, parent: record.parent, held })
    }

    /// Counts what is in a directory, and makes it durable.
    fn measure(&self, dir: u64) -> Result<Usage, StoreError> {
        let found = usage::of(&self.store.layout().upper(dir).join(dirs::CONTENT))?;
        self.sync()?;
        Ok(found)
    }

    /// Whatever was written to the file system is on disk.
    fn sync(&self) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        let root = self.store.root();
        let synced = shared.syncs.run(0, || {
            let Some(dir) = &shared.root_dir else { return Err("the store is not open for writing".to_owned()) };
            rustix::fs::syncfs(dir).map_err(|errno| std::io::Error::from(errno).to_string())
        });
        synced.map_err(|text| {
            shared.failed_syncs.fetch_add(1, Ordering::SeqCst);
            StoreError::sync(root, std::io::Error::other(text))
        })
    }
}

/// What there is to know before a commit.
struct ToCommit {
    dir: u64,
    parent: Option<String>,
    held: Held,
}
