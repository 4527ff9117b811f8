//! Names of an image: looking one up, and going through all of a directory.

use std::fmt;

use super::{Image, Inode, Nid, ReadAt};
use crate::BLOCK_BYTES;
use crate::dirent::Block;
use crate::error::ReadError;
use crate::inode::Layout;

/// What an entry is, as its directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device, so perhaps a whiteout.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

impl FileType {
    fn of(code: u8) -> Option<FileType> {
        let file_type = match code {
            1 => FileType::File,
            2 => FileType::Directory,
            3 => FileType::CharDevice,
            4 => FileType::BlockDevice,
            5 => FileType::Fifo,
            7 => FileType::Symlink,
            _ => return None,
        };
        Some(file_type)
    }
}

/// A name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without slash or NUL.
    pub name: Vec<u8>,
    /// The number of its inode.
    pub nid: Nid,
    /// What it is.
    pub file_type: FileType,
}

impl<S: ReadAt> Image<S> {
    /// What stands under a name of a directory. `.` and `..` are no names.
    ///
    /// # Errors
    /// [`ReadError::NotADirectory`], or as [`Image::inode`].
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<Nid>, ReadError> {
        let blocks = blocks(directory)?;
        if matches!(name, b"." | b"..") {
            return Ok(None);
        }
        // The last block whose first name is not behind the one that is looked for.
        let (mut low, mut high) = (0, blocks);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.block(directory, middle)?;
            if self.entry(directory, &block, 0)?.0 <= name {
                low = middle + 1;
                found = Some(block);
            } else {
                high = middle;
            }
        }
        let Some(block) = found else { return Ok(None) };
        for index in 0..block.len() {
            let (known, nid, _) = self.entry(directory, &block, index)?;
            if known == name {
                return Ok(Some(nid));
            }
        }
        Ok(None)
    }

    /// All names of a directory but `.` and `..`, in the order of their bytes.
    ///
    /// # Errors
    /// [`ReadError::NotADirectory`].
    pub fn list(&self, directory: &Inode) -> Result<Entries<'_, S>, ReadError> {
        let blocks = blocks(directory)?;
        Ok(Entries { image: self, directory: directory.clone(), blocks, next_block: 0, block: None })
    }

    /// A block of a directory; their number is bounded by the size of the metadata.
    fn block(&self, directory: &Inode, index: u64) -> Result<Block, ReadError> {
        let behind = index * BLOCK_BYTES;
        let used = (directory.size_bytes - behind).min(BLOCK_BYTES) as usize;
        let at = match directory.layout {
            Layout::Inline if (used as u64) < BLOCK_BYTES => directory.tail_at(),
            Layout::Inline | Layout::Plain => {
                (u64::from(directory.block) * BLOCK_BYTES + behind).saturating_sub(self.head.metadata_offset)
            }
        };
        let mut bytes = [0; BLOCK_BYTES as usize];
        self.metadata.read(at, &mut bytes[..used])?;
        Block::new(bytes, used).map_err(|what| self.damaged(what, at))
    }

    fn entry<'b>(
        &self,
        directory: &Inode,
        block: &'b Block,
        index: usize,
    ) -> Result<(&'b [u8], Nid, FileType), ReadError> {
        let damaged = |what| self.damaged(what, directory.at());
        let raw = block.get(index).map_err(damaged)?;
        let file_type = FileType::of(raw.code).ok_or_else(|| damaged("the kind of an entry"))?;
        Ok((raw.name, Nid(raw.nid), file_type))
    }
}

fn blocks(directory: &Inode) -> Result<u64, ReadError> {
    if !directory.is_directory() {
        return Err(ReadError::NotADirectory);
    }
    Ok(directory.size_bytes.div_ceil(BLOCK_BYTES))
}

/// The names of a directory; ends after the first error.
pub struct Entries<'i, S> {
    image: &'i Image<S>,
    directory: Inode,
    blocks: u64,
    next_block: u64,
    /// The block at hand and its next entry.
    block: Option<(Block, usize)>,
}

impl<S> fmt::Debug for Entries<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl<S: ReadAt> Entries<'_, S> {
    fn advance(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            if let Some((block, index)) = self.block.as_mut().filter(|(block, index)| *index < block.len()) {
                let (name, nid, file_type) = self.image.entry(&self.directory, block, *index)?;
                *index += 1;
                if !matches!(name, b"." | b"..") {
                    return Ok(Some(Entry { name: name.to_vec(), nid, file_type }));
                }
            } else if self.next_block < self.blocks {
                self.block = Some((self.image.block(&self.directory, self.next_block)?, 0));
                self.next_block += 1;
            } else {
                return Ok(None);
            }
        }
    }
}

impl<S: ReadAt> Iterator for Entries<'_, S> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            (self.block, self.next_block) = (None, self.blocks);
        }
        item
    }
}
