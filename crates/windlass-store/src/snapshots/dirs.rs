//! Directories that belong to one snapshot: what a container writes, or the runtime unpacked itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use super::record::RuntimeRecord;
use crate::error::StoreError;
use crate::layout::{Layout, make_dir};
use crate::recover::entries;

/// What the runtime writes into.
pub(super) const CONTENT: &str = "fs";
/// What overlayfs needs beside it.
pub(super) const WORK: &str = "work";

/// Mode of a root directory that has no parent.
const ROOT_MODE: Mode = Mode::from_raw_mode(0o755);
const WORK_MODE: Mode = Mode::from_raw_mode(0o711);

/// Makes a directory with a content that has mode and owner of `like`. What is made is nobody's until it is recorded:
/// the caller holds the sweep lock.
pub(super) fn make(layout: &Layout, like: Option<&Path>) -> Result<u64, StoreError> {
    make_dir(&layout.uppers())?;
    let mut n = numbers(layout)?.into_iter().max().unwrap_or(0);
    loop {
        n += 1;
        match rustix::fs::mkdir(layout.upper(n), Mode::RWXU) {
            Ok(()) => break,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::io("create", &layout.upper(n), errno)),
        }
    }
    match fill(&layout.upper(n), like) {
        Ok(()) => Ok(n),
        Err(error) => {
            discard(layout, n);
            Err(error)
        }
    }
}

/// Makes again what a power cut took before it was on disk: nothing that was in it was, either.
pub(super) fn remake(layout: &Layout, n: u64, like: Option<&Path>) -> Result<(), StoreError> {
    make_dir(&layout.uppers())?;
    make_dir(&layout.upper(n))?;
    fill(&layout.upper(n), like)
}

fn fill(dir: &Path, like: Option<&Path>) -> Result<(), StoreError> {
    let (mode, owner) = match like {
        Some(like) => {
            let found = fs::metadata(like).map_err(|source| StoreError::io("stat", like, source))?;
            let owner = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
            (Mode::from_raw_mode(found.mode() & 0o7777), Some(owner))
        }
        None => (ROOT_MODE, None),
    };
    for (name, mode, owner) in [(WORK, WORK_MODE, None), (CONTENT, mode, owner)] {
        let path = dir.join(name);
        make_dir(&path)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::chown(&path, Some(uid), Some(gid)).map_err(|errno| match errno {
                Errno::PERM => {
                    StoreError::NotPermitted { action: "give a container's root its owner", source: errno.into() }
                }
                errno => StoreError::io("change the owner of", &path, errno),
            })?;
        }
        // After the owner, which takes set-user-ID away; and whatever the umask.
        rustix::fs::chmod(&path, mode).map_err(|errno| StoreError::io("change the mode of", &path, errno))?;
    }
    Ok(())
}

/// Removes a directory that was never recorded. What stays is a stray one.
pub(super) fn discard(layout: &Layout, n: u64) {
    if let Err(error) = crate::layers::remove(&layout.upper(n)) {
        tracing::debug!(%error, "directory of a snapshot left for recovery");
    }
}

/// The numbers of all directories there are.
pub(super) fn numbers(layout: &Layout) -> Result<Vec<u64>, StoreError> {
    let dir = layout.uppers();
    if !dir.exists() {
        return Ok(Vec::new());
    }
    Ok(entries(&dir)?.into_iter().filter_map(|(name, _)| name.parse().ok()).collect())
}

/// Directories that no record names. The caller holds the sweep lock alone, so none is about to be recorded.
pub(crate) fn strays<'a>(
    layout: &Layout,
    records: impl IntoIterator<Item = &'a RuntimeRecord>,
) -> Result<Vec<PathBuf>, StoreError> {
    let recorded: BTreeSet<u64> = records.into_iter().filter_map(|record| record.state.dir()).collect();
    let all = numbers(layout)?.into_iter();
    Ok(all.filter(|n| !recorded.contains(n)).map(|n| layout.upper(n)).collect())
}
