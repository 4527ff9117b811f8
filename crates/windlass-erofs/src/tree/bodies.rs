//! Extended attributes, each set of them once.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// A set of extended attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BodyId(u32);

impl BodyId {
    /// No attributes.
    pub(super) const NONE: BodyId = BodyId(0);
}

/// Bodies as they stand behind an inode. They are never removed.
#[derive(Default)]
pub(super) struct Bodies {
    bodies: Vec<Box<[u8]>>,
    table: HashTable<u32>,
    seed: RandomState,
    bytes: usize,
}

impl Bodies {
    pub(super) fn get(&self, id: BodyId) -> &[u8] {
        id.0.checked_sub(1).map_or(&[], |index| &self.bodies[index as usize])
    }

    /// The set with this body, if it is here.
    pub(super) fn find(&self, body: &[u8]) -> Option<BodyId> {
        if body.is_empty() {
            return Some(BodyId::NONE);
        }
        let found = self.table.find(self.seed.hash_one(body), |&index| &*self.bodies[index as usize] == body)?;
        Some(BodyId(found + 1))
    }

    /// Adds a body that is not here.
    pub(super) fn add(&mut self, body: Vec<u8>) -> BodyId {
        let index = self.bodies.len() as u32;
        self.bytes += body.len();
        self.bodies.push(body.into_boxed_slice());
        let Bodies { bodies, table, seed, .. } = self;
        let hash_of = |&index: &u32| seed.hash_one(&*bodies[index as usize]);
        table.insert_unique(hash_of(&index), index, hash_of);
        BodyId(index + 1)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.bodies.capacity() * size_of::<Box<[u8]>>() + self.table.allocation_size()
    }

    /// What one more body of this size would take at most.
    pub(super) fn growth(&self, bytes: usize) -> usize {
        let full = |len, capacity, size| if len == capacity { size } else { 0 };
        let places = full(self.bodies.len(), self.bodies.capacity(), self.bodies.capacity() * size_of::<Box<[u8]>>());
        bytes + places + full(self.table.len(), self.table.capacity(), self.table.allocation_size())
    }
}
