//! Making what a pull wrote durable: each file by itself for a few, the whole file system for many.
//!
//! `syncfs` is one call, and one flush of the disk, for any number of files, but it also waits for whatever else the
//! node has written. Syncing file by file costs a flush each (4 ms on a cloud disk), and is worth that only for fewer
//! than [`FEW`] files on a node with more than [`MUCH_BYTES`] waiting to be written. Either way everything is on disk before a record names it, and an error means
//! that the bytes are lost: it is never asked for twice.
//!
//! Invariants: `a_few_files_are_synced_one_by_one`, `a_sync_never_serves_who_came_after_it_began`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::StoreError;
use crate::layout::sync_dir;

/// From this many files and directories on, the whole file system is synced.
pub(crate) const FEW: usize = 64;

/// Unwritten bytes of the whole node from which a sync of the file system would wait long for others.
const MUCH_BYTES: u64 = 64 << 20;

/// Whether so many files are better synced one by one.
pub(crate) fn one_by_one(files: u64) -> bool {
    let meminfo = || fs::read_to_string("/proc/meminfo").ok();
    files < FEW as u64 && meminfo().is_some_and(|text| unwritten_bytes(&text) > MUCH_BYTES)
}

/// `Dirty` and `Writeback` of `/proc/meminfo`.
fn unwritten_bytes(meminfo: &str) -> u64 {
    let of = |line: &str| -> Option<u64> {
        let rest = line.strip_prefix("Dirty:").or_else(|| line.strip_prefix("Writeback:"))?;
        rest.trim().strip_suffix(" kB")?.parse().ok()
    };
    meminfo.lines().filter_map(of).sum::<u64>() * 1024
}

/// What came of syncing one by one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Each {
    /// Everything is on disk.
    Done,
    /// There are too many after all, or one cannot be opened by this user.
    Unfit,
}

/// Syncs files and trees, and the directories their names stand in.
///
/// # Errors
/// [`StoreError::Sync`]: what was written is lost.
pub(crate) fn sync_each(paths: &[PathBuf]) -> Result<Each, StoreError> {
    let mut all = Vec::new();
    for path in paths {
        if !collect(path, &mut all) {
            return Ok(Each::Unfit);
        }
    }
    for (path, file) in &all {
        file.sync_all().map_err(|source| StoreError::sync(path, source))?;
    }
    let mut parents: Vec<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    parents.sort_unstable();
    parents.dedup();
    parents.into_iter().try_for_each(sync_dir)?;
    Ok(Each::Done)
}

/// Opens a file, or a directory with all below it. Links, devices and pipes have no content: their directory counts.
fn collect(path: &Path, all: &mut Vec<(PathBuf, File)>) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    if !found.is_file() && !found.is_dir() {
        return true;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else { return false };
    if all.len() >= FEW {
        return false;
    }
    all.push((path.to_owned(), File::from(fd)));
    if found.is_file() {
        return true;
    }
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.into_iter().all(|entry| entry.is_ok_and(|entry| collect(&entry.path(), all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_written_is_added_up() {
        let text = "MemTotal:  100 kB\nDirty:             100 kB\nWriteback:        28 kB\nWritebackTmp:  9 kB\n";
        assert_eq!(unwritten_bytes(text), 128 * 1024);
        assert!(!one_by_one(FEW as u64));
    }

    #[test]
    fn a_few_files_are_synced_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), b"x").unwrap();
        std::os::unix::fs::symlink("/nowhere", tree.join("link")).unwrap();
        let one = dir.path().join("one");
        fs::write(&one, b"y").unwrap();
        assert_eq!(sync_each(&[tree.clone(), one.clone()]).unwrap(), Each::Done);
        for n in 0..FEW {
            fs::write(tree.join(n.to_string()), b"z").unwrap();
        }
        assert_eq!(sync_each(&[tree]).unwrap(), Each::Unfit);
        assert_eq!(sync_each(&[dir.path().join("gone")]).unwrap(), Each::Unfit);
        assert_eq!(sync_each(&[one]).unwrap(), Each::Done);
    }
}
