//! Directories that are kept open, so that entries of one directory do not walk there each.

use std::collections::HashMap;

use crate::layer::dir::chain::shared_directories;
use crate::layer::rules::split;

/// Directories kept open by the path that led to them: the ones used lately, in two generations.
#[derive(Debug)]
pub(super) struct Directories<D> {
    young: HashMap<Vec<u8>, D>,
    old: HashMap<Vec<u8>, D>,
    half: usize,
    last: Option<(Vec<u8>, D)>,
}

impl<D: Clone> Directories<D> {
    pub(super) fn new(max: usize) -> Directories<D> {
        Directories { young: HashMap::new(), old: HashMap::new(), half: max.div_ceil(2), last: None }
    }

    /// The directory at a path, or one above it, and how much of the path leads there. A handful of prefixes is tried:
    /// a path may have thousands.
    pub(super) fn nearest(&mut self, path: &[u8]) -> Option<(usize, D)> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Some((path.len(), dir.clone()));
        }
        let shared = self.last.as_ref().map_or(0, |(last, _)| shared_directories(last, path));
        for length in [path.len(), split(path).0.len(), shared] {
            if length > 0
                && let Some(dir) = self.get(&path[..length])
            {
                return Some((length, dir));
            }
        }
        None
    }

    fn get(&mut self, path: &[u8]) -> Option<D> {
        if let Some(dir) = self.young.get(path) {
            let dir = dir.clone();
            self.last = Some((path.to_vec(), dir.clone()));
            return Some(dir);
        }
        let (path, dir) = self.old.remove_entry(path)?;
        self.keep(&path, &dir);
        Some(dir)
    }

    pub(super) fn keep(&mut self, path: &[u8], dir: &D) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(path.to_vec(), dir.clone());
        self.last = Some((path.to_vec(), dir.clone()));
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.last = None;
    }
}
