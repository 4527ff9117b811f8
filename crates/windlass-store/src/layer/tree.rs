//! What a layer is unpacked into: the seam between the rules and the forms.
//!
//! A [`Tree`] holds the entries of one layer and nothing of the layers below. It creates, finds and removes by a
//! directory and one name; it never follows a link and never sees a path. [`super::apply`] does the rest, once for all
//! forms: [`super::dir`] writes directories and files, [`super::erofs`] an image file.

use super::error::Failed;
use super::rules::{Device, Meta};

/// Outcome of a creation.
#[derive(Debug, PartialEq, Eq)]
pub enum Made<T> {
    /// It was created.
    New(T),
    /// The name is taken; nothing changed.
    Taken,
}

/// What stands under a name.
#[derive(Debug)]
pub enum Found<D> {
    /// Nothing.
    Absent,
    /// A directory.
    Directory(D),
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// The mark of a whiteout.
    Whiteout,
    /// A file, device or pipe.
    Other,
}

/// Where bytes of a file stand already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the archive, from this byte of the stream on.
    Archive(u64),
    /// In a layer below.
    Below,
}

/// One layer being made.
pub trait Tree {
    /// A directory of the layer. Cheap to clone.
    type Dir: Clone;
    /// A file whose content is coming.
    type File;

    /// The root, which always exists.
    fn root(&self) -> Self::Dir;

    /// Where a directory is, from the root; empty for the root.
    fn path<'d>(&self, dir: &'d Self::Dir) -> &'d [u8];

    /// Bytes of memory that grow with the entries.
    fn memory_bytes(&self) -> u64;

    /// Whether a directory of this layer is known to hide what the layers below have at its place.
    fn hides_below(&self, dir: &Self::Dir) -> bool;

    /// Looks a name up without following it.
    ///
    /// # Errors
    /// What the file system says, for this and all other operations.
    fn find(&mut self, dir: &Self::Dir, name: &[u8]) -> Result<Found<Self::Dir>, Failed>;

    /// Makes a directory. Its times, and what would change the owner or the mode of its children, come with
    /// [`Tree::finish_directory`].
    ///
    /// # Errors
    /// What the file system says.
    fn make_directory(&mut self, dir: &Self::Dir, name: &[u8], meta: &Meta) -> Result<Made<()>, Failed>;

    /// Replaces owner, mode and extended attributes of a directory.
    ///
    /// # Errors
    /// What the file system says.
    fn update_directory(&mut self, dir: &Self::Dir, meta: &Meta) -> Result<(), Failed>;

    /// Gives a directory what had to wait until all its children were there. Not a directory any more: nothing.
    ///
    /// # Errors
    /// What the file system says.
    fn finish_directory(&mut self, dir: &Self::Dir, name: &[u8], meta: &Meta) -> Result<(), Failed>;

    /// Begins a file of this many bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn make_file(
        &mut self,
        dir: &Self::Dir,
        name: &[u8],
        meta: &Meta,
        size_bytes: u64,
    ) -> Result<Made<Self::File>, Failed>;

    /// Adds bytes to a file.
    ///
    /// # Errors
    /// What the file system says.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8], source: Source) -> Result<(), Failed>;

    /// Adds zeros to a file without storing them.
    ///
    /// # Errors
    /// What the file system says.
    fn hole(&mut self, file: &mut Self::File, bytes: u64) -> Result<(), Failed>;

    /// Ends a file: owner, extended attributes, mode, times, in this order.
    ///
    /// # Errors
    /// What the file system says.
    fn close(&mut self, file: Self::File, meta: &Meta) -> Result<(), Failed>;

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// What the file system says.
    fn make_symlink(&mut self, dir: &Self::Dir, name: &[u8], target: &[u8], meta: &Meta) -> Result<Made<()>, Failed>;

    /// Makes a device, or a named pipe where there is no device.
    ///
    /// # Errors
    /// What the file system says.
    fn make_special(
        &mut self,
        dir: &Self::Dir,
        name: &[u8],
        device: Option<Device>,
        meta: &Meta,
    ) -> Result<Made<()>, Failed>;

    /// Gives an entry, not followed, another name.
    ///
    /// # Errors
    /// What the file system says.
    fn make_link(
        &mut self,
        dir: &Self::Dir,
        name: &[u8],
        target_dir: &Self::Dir,
        target_name: &[u8],
    ) -> Result<Made<()>, Failed>;

    /// Puts the mark of a whiteout.
    ///
    /// # Errors
    /// What the file system says.
    fn make_whiteout(&mut self, dir: &Self::Dir, name: &[u8]) -> Result<Made<()>, Failed>;

    /// Marks a directory as hiding all that the layers below have in it.
    ///
    /// # Errors
    /// What the file system says.
    fn make_opaque(&mut self, dir: &Self::Dir) -> Result<(), Failed>;

    /// Removes what stands under a name, with all below it.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&mut self, dir: &Self::Dir, name: &[u8]) -> Result<(), Failed>;
}
