//! What can be wrong with an entry, with writing, and with an image that is read.

use std::io;

/// Why an operation on a [`crate::Tree`] was refused. The tree is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The tree would take more memory than it was given.
    #[error("the entries take more than {max_bytes} bytes of memory")]
    Full {
        /// The limit given to [`crate::Tree::new`].
        max_bytes: usize,
    },
    /// A name that is empty, `.`, `..`, longer than 255 bytes, or holds NUL or a slash.
    #[error("a name that no entry can have")]
    Name,
    /// The name is taken.
    #[error("the name is taken")]
    Taken,
    /// Nothing has this name.
    #[error("nothing has this name")]
    Absent,
    /// The node was removed.
    #[error("the entry was removed")]
    Removed,
    /// A directory is needed.
    #[error("not a directory")]
    NotADirectory,
    /// A regular file is needed.
    #[error("not a regular file")]
    NotAFile,
    /// A directory cannot have a second name.
    #[error("a directory has one name")]
    DirectoryLink,
    /// The text of a symbolic link is empty, longer than 4095 bytes, or holds NUL.
    #[error("a text that no symbolic link can have")]
    LinkText,
    /// A device number beyond 12 bits (major) and 20 bits (minor).
    #[error("a device number that no Linux device has")]
    DeviceNumber,
    /// The offset of a content is not a multiple of 512 behind the first 4096 bytes, or ends beyond 2 TiB.
    #[error("a content cannot stand at {offset}")]
    ContentOffset {
        /// The offset given.
        offset: u64,
    },
    /// An extended attribute of a name that EROFS cannot hold.
    #[error("an extended attribute whose name cannot be kept")]
    XattrName,
    /// An extended attribute was given twice.
    #[error("an extended attribute that is there twice")]
    XattrTwice,
    /// The value of an extended attribute is longer than 65,535 bytes.
    #[error("an extended attribute of {size_bytes} bytes")]
    XattrValue {
        /// Its size.
        size_bytes: usize,
    },
    /// All extended attributes of an entry together are larger than an inode can hold.
    #[error("extended attributes of {size_bytes} bytes, an entry can have {max_bytes}")]
    XattrsTooLarge {
        /// Their size as they would be stored.
        size_bytes: usize,
        /// The most that can be stored.
        max_bytes: usize,
    },
}

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The metadata cannot begin there: not a multiple of 512, or before the end of the tar.
    #[error("metadata cannot begin at {at_bytes}")]
    MetadataOffset {
        /// The offset given.
        at_bytes: u64,
    },
    /// A file's content reaches into the metadata.
    #[error("a content of {size_bytes} bytes at {offset} reaches into the metadata")]
    ContentBeyond {
        /// Offset of the content.
        offset: u64,
        /// Its size.
        size_bytes: u64,
    },
    /// The image would pass 2 TiB, the most that 32 bits of blocks can hold.
    #[error("the image would be larger than 2 TiB")]
    TooLarge,
    /// The digest is empty, longer than 200 bytes, or not of visible ASCII.
    #[error("a digest that cannot be kept")]
    DigestText,
    /// The sink failed.
    #[error("cannot write the metadata")]
    Io(#[from] io::Error),
}

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is none of ours.
    #[error("not an image of a layer")]
    NotALayer,
    /// The file has another size than was written.
    #[error("the image has {size_bytes} bytes, {want_bytes} were written")]
    Size {
        /// Its size.
        size_bytes: u64,
        /// What the head says.
        want_bytes: u64,
    },
    /// A sum does not fit.
    #[error("the {what} of the image does not have the sum it was written with")]
    Sum {
        /// Which part.
        what: &'static str,
    },
    /// Something cannot be as it is.
    #[error("the image is damaged: {what} (at {at})")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// About which byte of the file.
        at: u64,
    },
    /// Valid EROFS perhaps, but nothing that [`crate::write()`] makes.
    #[error("the image has {what}, which is not written here (at {at})")]
    Unsupported {
        /// What it is.
        what: &'static str,
        /// About which byte of the file.
        at: u64,
    },
    /// A directory is needed.
    #[error("not a directory")]
    NotADirectory,
    /// A regular file is needed.
    #[error("not a regular file")]
    NotAFile,
    /// A symbolic link is needed.
    #[error("not a symbolic link")]
    NotALink,
    /// Reading failed.
    #[error("cannot read the image")]
    Io(#[from] io::Error),
}
