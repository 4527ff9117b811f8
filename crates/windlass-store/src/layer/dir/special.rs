//! Devices and named pipes.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::marks::Form;
use crate::layer::rules::Device;

/// Makes a device, or a pipe where there is none. An ordinary user gets an empty file in place of a device; the file
/// of sums says what it stands for.
pub(super) fn make(
    dir: BorrowedFd<'_>,
    name: &[u8],
    device: Option<Device>,
    mode: u32,
    form: Form,
) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode & 0o777);
    match (device, form) {
        (None, Form::Root | Form::User) => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0),
        (Some(device), Form::Root) => {
            let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
            rustix::fs::mknodat(dir, name, kind, mode, rustix::fs::makedev(device.major, device.minor))
        }
        (Some(_), Form::User) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, mode).map(drop)
        }
    }
}
