//! The room that a directory takes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::StoreError;
use crate::image::Usage;

/// Bytes on disk and inodes of a directory and all below it, each hard link counted once.
pub(super) fn of(dir: &Path) -> Result<Usage, StoreError> {
    let mut usage = Usage::default();
    let mut linked = BTreeSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).map_err(|source| StoreError::io("stat", &path, source))?;
        if !found.is_dir() && found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
            continue;
        }
        usage.used_bytes += found.blocks() * 512;
        usage.inodes += 1;
        if found.is_dir() {
            for entry in fs::read_dir(&path).map_err(|source| StoreError::io("read", &path, source))? {
                pending.push(entry.map_err(|source| StoreError::io("read", &path, source))?.path());
            }
        }
    }
    Ok(usage)
}
