//! What a layer that was unpacked by itself still needs from the layers below.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Bound;
use std::os::fd::BorrowedFd;

use super::SUMS;
use super::dir::resolve;
use super::error::{Doing, EntryName, Failed, LayerError};
use super::limits::LayerLimits;
use super::sums::{self, Content, Origin};

/// A directory that was made without an entry of its own, because something lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Implicit {
    /// Only whiteouts lie in it so far: it goes again if the layers below have no such directory.
    pub for_whiteouts: bool,
    /// An entry describes it after all, or a whiteout cut it off from the layers below. It takes nothing over from them,
    /// but what went into it before may belong elsewhere, if they have a link there.
    pub described: bool,
}

/// What [`super::settle`] puts right. Paths are those of the unpacked layer: cleaned, links resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The layer hides everything of the layers below in the root directory.
    pub root_opaque: bool,
    /// Something could not be made without the layers below: extract again with them.
    pub redo: bool,
    /// The layers below were at hand, so links of theirs are followed already.
    pub stacked: bool,
    /// Directories without an entry. The root is the empty path.
    pub implicit: BTreeMap<Vec<u8>, Implicit>,
    /// Whiteouts that were marked.
    pub whiteouts: BTreeSet<Vec<u8>>,
    bytes: usize,
}

/// What one name costs beside its bytes.
const NAME_OVERHEAD: usize = 64;

impl Needs {
    /// Whether there is nothing to settle.
    pub fn is_empty(&self) -> bool {
        !self.root_opaque && !self.redo && self.implicit.is_empty() && self.whiteouts.is_empty()
    }

    /// All that is known is that the layer has to be made again with the layers below at hand.
    pub(super) fn redo() -> Needs {
        Needs { redo: true, ..Needs::default() }
    }

    pub(super) fn add_implicit(&mut self, path: &[u8], what: Implicit, limits: &LayerLimits) -> Result<(), LayerError> {
        self.account(path, limits)?;
        self.implicit.insert(path.to_vec(), what);
        Ok(())
    }

    pub(super) fn add_whiteout(&mut self, path: &[u8], limits: &LayerLimits) -> Result<(), LayerError> {
        self.account(path, limits)?;
        self.whiteouts.insert(path.to_vec());
        Ok(())
    }

    pub(super) fn account(&mut self, path: &[u8], limits: &LayerLimits) -> Result<(), LayerError> {
        self.bytes += path.len() + NAME_OVERHEAD;
        if self.bytes <= limits.pending_bytes {
            return Ok(());
        }
        let max = limits.pending_bytes as u64;
        Err(LayerError::Limit { entry: EntryName::new(path), limit: "layerPendingBytes", max })
    }

    /// Something other than a whiteout lies below `path` now. Says how many names were looked up for it.
    pub(super) fn used_for_content(&mut self, path: &[u8]) -> u64 {
        let (mut path, mut steps) = (path, 1);
        while !path.is_empty() {
            if let Some(implicit) = self.implicit.get_mut(path) {
                if !implicit.for_whiteouts {
                    // Then those above know it already.
                    break;
                }
                implicit.for_whiteouts = false;
            }
            path = super::rules::split(path).0;
            steps += 1;
        }
        steps
    }

    /// Forgets a removed tree. The directories without an entry in it are handed back: what went into them was placed
    /// as if the layers below had no link there.
    pub(super) fn forget_below(&mut self, path: &[u8]) -> Vec<Vec<u8>> {
        let prefix = [path, b"/"].concat();
        let range = (Bound::Included(prefix.clone()), Bound::Unbounded);
        let whiteouts: Vec<Vec<u8>> =
            self.whiteouts.range(range.clone()).take_while(|name| name.starts_with(&prefix)).cloned().collect();
        for name in whiteouts {
            self.whiteouts.remove(&name);
        }
        self.whiteouts.remove(path);
        let mut gone = Vec::new();
        for (name, implicit) in self.implicit.range_mut(range).take_while(|(name, _)| name.starts_with(&prefix)) {
            if !std::mem::replace(&mut implicit.described, true) {
                gone.push(name.clone());
            }
        }
        if let Some(implicit) = self.implicit.get_mut(path)
            && !std::mem::replace(&mut implicit.described, true)
        {
            gone.push(path.to_vec());
        }
        gone
    }
}

/// Reads them from the record of a layer that was extracted without the layers below.
pub(super) fn from_sums(snapshot: BorrowedFd<'_>, limits: &LayerLimits) -> Result<Needs, LayerError> {
    let sums = resolve::open_file(snapshot, SUMS.as_bytes()).doing("open").map_err(Failed::at_stage)?;
    let mut needs = Needs::default();
    for record in sums::Reader::new(File::from(sums))? {
        let record = record?;
        match (&record.content, record.origin) {
            (Content::Directory, Origin::Implicit) => {
                // Whether it is for whiteouts only shows when it is empty: settling removes no other.
                needs.add_implicit(&record.path, Implicit { for_whiteouts: true, described: false }, limits)?;
            }
            (Content::Directory, Origin::Archive | Origin::CopiedUp) => {}
            // An implicit directory of that name in the finished record was made after this.
            (Content::Assumed, _) if needs.implicit.contains_key(&record.path) => {}
            (Content::Assumed, _) => {
                needs.add_implicit(&record.path, Implicit { for_whiteouts: true, described: true }, limits)?;
            }
            (Content::Whiteout, _) => needs.add_whiteout(&record.path, limits)?,
            (Content::Opaque, _) => needs.root_opaque |= record.path.is_empty(),
            (Content::Unresolved, _) => needs.redo = true,
            (Content::Stacked, _) => needs.stacked = true,
            (
                Content::File { .. }
                | Content::Symlink(_)
                | Content::HardLink(_)
                | Content::Device(_)
                | Content::Fifo
                | Content::Removed,
                _,
            ) => {}
        }
    }
    Ok(needs)
}
