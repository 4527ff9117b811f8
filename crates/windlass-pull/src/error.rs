//! Why an image is not there, with everything a person needs to change that.
//!
//! Every error answers [`PullError::reason`]; [`PullError::attempts`] lists the credentials that were tried and
//! what the registry said to each, never their values; [`PullError::hint`] says what to do next, more exactly
//! than the reason alone where the attempts tell.
//!
//! Invariants: `hint_names_the_secret_that_was_refused`, `credentials_are_tried_in_order_and_named_in_errors`.

use std::path::PathBuf;

use windlass_core::digest::Digest;
use windlass_core::manifest::ManifestError;
use windlass_core::platform::PlatformError;
use windlass_core::reason::{self, Reason};
use windlass_core::reference::ReferenceError;
use windlass_credentials::CredentialsError;
use windlass_distribution::FetchError;
use windlass_store::StoreError;

use crate::attempt::{Attempt, Attempts, hint_from};
use crate::workload::WorkloadError;

/// The error of every call of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The image name does not follow the grammar.
    #[error("invalid image name")]
    Reference(#[source] ReferenceError),
    /// Manifests could not be read.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A pull secret or node file is malformed, and the kubelet's rules let that end the pull.
    #[error("{source}")]
    Credentials {
        /// The reader's error, which names the secret or file.
        source: Box<CredentialsError>,
    },
    /// The registry gave an error for a manifest or blob.
    #[error("{source}")]
    Fetch {
        /// The client's error.
        source: Box<FetchError>,
        /// What was tried.
        attempts: Attempts,
    },
    /// Every credential was refused, or failed otherwise; kubelet order, one error each.
    #[error("{}", aggregate(.messages))]
    EveryCredential {
        /// The distinct messages in the order of the tries.
        messages: Vec<String>,
        /// Reason of the last try.
        reason: Reason,
        /// What was tried.
        attempts: Attempts,
    },
    /// The manifest, index or config breaks the rules.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The index offers nothing that runs here, or the image is for something else.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer's bytes were wrong, twice, from different sources where there were several.
    #[error("layer {digest}: {source}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// What the extractor found.
        source: Box<StoreError>,
    },
    /// A layer in the store is not what was unpacked there.
    #[error("layer {diff_id} in the store is damaged")]
    StoredLayer {
        /// Its diff ID.
        diff_id: Digest,
        /// What was found.
        #[source]
        source: Box<StoreError>,
    },
    /// The layers are too much together.
    #[error("{what} is {value}, the limit limits.{what} is {limit}")]
    ImageLimit {
        /// The limit's key under `limits:`.
        what: &'static str,
        /// How far the layers had come, in the unit of the key.
        value: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The image named is not in the store.
    #[error("image {name} is not here")]
    ImageUnknown {
        /// As asked.
        name: String,
    },
    /// A blob is neither kept here nor served by the places it came from.
    #[error("blob {digest} of {image} is not kept here and {place} no longer serves it")]
    BlobMissing {
        /// The blob.
        digest: Digest,
        /// The image that needs it.
        image: String,
        /// Where it came from.
        place: String,
        /// The last answer.
        #[source]
        source: Option<Box<FetchError>>,
    },
    /// A blob cannot be had, but the layer's own tar is here and could be compressed anew.
    #[error("{source}")]
    Recompressible {
        /// The blob.
        digest: Digest,
        /// Why it cannot be had.
        source: Box<PullError>,
    },
    /// Layers were to be compressed anew and the target's name wants a certain manifest.
    #[error("layers compressed anew give a manifest of another digest than {digest}")]
    OtherDigest {
        /// The digest in the name.
        digest: Digest,
    },
    /// A file or directory given by the caller could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// An image archive or layout breaks the rules of its format.
    #[error("{}: {what}", .path.display())]
    Layout {
        /// The archive or directory.
        path: PathBuf,
        /// The rule it breaks.
        what: String,
        /// The matching reason.
        reason: Reason,
    },
    /// The caller gave up; finished layers are kept.
    #[error("canceled")]
    Canceled,
    /// A worker ended without an answer, which is a bug.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// Another caller of the same pull failed; its error is shared.
    #[error("{0}")]
    Shared(std::sync::Arc<PullError>),
}

