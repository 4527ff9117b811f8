//! Beginnings of large layer blobs, kept for a day after a pull was cut off: for slow links, off unless configured.
//!
//! A beginning is never trusted. Its bytes go through the whole unpacking again, in front of the bytes that are still
//! to come, and the digest over all of them decides; when it does not fit, the beginning is thrown away.
//!
//! Invariants: `the_beginning_of_a_large_layer_is_used_again`, `a_wrong_beginning_is_thrown_away`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use windlass_core::digest::{Algorithm, Digest};

use crate::error::StoreError;
use crate::layout::{Layout, make_dir};
use crate::recover::entries;

/// How long a beginning is kept.
pub const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Name of the directory in `ingest/`; no lease is called so.
pub(crate) const PARTIAL: &str = "partial";

/// The beginning of a layer's blob.
#[derive(Debug)]
pub struct Partial {
    /// Open for reading, at its start.
    pub file: File,
    /// Bytes it has: the transfer goes on from here.
    pub size_bytes: u64,
}

fn path(layout: &Layout, digest: &Digest) -> PathBuf {
    layout.ingest().join(PARTIAL).join(format!("{}-{}", digest.algorithm(), digest.hex()))
}

/// Opens the beginning of a blob, if one is kept that is shorter than the blob.
pub(crate) fn open(layout: &Layout, digest: &Digest, blob_bytes: u64) -> Option<Partial> {
    let file = File::open(path(layout, digest)).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file() && !is_old(found.modified().ok()))?;
    let size_bytes = found.len();
    (size_bytes > 0 && size_bytes < blob_bytes).then_some(Partial { file, size_bytes })
}

/// Keeps a file of a lease as the beginning of a blob.
pub(crate) fn keep(layout: &Layout, file: &Path, digest: &Digest) -> Result<(), StoreError> {
    make_dir(&layout.ingest().join(PARTIAL))?;
    fs::rename(file, path(layout, digest)).map_err(|source| StoreError::io("rename", file, source))
}

/// Throws the beginning of a blob away.
pub(crate) fn forget(layout: &Layout, digest: &Digest) {
    drop(fs::remove_file(path(layout, digest)));
}

/// Takes what a dead lease had written of large blobs out of its directory.
pub(crate) fn rescue(layout: &Layout, lease_dir: &Path, above_bytes: u64) -> Result<(), StoreError> {
    for (name, file) in entries(lease_dir)? {
        let Some(digest) = digest_of(&name) else { continue };
        if fs::symlink_metadata(&file).is_ok_and(|found| found.is_file() && found.len() >= above_bytes) {
            keep(layout, &file, &digest)?;
        }
    }
    Ok(())
}

/// Removes beginnings that are too old.
pub(crate) fn expire(layout: &Layout) -> Result<(), StoreError> {
    let dir = layout.ingest().join(PARTIAL);
    if !dir.exists() {
        return Ok(());
    }
    for (_, file) in entries(&dir)? {
        if is_old(fs::symlink_metadata(&file).and_then(|found| found.modified()).ok()) {
            drop(fs::remove_file(&file));
        }
    }
    Ok(())
}

/// A file from the future is as old as one from last week: the clock has jumped.
fn is_old(modified: Option<SystemTime>) -> bool {
    modified.is_none_or(|modified| modified.elapsed().is_ok_and(|age| age > PARTIAL_KEPT))
}

/// The blob that a lease's file `<alg>-<hex>-<number>` is of.
fn digest_of(name: &str) -> Option<Digest> {
    let mut parts = name.split('-');
    let (algorithm, hex) = (parts.next()?, parts.next()?);
    let known = [Algorithm::Sha256, Algorithm::Sha512].iter().any(|known| known.as_str() == algorithm);
    known.then(|| Digest::parse(&format!("{algorithm}:{hex}")).ok()).flatten()
}
