//! Operations that change a [`Tree`]. Each is done whole or not at all.

use super::bodies::BodyId;
use super::names::{NONE, NameHash, NewName};
use super::room::{growth, reserve};
use super::{Body, New, Node, NodeId, Tree};
use crate::attributes::{Attributes, Content};
use crate::error::TreeError;
use crate::{BLOCK_BYTES, DATA_START, LINK_TEXT_MAX, NAME_MAX, xattr};

/// Where a content has to end: 2 TiB, 32 bits of blocks.
const CONTENT_END_MAX: u64 = (u32::MAX as u64) * BLOCK_BYTES;

impl Tree {
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
        let hash = self.check_free(directory, name)?;
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
        let name_id = self.add_name(hash, directory, name, id)?;
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
        let hash = self.check_free(directory, name)?;
        match self.node(node).body {
            Body::Removed => return Err(TreeError::Removed),
            Body::Directory { .. } => return Err(TreeError::DirectoryLink),
            Body::File { .. } | Body::Symlink { .. } | Body::Device(_) | Body::Fifo => {}
        }
        self.check_memory(self.names.growth(name.len()))?;
        self.add_name(hash, directory, name, node)?;
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

    // ---- within

    fn set_first(&mut self, directory: NodeId, name: u32) {
        if let Body::Directory { first, .. } = &mut self.node_mut(directory).body {
            *first = name;
        }
    }

    /// The hash of a name that can be added.
    fn check_free(&self, directory: NodeId, name: &[u8]) -> Result<NameHash, TreeError> {
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
        let hash = self.names.hash(directory, name);
        if self.names.find_hashed(hash, directory, name).is_some() { Err(TreeError::Taken) } else { Ok(hash) }
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

    fn add_name(&mut self, hash: NameHash, directory: NodeId, name: &[u8], node: NodeId) -> Result<u32, TreeError> {
        let first = self.first(directory).unwrap_or(NONE);
        let new = NewName { hash, directory, name, node, first };
        let id = self.names.add(new).ok_or_else(|| self.full())?;
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

fn link_text(text: &[u8]) -> Result<&[u8], TreeError> {
    let fits = (1..=LINK_TEXT_MAX).contains(&text.len()) && !text.contains(&0);
    if fits { Ok(text) } else { Err(TreeError::LinkText) }
}

fn has_opaque(attributes: &Attributes) -> bool {
    attributes.xattrs.iter().any(|(name, value)| (&name[..], &value[..]) == xattr::OPAQUE)
}
