//! Owner, mode, times and attributes from one directory to another.

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};

use super::marks::Form;
use crate::layer::copy_up;
use crate::layer::error::{Doing, Failed};
use crate::layer::rules::Rules;

/// Gives `to` what `from` has, as far as `form` allows; attributes that `from` has not are removed. The times are those
/// of `stat`, which was taken before anything was moved out of `from`.
pub(crate) fn take_over(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    form: Form,
    rules: &Rules<'_>,
) -> Result<(), Failed> {
    if form == Form::Root {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(to, Some(uid), Some(gid)).doing("change the owner of")?;
    }
    let allowed = |name: &[u8]| form == Form::Root || name.starts_with(b"user.");
    let wanted = copy_up::xattrs(from, rules)?;
    for (name, _) in copy_up::xattrs(to, rules)? {
        if allowed(&name) && !wanted.iter().any(|(kept, _)| *kept == name) {
            rustix::fs::fremovexattr(to, name.as_slice()).doing("remove an extended attribute of")?;
        }
    }
    for (name, value) in wanted.iter().filter(|(name, _)| allowed(name)) {
        rustix::fs::fsetxattr(to, name.as_slice(), value, XattrFlags::empty()).doing("set an extended attribute of")?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).doing("change the mode of")?;
    rustix::fs::futimens(to, &times_of(stat)).doing("set the times of")
}

/// The time of the last change, for both times that can be set.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

/// Changes names in a directory and gives it its times back.
pub(crate) fn keeping_times(dir: BorrowedFd<'_>, change: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let stat = rustix::fs::fstat(dir).doing("look at")?;
    change()?;
    rustix::fs::futimens(dir, &times_of(&stat)).doing("set the times of")
}
