//! Where an image's documents and blobs come from: a registry, or an archive on this machine.
//!
//! Both go through the same resolving, checking, unpacking and committing; this is the only place that knows the
//! difference. Whatever comes out of [`Origin::document`] and [`Origin::config`] has its digest and size verified.

use std::sync::Arc;

use bytes::Bytes;
use windlass_core::digest::Digest;
use windlass_core::manifest::{Descriptor, Document, DocumentLimits, parse_document};
use windlass_core::reference::Reference;
use windlass_distribution::{FetchError, FetchedManifest, Repository, TagOrDigest};

use crate::PullError;
use crate::archive::Archive;
use crate::attempt::{Accepted, Attempts};
use crate::engine::blocking;

/// A place that has an image.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A registry, asked for one reference.
    Registry { repository: Arc<Repository>, reference: Reference },
    /// An archive, and which of its images is meant.
    Archive { archive: Arc<Archive>, root: Descriptor },
}

/// A document, verified and read.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    pub(crate) document: Document,
    /// The host it came from.
    pub(crate) source: Option<String>,
}

impl From<FetchedManifest> for Fetched {
    fn from(found: FetchedManifest) -> Fetched {
        let source = Some(found.source.to_string());
        Fetched { digest: found.digest, bytes: found.bytes, document: found.document, source }
    }
}

impl Origin {
    /// The registry that is asked.
    pub(crate) fn registry(&self) -> Option<Arc<str>> {
        match self {
            Origin::Registry { reference, .. } => Some(reference.host().to_string().into()),
            Origin::Archive { .. } => None,
        }
    }

    /// The document the reference names.
    pub(crate) async fn root(&self, limits: &DocumentLimits) -> Result<Fetched, PullError> {
        match self {
            Origin::Registry { repository, reference } => {
                let found = repository.manifest(&TagOrDigest::from(reference)).await;
                found.map(Fetched::from).map_err(|error| self.fetch_error(error))
            }
            Origin::Archive { root, .. } => self.document(root, limits).await,
        }
    }

    /// A manifest or index by its descriptor.
    pub(crate) async fn document(&self, entry: &Descriptor, limits: &DocumentLimits) -> Result<Fetched, PullError> {
        match self {
            Origin::Registry { repository, .. } => {
                let found = repository.child(entry).await;
                found.map(Fetched::from).map_err(|error| self.fetch_error(error))
            }
            Origin::Archive { archive, .. } => {
                let bytes = self.archived(archive, entry, limits.manifest_bytes).await?;
                let document = parse_document(&bytes, None, Some(&entry.media_type), limits)?;
                Ok(Fetched { digest: entry.digest.clone(), bytes, document, source: None })
            }
        }
    }

    /// The index that the manifest at the root was chosen from, where an archive has it beside the manifest.
    pub(crate) async fn chosen_from(&self, limits: &DocumentLimits) -> Result<Option<(Digest, Bytes)>, PullError> {
        match self {
            Origin::Registry { .. } => Ok(None),
            Origin::Archive { archive, root } => {
                let (archive, root, limits) = (archive.clone(), root.clone(), limits.clone());
                let found = blocking(move || archive.chosen_from(&root, &limits)).await?;
                Ok(found.map(|(digest, bytes)| (digest, Bytes::from(bytes))))
            }
        }
    }

    /// A config by its descriptor.
    pub(crate) async fn config(&self, descriptor: &Descriptor, limits: &DocumentLimits) -> Result<Bytes, PullError> {
        match self {
            Origin::Registry { repository, .. } => {
                let bytes = repository.blob_bytes(descriptor, limits.config_bytes).await;
                bytes.map_err(|error| self.fetch_error(error))
            }
            Origin::Archive { archive, .. } => self.archived(archive, descriptor, limits.config_bytes).await,
        }
    }

    async fn archived(&self, archive: &Arc<Archive>, descriptor: &Descriptor, limit: u64) -> Result<Bytes, PullError> {
        let (archive, descriptor) = (archive.clone(), descriptor.clone());
        blocking(move || archive.document(&descriptor, limit)).await.map(Bytes::from)
    }

    /// What was tried so far.
    pub(crate) fn attempts(&self) -> Attempts {
        match self {
            Origin::Registry { repository, .. } => Attempts::of(repository),
            Origin::Archive { .. } => Attempts::default(),
        }
    }

    /// The credential that was accepted.
    pub(crate) fn accepted(&self) -> Accepted {
        match self {
            Origin::Registry { repository, .. } => match repository.accepted() {
                Some(Some(candidate)) => Accepted::Credential(Box::new(candidate)),
                Some(None) => Accepted::Anonymous,
                None => Accepted::Nobody,
            },
            Origin::Archive { .. } => Accepted::Nobody,
        }
    }

    /// What the registry wants people to know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match self {
            Origin::Registry { repository, .. } => repository.warnings(),
            Origin::Archive { .. } => Vec::new(),
        }
    }

    /// Requests sent so far.
    pub(crate) fn requests(&self) -> u64 {
        match self {
            Origin::Registry { repository, .. } => repository.counters().requests(),
            Origin::Archive { .. } => 0,
        }
    }

    /// Wraps an error of the client with what was tried.
    pub(crate) fn fetch_error(&self, error: FetchError) -> PullError {
        PullError::Fetch { source: Box::new(error), attempts: self.attempts() }
    }
}
