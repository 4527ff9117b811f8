//! Looks names up in the layers below, stacked as overlayfs stacks them.
//!
//! In: the layers, topmost first, each a directory of the form this module's siblings write (whiteouts as character
//! devices 0:0 or marked files, opaque directories by extended attribute) or an image file. Nothing is followed or
//! changed.
//!
//! Invariants: `any_stack_equals_layers_applied_one_after_the_other` (against the kernel's overlayfs).

use std::collections::VecDeque;
use std::rc::Rc;

use super::dir::chain::shared_directories;
use super::dir::marks::Form;
use super::error::Failed;
use super::part::{Found, Node, Part};
use super::rules::{Meta, Rules, split};
use super::stored::Stored;

/// A directory of several layers: its parts, topmost first. Owner, mode and times are those of the first.
#[derive(Clone, Debug)]
pub(super) struct Merged(Rc<Vec<Part>>);

impl Merged {
    /// Owner, mode, times and the extended attributes that are kept.
    pub(super) fn meta(&self, rules: &Rules<'_>) -> Result<Meta, Failed> {
        self.0[0].meta(rules)
    }

    /// Names in all its parts; one may come several times, and be a whiteout.
    pub(super) fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failed> {
        self.0.iter().try_for_each(|part| part.names(each))
    }
}

/// What the layers below show under a path.
#[derive(Debug)]
pub(super) enum Lower {
    Absent,
    Directory(Merged),
    Symlink(Vec<u8>, Node),
    /// A file, device or pipe.
    Other(Node),
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
    pub(super) fn new(layers: &[Stored], form: Form) -> Result<Below, Failed> {
        let parts = layers.iter().map(Part::root).collect::<Result<Vec<_>, _>>()?;
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
        for dir in parent.0.iter() {
            match dir.find(name, self.form)? {
                Found::Absent => {}
                Found::Directory { part, opaque } => {
                    parts.push(part);
                    if opaque {
                        break;
                    }
                }
                Found::Symlink(text, node) if parts.is_empty() => return Ok(Lower::Symlink(text, node)),
                Found::Other(node) if parts.is_empty() => return Ok(Lower::Other(node)),
                Found::Whiteout | Found::Symlink(..) | Found::Other(_) => break,
            }
        }
        Ok(if parts.is_empty() { Lower::Absent } else { Lower::Directory(Merged(Rc::new(parts))) })
    }
}
