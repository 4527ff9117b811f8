//! Why a daemon does not start, or ends.

use std::net::SocketAddr;
use std::path::PathBuf;

use windlass_core::reason::Reason;
use windlass_cri::containerd::HandoverError;
use windlass_cri::socket::SocketError;
use windlass_store::StoreError;

use crate::lock::Holder;

/// Why a daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Another daemon runs on the root.
    #[error("another daemon runs on {}: {}", .root.display(), holder_words(.holder.as_ref()))]
    Running {
        /// The root.
        root: PathBuf,
        /// The other one, where it says who it is.
        holder: Option<Holder>,
    },
    /// The lock file cannot be used.
    #[error("lock {}", .path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The socket cannot be listened on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The socket that the service manager hands over cannot be used.
    #[error("the socket of the service manager cannot be used")]
    HandedOver {
        /// Why.
        source: std::io::Error,
    },
    /// The address for metrics and the status page cannot be listened on.
    #[error("listen on {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What is configured of containerd makes no sense to it.
    #[error(transparent)]
    Containerd(#[from] HandoverError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NodeError {
    /// The word for it in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            NodeError::Running { .. } => Reason::StoreLocked,
            NodeError::Socket(error) => error.reason(),
            NodeError::HandedOver { .. } => Reason::InvalidConfig,
            NodeError::Lock { source, .. } | NodeError::Address { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => Reason::NotPermitted,
                std::io::ErrorKind::AddrInUse => Reason::InUse,
                _ => Reason::IoError,
            },
            NodeError::Containerd(error) => error.reason(),
            NodeError::Store(error) => error.reason(),
        }
    }
}

fn holder_words(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("process {}, listening on {}", holder.pid, holder.socket.display()),
        None => "its lock is held".to_owned(),
    }
}
