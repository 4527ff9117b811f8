//! Which name of which directory is which node: a table over all names, and a list for each directory.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use hashbrown::HashTable;

use super::texts::{At, Texts};
use super::{NodeId, growth, reserve};

/// No name.
pub(super) const NONE: u32 = u32::MAX;

/// One name. In memory it takes 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Name {
    directory: NodeId,
    node: NodeId,
    text: At,
    /// The next name of the directory; of a free place: the next free one.
    next: u32,
    previous: u32,
    len: u8,
    used: bool,
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

    pub(super) fn find(&self, directory: NodeId, name: &[u8]) -> Option<u32> {
        let hash = hash(&self.seed, directory, name);
        let same = |&id: &u32| self.names[id as usize].directory == directory && self.text(id) == name;
        self.table.find(hash, same).copied()
    }

    /// Adds a name that is free, at the beginning of its directory's list; `None` when there is no place.
    pub(super) fn add(&mut self, first: u32, directory: NodeId, name: &[u8], node: NodeId) -> Option<u32> {
        let text = self.texts.add(name)?;
        let entry = Name { directory, node, text, next: first, previous: NONE, len: name.len() as u8, used: true };
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
        let Names { names, texts, table, seed, .. } = self;
        let hash_of = |&id: &u32| {
            let name = &names[id as usize];
            hash(seed, name.directory, texts.get(name.text, name.len.into()))
        };
        table.insert_unique(hash_of(&id), id, hash_of);
        Some(id)
    }

    /// Removes a name; returns the first of its directory's list if that changed.
    pub(super) fn remove(&mut self, id: u32) -> Option<u32> {
        let Name { directory, next, previous, len, .. } = self.names[id as usize];
        let hash = hash(&self.seed, directory, self.text(id));
        if let Ok(found) = self.table.find_entry(hash, |&other| other == id) {
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
        entry.used = false;
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
        for name in self.names.iter_mut().filter(|name| name.used) {
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

fn hash(seed: &RandomState, directory: NodeId, name: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write_u32(directory.0);
    hasher.write(name);
    hasher.finish()
}
