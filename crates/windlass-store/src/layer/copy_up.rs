//! Reads a lower layer's file in order to have it in the layer above.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::below::LowerNode;
use super::dir::resolve;
use super::error::{Doing, Failed};
use super::rules::{Meta, Rules, Xattrs};
use super::tar::Time;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Longest list of names of extended attributes, the kernel's own limit.
const XATTR_LIST_MAX: usize = 64 << 10;

/// Owner, mode, times and attributes of a file below.
pub(super) fn meta(node: &LowerNode, name: &[u8], rules: &Rules<'_>) -> Result<Meta, Failed> {
    let xattrs = match FileType::from_raw_mode(node.stat.st_mode) {
        FileType::RegularFile => {
            let file = resolve::open_file(node.dir(), name).doing("open")?;
            xattrs(std::os::fd::AsFd::as_fd(&file), rules)?
        }
        _ => Vec::new(),
    };
    Ok(Meta { xattrs, ..of_stat(&node.stat) })
}

/// Owner, mode and times as the file system states them.
pub(super) fn of_stat(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() },
        xattrs: Vec::new(),
    }
}

/// The extended attributes of an open file that belong to its content, sorted.
pub(super) fn xattrs(fd: BorrowedFd<'_>, rules: &Rules<'_>) -> Result<Xattrs, Failed> {
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

/// Hands the content of a file below to `sink`, piece by piece.
pub(super) fn content(
    node: &LowerNode,
    name: &[u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let file = resolve::open_file(node.dir(), name).doing("open")?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink(&buffer[..count])?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failed { action: "read", errno }),
        }
    }
}
