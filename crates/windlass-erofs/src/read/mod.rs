//! Reads an image that [`crate::write()`] made. The disk may have changed it since: nothing is believed, all is bounded.
//!
//! No answer is larger than what was asked for, or than its part of the file can be. Directories may hold each other in
//! a damaged image: who walks must bound the depth.
//!
//! Invariants: `what_was_written_is_read_back`; `damage_is_an_error_and_never_a_panic`.

mod directory;
mod source;

use std::fmt;

use crate::attributes::{Attributes, Content, Kind, Time, Xattrs};
use crate::error::ReadError;
use crate::head::Head;
use crate::inode::{Form, INODE_MAX, Layout, RawInode, SLOT_BYTES};
use crate::superblock::Superblock;
use crate::{BLOCK_BYTES, DATA_START, LINK_TEXT_MAX, xattr};
pub use directory::{Entries, Entry, FileType};
use source::Metadata;
pub use source::ReadAt;

/// Number of an inode in its image; `stat` shows it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(pub u64);

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One entry of an image, without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: Nid,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
    /// Number of names; of a directory 2 and its subdirectories.
    pub links: u32,
    /// Bytes of a file or of a link's text; a directory's own size.
    pub size_bytes: u64,
    layout: Layout,
    block: u32,
    form: Form,
    xattr_bytes: usize,
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is the mark of a whiteout.
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::Device(crate::Device::WHITEOUT)
    }

    /// Whether it has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.xattr_bytes > 0
    }

    /// Offset of the inode from the beginning of the metadata.
    fn at(&self) -> u64 {
        self.nid.0 * SLOT_BYTES
    }

    /// Offset of its extended attributes, likewise.
    fn xattrs_at(&self) -> u64 {
        self.at() + self.form.bytes()
    }

    /// Offset of what stands behind it all, likewise.
    fn tail_at(&self) -> u64 {
        self.xattrs_at() + self.xattr_bytes as u64
    }
}

/// An image of a layer.
pub struct Image<S> {
    head: Head,
    root: Nid,
    inodes: u64,
    common_mtime: Time,
    metadata: Metadata<S>,
}

impl<S> fmt::Debug for Image<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("head", &self.head).finish_non_exhaustive()
    }
}

impl<S: ReadAt> Image<S> {
    /// Takes a file of this size after a look at its head and superblock. The metadata is not read: see
    /// [`Image::check_metadata`].
    ///
    /// # Errors
    /// [`ReadError::NotALayer`], [`ReadError::Sum`] and others for a file that is none, or not whole.
    pub fn open(source: S, size_bytes: u64) -> Result<Image<S>, ReadError> {
        if size_bytes < DATA_START {
            return Err(ReadError::NotALayer);
        }
        let mut front = Box::new([0; DATA_START as usize]);
        source::read_exact(&source, &mut front[..], 0)?;
        let (head, superblock) = Head::parse(&front, size_bytes)?;
        if u64::from(superblock.blocks) * BLOCK_BYTES != size_bytes {
            return Err(ReadError::Damaged { what: "the number of its blocks", at: 1024 });
        }
        let metadata = Metadata::new(source, head.metadata_offset, head.total_bytes);
        let Superblock { root, inodes, common_mtime, .. } = superblock;
        Ok(Image { head, root: Nid(root.into()), inodes, common_mtime, metadata })
    }

    /// What the image says about itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What the image is read from.
    pub fn source(&self) -> &S {
        self.metadata.source()
    }

    /// How many inodes it says it has.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// The number of the root.
    pub fn root(&self) -> Nid {
        self.root
    }

    /// Reads the inode of a number, which may be from anywhere.
    ///
    /// # Errors
    /// [`ReadError::Damaged`], [`ReadError::Unsupported`] and [`ReadError::Io`], as for all that follow.
    pub fn inode(&self, nid: Nid) -> Result<Inode, ReadError> {
        let at = nid.0.checked_mul(SLOT_BYTES).ok_or_else(|| self.damaged("the number of an inode", 0))?;
        let mut bytes = [0; INODE_MAX];
        let (first, rest) = bytes.split_at_mut(SLOT_BYTES as usize);
        self.metadata.read(at, first)?;
        let form = Form::of(first[0]);
        if form == Form::Extended {
            self.metadata.read(at + SLOT_BYTES, rest)?;
        }
        let unsupported = |what| ReadError::Unsupported { what, at: self.head.metadata_offset.saturating_add(at) };
        let raw = RawInode::parse(&bytes[..form.bytes() as usize], self.common_mtime).map_err(unsupported)?;
        let kind = raw.kind().ok_or_else(|| self.damaged("the kind of an inode", at))?;
        if raw.mtime.nanos > 999_999_999 {
            return Err(self.damaged("the time of an inode", at));
        }
        let inode = Inode {
            nid,
            kind,
            mode: u32::from(raw.mode) & 0o7777,
            uid: raw.uid,
            gid: raw.gid,
            mtime: raw.mtime,
            links: raw.links,
            size_bytes: raw.size_bytes,
            layout: raw.layout,
            block: raw.block,
            form,
            xattr_bytes: xattr::body_bytes(raw.xattr_count),
        };
        self.check(&inode)?;
        Ok(inode)
    }

