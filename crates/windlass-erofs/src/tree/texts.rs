//! Names and texts of links, one behind the other. What is removed stays until it is more than half of all.

use super::room::{growth, reserve};

/// Removed bytes that are not worth a thought.
const GARBAGE_KEPT: usize = 1 << 20;

/// Where a text begins. Its length is kept by who has the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u32);

#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    garbage: usize,
}

impl Texts {
    /// Adds a text; `None` when places can no longer be counted.
    pub(super) fn add(&mut self, text: &[u8]) -> Option<At> {
        let at = u32::try_from(self.bytes.len()).ok().filter(|at| at.checked_add(text.len() as u32).is_some())?;
        reserve(&mut self.bytes, text.len());
        self.bytes.extend_from_slice(text);
        Some(At(at))
    }

    pub(super) fn get(&self, at: At, len: usize) -> &[u8] {
        &self.bytes[at.0 as usize..at.0 as usize + len]
    }

    /// Notes that a text of this length is not used any more.
    pub(super) fn drop(&mut self, len: usize) {
        self.garbage += len;
    }

    /// Whether most of it is unused, so that the used texts should be moved.
    pub(super) fn is_mostly_garbage(&self) -> bool {
        self.garbage > GARBAGE_KEPT && self.garbage > self.bytes.len() / 2
    }

    /// Begins again; the used texts are to be added from what is returned.
    pub(super) fn begin_again(&mut self) -> Texts {
        let used = Vec::with_capacity(self.bytes.len() - self.garbage);
        std::mem::replace(self, Texts { bytes: used, garbage: 0 })
    }

    /// Takes a text over from before [`Texts::begin_again`].
    pub(super) fn take(&mut self, old: &Texts, at: At, len: usize) -> At {
        let new = At(self.bytes.len() as u32);
        self.bytes.extend_from_slice(old.get(at, len));
        new
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for texts of this length together.
    pub(super) fn reserve(&mut self, len: usize) {
        reserve(&mut self.bytes, len);
    }

    /// What adding a text of this length would take more.
    pub(super) fn growth(&self, len: usize) -> usize {
        growth(&self.bytes, len)
    }
}
