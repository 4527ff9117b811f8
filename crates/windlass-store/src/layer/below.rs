//! Looks names up in the layers below, stacked as overlayfs stacks them.
//!
//! In: the root directories of the layers, topmost first, in the form this module's siblings write (whiteouts as
//! character devices 0:0 or marked files, opaque directories by extended attribute). Nothing is followed or changed.
//!
//! Invariants: `lookups_see_what_overlayfs_shows`.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::dir::marks::{self, Form};
use super::dir::resolve;
use super::error::{Doing, Failed, RESOLVE};
use super::rules::split;

/// A directory of several layers: its parts, topmost first. Owner, mode and times are those of the first.
#[derive(Clone, Debug)]
pub(super) struct Merged(Rc<Vec<OwnedFd>>);

impl Merged {
    /// The part whose owner and mode count.
    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.0[0].as_fd()
    }

    /// All parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }
}

/// What the layers below show under a path.
#[derive(Debug)]
pub(super) enum Lower {
    Absent,
    Directory(Merged),
    Symlink(Vec<u8>, LowerNode),
    /// A file, device or pipe: its place and state.
    Other(LowerNode),
}

/// Where something that is no directory lies.
#[derive(Debug)]
pub(super) struct LowerNode {
    pub(super) parent: Merged,
    pub(super) part: usize,
    pub(super) stat: Stat,
}

impl LowerNode {
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.parent.0[self.part].as_fd()
    }
}

/// Directories kept open: parts, not paths.
const OPEN_MAX: usize = 256;

/// The layers below.
#[derive(Debug)]
pub(super) struct Below {
    root: Option<Merged>,
    form: Form,
    cache: HashMap<Vec<u8>, Option<Merged>>,
    open: usize,
}

impl Below {
    /// Opens the roots of the layers, topmost first.
    pub(super) fn new(roots: &[BorrowedFd<'_>], form: Form) -> Result<Below, Failed> {
        let mut parts = Vec::with_capacity(roots.len());
        for root in roots {
            parts.push(resolve::reopen(*root)?);
        }
        let root = (!parts.is_empty()).then(|| Merged(Rc::new(parts)));
        Ok(Below { root, form, cache: HashMap::new(), open: 0 })
    }

    /// What lies under a path.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Lower, Failed> {
        if path.is_empty() {
            return Ok(self.root.clone().map_or(Lower::Absent, Lower::Directory));
        }
        let (parent, name) = split(path);
        match self.directory(parent)? {
            Some(parent) => self.look(&parent, name),
            None => Ok(Lower::Absent),
        }
    }

    /// The directory under a path; none if something else or nothing lies there.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Option<Merged>, Failed> {
        let mut known = path.len();
        let mut dir = loop {
            if known == 0 {
                break self.root.clone();
            }
            if let Some(dir) = self.cache.get(&path[..known]) {
                break dir.clone();
            }
            known = split(&path[..known]).0.len();
        };
        while known < path.len() {
            let Some(above) = dir else { return Ok(None) };
            let from = if known == 0 { 0 } else { known + 1 };
            known = path[from..].iter().position(|&b| b == b'/').map_or(path.len(), |at| from + at);
            dir = match self.look(&above, &path[from..known])? {
                Lower::Directory(dir) => Some(dir),
                Lower::Absent | Lower::Symlink(..) | Lower::Other(_) => None,
            };
            self.keep(&path[..known], dir.clone());
        }
        Ok(dir)
    }

    fn keep(&mut self, path: &[u8], dir: Option<Merged>) {
        self.open += dir.as_ref().map_or(1, |dir| dir.0.len());
        if self.open > OPEN_MAX {
            self.cache.clear();
            self.open = dir.as_ref().map_or(1, |dir| dir.0.len());
        }
        self.cache.insert(path.to_vec(), dir);
    }

    fn look(&self, parent: &Merged, name: &[u8]) -> Result<Lower, Failed> {
        let mut parts = Vec::new();
        for (part, dir) in parent.0.iter().enumerate() {
            match resolve::open_directory(dir.as_fd(), name, OFlags::RDONLY) {
                Ok(fd) => {
                    let opaque = marks::is_opaque(fd.as_fd(), self.form).doing("read the opaque mark of")?;
                    parts.push(fd);
                    if opaque {
                        break;
                    }
                    continue;
                }
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(Failed { action: RESOLVE, errno }),
            }
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).doing("look at")?;
            if !parts.is_empty() || marks::is_whiteout(dir.as_fd(), name, &stat, self.form).doing("look at")? {
                break;
            }
            let node = LowerNode { parent: parent.clone(), part, stat };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                let text = rustix::fs::readlinkat(dir, name, Vec::new()).doing("read the link")?;
                return Ok(Lower::Symlink(text.into_bytes(), node));
            }
            return Ok(Lower::Other(node));
        }
        Ok(if parts.is_empty() { Lower::Absent } else { Lower::Directory(Merged(Rc::new(parts))) })
    }
}
