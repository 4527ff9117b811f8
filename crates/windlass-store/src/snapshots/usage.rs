//! The room that a directory takes, counted while somebody may be writing into it.
//!
//! Works by descriptors and one name at a time: what a container builds to confuse who counts, deep trees or links, costs
//! neither memory nor descriptors without end, and nothing outside the directory is ever counted. What goes away while
//! we look is not there.
//!
//! Invariants: `hard_links_count_once_and_links_are_not_followed`, `trees_deeper_than_a_path_are_counted`.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::error::StoreError;
use crate::image::Usage;
use crate::layer::dir::resolve::open_directory;

/// Most entries that are counted: what a layer may have. It bounds the time, some seconds, and the memory.
const ENTRIES_MAX: u64 = 2_000_000;
/// Levels of directories open at once; deeper ones are left by `..`, which is checked to be where we came from.
const OPEN_MAX: usize = 64;

/// Bytes on disk and inodes of a directory and all below it, each hard link counted once; at most [`ENTRIES_MAX`] entries.
///
/// # Errors
/// The directory itself cannot be opened, or one below it cannot be read.
pub(super) fn of(dir: &Path) -> Result<Usage, StoreError> {
    let failed = |errno: Errno| StoreError::io("count what is in", dir, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(dir, flags, Mode::empty()).map_err(failed)?;
    let mut count = Count::default();
    count.add(&rustix::fs::fstat(&top).map_err(failed)?);
    count.walk(top).map_err(failed)?;
    Ok(count.usage)
}

#[derive(Default)]
struct Count {
    usage: Usage,
    /// Device and inode of files with several names.
    linked: BTreeSet<(u64, u64)>,
}

/// A directory on the way to the one being read.
struct Level {
    /// Only the upper ones stay open.
    fd: Option<OwnedFd>,
    id: (u64, u64),
    /// Directories in it that are not read yet.
    pending: Vec<Vec<u8>>,
}

impl Count {
    fn is_full(&self) -> bool {
        self.usage.inodes >= ENTRIES_MAX
    }

    fn add(&mut self, stat: &Stat) {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !self.linked.insert(id(stat)) {
            return;
        }
        self.usage.used_bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        self.usage.inodes += 1;
    }

    fn walk(&mut self, top: OwnedFd) -> Result<(), Errno> {
        let mut current = top;
        let mut path = vec![self.read(&current)?];
        while let Some(level) = path.last_mut() {
            if self.is_full() {
                tracing::debug!("only the first {ENTRIES_MAX} entries are counted");
                return Ok(());
            }
            let Some(name) = level.pending.pop() else {
                path.pop();
                current = match up(&current, &mut path)? {
                    Some(above) => above,
                    None => return Ok(()),
                };
                continue;
            };
            let below = match open_directory(current.as_fd(), &name, OFlags::RDONLY) {
                Ok(below) => below,
                // Removed or replaced meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(errno),
            };
            let entered = self.read(&below)?;
            let above = std::mem::replace(&mut current, below);
            if path.len() <= OPEN_MAX
                && let Some(level) = path.last_mut()
            {
                level.fd = Some(above);
            }
            path.push(entered);
        }
        Ok(())
    }

    /// Counts what is in a directory, and notes the directories to be read.
    fn read(&mut self, dir: &OwnedFd) -> Result<Level, Errno> {
        let mut level = Level { fd: None, id: id(&rustix::fs::fstat(dir)?), pending: Vec::new() };
        // A descriptor of its own starts at the beginning.
        let listing = open_directory(dir.as_fd(), b".", OFlags::RDONLY)?;
        let mut buffer = [MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(&listing, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || self.is_full() {
                continue;
            }
            match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    self.add(&stat);
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        level.pending.push(name.to_bytes().to_vec());
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(level)
    }
}

/// Goes back to the last directory of `path`. If `..` leads elsewhere, what we were in was moved: then it goes on from the
/// lowest directory that is open still.
fn up(from: &OwnedFd, path: &mut Vec<Level>) -> Result<Option<OwnedFd>, Errno> {
    let Some(level) = path.last_mut() else { return Ok(None) };
    if let Some(fd) = level.fd.take() {
        return Ok(Some(fd));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = rustix::fs::openat(from, "..", flags, Mode::empty())?;
    if id(&rustix::fs::fstat(&above)?) == level.id {
        return Ok(Some(above));
    }
    while let Some(level) = path.last_mut() {
        if let Some(fd) = level.fd.take() {
            return Ok(Some(fd));
        }
        path.pop();
    }
    Ok(None)
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::remove_tree;
    use std::fs::{self, File};

    #[test]
    fn hard_links_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        let empty = of(&inside).unwrap();
        assert_eq!(empty.inodes, 3);
        fs::write(inside.join("a/file"), vec![1; 64 << 10]).unwrap();
        fs::hard_link(inside.join("a/file"), inside.join("a/b/same")).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        File::options().write(true).open(inside.join("a/file")).unwrap().sync_all().unwrap();
        let found = of(&inside).unwrap();
        assert_eq!(found.inodes, 5);
        assert_eq!(found.used_bytes - empty.used_bytes, 64 << 10);
        of(&dir.path().join("absent")).unwrap_err();
    }

    #[test]
    fn trees_deeper_than_a_path_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let mut at = OwnedFd::from(root.try_clone().unwrap());
        let deep = 1000;
        for _ in 0..deep {
            for name in ["nnnnnnnnnnnnnnn", "second"] {
                rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            at = open_directory(at.as_fd(), b"nnnnnnnnnnnnnnn", OFlags::RDONLY).unwrap();
        }
        assert_eq!(of(dir.path()).unwrap().inodes, 1 + 2 * deep);
        remove_tree(root.as_fd(), b"nnnnnnnnnnnnnnn").unwrap();
    }
}
