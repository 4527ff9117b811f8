//! A layer as an EROFS image: its tar stands in the file byte for byte, the metadata behind it, written in one pass.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 to 1024 | [`Head`]: what the file is, sums of what was written; the kernel does not look at it |
//! | 1024 to 1152 | the superblock of EROFS; zeros to 4096 |
//! | 4096 on ([`DATA_START`]) | the tar as it came; then, where the writer needs it, contents that are not in the tar |
//! | [`Head::metadata_offset`] to the end | inodes, directories, links and extended attributes, in one piece |
//!
//! [`Tree`] collects the entries of a layer in memory while the tar goes to the file; [`write()`] appends the metadata and
//! returns the first 4096 bytes, which the caller writes last. [`Image`] reads such a file back, trusting none of it.
//! What an entry means, and where the bytes of a file are, is the caller's matter.
//!
//! Blocks have 512 bytes, so that a file's content is where the tar has it. Source of truth for the format: Linux
//! `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`.
//!
//! Invariants: `what_was_written_is_read_back`; `the_same_tree_gives_the_same_bytes`;
//! `the_kernel_shows_what_was_written`; `damage_is_an_error_and_never_a_panic`.
#![forbid(unsafe_code)]

mod attributes;
mod dirent;
mod error;
mod head;
mod inode;
mod plan;
mod read;
mod sink;
mod superblock;
mod tree;
mod write;
mod xattr;

pub use attributes::{Attributes, Content, Device, Kind, Time, Xattrs};
pub use error::{ReadError, TreeError, WriteError};
pub use head::{DIGEST_TEXT_MAX, Front, Head};
pub use read::{Entries, Entry, FileType, Image, Inode, Nid, ReadAt};
pub use tree::{Children, New, NodeId, Tree};
pub use write::{Layer, Written, write};

/// Size of a block: that of a tar's records, so that every content in a tar begins a block.
pub const BLOCK_BYTES: u64 = 512;

/// Where the tar begins: behind the head and the superblock, at a page's boundary.
pub const DATA_START: u64 = 4096;

/// Longest text of a symbolic link, in bytes; Linux: `PATH_MAX` with its NUL is 4096.
pub const LINK_TEXT_MAX: usize = 4095;

/// Longest name of an entry, in bytes; Linux: `NAME_MAX`.
pub const NAME_MAX: usize = 255;
