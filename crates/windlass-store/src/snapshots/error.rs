//! What can go wrong with a snapshot, in the words of containerd's protocol.

use windlass_core::reason::Reason;

use crate::error::StoreError;

/// Why a snapshot was not made, changed or found. Whatever is refused changes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The name is taken.
    #[error("snapshot {name} exists already")]
    AlreadyExists {
        /// The name.
        name: String,
    },
    /// There is no snapshot of this name.
    #[error("no snapshot {name}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A name, label or parent that will not do, now or later.
    #[error("{what}")]
    InvalidArgument {
        /// What is wrong, for people.
        what: String,
    },
    /// It cannot be done to this snapshot as things are.
    #[error("{what}")]
    FailedPrecondition {
        /// What stands in the way, for people.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SnapshotError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            SnapshotError::AlreadyExists { .. } | SnapshotError::FailedPrecondition { .. } => Reason::InUse,
            SnapshotError::NotFound { .. } => Reason::ImageUnknown,
            SnapshotError::InvalidArgument { .. } => Reason::InvalidConfig,
            SnapshotError::Store(error) => error.reason(),
        }
    }

    pub(super) fn exists(name: &str) -> SnapshotError {
        SnapshotError::AlreadyExists { name: name.to_owned() }
    }

    pub(super) fn not_found(name: &str) -> SnapshotError {
        SnapshotError::NotFound { name: name.to_owned() }
    }

    pub(super) fn invalid(what: impl Into<String>) -> SnapshotError {
        SnapshotError::InvalidArgument { what: what.into() }
    }

    pub(super) fn refused(what: impl Into<String>) -> SnapshotError {
        SnapshotError::FailedPrecondition { what: what.into() }
    }
}
