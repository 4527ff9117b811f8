//! Opening one name below a directory, without following anything.
//!
//! Every look-up in this crate's layers goes through here: `openat2` with one name, below the directory, no links, no
//! magic links. What a link of an image means is decided by the caller, who reads it as text.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::layer::error::{Doing, Failed, RESOLVE};

const ONE_NAME: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory by one name, `O_PATH` or readable as `how` says.
///
/// # Errors
/// `NOTDIR` or `LOOP` for what is no directory, a link to one among them; `NOSYS` on kernels before 5.6.
pub(crate) fn open_directory(dir: BorrowedFd<'_>, name: &[u8], how: OFlags) -> Result<OwnedFd, Errno> {
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), ONE_NAME) {
            // The kernel lost a race against a rename somewhere and asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a regular file for reading by one name; it must exist and be no link, device or pipe.
///
/// # Errors
/// `LOOP` for a link. A pipe does not block and is refused by the caller's look at its type.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), ONE_NAME) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A readable descriptor of a directory, from any other of it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn reopen<Fd: AsFd>(dir: Fd) -> Result<OwnedFd, Failed> {
    open_directory(dir.as_fd(), b".", OFlags::RDONLY).doing(RESOLVE)
}
