//! What can go wrong between us and containerd.

use std::path::PathBuf;

use windlass_core::digest::Digest;
use windlass_core::manifest::ManifestError;
use windlass_core::reason::Reason;
use windlass_store::{SnapshotError, StoreError};

/// Why an image could not be handed over, or taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The namespace or the snapshotter's name is not what containerd takes.
    #[error("{what} {name:?} is not a name that containerd takes")]
    Name {
        /// Which of the two.
        what: &'static str,
        /// As configured.
        name: String,
    },
    /// Nobody listens on the socket, or the connection was lost.
    #[error("containerd does not answer at {}: {text}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What the transport said.
        text: String,
    },
    /// The call took too long.
    #[error("containerd did not {action} in {seconds} s")]
    Timeout {
        /// What was asked, as a verb.
        action: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// containerd answered with an error.
    #[error("containerd did not {action}: {code}: {text}")]
    Refused {
        /// What was asked, as a verb.
        action: &'static str,
        /// The gRPC code, in words.
        code: &'static str,
        /// What it said.
        text: String,
    },
    /// containerd asked our snapshotter for a layer of an image that is here, and got a new snapshot.
    #[error("the snapshotter {snapshotter} does not hold layer {chain}")]
    NotHeld {
        /// Name of the snapshotter in containerd.
        snapshotter: String,
        /// The layer's chain ID.
        chain: Digest,
    },
    /// The lower layers of the image went away again and again while it was handed over.
    #[error("containerd lost layers of {image} while it was handed over")]
    Restless {
        /// The image ID.
        image: Digest,
    },
    /// A document of the image, in the store or in containerd, cannot be read.
    #[error("document {digest} cannot be read")]
    Document {
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// A document of the image is not in the store.
    #[error("document {digest} is not in the store")]
    Missing {
        /// Its digest.
        digest: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records of our snapshotter could not be written.
    #[error(transparent)]
    Snapshots(Box<SnapshotError>),
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl HandoverError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            HandoverError::Name { .. } => Reason::InvalidConfig,
            HandoverError::Timeout { .. } => Reason::Timeout,
            HandoverError::Unreachable { .. } | HandoverError::Refused { .. } | HandoverError::Restless { .. } => {
                Reason::RuntimeUnavailable
            }
            HandoverError::NotHeld { .. } | HandoverError::Internal(_) => Reason::Internal,
            HandoverError::Document { source, .. } => source.reason(),
            HandoverError::Missing { .. } => Reason::InspectFailed,
            HandoverError::Store(error) => error.reason(),
            HandoverError::Snapshots(error) => error.reason(),
        }
    }
}