/// kubelet: `utilerrors.NewAggregate`; one distinct error as it is, several in brackets.
fn aggregate(messages: &[String]) -> String {
    match messages {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl PullError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            PullError::Reference(error) => error.reason(),
            PullError::Workload(error) => error.reason(),
            PullError::Credentials { source } => source.reason(),
            PullError::Fetch { source, .. } => source.reason(),
            PullError::EveryCredential { reason, .. } => *reason,
            PullError::Manifest(error) => error.reason(),
            PullError::Platform(error) => error.reason(),
            PullError::Store(error) => error.reason(),
            PullError::Layer { source, .. } => source.reason(),
            PullError::StoredLayer { .. } => Reason::InspectFailed,
            PullError::ImageLimit { .. } => Reason::LimitExceeded,
            PullError::ImageUnknown { .. } => Reason::ImageUnknown,
            PullError::BlobMissing { .. } => Reason::BlobMissing,
            PullError::Recompressible { source, .. } => source.reason(),
            PullError::OtherDigest { .. } => Reason::InvalidConfig,
            PullError::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Reason::NoSpace,
                std::io::ErrorKind::PermissionDenied => Reason::NotPermitted,
                _ => Reason::IoError,
            },
            PullError::Layout { reason, .. } => *reason,
            PullError::Canceled => Reason::Canceled,
            PullError::Internal(_) => Reason::Internal,
            PullError::Shared(error) => error.reason(),
        }
    }

    /// The credentials that were tried, in order; empty where none were needed.
    pub fn attempts(&self) -> &Attempts {
        match self {
            PullError::Fetch { attempts, .. } | PullError::EveryCredential { attempts, .. } => attempts,
            PullError::Shared(error) => error.attempts(),
            PullError::Recompressible { source, .. } => source.attempts(),
            PullError::Reference(_)
            | PullError::Workload(_)
            | PullError::Credentials { .. }
            | PullError::Manifest(_)
            | PullError::Platform(_)
            | PullError::Store(_)
            | PullError::Layer { .. }
            | PullError::StoredLayer { .. }
            | PullError::ImageLimit { .. }
            | PullError::ImageUnknown { .. }
            | PullError::BlobMissing { .. }
            | PullError::OtherDigest { .. }
            | PullError::Io { .. }
            | PullError::Layout { .. }
            | PullError::Canceled
            | PullError::Internal(_) => Attempts::NONE,
        }
    }

    /// The same error, with sources that gave no credential before the first try; only a registry's refusal tells of them.
    pub(crate) fn after(mut self, passed_over: Vec<Attempt>) -> PullError {
        if let PullError::Fetch { attempts, .. } = &mut self {
            attempts.0.splice(0..0, passed_over);
        }
        self
    }

    /// What to do next, one line without a full stop.
    pub fn hint(&self) -> String {
        if let PullError::Recompressible { .. } = self {
            return "the layer's own tar is here: --recompress writes it compressed anew, with another manifest digest and \
                    the same image ID; a docker-archive needs no compressed layer"
                .to_owned();
        }
        if let PullError::OtherDigest { .. } = self {
            return "give the target a tag, or leave --recompress out".to_owned();
        }
        if let PullError::StoredLayer { .. } = self {
            return "`windlass fsck --repair` takes the damaged layer out; `windlass pull` then brings the image again"
                .to_owned();
        }
        hint_from(self.reason(), self.attempts())
    }

    /// The whole chain in one line, outermost first, as the kubelet shows it.
    pub fn chain(&self) -> String {
        reason::chain(self)
    }
}
