//! Removes a tree whatever is in it.
//!
//! Works by descriptors and one name at a time, so that neither the length of a path nor links matter; directories
//! that deny their owner everything are opened up first. At most [`OPEN_MAX`] directories are open at once: deeper
//! ones are moved up beside the top before they are emptied.
//!
//! Invariants: `trees_deeper_than_a_path_go` (also where their modes deny everything),
//! `links_are_removed_not_followed`.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::resolve;

/// Levels of directories open at once.
const OPEN_MAX: usize = 64;

/// Removes what stands under a name, with all below it. A name that does not exist is no error.
///
/// # Errors
/// What the kernel says first; the tree is then partly gone.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
        Err(errno) => return Err(errno),
    }
    let top = open(dir, name)?;
    let mut moved = 0u64;
    empty(top.as_fd(), top.as_fd(), 0, &mut moved)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Opens a directory, giving its owner the rights to empty it where they lack.
fn open(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let rights = Mode::RWXU;
    match resolve::open_directory(dir, name, OFlags::RDONLY) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd)?;
            if Mode::from_raw_mode(stat.st_mode) & rights != rights {
                // Root does not need it, and a user who owns the directory may; for others emptying will say why not.
                let _ = rustix::fs::fchmod(&fd, rights);
            }
            Ok(fd)
        }
        Err(Errno::ACCESS) => {
            let path = resolve::open_directory(dir, name, OFlags::PATH)?;
            // By name, since a path descriptor cannot change modes; it is a directory, so nothing is followed.
            rustix::fs::chmodat(dir, name, rights, AtFlags::empty())?;
            drop(path);
            resolve::open_directory(dir, name, OFlags::RDONLY)
        }
        Err(errno) => Err(errno),
    }
}

/// Removes all children of `dir`, moving what lies too deep up into `top`.
fn empty(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, level: usize, moved: &mut u64) -> Result<(), Errno> {
    loop {
        let names = batch(dir)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            match rustix::fs::unlinkat(dir, name.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
            match rustix::fs::unlinkat(dir, name.as_slice(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
                Err(errno) => return Err(errno),
            }
            let child = open(dir, &name)?;
            if level + 1 >= OPEN_MAX {
                move_up(top, dir, &name, moved)?;
                continue;
            }
            empty(top, child.as_fd(), level + 1, moved)?;
            rustix::fs::unlinkat(dir, name.as_slice(), AtFlags::REMOVEDIR)?;
        }
    }
}

/// Moves a directory to the top under a free name, where the outermost loop finds it again.
fn move_up(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8], moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let free = format!(".windlass-removed-{moved}");
        match rustix::fs::renameat_with(dir, name, top, free, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

/// Names of children, some at a time, so that memory stays bounded.
fn batch(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    // A descriptor of its own starts at the beginning.
    let fd = resolve::open_directory(dir, b".", OFlags::RDONLY)?;
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut names = Vec::new();
    let mut entries = RawDir::new(&fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
            if entries.is_buffer_empty() {
                break;
            }
        }
    }
    Ok(names)
}
