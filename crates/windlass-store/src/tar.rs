//! The tar of a layer out of its image file, for `save` and `push`.

use std::fs::File;
use std::os::fd::AsFd as _;

use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::layer::{self, StoredTar};
use crate::layers;
use crate::meta::record::{Form, SnapshotRecord};
use crate::store::Store;

impl Store {
    /// A layer's own tar, where it is kept as an image file; `None` for a directory, and for an image file that was made
    /// of one and holds another tar. It hashes to the diff ID unless the disk has changed it: who sends it on checks.
    ///
    /// # Errors
    /// The metadata or the file cannot be read.
    pub fn layer_tar(&self, chain: &Digest) -> Result<Option<StoredTar>, StoreError> {
        let Some(record) = self.read(|tx| tx.get::<SnapshotRecord>(chain.as_str()))? else { return Ok(None) };
        let snapshot = self.layout().snapshot(record.n);
        if record.form != Form::Erofs || record.tar.is_some() || !layers::is_there(&snapshot, record.form) {
            return Ok(None);
        }
        let dir = File::open(&snapshot).map_err(|source| StoreError::io("open", &snapshot, source))?;
        let tar = layer::stored_tar(dir.as_fd());
        let tar = tar.map_err(|source| StoreError::Tree { action: "read", path: snapshot, source })?;
        // Another one is damage, which is for `fsck` to tell.
        Ok(tar.filter(|tar| tar.digest() == record.diff_id.as_str()))
    }
}
