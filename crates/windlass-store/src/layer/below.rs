//! Looks names up in the layers below, stacked as overlayfs stacks them.
//!
//! In: the root directories of the layers, topmost first, in the form this module's siblings write (whiteouts as
//! character devices 0:0 or marked files, opaque directories by extended attribute). Nothing is followed or changed.
//!
//! Invariants: `any_stack_equals_layers_applied_one_after_the_other` (against the kernel's overlayfs).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::dir::chain::shared_directories;
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

/// Directories kept open, counted by their parts: one for each layer that has the directory.
const OPEN_MAX: usize = 256;

/// The layers below.
#[derive(Debug)]
pub(super) struct Below {
    root: Option<Merged>,
    form: Form,
    /// The path looked up last, as far as it leads to directories.
    path: Vec<u8>,
    /// Its last directories, outermost first, each with how much of the path leads to it.
    levels: VecDeque<(usize, Merged)>,
    open: usize,
    /// How much of a path was found to lead nowhere, directly below `path`.
    missing: Option<Vec<u8>>,
}

impl Below {
    /// Opens the roots of the layers, topmost first.
    pub(super) fn new(roots: &[BorrowedFd<'_>], form: Form) -> Result<Below, Failed> {
        let mut parts = Vec::with_capacity(roots.len());
        for root in roots {
            parts.push(resolve::reopen(*root)?);
        }
        let root = (!parts.is_empty()).then(|| Merged(Rc::new(parts)));
        Ok(Below { root, form, path: Vec::new(), levels: VecDeque::new(), open: 0, missing: None })
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
    fn directory(&mut self, path: &[u8]) -> Result<Option<Merged>, Failed> {
        if let Some(missing) = &self.missing
            && shared_directories(missing, path) == missing.len()
        {
            return Ok(None);
        }
        let shared = shared_directories(&self.path, path);
        while let Some((_, dir)) = self.levels.pop_back_if(|(end, _)| *end > shared) {
            self.open -= dir.0.len();
        }
        let Some(root) = &self.root else { return Ok(None) };
        let (mut end, mut dir) = self.levels.back().cloned().unwrap_or_else(|| (0, root.clone()));
        while end < path.len() {
            let from = if end == 0 { 0 } else { end + 1 };
            let to = path[from..].iter().position(|&b| b == b'/').map_or(path.len(), |at| from + at);
            let Lower::Directory(next) = self.look(&dir, &path[from..to])? else {
                self.path = path[..end].to_vec();
                self.missing = Some(path[..to].to_vec());
                return Ok(None);
            };
            self.open += next.0.len();
            self.levels.push_back((to, next.clone()));
            while self.open > OPEN_MAX && self.levels.len() > 1 {
                self.open -= self.levels.pop_front().map_or(0, |(_, dir)| dir.0.len());
            }
            (end, dir) = (to, next);
        }
        self.path = path.to_vec();
        Ok(Some(dir))
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
