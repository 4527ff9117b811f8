//! How overlayfs is told what a layer hides.
//!
//! | | as root | as an ordinary user |
//! | --- | --- | --- |
//! | whiteout | character device 0:0 | the same (Linux 5.8 allows it), else an empty file with `user.overlay.whiteout` in a directory with `user.overlay.opaque=x` (Linux 6.7) |
//! | opaque directory | `trusted.overlay.opaque=y` | `user.overlay.opaque=y` (mount option `userxattr`) |
//!
//! Source of truth: Linux `Documentation/filesystems/overlayfs.rst`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::resolve;

/// Whose rights a layer is unpacked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As root: everything is on disk as the image says, ready for overlayfs.
    Root,
    /// As an ordinary user: the tree holds names and content; owners, exact modes, devices and attributes that a user
    /// cannot set are in the file of sums only, from which they are exported again.
    User,
}

impl Form {
    /// The form this process can write.
    pub fn of_this_process() -> Form {
        if rustix::process::geteuid().is_root() { Form::Root } else { Form::User }
    }

    const fn opaque_xattr(self) -> &'static str {
        match self {
            Form::Root => "trusted.overlay.opaque",
            Form::User => "user.overlay.opaque",
        }
    }
}

const WHITEOUT_XATTR: &str = "user.overlay.whiteout";

/// Marks an open directory.
pub(crate) fn set_opaque(dir: BorrowedFd<'_>, form: Form) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, form.opaque_xattr(), b"y", XattrFlags::empty())
}

/// Whether an open directory is marked.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>, form: Form) -> Result<bool, Errno> {
    let mut value = [0u8; 4];
    match rustix::fs::fgetxattr(dir, form.opaque_xattr(), &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Takes the mark of an open directory away.
pub(crate) fn clear_opaque(dir: BorrowedFd<'_>, form: Form) -> Result<(), Errno> {
    match rustix::fs::fremovexattr(dir, form.opaque_xattr()) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Puts a whiteout under a free name.
pub(crate) fn make_whiteout(dir: BorrowedFd<'_>, name: &[u8], form: Form) -> Result<(), Errno> {
    let made = rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0);
    match (made, form) {
        (Err(Errno::PERM), Form::User) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::fsetxattr(&file, WHITEOUT_XATTR, b"y", XattrFlags::empty())?;
            let parent = resolve::open_directory(dir, b".", OFlags::RDONLY)?;
            match is_opaque(parent.as_fd(), form)? {
                true => Ok(()),
                false => rustix::fs::fsetxattr(&parent, form.opaque_xattr(), b"x", XattrFlags::empty()),
            }
        }
        (made, Form::Root | Form::User) => made,
    }
}

/// Whether what was found under a name is the mark of a whiteout.
pub(crate) fn is_whiteout(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat, form: Form) -> Result<bool, Errno> {
    match (FileType::from_raw_mode(stat.st_mode), form) {
        (FileType::CharacterDevice, Form::Root | Form::User) => Ok(stat.st_rdev == 0),
        (FileType::RegularFile, Form::User) if stat.st_size == 0 => {
            let file = resolve::open_file(dir, name)?;
            let mut value = [0u8; 4];
            Ok(rustix::fs::fgetxattr(&file, WHITEOUT_XATTR, &mut value).is_ok())
        }
        _ => Ok(false),
    }
}
