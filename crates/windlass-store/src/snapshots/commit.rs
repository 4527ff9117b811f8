//! Commit: what the runtime wrote becomes a layer that others stand on.
//!
//! If it is a layer that the store has, on the same parent, the copy is dropped and the record stands for ours.

use std::sync::atomic::Ordering;

use windlass_core::digest::Digest;

use super::record::{RuntimeRecord, State};
use super::{Labels, SnapshotError, Snapshots, dirs, labels, stack, usage};
use crate::error::StoreError;
use crate::gc::take_out;
use crate::layers;
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
        let _alone = self.alone();
        let _kept = self.keep_layers()?;
        let chain = labels::wanted_chain(labels).or_else(|| labels::chain_in_name(name));
        let (dir, parent, is_ours) = self.read(|tx| {
            let (dir, parent) = active(tx, name, key)?;
            let is_ours = match &chain {
                Some(chain) => self.has(tx, chain, parent.as_deref())?,
                None => false,
            };
            Ok((dir, parent, is_ours))
        })?;
        let state = match chain {
            Some(chain) if is_ours => State::Layer { chain },
            chain => {
                let content = self.store.layout().upper(dir).join(dirs::CONTENT);
                let found = usage::of(&content)?;
                self.sync()?;
                State::Own { dir, chain, size_bytes: found.used_bytes, inodes: found.inodes }
            }
        };
        self.write(|tx| {
            active(tx, name, key)?;
            tx.remove::<RuntimeRecord>(key)?;
            Ok(tx.put(name, &RuntimeRecord::new(parent.as_deref(), state, labels::without_empty(labels)))?)
        })?;
        if is_ours {
            take_out(self.store.layout(), &self.store.layout().upper(dir), None);
        }
        Ok(())
    }

    /// Whether the store has this layer on this parent.
    fn has(&self, tx: &impl Look, chain: &Digest, parent: Option<&str>) -> Result<bool, SnapshotError> {
        let below = parent.map(|name| stack::parent(tx, name)).transpose()?;
        let Some(layer) = stack::layer(tx, chain)? else { return Ok(false) };
        let is_same = match (&below, &layer.parent) {
            (None, None) => true,
            (Some(below), Some(wanted)) => below.state.chain() == Some(wanted),
            (None, Some(_)) | (Some(_), None) => false,
        };
        Ok(is_same && layers::stands(self.store.layout(), &layer))
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

/// Directory and parent of an active snapshot whose name-to-be is free.
fn active(tx: &impl Look, name: &str, key: &str) -> Result<(u64, Option<String>), SnapshotError> {
    if tx.look::<RuntimeRecord>(name)?.is_some() {
        return Err(SnapshotError::exists(name));
    }
    let record = tx.look::<RuntimeRecord>(key)?.ok_or_else(|| SnapshotError::not_found(key))?;
    match record.state {
        State::Active { dir } => Ok((dir, record.parent)),
        State::View { .. } | State::Layer { .. } | State::Own { .. } => {
            Err(SnapshotError::refused(format!("snapshot {key} is not active")))
        }
    }
}