    /// Whether what an inode says about its data can be.
    fn check(&self, inode: &Inode) -> Result<(), ReadError> {
        let at = inode.at();
        let blocks = u64::from(inode.block) * BLOCK_BYTES;
        let within = |from: u64, to: u64| {
            let end = blocks.checked_add(inode.size_bytes);
            blocks >= from && end.is_some_and(|end| end <= to)
        };
        let fits = match (inode.kind, inode.layout) {
            (Kind::File, Layout::Plain) => inode.size_bytes == 0 || within(DATA_START, self.head.metadata_offset),
            (Kind::Directory | Kind::Symlink, Layout::Plain) => {
                within(self.head.metadata_offset, self.head.total_bytes)
            }
            (Kind::Directory, Layout::Inline) => {
                let full = inode.size_bytes / BLOCK_BYTES * BLOCK_BYTES;
                let end = blocks.checked_add(full);
                full == 0 || blocks >= self.head.metadata_offset && end.is_some_and(|end| end <= self.head.total_bytes)
            }
            (Kind::Symlink, Layout::Inline) => inode.size_bytes < BLOCK_BYTES,
            (Kind::Device(_) | Kind::Fifo, Layout::Plain) => inode.size_bytes == 0,
            (Kind::File | Kind::Device(_) | Kind::Fifo, Layout::Inline) => false,
        };
        let is_text = inode.kind != Kind::Symlink || (1..=LINK_TEXT_MAX as u64).contains(&inode.size_bytes);
        if fits && is_text { Ok(()) } else { Err(self.damaged("the data of an inode", at)) }
    }

    /// Reads from a file, as many bytes as there are; 0 at its end.
    ///
    /// # Errors
    /// [`ReadError::NotAFile`], or as [`Image::inode`].
    pub fn read(&self, file: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let Content { offset: start, size_bytes } = self.content(file)?;
        let left = usize::try_from(size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        source::read_exact(self.source(), &mut buf[..len], start + offset.min(size_bytes))?;
        Ok(len)
    }

    /// Where the bytes of a file are.
    ///
    /// # Errors
    /// [`ReadError::NotAFile`].
    pub fn content(&self, file: &Inode) -> Result<Content, ReadError> {
        if file.kind != Kind::File {
            return Err(ReadError::NotAFile);
        }
        let offset = if file.size_bytes == 0 { 0 } else { u64::from(file.block) * BLOCK_BYTES };
        Ok(Content { offset, size_bytes: file.size_bytes })
    }

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// [`ReadError::NotALink`], or as [`Image::inode`].
    pub fn link_text(&self, link: &Inode) -> Result<Vec<u8>, ReadError> {
        if link.kind != Kind::Symlink {
            return Err(ReadError::NotALink);
        }
        let at = match link.layout {
            Layout::Plain => (u64::from(link.block) * BLOCK_BYTES).saturating_sub(self.head.metadata_offset),
            Layout::Inline => link.tail_at(),
        };
        let mut text = vec![0; (link.size_bytes as usize).min(LINK_TEXT_MAX)];
        self.metadata.read(at, &mut text)?;
        if text.contains(&0) { Err(self.damaged("the text of a link", at)) } else { Ok(text) }
    }

    /// The extended attributes of an entry, sorted by name as they were written.
    ///
    /// # Errors
    /// As [`Image::inode`].
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ReadError> {
        // At most 256 KiB, since the count has 16 bits.
        let mut body = vec![0; inode.xattr_bytes];
        let at = inode.xattrs_at();
        self.metadata.read(at, &mut body)?;
        xattr::parse(&body).map_err(|what| self.damaged(what, at))
    }

    /// Owner, mode, time and extended attributes of an entry.
    ///
    /// # Errors
    /// As [`Image::inode`].
    pub fn attributes(&self, inode: &Inode) -> Result<Attributes, ReadError> {
        let xattrs = self.xattrs(inode)?;
        Ok(Attributes { mode: inode.mode, uid: inode.uid, gid: inode.gid, mtime: inode.mtime, xattrs })
    }

    /// Whether a directory hides all that the layers below have in its place.
    ///
    /// # Errors
    /// As [`Image::inode`].
    pub fn is_opaque(&self, directory: &Inode) -> Result<bool, ReadError> {
        if !directory.is_directory() || !directory.has_xattrs() {
            return Ok(false);
        }
        Ok(self.xattrs(directory)?.iter().any(|(name, value)| (&name[..], &value[..]) == xattr::OPAQUE))
    }

    /// Reads all metadata and compares its sum with the one in the head.
    ///
    /// # Errors
    /// [`ReadError::Sum`], [`ReadError::Io`].
    pub fn check_metadata(&self) -> Result<(), ReadError> {
        if self.metadata.sum()? == self.head.metadata_crc32c {
            Ok(())
        } else {
            Err(ReadError::Sum { what: "metadata" })
        }
    }

    /// An error about a place in the metadata.
    fn damaged(&self, what: &'static str, at: u64) -> ReadError {
        ReadError::Damaged { what, at: self.head.metadata_offset.saturating_add(at) }
    }
}
