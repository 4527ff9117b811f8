//! Where everything goes: known before the first byte is written, since entries of directories name places of inodes.
//!
//! The order makes a walk through the image read it forwards. Directories come depth first by name; each is its blocks
//! and then the inodes of its children, by name. What does not fill a block stands behind its inode, within one block as
//! the kernel demands; extended attributes may cross blocks. The first 32 bytes stay empty: 0 is no number of a file.
//!
//! The time that most entries have goes into the superblock, and those entries get compact inodes: layers whose builders
//! set all times to one, and that is the custom, need a third less metadata.

use std::ops::Range;

use crate::attributes::{Kind, Time};
use crate::error::WriteError;
use crate::inode::{Layout, RawInode, SLOT_BYTES};
use crate::tree::{NameId, NodeId, Tree};
use crate::{BLOCK_BYTES, dirent, xattr};

/// What a directory holds: its own name, its parent's, or one of the tree's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Itself,
    Parent,
    Name(NameId),
}

/// Slots in four bytes: the two largest numbers are no names.
const ITSELF: NameId = NameId(u32::MAX);
const PARENT: NameId = NameId(u32::MAX - 1);

/// Data that an inode has in the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// Size of it all.
    pub(crate) size_bytes: u64,
    /// Bytes behind the inode; the rest is in blocks.
    pub(crate) inline: u64,
}

impl Data {
    const NONE: Data = Data { size_bytes: 0, inline: 0 };

    /// As much as possible behind an inode with extended attributes of this size.
    fn packed(size_bytes: u64, xattr_bytes: u64) -> Data {
        let tail = size_bytes % BLOCK_BYTES;
        // Not at the very beginning of a block: there, links would not be read together with their inode.
        let before = match xattr_bytes % SLOT_BYTES {
            0 => SLOT_BYTES,
            odd => odd,
        };
        Data { size_bytes, inline: if before + tail <= BLOCK_BYTES { tail } else { 0 } }
    }

    pub(crate) fn blocks(&self) -> u64 {
        (self.size_bytes - self.inline).div_ceil(BLOCK_BYTES)
    }
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) node: NodeId,
    parent: NodeId,
    slots: Range<usize>,
    /// Index of the first slot of the last block.
    tail: usize,
    pub(crate) data: Data,
    /// Offset of its blocks from the beginning of the metadata.
    pub(crate) blocks_at: u64,
}

pub(crate) struct Plan<'t> {
    pub(crate) tree: &'t Tree,
    slots: Vec<NameId>,
    /// Depth first by name.
    pub(crate) directories: Vec<Directory>,
    /// Index in `directories` by node.
    directory_of: Vec<u32>,
    /// Number of the inode by node; 0 while it has none.
    nids: Vec<u32>,
    pub(crate) inodes: u64,
    /// Time of the last change that compact inodes have.
    pub(crate) common_mtime: Time,
    /// Size of the metadata.
    pub(crate) size_bytes: u64,
}

impl<'t> Plan<'t> {
    pub(crate) fn new(tree: &'t Tree) -> Result<Plan<'t>, WriteError> {
        let mut plan = Plan {
            tree,
            slots: Vec::with_capacity(tree.len()),
            directories: Vec::new(),
            directory_of: vec![0; tree.nodes_end()],
            nids: vec![0; tree.nodes_end()],
            inodes: 0,
            common_mtime: Time::default(),
            size_bytes: 0,
        };
        plan.walk()?;
        plan.common_mtime = plan.vote();
        plan.place()?;
        Ok(plan)
    }

    /// Sorts all directories and cuts them into blocks.
    fn walk(&mut self) -> Result<(), WriteError> {
        let mut waiting = vec![(self.tree.root(), self.tree.root())];
        while let Some((node, parent)) = waiting.pop() {
            let names = self.tree.sorted(node);
            let first = self.slots.len();
            self.add_slots(&names);
            let slots = first..self.slots.len();
            let (size_bytes, tail) = self.cut(slots.clone());
            let data = Data::packed(size_bytes, self.tree.raw(node).xattrs.len() as u64);
            self.directory_of[node.index()] =
                u32::try_from(self.directories.len()).map_err(|_| WriteError::TooLarge)?;
            self.directories.push(Directory { node, parent, slots, tail, data, blocks_at: 0 });
            let children = names.iter().rev().map(|&name| self.tree.name(name).1);
            waiting.extend(children.filter(|&child| self.tree.is_directory(child)).map(|child| (child, node)));
        }
        Ok(())
    }

    /// The names of a directory with its own two between them.
    fn add_slots(&mut self, names: &[NameId]) {
        let mut own = [(&b"."[..], ITSELF), (&b".."[..], PARENT)].into_iter().peekable();
        for &id in names {
            let (name, _) = self.tree.name(id);
            while let Some((_, slot)) = own.next_if(|(text, _)| *text < name) {
                self.slots.push(slot);
            }
            self.slots.push(id);
        }
        self.slots.extend(own.map(|(_, slot)| slot));
    }

    /// Size of a directory and where its last block begins.
    fn cut(&self, slots: Range<usize>) -> (u64, usize) {
        let (mut full, mut used, mut tail) = (0, 0, slots.start);
        for index in slots {
            let len = self.slot_name(self.slots[index]).len();
            used = match dirent::grown(used, len) {
                Some(used) => used,
                None => {
                    full += 1;
                    tail = index;
                    dirent::ENTRY_BYTES + len
                }
            };
        }
        (full * BLOCK_BYTES + used as u64, tail)
    }

    fn slot_name(&self, slot: NameId) -> &'t [u8] {
        match Slot::of(slot) {
            Slot::Itself => b".",
            Slot::Parent => b"..",
            Slot::Name(name) => self.tree.name(name).0,
        }
    }

