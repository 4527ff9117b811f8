//! Reads the entries of a tar stream, in the dialect of Go's `archive/tar`, because every other runtime and scanner
//! reads layers with it: what they see is what we unpack.
//!
//! In: a [`Source`] of plain bytes. Out: one [`Entry`] after the other and its data as slices of the source's buffer,
//! nothing is copied. The reader knows the format only; what a name may be is decided in [`super::rules`].
//!
//! | part | understood | refused |
//! | --- | --- | --- |
//! | header | v7, ustar with prefix, star, GNU; signed or unsigned sums | a wrong sum, numbers that are none |
//! | names | pax `path` over the header, GNU `L` over both, `GNU.sparse.name` over all | empty ones, NUL inside, `L` without NUL |
//! | pax | path, linkpath, size, uid, gid, mtime, `SCHILY.xattr.`, `LIBARCHIVE.xattr.`, `GNU.sparse.` | malformed records |
//! | sparse | GNU `S`, pax 0.0, 0.1 and 1.0: data and holes are told apart | maps that overlap, or do not fit the data |
//! | end | two zero blocks, one and the end of the stream, none at all | one zero block and a header, an extended header alone |
//!
//! Source of truth: Go `src/archive/tar/{reader,strconv,format}.go`. Where that is laxer than the above, the stricter
//! rule is ours.
//!
//! Invariants: `no_bytes_make_the_reader_panic` (and data is never longer than the header says);
//! `every_cut_is_an_error_or_an_end`.

mod header;
mod number;
mod pax;
mod reader;
mod sparse;
mod write;

pub use number::Time;
pub use reader::{Piece, Reader};
pub use write::{Head, Writer};

use super::error::LayerError;

/// What is wrong with a piece of the archive.
type Malformed = &'static str;

/// Size of a header and unit of padding, in bytes.
pub const BLOCK: usize = 512;

/// Where the bytes of the archive come from.
pub trait Source {
    /// The bytes that come next, at least one; none at the end of the stream. The same again until they are consumed.
    ///
    /// # Errors
    /// Whatever keeps the bytes from coming, a damaged compression or a cancelled pull among them.
    fn fill(&mut self) -> Result<&[u8], LayerError>;

    /// Marks the first `count` bytes of the last [`Source::fill`] as used.
    fn consume(&mut self, count: usize);

    /// Counts bytes that a sparse file will have beyond those of the stream.
    ///
    /// # Errors
    /// [`LayerError::Limit`] when that is too many.
    fn charge(&mut self, bytes: u64) -> Result<(), LayerError>;
}

impl Source for &[u8] {
    fn fill(&mut self) -> Result<&[u8], LayerError> {
        Ok(self)
    }

    fn consume(&mut self, count: usize) {
        *self = &self[count..];
    }

    fn charge(&mut self, _: u64) -> Result<(), LayerError> {
        Ok(())
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, sparse or not.
    #[default]
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry as the archive states it. Numbers are not yet judged.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name: bytes, not empty, without NUL.
    pub name: Vec<u8>,
    /// Target of a link; empty for all else.
    pub link: Vec<u8>,
    /// Bytes of the file when read, holes included. Zero for what has no content.
    pub size_bytes: u64,
    /// Permission bits and whatever else the field held.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Time of the last change.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (i64, i64),
    /// Extended attributes, the last record of each name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    fn clear(&mut self) {
        self.name.clear();
        self.link.clear();
        self.xattrs.clear();
        self.device = (0, 0);
    }
}

/// Why a header was refused; the reader adds the entry.
#[derive(Debug)]
enum Refusal {
    Malformed(Malformed),
    Unsupported(&'static str),
    Limit(&'static str, u64),
}

impl From<Malformed> for Refusal {
    fn from(what: Malformed) -> Refusal {
        Refusal::Malformed(what)
    }
}

#[cfg(test)]
mod tests;
