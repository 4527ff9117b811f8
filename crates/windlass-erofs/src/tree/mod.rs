//! The entries of one layer in memory, while its tar goes by.
//!
//! Nodes (what `stat` shows) and names are separate, so that a node can have several. Memory is bounded and small: a
//! node takes 48 bytes, a name 28 and its text, the table over all names 5 to 10; writing takes 12 more for each entry.
//!
//! Invariants: `a_million_entries_take_less_than_150_mib`; `operations_on_a_tree_do_what_a_model_does`;
//! `a_full_tree_says_so_and_stays_as_it_is`; `removing_is_as_deep_as_it_gets`.

mod bodies;
mod change;
mod names;
mod room;
mod texts;

use std::fmt;

use crate::attributes::{Attributes, Content, Device, Kind, Time};
use crate::{BLOCK_BYTES, xattr};
use bodies::{Bodies, BodyId};
use names::{NONE, Names};
use texts::At;

/// An entry of a [`Tree`], valid for the tree that gave it. It is not given to another entry when this one is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// What is to be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum New<'a> {
    /// An empty directory.
    Directory,
    /// An empty file; [`Tree::set_content`] says where its bytes are.
    File,
    /// A symbolic link with this text, 1 to 4095 bytes without NUL.
    Symlink(&'a [u8]),
    /// A device; [`Device::WHITEOUT`] hides what the layers below have.
    Device(Device),
    /// A named pipe.
    Fifo,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Removed,
    Directory { name: u32, first: u32, opaque: bool },
    File { size_bytes: u64, block: u32 },
    Symlink { text: At, len: u16 },
    Device(Device),
    Fifo,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    body: Body,
    seconds: i64,
    nanos: u32,
    uid: u32,
    gid: u32,
    links: u32,
    xattrs: BodyId,
    mode: u16,
}

/// The entries of one layer.
pub struct Tree {
    nodes: Vec<Node>,
    names: Names,
    bodies: Bodies,
    live: usize,
    max_bytes: usize,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("nodes", &self.live).field("memory_bytes", &self.memory_bytes()).finish()
    }
}

impl Tree {
    /// A tree with an empty root of mode 0755, owned by root, of 1970. It will not take more than `max_bytes` of memory
    /// ([`Tree::memory_bytes`]); while its tables move, up to twice that for a moment.
    pub fn new(max_bytes: usize) -> Tree {
        let root = Node {
            body: Body::Directory { name: NONE, first: NONE, opaque: false },
            seconds: 0,
            nanos: 0,
            uid: 0,
            gid: 0,
            links: 2,
            xattrs: BodyId::NONE,
            mode: 0o755,
        };
        Tree { nodes: vec![root], names: Names::new(), bodies: Bodies::default(), live: 1, max_bytes }
    }

