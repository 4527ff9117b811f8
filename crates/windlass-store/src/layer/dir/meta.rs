//! Owner, mode, times and attributes from one directory to another.

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::marks::Form;
use crate::layer::error::{Doing, Failed};
use crate::layer::rules::{Meta, Rules, Xattrs};
use crate::layer::tar::Time;

/// Longest list of names of extended attributes, the kernel's own limit.
const XATTR_LIST_MAX: usize = 64 << 10;

/// Gives `to` what `from` has, as far as `form` allows; attributes that `from` has not are removed. The times are those
/// of `stat`, which was taken before anything was moved out of `from`.
pub(crate) fn take_over(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    form: Form,
    rules: &Rules<'_>,
) -> Result<(), Failed> {
    give(to, &Meta { xattrs: xattrs(from, rules)?, ..of_stat(stat) }, form, rules)
}

/// Gives a directory owner, mode, times and extended attributes, as far as `form` allows; other attributes are removed.
pub(crate) fn give(to: BorrowedFd<'_>, meta: &Meta, form: Form, rules: &Rules<'_>) -> Result<(), Failed> {
    if form == Form::Root {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(to, Some(uid), Some(gid)).doing("change the owner of")?;
    }
    let allowed = |name: &[u8]| form == Form::Root || name.starts_with(b"user.");
    for (name, _) in xattrs(to, rules)? {
        if allowed(&name) && !meta.xattrs.iter().any(|(kept, _)| *kept == name) {
            rustix::fs::fremovexattr(to, name.as_slice()).doing("remove an extended attribute of")?;
        }
    }
    for (name, value) in meta.xattrs.iter().filter(|(name, _)| allowed(name)) {
        rustix::fs::fsetxattr(to, name.as_slice(), value, XattrFlags::empty()).doing("set an extended attribute of")?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(meta.mode)).doing("change the mode of")?;
    rustix::fs::futimens(to, &times(meta)).doing("set the times of")
}

/// Owner, mode and times as the file system states them.
pub(crate) fn of_stat(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() },
        xattrs: Vec::new(),
    }
}

/// The extended attributes of an open file that belong to its content, sorted.
pub(crate) fn xattrs(fd: BorrowedFd<'_>, rules: &Rules<'_>) -> Result<Xattrs, Failed> {
    let mut names = vec![0; XATTR_LIST_MAX];
    let length = match rustix::fs::flistxattr(fd, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(Failed { action: "list the extended attributes of", errno }),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|&b| b == 0).filter(|name| rules.keeps_xattr(name)) {
        let mut value = vec![0; rules.limits.xattr_bytes];
        let length = rustix::fs::fgetxattr(fd, name, &mut value).doing("read an extended attribute of")?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

/// The time of the last change, for both times that can be set.
pub(crate) fn times(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Changes names in a directory and gives it its times back.
pub(crate) fn keeping_times(dir: BorrowedFd<'_>, change: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let stat = rustix::fs::fstat(dir).doing("look at")?;
    change()?;
    rustix::fs::futimens(dir, &times(&of_stat(&stat))).doing("set the times of")
}
