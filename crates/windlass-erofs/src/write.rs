//! Writes the metadata behind the contents, in one pass, and makes the front of the file.
//!
//! Invariants: `the_same_tree_gives_the_same_bytes`; `what_was_written_is_read_back`.

use std::fmt;
use std::io::Write;

use crate::attributes::{Content, Kind};
use crate::error::WriteError;
use crate::head::{Front, Head, is_digest_text};
use crate::inode::SLOT_BYTES;
use crate::plan::{Directory, Plan};
use crate::sink::Sink;
use crate::superblock::Superblock;
use crate::tree::{NodeId, Tree};
use crate::{BLOCK_BYTES, DATA_START, dirent};

/// What the image says about the layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Size of the tar that stands at [`DATA_START`].
    pub tar_bytes: u64,
    /// Its digest as text, at most 200 visible ASCII characters.
    pub tar_digest: &'a str,
    /// crc32c of what the caller put between the tar and the metadata, padding included; 0 where that is nothing.
    pub between_crc32c: u32,
    /// Identity of the file system.
    pub uuid: [u8; 16],
}

/// What was written, and what is left to write.
pub struct Written {
    /// The first 4096 bytes of the file: to be written when all else is there.
    pub front: Front,
    /// What [`Written::front`] says.
    pub head: Head,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Writes the metadata of a tree to `out`, which appends it at byte `at_bytes` of the file: a multiple of 512 behind
/// the tar and all contents. The same entries give the same bytes, whatever the order in which they came.
///
/// # Errors
/// What cannot be written is refused before the first byte is; then only [`WriteError::Io`].
pub fn write(tree: &Tree, layer: &Layer<'_>, at_bytes: u64, out: &mut dyn Write) -> Result<Written, WriteError> {
    let tar_end = DATA_START.checked_add(layer.tar_bytes);
    if !at_bytes.is_multiple_of(BLOCK_BYTES) || tar_end.is_none_or(|end| end > at_bytes) {
        return Err(WriteError::MetadataOffset { at_bytes });
    }
    if !is_digest_text(layer.tar_digest.as_bytes()) {
        return Err(WriteError::DigestText);
    }
    let plan = Plan::new(tree)?;
    let total_bytes = at_bytes.checked_add(plan.size_bytes).ok_or(WriteError::TooLarge)?;
    let superblock = Superblock {
        root: u16::try_from(plan.nid(tree.root())).map_err(|_| WriteError::TooLarge)?,
        inodes: plan.inodes,
        common_mtime: plan.common_mtime,
        blocks: u32::try_from(total_bytes / BLOCK_BYTES).map_err(|_| WriteError::TooLarge)?,
        metadata_block: (at_bytes / BLOCK_BYTES) as u32,
        uuid: layer.uuid,
    };
    check_contents(&plan, at_bytes)?;
    let mut writer = Writer { plan: &plan, sink: Sink::new(at_bytes, out), number: 0 };
    writer.everything()?;
    let metadata_crc32c = writer.sink.finish()?;
    let head = Head {
        tar_bytes: layer.tar_bytes,
        tar_digest: layer.tar_digest.to_owned(),
        metadata_offset: at_bytes,
        total_bytes,
        metadata_crc32c,
        between_crc32c: layer.between_crc32c,
    };
    Ok(Written { front: head.front(&superblock), head })
}

fn check_contents(plan: &Plan<'_>, at_bytes: u64) -> Result<(), WriteError> {
    let nodes = plan.directories.iter().flat_map(|directory| plan.children(directory));
    for Content { offset, size_bytes } in nodes.filter_map(|node| plan.tree.content(node)) {
        if offset.checked_add(size_bytes).is_none_or(|end| end > at_bytes) {
            return Err(WriteError::ContentBeyond { offset, size_bytes });
        }
    }
    Ok(())
}

struct Writer<'p, 'o> {
    plan: &'p Plan<'p>,
    sink: Sink<'o>,
    /// Inodes so far.
    number: u32,
}

impl Writer<'_, '_> {
    fn everything(&mut self) -> Result<(), WriteError> {
        self.sink.pad_to(SLOT_BYTES)?;
        self.inode(self.plan.tree.root())?;
        let plan = self.plan;
        for directory in &plan.directories {
            if directory.data.blocks() > 0 {
                self.sink.pad_to(directory.blocks_at)?;
                self.blocks(directory)?;
            }
            for child in plan.children(directory) {
                // What has another name before this one is behind us.
                if plan.nid(child) * SLOT_BYTES >= self.sink.at {
                    self.inode(child)?;
                }
            }
        }
        self.sink.pad_to(plan.size_bytes)
    }

