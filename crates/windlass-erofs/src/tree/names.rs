//! Which name of which directory is which node: a table over all names, and a list for each directory.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use hashbrown::HashTable;

use super::NodeId;
use super::room::{growth, reserve};
use super::texts::{At, Texts};

/// No name.
pub(super) const NONE: u32 = u32::MAX;

/// One name. In memory it takes 28 bytes.
#[derive(Clone, Copy, Debug)]
struct Name {
    directory: NodeId,
    node: NodeId,
    text: At,
    hash: NameHash,
    /// The next name of the directory; of a free place: the next free one.
    next: u32,
    previous: u32,
    /// 0 for a free place.
    len: u8,
}

/// Kept with a name, so that a growing table does not look at the texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHash(u32);

impl NameHash {
    /// What the table wants: all bits in use.
    fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A name to be added.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewName<'n> {
    pub(super) hash: NameHash,
    pub(super) directory: NodeId,
    pub(super) name: &'n [u8],
    pub(super) node: NodeId,
    /// The first name of the directory so far.
    pub(super) first: u32,
}

#[derive(Default)]
pub(super) struct Names {
    names: Vec<Name>,
    free: u32,
    pub(super) texts: Texts,
    table: HashTable<u32>,
    /// Names come from strangers: the seed is random.
    seed: RandomState,
}

impl Names {
    pub(super) fn new() -> Names {
        Names { free: NONE, ..Names::default() }
    }

    pub(super) fn hash(&self, directory: NodeId, name: &[u8]) -> NameHash {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u32(directory.0);
        hasher.write(name);
        NameHash(hasher.finish() as u32)
    }

    pub(super) fn find(&self, directory: NodeId, name: &[u8]) -> Option<u32> {
        self.find_hashed(self.hash(directory, name), directory, name)
    }

    pub(super) fn find_hashed(&self, hash: NameHash, directory: NodeId, name: &[u8]) -> Option<u32> {
        let same = |&id: &u32| self.names[id as usize].directory == directory && self.text(id) == name;
        self.table.find(hash.spread(), same).copied()
    }

    /// Adds a name that is free and not empty, at the beginning of its directory's list; `None` when there is no place.
    pub(super) fn add(&mut self, new: NewName<'_>) -> Option<u32> {
        let NewName { hash, directory, name, node, first } = new;
        let text = self.texts.add(name)?;
        let entry = Name { directory, node, text, hash, next: first, previous: NONE, len: name.len() as u8 };
        let id = if self.free == NONE {
            let id = u32::try_from(self.names.len()).ok().filter(|&id| id < NONE - 2)?;
            reserve(&mut self.names, 1);
            self.names.push(entry);
            id
        } else {
            let id = self.free;
            self.free = self.names[id as usize].next;
            self.names[id as usize] = entry;
            id
        };
        if first != NONE {
            self.names[first as usize].previous = id;
        }
        let Names { names, table, .. } = self;
        table.insert_unique(hash.spread(), id, |&id| names[id as usize].hash.spread());
        Some(id)
    }

    /// Removes a name; returns the first of its directory's list if that changed.
    pub(super) fn remove(&mut self, id: u32) -> Option<u32> {
        let Name { hash, next, previous, len, .. } = self.names[id as usize];
        if let Ok(found) = self.table.find_entry(hash.spread(), |&other| other == id) {
            found.remove();
        }
        self.texts.drop(len.into());
        if next != NONE {
            self.names[next as usize].previous = previous;
        }
        if previous != NONE {
            self.names[previous as usize].next = next;
        }
        let entry = &mut self.names[id as usize];
        entry.len = 0;
        entry.next = self.free;
        self.free = id;
        (previous == NONE).then_some(next)
    }

    pub(super) fn text(&self, id: u32) -> &[u8] {
        let name = &self.names[id as usize];
        self.texts.get(name.text, name.len.into())
    }

    pub(super) fn node(&self, id: u32) -> NodeId {
        self.names[id as usize].node
    }

    pub(super) fn directory(&self, id: u32) -> NodeId {
        self.names[id as usize].directory
    }

    pub(super) fn next(&self, id: u32) -> u32 {
        self.names[id as usize].next
    }

    /// Moves the texts of all names to the new arena.
    pub(super) fn move_texts(&mut self, old: &Texts) {
        for name in self.names.iter_mut().filter(|name| name.len > 0) {
            name.text = self.texts.take(old, name.text, name.len.into());
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.names.capacity() * size_of::<Name>() + self.texts.memory_bytes() + self.table.allocation_size()
    }

    /// What one more name would take more; with `text_bytes` of text, its own included.
    pub(super) fn growth(&self, text_bytes: usize) -> usize {
        let place = if self.free == NONE { growth(&self.names, 1) } else { 0 };
        // A table that is full becomes twice as large.
        let table = if self.table.len() == self.table.capacity() { self.table.allocation_size() } else { 0 };
        place + table + self.texts.growth(text_bytes)
    }
}
