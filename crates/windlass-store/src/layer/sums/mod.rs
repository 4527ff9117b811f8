//! The record of an unpacked layer: what every entry is and should contain, the truth about owners and modes
//! included. `fsck` compares trees with it, export reads the metadata from it, and [`super::settle`] can be resumed
//! from it after a crash.
//!
//! One file per layer, version 1; numbers are LEB128 unless said otherwise:
//!
//! ```text
//! file    = "windlass-sums 1\n" record* end
//! record  = kind:u8 flags:u8 shared length name[length]  mode uid gid zigzag(seconds) nanos  by-kind xattrs?
//! by-kind = file: size crc32c:u32le   symlink, hard link: length target[length]   device: major minor   others: nothing
//! xattrs  = (flag 1) count (length name length value)*
//! end     = 0:u8 count:u64le crc32c:u32le      crc over everything before it
//! ```
//!
//! `shared` is how many bytes the name has in common with the name before it. The name of the root is empty. Records
//! come in the order of the archive; a later record of a name replaces an earlier one, except that an opaque mark is a
//! record of its own beside its directory. The checksum of a file covers its holes as zeros.
//! Flags: 1 xattrs follow, 2 implicit (a parent without an entry of its own), 4 copied up from a lower layer.
//!
//! Invariants: `written_records_read_back_equal`; `a_flipped_bit_is_noticed`; `random_bytes_never_panic`.

mod compact;
mod read;
mod write;

pub use read::{Reader, Totals};
pub use write::Writer;

use super::rules::{Device, Meta};

const MAGIC: &[u8] = b"windlass-sums 1\n";
const FLAG_XATTRS: u8 = 1;
const FLAG_IMPLICIT: u8 = 2;
const FLAG_COPIED: u8 = 4;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file: its size and the CRC-32C of its bytes.
    File {
        /// Bytes, holes included.
        size_bytes: u64,
        /// CRC-32C of the content, holes as zeros.
        crc32c: u32,
    },
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
    /// Another name of the entry at this path.
    HardLink(Vec<u8>),
    /// A device.
    Device(Device),
    /// A named pipe.
    Fifo,
    /// The layers below have nothing here any more.
    Whiteout,
    /// The directory of this name hides what the layers below have in it.
    Opaque,
    /// Could not be made without the layers below: the layer has to be extracted again.
    Unresolved,
    /// For a time a directory stood here without an entry: if the layers below have a link here, the layer has to be
    /// extracted again.
    Assumed,
    /// Says of the whole layer that the layers below were at hand when it was extracted.
    Stacked,
    /// Everything recorded at this name and below it is gone. Only in files that were not finished.
    Removed,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The archive.
    #[default]
    Archive,
    /// A directory without an entry that something else needed.
    Implicit,
    /// A lower layer's file, copied because this layer links to it.
    CopiedUp,
}

/// One entry of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the tree: cleaned, links resolved; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub content: Content,
    /// Owner, mode, times and extended attributes as the image says, whatever is on disk.
    pub meta: Meta,
    /// Where it comes from.
    pub origin: Origin,
}

impl Content {
    const fn code(&self) -> u8 {
        match self {
            Content::Directory => b'd',
            Content::File { .. } => b'f',
            Content::Symlink(_) => b'l',
            Content::HardLink(_) => b'h',
            Content::Device(Device { block: false, .. }) => b'c',
            Content::Device(Device { block: true, .. }) => b'b',
            Content::Fifo => b'p',
            Content::Whiteout => b'w',
            Content::Opaque => b'o',
            Content::Unresolved => b'u',
            Content::Assumed => b'a',
            Content::Stacked => b's',
            Content::Removed => b'r',
        }
    }
}

#[cfg(test)]
mod tests;