    fn inode(&mut self, node: NodeId) -> Result<(), WriteError> {
        let plan = self.plan;
        let raw = plan.tree.raw(node);
        let data = plan.data(node);
        self.sink.pad_to(plan.nid(node) * SLOT_BYTES)?;
        self.number += 1;
        let mut inode = plan.inode(node);
        inode.number = self.number;
        inode.block = self.first_block(node, raw.kind, inode.form(plan.common_mtime).bytes() + raw.xattrs.len() as u64);
        inode.encode(plan.common_mtime, &mut self.sink.buffer);
        self.sink.buffered()?;
        self.sink.put(raw.xattrs)?;
        match raw.kind {
            Kind::Directory if data.inline > 0 => self.block(plan.tail(plan.directory(node))),
            Kind::Symlink => {
                if data.inline == 0 {
                    self.sink.pad_to(self.sink.at.next_multiple_of(BLOCK_BYTES))?;
                }
                self.sink.put(plan.tree.link_text(node).unwrap_or_default())
            }
            Kind::Directory | Kind::File | Kind::Device(_) | Kind::Fifo => Ok(()),
        }
    }

    /// Where the data of the inode that is about to be written begins; a device's number.
    fn first_block(&self, node: NodeId, kind: Kind, inode_bytes: u64) -> u32 {
        let block_of = |at: u64| ((self.sink.start + at) / BLOCK_BYTES) as u32;
        match kind {
            Kind::Directory if self.plan.data(node).blocks() > 0 => block_of(self.plan.directory(node).blocks_at),
            Kind::Symlink if self.plan.data(node).blocks() > 0 => {
                block_of((self.sink.at + inode_bytes).next_multiple_of(BLOCK_BYTES))
            }
            Kind::File => self.plan.tree.content(node).map_or(0, |content| (content.offset / BLOCK_BYTES) as u32),
            Kind::Device(device) => device.packed().unwrap_or_default(),
            Kind::Directory | Kind::Symlink | Kind::Fifo => 0,
        }
    }

    /// The blocks of a directory, without what stands behind its inode.
    fn blocks(&mut self, directory: &Directory) -> Result<(), WriteError> {
        let mut left = directory.data.blocks();
        let mut rest = self.plan.entries(directory);
        while left > 0 {
            let mut used = 0;
            let count = rest.clone().map_while(|(name, _)| {
                used = dirent::grown(used, name.len())?;
                Some(())
            });
            let count = count.count();
            self.block(rest.clone().take(count))?;
            rest.by_ref().take(count).for_each(drop);
            left -= 1;
            self.sink.pad_to(self.sink.at.next_multiple_of(BLOCK_BYTES))?;
        }
        Ok(())
    }

    fn block<'n>(&mut self, entries: impl Iterator<Item = (&'n [u8], NodeId)> + Clone) -> Result<(), WriteError> {
        let plan = self.plan;
        let code = |node| plan.tree.raw(node).kind.directory_code();
        let raw = entries.map(|(name, node)| dirent::RawEntry { name, nid: plan.nid(node), code: code(node) });
        dirent::encode(raw, &mut self.sink.buffer);
        self.sink.buffered()
    }
}
