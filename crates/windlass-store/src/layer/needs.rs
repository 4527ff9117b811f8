//! What a layer that was unpacked by itself still needs from the layers below.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::error::{EntryName, LayerError};
use super::limits::LayerLimits;

/// A directory that was made without an entry of its own, because something lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Implicit {
    /// Only whiteouts lie in it so far: it goes again if the layers below have no such directory.
    pub for_whiteouts: bool,
    /// The directory of the layers below was itself removed by this layer, so nothing is taken from it.
    pub cut: bool,
}

/// What [`super::settle`] puts right. Paths are those of the unpacked layer: cleaned, links resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The layer hides everything of the layers below in the root directory.
    pub root_opaque: bool,
    /// Something could not be made without the layers below: extract again with them.
    pub redo: bool,
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

    fn account(&mut self, path: &[u8], limits: &LayerLimits) -> Result<(), LayerError> {
        self.bytes += path.len() + NAME_OVERHEAD;
        if self.bytes <= limits.pending_bytes {
            return Ok(());
        }
        let max = limits.pending_bytes as u64;
        Err(LayerError::Limit { entry: EntryName::new(path), limit: "layerPendingBytes", max })
    }

    /// Something other than a whiteout lies below `path` now.
    pub(super) fn used_for_content(&mut self, path: &[u8]) {
        let mut path = path;
        loop {
            if let Some(implicit) = self.implicit.get_mut(path) {
                if !implicit.for_whiteouts {
                    return;
                }
                implicit.for_whiteouts = false;
            }
            if path.is_empty() {
                return;
            }
            path = super::rules::split(path).0;
        }
    }

    /// Forgets a removed tree.
    pub(super) fn forget_below(&mut self, path: &[u8]) {
        let prefix = [path, b"/"].concat();
        let range = (Bound::Included(prefix.clone()), Bound::Unbounded);
        let inside = |name: &&Vec<u8>| name.starts_with(&prefix);
        let implicit: Vec<Vec<u8>> =
            self.implicit.range(range.clone()).map(|(name, _)| name).take_while(inside).cloned().collect();
        let whiteouts: Vec<Vec<u8>> = self.whiteouts.range(range).take_while(inside).cloned().collect();
        for name in implicit {
            self.implicit.remove(&name);
        }
        for name in whiteouts {
            self.whiteouts.remove(&name);
        }
        self.implicit.remove(path);
        self.whiteouts.remove(path);
    }
}
