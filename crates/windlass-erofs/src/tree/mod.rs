//! The entries of one layer in memory, while its tar goes by.
//!
//! Nodes (what `stat` shows) and names are separate, so that a node can have several. Memory is bounded and small: a
//! node takes 48 bytes, a name 24 and its text, the table over all names 5 to 10.
//!
//! Invariants: `a_million_entries_take_less_than_150_mib`; `operations_on_a_tree_do_what_a_model_does`;
//! `a_full_tree_says_so_and_stays_as_it_is`; `removing_is_as_deep_as_it_gets`.

mod bodies;
mod names;
mod texts;

use std::fmt;

use crate::attributes::{Attributes, Content, Device, Kind, Time};
use crate::error::TreeError;
use crate::{BLOCK_BYTES, DATA_START, LINK_TEXT_MAX, NAME_MAX, xattr};
use bodies::{Bodies, BodyId};
use names::{NONE, Names};
use texts::At;

/// Where a content has to end: 2 TiB, 32 bits of blocks.
const CONTENT_END_MAX: u64 = (u32::MAX as u64) * BLOCK_BYTES;

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

    // ---- changing

    /// Puts a new entry under a free name.
    ///
    /// # Errors
    /// [`TreeError::Taken`], and for what EROFS cannot hold; [`TreeError::Full`].
    pub fn insert(
        &mut self,
        directory: NodeId,
        name: &[u8],
        new: New<'_>,
        attributes: &Attributes,
    ) -> Result<NodeId, TreeError> {
        self.check_free(directory, name)?;
        let (text, opaque) = match new {
            New::Symlink(text) => (link_text(text)?, false),
            New::Directory => (&b""[..], has_opaque(attributes)),
            New::File | New::Fifo => (&b""[..], false),
            New::Device(device) => (device.packed().map(|_| &b""[..]).ok_or(TreeError::DeviceNumber)?, false),
        };
        let id = u32::try_from(self.nodes.len()).map(NodeId).map_err(|_| self.full())?;
        let xattrs = xattr::encode(attributes.xattrs.iter().map(|(name, value)| (&name[..], &value[..])))?;
        let xattrs = self.intern(xattrs, growth(&self.nodes, 1) + self.names.growth(name.len() + text.len()))?;
        self.names.texts.reserve(name.len() + text.len());
        let name_id = self.add_name(directory, name, id)?;
        let body = match new {
            New::Directory => {
                self.node_mut(directory).links += 1;
                Body::Directory { name: name_id, first: NONE, opaque }
            }
            New::File => Body::File { size_bytes: 0, block: 0 },
            New::Symlink(text) => {
                let Some(at) = self.names.texts.add(text) else {
                    self.drop_name(name_id);
                    return Err(self.full());
                };
                Body::Symlink { text: at, len: text.len() as u16 }
            }
            New::Device(device) => Body::Device(device),
            New::Fifo => Body::Fifo,
        };
        let links = if matches!(new, New::Directory) { 2 } else { 1 };
        let mut node = Node { body, seconds: 0, nanos: 0, uid: 0, gid: 0, links, xattrs, mode: 0 };
        node.describe(attributes);
        reserve(&mut self.nodes, 1);
        self.nodes.push(node);
        self.live += 1;
        Ok(id)
    }

    /// Gives an entry that is no directory another name.
    ///
    /// # Errors
    /// [`TreeError::Taken`], [`TreeError::DirectoryLink`], [`TreeError::Removed`], [`TreeError::Full`].
    pub fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<(), TreeError> {
        self.check_free(directory, name)?;
        match self.node(node).body {
            Body::Removed => return Err(TreeError::Removed),
            Body::Directory { .. } => return Err(TreeError::DirectoryLink),
            Body::File { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => {}
        }
        self.check_memory(self.names.growth(name.len()))?;
        self.add_name(directory, name, node)?;
        self.node_mut(node).links += 1;
        Ok(())
    }

    /// Replaces owner, mode, time and extended attributes. An opaque directory stays so.
    ///
    /// # Errors
    /// For extended attributes that EROFS cannot hold; [`TreeError::Removed`], [`TreeError::Full`].
    pub fn set_attributes(&mut self, node: NodeId, attributes: &Attributes) -> Result<(), TreeError> {
        let mut opaque = false;
        match &mut self.nodes[node.0 as usize].body {
            Body::Removed => return Err(TreeError::Removed),
            Body::Directory { opaque: known, .. } => opaque = *known || has_opaque(attributes),
            Body::File { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => {}
        }
        let given = attributes.xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
        let body = if opaque {
            xattr::encode(given.filter(|(name, _)| *name != xattr::OPAQUE.0).chain([xattr::OPAQUE]))?
        } else {
            xattr::encode(given)?
        };
        let xattrs = self.intern(body, 0)?;
        let node = self.node_mut(node);
        node.xattrs = xattrs;
        node.describe(attributes);
        if let Body::Directory { opaque: known, .. } = &mut node.body {
            *known = opaque;
        }
        Ok(())
    }

    /// Says where the bytes of a file are in the image file: at a multiple of 512 behind [`DATA_START`], except that
    /// an empty file needs none.
    ///
    /// # Errors
    /// [`TreeError::NotAFile`], [`TreeError::ContentOffset`].
    pub fn set_content(&mut self, file: NodeId, content: Content) -> Result<(), TreeError> {
        let Body::File { size_bytes, block } = &mut self.nodes[file.0 as usize].body else {
            return Err(TreeError::NotAFile);
        };
        if content.size_bytes == 0 {
            (*size_bytes, *block) = (0, 0);
            return Ok(());
        }
        let Content { offset, .. } = content;
        let end = offset.checked_add(content.size_bytes).filter(|&end| end <= CONTENT_END_MAX);
        if !offset.is_multiple_of(BLOCK_BYTES) || offset < DATA_START || end.is_none() {
            return Err(TreeError::ContentOffset { offset });
        }
        (*size_bytes, *block) = (content.size_bytes, (offset / BLOCK_BYTES) as u32);
        Ok(())
    }

    /// Marks a directory as hiding all that the layers below have in its place.
    ///
    /// # Errors
    /// [`TreeError::NotADirectory`], [`TreeError::Full`].
    pub fn set_opaque(&mut self, directory: NodeId) -> Result<(), TreeError> {
        if self.is_opaque(directory) {
            return Ok(());
        }
        if !self.is_directory(directory) {
            return Err(TreeError::NotADirectory);
        }
        let mut attributes = self.attributes(directory);
        attributes.xattrs.retain(|(name, _)| name != xattr::OPAQUE.0);
        attributes.xattrs.push((xattr::OPAQUE.0.to_vec(), xattr::OPAQUE.1.to_vec()));
        self.set_attributes(directory, &attributes)
    }

    /// Removes a name, and its entry if that has no other; a directory with all below it.
    ///
    /// # Errors
    /// [`TreeError::Absent`].
    pub fn remove(&mut self, directory: NodeId, name: &[u8]) -> Result<(), TreeError> {
        let top = self.names.find(directory, name).ok_or(TreeError::Absent)?;
        let mut at = top;
        loop {
            let child = self.first(self.names.node(at)).filter(|&first| first != NONE);
            if let Some(child) = child {
                at = child;
                continue;
            }
            let above = self.names.directory(at);
            self.drop_entry(at);
            if at == top {
                break;
            }
            at = match self.node(above).body {
                Body::Directory { name, .. } => name,
                Body::Removed | Body::File { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => top,
            };
        }
        self.tidy();
        Ok(())
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

    fn set_first(&mut self, directory: NodeId, name: u32) {
        if let Body::Directory { first, .. } = &mut self.node_mut(directory).body {
            *first = name;
        }
    }

    fn check_free(&self, directory: NodeId, name: &[u8]) -> Result<(), TreeError> {
        match self.node(directory).body {
            Body::Directory { .. } => {}
            Body::Removed => return Err(TreeError::Removed),
            Body::File { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => {
                return Err(TreeError::NotADirectory);
            }
        }
        let fits = (1..=NAME_MAX).contains(&name.len()) && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if !fits || matches!(name, b"." | b"..") {
            return Err(TreeError::Name);
        }
        if self.names.find(directory, name).is_some() { Err(TreeError::Taken) } else { Ok(()) }
    }

    fn full(&self) -> TreeError {
        TreeError::Full { max_bytes: self.max_bytes }
    }

    fn check_memory(&self, more: usize) -> Result<(), TreeError> {
        // Without growth there is nothing to ask: the limit was held before.
        if more > 0 && self.memory_bytes() + more > self.max_bytes { Err(self.full()) } else { Ok(()) }
    }

    /// The body in the tree, if there is memory for it and for this much more.
    fn intern(&mut self, body: Vec<u8>, more: usize) -> Result<BodyId, TreeError> {
        if let Some(id) = self.bodies.find(&body) {
            self.check_memory(more)?;
            return Ok(id);
        }
        self.check_memory(self.bodies.growth(body.len()) + more)?;
        Ok(self.bodies.add(body))
    }

    fn add_name(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<u32, TreeError> {
        let first = self.first(directory).unwrap_or(NONE);
        let id = self.names.add(first, directory, name, node).ok_or_else(|| self.full())?;
        self.set_first(directory, id);
        Ok(id)
    }

    fn drop_name(&mut self, name: u32) {
        let directory = self.names.directory(name);
        if let Some(first) = self.names.remove(name) {
            self.set_first(directory, first);
        }
    }

    /// Removes a name whose directory, if it is one, is empty.
    fn drop_entry(&mut self, name: u32) {
        let (id, above) = (self.names.node(name), self.names.directory(name));
        self.drop_name(name);
        let is_directory = self.is_directory(id);
        let node = self.node_mut(id);
        node.links = if is_directory { 0 } else { node.links - 1 };
        if node.links == 0 {
            if let Body::Symlink { len, .. } = std::mem::replace(&mut node.body, Body::Removed) {
                self.names.texts.drop(len.into());
            }
            self.live -= 1;
        }
        if is_directory {
            self.node_mut(above).links -= 1;
        }
    }

    /// Moves the texts together when most of them are of removed entries.
    fn tidy(&mut self) {
        if !self.names.texts.is_mostly_garbage() {
            return;
        }
        let old = self.names.texts.begin_again();
        self.names.move_texts(&old);
        for node in &mut self.nodes {
            if let Body::Symlink { text, len } = &mut node.body {
                *text = self.names.texts.take(&old, *text, (*len).into());
            }
        }
    }
}

impl Node {
    fn describe(&mut self, attributes: &Attributes) {
        self.mode = (attributes.mode & 0o7777) as u16;
        self.uid = attributes.uid;
        self.gid = attributes.gid;
        self.seconds = attributes.mtime.seconds;
        self.nanos = attributes.mtime.nanos.min(999_999_999);
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

fn link_text(text: &[u8]) -> Result<&[u8], TreeError> {
    let fits = (1..=LINK_TEXT_MAX).contains(&text.len()) && !text.contains(&0);
    if fits { Ok(text) } else { Err(TreeError::LinkText) }
}

fn has_opaque(attributes: &Attributes) -> bool {
    attributes.xattrs.iter().any(|(name, value)| (&name[..], &value[..]) == xattr::OPAQUE)
}

/// The beginning of a name as a number of the same order.
fn prefix(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = name.len().min(8);
    bytes[..len].copy_from_slice(&name[..len]);
    u64::from_be_bytes(bytes)
}

/// Makes room for more elements; a quarter at a time, since most of a doubled table would stay empty.
fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 4).max(64));
    }
}

/// Bytes that [`reserve`] would take.
fn growth<T>(vec: &Vec<T>, more: usize) -> usize {
    if vec.capacity() - vec.len() >= more { 0 } else { more.max(vec.len() / 4).max(64) * size_of::<T>() }
}
