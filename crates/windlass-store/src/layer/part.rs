//! One layer's share of a directory, and what lies in it, for whoever stacks layers.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::dir::marks::{self, Form};
use super::dir::meta::{of_stat, xattrs};
use super::dir::resolve;
use super::erofs::lower::Lower;
use super::error::{Doing, Failed, RESOLVE};
use super::rules::{Device, Meta, Rules};
use super::stored::Stored;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A directory of one layer.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Of a tree of files.
    Directory(Arc<OwnedFd>),
    /// Of an image file.
    Image(Lower),
}

/// What one layer has under a name.
#[derive(Debug)]
pub(super) enum Found {
    Absent,
    Directory {
        part: Part,
        opaque: bool,
    },
    Symlink(Vec<u8>, Node),
    Whiteout,
    /// A file, device or pipe.
    Other(Node),
}

/// Something that is no directory.
#[derive(Debug)]
pub(super) enum Node {
    File { dir: Arc<OwnedFd>, name: Vec<u8>, stat: Stat },
    Image(Lower),
}

/// What a file, device or pipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeIs {
    File { size_bytes: u64 },
    Device(Device),
    Fifo,
}

impl Part {
    /// The root of a layer.
    pub(super) fn root(layer: &Stored) -> Result<Part, Failed> {
        Ok(match layer {
            Stored::Directory(root) => Part::Directory(Arc::clone(root)),
            Stored::Image(image) => Part::Image(Lower::root(image)?),
        })
    }

    pub(super) fn find(&self, name: &[u8], form: Form) -> Result<Found, Failed> {
        let dir = match self {
            Part::Directory(dir) => dir,
            Part::Image(dir) => return dir.find(name),
        };
        match resolve::open_directory(dir.as_fd(), name, OFlags::RDONLY) {
            Ok(fd) => {
                let opaque = marks::is_opaque(fd.as_fd(), form).doing("read the opaque mark of")?;
                return Ok(Found::Directory { part: Part::Directory(Arc::new(fd)), opaque });
            }
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(Failed { action: RESOLVE, errno }),
        }
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).doing("look at")?;
        if marks::is_whiteout(dir.as_fd(), name, &stat, form).doing("look at")? {
            return Ok(Found::Whiteout);
        }
        let node = Node::File { dir: Arc::clone(dir), name: name.to_vec(), stat };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let text = rustix::fs::readlinkat(dir, name, Vec::new()).doing("read the link")?;
            return Ok(Found::Symlink(text.into_bytes(), node));
        }
        Ok(Found::Other(node))
    }

    pub(super) fn meta(&self, rules: &Rules<'_>) -> Result<Meta, Failed> {
        match self {
            Part::Directory(dir) => {
                let stat = rustix::fs::fstat(dir).doing("look at")?;
                Ok(Meta { xattrs: xattrs(dir.as_fd(), rules)?, ..of_stat(&stat) })
            }
            Part::Image(dir) => dir.meta(rules),
        }
    }

    pub(super) fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failed> {
        let dir = match self {
            Part::Directory(dir) => resolve::reopen(dir)?,
            Part::Image(dir) => return dir.names(each),
        };
        for entry in rustix::fs::Dir::new(dir).doing("list")? {
            let entry = entry.doing("list")?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(name);
            }
        }
        Ok(())
    }
}

impl Node {
    /// Owner, mode, times and the extended attributes that are kept.
    pub(super) fn meta(&self, rules: &Rules<'_>) -> Result<Meta, Failed> {
        let (dir, name, stat) = match self {
            Node::File { dir, name, stat } => (dir, name, stat),
            Node::Image(node) => return node.meta(rules),
        };
        let xattrs = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = resolve::open_file(dir.as_fd(), name).doing("open")?;
                xattrs(file.as_fd(), rules)?
            }
            _ => Vec::new(),
        };
        Ok(Meta { xattrs, ..of_stat(stat) })
    }

    pub(super) fn is(&self) -> NodeIs {
        let stat = match self {
            Node::File { stat, .. } => stat,
            Node::Image(node) => return node.is(),
        };
        let device =
            |block| Device { block, major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => NodeIs::Device(device(false)),
            FileType::BlockDevice => NodeIs::Device(device(true)),
            FileType::RegularFile => NodeIs::File { size_bytes: u64::try_from(stat.st_size).unwrap_or_default() },
            _ => NodeIs::Fifo,
        }
    }

    /// Hands the content of a file to `sink`, piece by piece.
    pub(super) fn content(&self, mut sink: impl FnMut(&[u8]) -> Result<(), Failed>) -> Result<(), Failed> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let (dir, name) = match self {
            Node::File { dir, name, .. } => (dir, name),
            Node::Image(node) => {
                let mut at = 0;
                loop {
                    let count = node.read(at, &mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    sink(&buffer[..count])?;
                    at += count as u64;
                }
            }
        };
        let file = resolve::open_file(dir.as_fd(), name).doing("open")?;
        loop {
            match rustix::io::read(&file, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => sink(&buffer[..count])?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failed { action: "read", errno }),
            }
        }
    }
}