    /// The time that more than half of the entries have, if there is one; else any, and few entries gain by it.
    fn vote(&self) -> Time {
        let (mut candidate, mut lead) = (Time::default(), 0_u64);
        let children = self.directories.iter().flat_map(|directory| self.children(directory));
        for node in children {
            let mtime = self.tree.raw(node).mtime;
            if mtime == candidate {
                lead += 1;
            } else if lead > 0 {
                lead -= 1;
            } else if mtime.seconds >= 0 {
                (candidate, lead) = (mtime, 1);
            }
        }
        candidate
    }

    /// Gives every inode and every directory's blocks their place.
    fn place(&mut self) -> Result<(), WriteError> {
        let mut at = SLOT_BYTES;
        self.place_inode(self.tree.root(), &mut at)?;
        for index in 0..self.directories.len() {
            let blocks = self.directories[index].data.blocks();
            if blocks > 0 {
                at = at.next_multiple_of(BLOCK_BYTES);
                self.directories[index].blocks_at = at;
                at += blocks * BLOCK_BYTES;
            }
            for slot in self.directories[index].slots.clone() {
                if let Slot::Name(name) = Slot::of(self.slots[slot]) {
                    self.place_inode(self.tree.name(name).1, &mut at)?;
                }
            }
        }
        self.size_bytes = at.next_multiple_of(BLOCK_BYTES);
        Ok(())
    }

    fn place_inode(&mut self, node: NodeId, at: &mut u64) -> Result<(), WriteError> {
        if self.nids[node.index()] != 0 {
            return Ok(());
        }
        let data = self.data(node);
        *at = at.next_multiple_of(SLOT_BYTES);
        let xattr_bytes = self.tree.raw(node).xattrs.len() as u64;
        let before = self.inode(node).form(self.common_mtime).bytes() + xattr_bytes;
        while data.inline > 0 && crosses(*at + before, data.inline) {
            *at += SLOT_BYTES;
        }
        self.nids[node.index()] = u32::try_from(*at / SLOT_BYTES).map_err(|_| WriteError::TooLarge)?;
        self.inodes += 1;
        *at += before + data.inline;
        if data.blocks() > 0 && !self.tree.is_directory(node) {
            *at = at.next_multiple_of(BLOCK_BYTES) + data.blocks() * BLOCK_BYTES;
        }
        Ok(())
    }

    /// The inode but for its number and the place of its data.
    pub(crate) fn inode(&self, node: NodeId) -> RawInode {
        let raw = self.tree.raw(node);
        let data = self.data(node);
        RawInode {
            layout: if data.inline > 0 { Layout::Inline } else { Layout::Plain },
            xattr_count: xattr::count(raw.xattrs.len()),
            mode: raw.kind.format_bits() | raw.mode,
            size_bytes: self.tree.content(node).map_or(data.size_bytes, |content| content.size_bytes),
            block: 0,
            number: 0,
            uid: raw.uid,
            gid: raw.gid,
            mtime: raw.mtime,
            links: raw.links,
        }
    }

    /// What an inode has in the metadata: entries of a directory, text of a link.
    pub(crate) fn data(&self, node: NodeId) -> Data {
        let raw = self.tree.raw(node);
        match raw.kind {
            Kind::Directory => self.directory(node).data,
            Kind::Symlink => {
                let size_bytes = self.tree.link_text(node).map_or(0, <[u8]>::len) as u64;
                let data = Data::packed(size_bytes, raw.xattrs.len() as u64);
                // A text is in one piece.
                if data.inline == size_bytes { data } else { Data { inline: 0, ..data } }
            }
            Kind::File | Kind::Device(_) | Kind::Fifo => Data::NONE,
        }
    }

    pub(crate) fn directory(&self, node: NodeId) -> &Directory {
        &self.directories[self.directory_of[node.index()] as usize]
    }

    pub(crate) fn nid(&self, node: NodeId) -> u64 {
        self.nids[node.index()].into()
    }

    /// The entries of a directory in their order.
    pub(crate) fn entries(&self, directory: &Directory) -> impl Iterator<Item = (&'t [u8], NodeId)> + Clone {
        self.resolve(directory, directory.slots.clone())
    }

    /// The entries in the last block of a directory.
    pub(crate) fn tail(&self, directory: &Directory) -> impl Iterator<Item = (&'t [u8], NodeId)> + Clone {
        self.resolve(directory, directory.tail..directory.slots.end)
    }

    fn resolve(&self, directory: &Directory, slots: Range<usize>) -> impl Iterator<Item = (&'t [u8], NodeId)> + Clone {
        let (tree, node, parent) = (self.tree, directory.node, directory.parent);
        self.slots[slots].iter().map(move |&slot| match Slot::of(slot) {
            Slot::Itself => (&b"."[..], node),
            Slot::Parent => (&b".."[..], parent),
            Slot::Name(name) => tree.name(name),
        })
    }

    /// The children of a directory by name.
    pub(crate) fn children(&self, directory: &Directory) -> impl Iterator<Item = NodeId> {
        let slots = self.slots[directory.slots.clone()].iter();
        slots.filter_map(|&slot| match Slot::of(slot) {
            Slot::Itself | Slot::Parent => None,
            Slot::Name(name) => Some(self.tree.name(name).1),
        })
    }
}

impl Slot {
    fn of(id: NameId) -> Slot {
        match id {
            ITSELF => Slot::Itself,
            PARENT => Slot::Parent,
            name => Slot::Name(name),
        }
    }
}

/// Whether bytes at this place would not be in the block in which what is before them ends.
fn crosses(at: u64, len: u64) -> bool {
    (at - 1) / BLOCK_BYTES != (at + len - 1) / BLOCK_BYTES
}