    /// The root, which is always there.
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// Number of entries, the root included; several names of one file count once.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.live == 1
    }

    /// Memory that the entries take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.names.memory_bytes() + self.bodies.memory_bytes()
    }

    // ---- looking

    /// What stands under a name of a directory; nothing also where `directory` is none.
    pub fn find(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.names.find(directory, name).map(|id| self.names.node(id))
    }

    /// What an entry is; `None` when it was removed.
    pub fn kind(&self, node: NodeId) -> Option<Kind> {
        match self.node(node).body {
            Body::Removed => None,
            Body::Directory { .. } => Some(Kind::Directory),
            Body::File { .. } => Some(Kind::File),
            Body::Symlink { .. } => Some(Kind::Symlink),
            Body::Device(device) => Some(Kind::Device(device)),
            Body::Fifo => Some(Kind::Fifo),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self, node: NodeId) -> bool {
        matches!(self.node(node).body, Body::Directory { .. })
    }

    /// Whether it is the mark of a whiteout.
    pub fn is_whiteout(&self, node: NodeId) -> bool {
        matches!(self.node(node).body, Body::Device(Device::WHITEOUT))
    }

    /// The text of a symbolic link.
    pub fn link_text(&self, node: NodeId) -> Option<&[u8]> {
        match self.node(node).body {
            Body::Symlink { text, len } => Some(self.names.texts.get(text, len.into())),
            Body::Removed | Body::Directory { .. } | Body::File { .. } | Body::Device(_) | Body::Fifo => None,
        }
    }

    /// Owner, mode, time and extended attributes, these sorted by name; of an opaque directory with the mark of that.
    pub fn attributes(&self, node: NodeId) -> Attributes {
        let Node { seconds, nanos, uid, gid, xattrs, mode, .. } = *self.node(node);
        let xattrs = xattr::parse(self.bodies.get(xattrs)).expect("bodies are made by encode");
        Attributes { mode: mode.into(), uid, gid, mtime: Time { seconds, nanos }, xattrs }
    }

    /// Number of names; of a directory 2 and its subdirectories, of a removed entry 0.
    pub fn links(&self, node: NodeId) -> u32 {
        self.node(node).links
    }

    /// Where a file's bytes are.
    pub fn content(&self, node: NodeId) -> Option<Content> {
        match self.node(node).body {
            Body::File { size_bytes, block } => Some(Content { offset: u64::from(block) * BLOCK_BYTES, size_bytes }),
            Body::Removed | Body::Directory { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => None,
        }
    }

    /// The directory in which a directory is; `None` for the root and for all else.
    pub fn parent(&self, directory: NodeId) -> Option<NodeId> {
        match self.node(directory).body {
            Body::Directory { name, .. } if name != NONE => Some(self.names.directory(name)),
            Body::Directory { .. }
            | Body::Removed
            | Body::File { .. }
            | Body::Symlink { .. }
            | Body::Device(_)
            | Body::Fifo => None,
        }
    }

    /// Names and entries of a directory in no particular order; nothing where it is none.
    pub fn children(&self, directory: NodeId) -> Children<'_> {
        Children { tree: self, next: self.first(directory).unwrap_or(NONE) }
    }

    /// Whether a directory has no entries; also where it is none.
    pub fn has_no_children(&self, directory: NodeId) -> bool {
        self.first(directory).is_none_or(|first| first == NONE)
    }

    /// Whether a directory hides all that the layers below have in its place.
    pub fn is_opaque(&self, directory: NodeId) -> bool {
        matches!(self.node(directory).body, Body::Directory { opaque: true, .. })
    }

    // ---- for writing

    pub(crate) fn raw(&self, node: NodeId) -> RawNode<'_> {
        let Node { seconds, nanos, uid, gid, links, xattrs, mode, .. } = *self.node(node);
        let kind = self.kind(node).expect("only what is in the tree is written");
        let mtime = Time { seconds, nanos };
        RawNode { kind, mode, uid, gid, mtime, links, xattrs: self.bodies.get(xattrs) }
    }

    /// All names of a directory in the order of their bytes.
    pub(crate) fn sorted(&self, directory: NodeId) -> Vec<NameId> {
        let mut next = self.first(directory).unwrap_or(NONE);
        let mut sorted = Vec::new();
        while next != NONE {
            sorted.push((prefix(self.names.text(next)), NameId(next)));
            next = self.names.next(next);
        }
        sorted.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| self.names.text(x.0).cmp(self.names.text(y.0))));
        sorted.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn name(&self, id: NameId) -> (&[u8], NodeId) {
        (self.names.text(id.0), self.names.node(id.0))
    }

    /// One more than the largest index of a node.
    pub(crate) fn nodes_end(&self) -> usize {
        self.nodes.len()
    }

    // ---- within

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// First name in a directory.
    fn first(&self, directory: NodeId) -> Option<u32> {
        match self.node(directory).body {
            Body::Directory { first, .. } => Some(first),
            Body::Removed | Body::File { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => None,
        }
    }
}

/// A name of a tree that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(pub(crate) u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An entry as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawNode<'t> {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) links: u32,
    pub(crate) xattrs: &'t [u8],
}

/// Names and entries of a directory.
#[derive(Clone, Debug)]
pub struct Children<'t> {
    tree: &'t Tree,
    next: u32,
}

impl<'t> Iterator for Children<'t> {
    type Item = (&'t [u8], NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == NONE {
            return None;
        }
        let id = self.next;
        self.next = self.tree.names.next(id);
        Some(self.tree.name(NameId(id)))
    }
}

/// The beginning of a name as a number of the same order.
fn prefix(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = name.len().min(8);
    bytes[..len].copy_from_slice(&name[..len]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests;
