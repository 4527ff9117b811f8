//! What can go wrong in the store, as fields; [`StoreError::reason`] is what surfaces map.
//!
//! Invariant: `a_full_disk_is_no_space_and_a_dead_one_io_error`.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

/// Why a store operation failed. Nothing that failed is ever visible as an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the store and did not let go within the lock time-out.
    #[error("the store {} is held by {}", root.display(), holder.as_deref().unwrap_or("another process"))]
    Locked {
        /// Root of the store.
        root: PathBuf,
        /// What the lock file says about the holder: process id and boot id.
        holder: Option<String>,
    },
    /// The store was written by a version that this one does not know; nothing was touched.
    #[error("the store {} has format {found}, this version knows up to {known}", root.display())]
    Format {
        /// Root of the store.
        root: PathBuf,
        /// The format the store states, as text: it may not even be a number.
        found: String,
        /// The newest format this version reads.
        known: u64,
    },
    /// The directory holds something that is not a store; nothing was touched.
    #[error("{} is not a windlass store and not empty", root.display())]
    NotAStore {
        /// The directory.
        root: PathBuf,
    },
    /// The store was opened for reading only, or does not exist.
    #[error("the store {} is open for reading only", root.display())]
    ReadOnly {
        /// Root of the store.
        root: PathBuf,
    },
    /// A record of the metadata does not decode.
    #[error("record {key} in table {table} cannot be read")]
    Record {
        /// The table.
        table: &'static str,
        /// The key, a name or digest.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The metadata database failed.
    #[error("the metadata database failed")]
    Meta {
        /// The database's words.
        #[source]
        source: Box<redb::Error>,
    },
    /// No space, inodes or quota left, or the reserve would be touched.
    #[error("no space at {}{}", path.display(), need_text(*need_bytes, *free_bytes))]
    NoSpace {
        /// Where space is short.
        path: PathBuf,
        /// What was asked for, in bytes, where it is known.
        need_bytes: Option<u64>,
        /// What is free to use, in bytes, where it is known.
        free_bytes: Option<u64>,
    },
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A sync failed. What was written since is treated as lost and never synced again.
    #[error("cannot make {} durable", path.display())]
    Sync {
        /// What was to be synced.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Reading what was to be stored failed; the source is the producer's error.
    #[error("the bytes of {digest} stopped")]
    Input {
        /// What was being read.
        digest: Digest,
        /// The producer's error.
        #[source]
        source: io::Error,
    },
    /// Content does not hash to its digest.
    #[error("blob {want} hashed to {got}")]
    DigestMismatch {
        /// The digest that was promised.
        want: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// Content is longer or shorter than promised.
    #[error("blob {digest} has {got_bytes} bytes{}, {want_bytes} were promised", if *got_bytes > *want_bytes { " or more" } else { "" })]
    SizeMismatch {
        /// Whose size.
        digest: Digest,
        /// The size that was promised.
        want_bytes: u64,
        /// The size that came; reading stops one byte after the promise.
        got_bytes: u64,
    },
    /// A layer could not be unpacked.
    #[error("layer {blob} cannot be unpacked")]
    Layer {
        /// The layer's blob.
        blob: Digest,
        /// Why.
        #[source]
        source: crate::layer::LayerError,
    },
    /// Layers were to be kept as image files, and this kernel or file system cannot mount them.
    #[error("layers cannot be kept as image files in {}: {why}; use snapshot format auto or overlay", root.display())]
    NoImageFiles {
        /// The store.
        root: PathBuf,
        /// What was tried and failed.
        why: String,
    },
    /// A tree on disk could not be read, settled or removed.
    #[error("cannot {action} {}", path.display())]
    Tree {
        /// What was tried, as a verb.
        action: &'static str,
        /// The tree.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::layer::LayerError,
    },
    /// A commit names a part that this pull did not bring and the store does not have.
    #[error("the image's {part} {digest} is not in the store")]
    Incomplete {
        /// Which kind of part.
        part: &'static str,
        /// Its digest or chain ID.
        digest: Digest,
    },
    /// The image named is not in the store.
    #[error("no image {name} in the store")]
    UnknownImage {
        /// As asked.
        name: String,
    },
    /// The name is neither a reference nor an image ID.
    #[error("{name} is neither a reference nor an image ID")]
    BadName {
        /// As asked.
        name: String,
    },
    /// Several images have an ID that starts like this.
    #[error("{count} images have an ID that starts with {prefix}")]
    Ambiguous {
        /// As asked.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// Something still uses the image.
    #[error("image {image} is in use by {by}")]
    InUse {
        /// The image ID.
        image: Digest,
        /// What uses it.
        by: String,
    },
    /// The image is pinned and must not go.
    #[error("image {image} is pinned: {why}")]
    Pinned {
        /// The image ID.
        image: Digest,
        /// Source and reason of the pin.
        why: String,
    },
    /// A pin that is not fit to be stored.
    #[error(transparent)]
    Pin(#[from] windlass_core::pin::PinError),
    /// The image is recorded but damaged.
    #[error("image {image} is damaged: {what}")]
    Damaged {
        /// The image ID.
        image: Digest,
        /// What is missing or wrong.
        what: String,
    },
    /// The kernel or the user's rights do not allow it.
    #[error("not permitted to {action}")]
    NotPermitted {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A pull record does not decode.
    #[error("pull record {} cannot be read", path.display())]
    PullRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The caller gave up.
    #[error("canceled")]
    Canceled,
}

fn need_text(need: Option<u64>, free: Option<u64>) -> String {
    match (need, free) {
        (Some(need), Some(free)) => format!(": {need} bytes needed, {free} free to use"),
        (Some(need), None) => format!(": {need} bytes needed"),
        (None, _) => String::new(),
    }
}

impl StoreError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            StoreError::Locked { .. } => Reason::StoreLocked,
            StoreError::Format { .. } => Reason::StoreFormat,
            StoreError::NotAStore { .. } | StoreError::NoImageFiles { .. } => Reason::InvalidConfig,
            StoreError::ReadOnly { .. } | StoreError::NotPermitted { .. } => Reason::NotPermitted,
            StoreError::Record { .. }
            | StoreError::Meta { .. }
            | StoreError::Damaged { .. }
            | StoreError::PullRecord { .. } => Reason::InspectFailed,
            StoreError::NoSpace { .. } => Reason::NoSpace,
            StoreError::Io { source, .. } | StoreError::Sync { source, .. } => io_reason(source),
            StoreError::Input { .. } => Reason::IoError,
            StoreError::DigestMismatch { .. } => Reason::DigestMismatch,
            StoreError::SizeMismatch { .. } => Reason::SizeMismatch,
            StoreError::Layer { source, .. } | StoreError::Tree { source, .. } => source.reason(),
            StoreError::Incomplete { .. } => Reason::BlobMissing,
            StoreError::UnknownImage { .. } | StoreError::Ambiguous { .. } => Reason::ImageUnknown,
            StoreError::BadName { .. } => Reason::InvalidReference,
            StoreError::InUse { .. } | StoreError::Pinned { .. } => Reason::InUse,
            StoreError::Pin(error) => error.reason(),
            StoreError::Canceled => Reason::Canceled,
        }
    }

    /// Turns an error of the kernel into ours: a full disk is told from a failing one.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> StoreError {
        let source = source.into();
        if is_full(&source) {
            return StoreError::NoSpace { path: path.to_owned(), need_bytes: None, free_bytes: None };
        }
        StoreError::Io { action, path: path.to_owned(), source }
    }

    /// The same for a sync, whose failure means that the bytes are lost.
    pub(crate) fn sync(path: &Path, source: impl Into<io::Error>) -> StoreError {
        let source = source.into();
        if is_full(&source) {
            return StoreError::NoSpace { path: path.to_owned(), need_bytes: None, free_bytes: None };
        }
        StoreError::Sync { path: path.to_owned(), source }
    }

    /// Turns an error of the database into ours.
    pub(crate) fn meta(path: &Path, source: impl Into<redb::Error>) -> StoreError {
        match source.into() {
            redb::Error::Io(source) if !is_damage(&source) => StoreError::io("write", path, source),
            other => StoreError::Meta { source: Box::new(other) },
        }
    }
}

/// Whether the file was readable, but not what it should be.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Whether the kernel says that space, inodes or quota are used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| errno == Errno::NOSPC || errno == Errno::DQUOT)
}

fn io_reason(error: &io::Error) -> Reason {
    match error.kind() {
        _ if is_full(error) => Reason::NoSpace,
        io::ErrorKind::PermissionDenied => Reason::NotPermitted,
        _ => Reason::IoError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_space_and_a_dead_one_io_error() {
        let table = [
            (Errno::NOSPC, Reason::NoSpace),
            (Errno::DQUOT, Reason::NoSpace),
            (Errno::IO, Reason::IoError),
            (Errno::ROFS, Reason::IoError),
            (Errno::ACCESS, Reason::NotPermitted),
        ];
        for (errno, want) in table {
            assert_eq!(StoreError::io("write", Path::new("/x"), errno).reason(), want, "{errno:?}");
            assert_eq!(StoreError::sync(Path::new("/x"), errno).reason(), want, "sync {errno:?}");
        }
    }
}
