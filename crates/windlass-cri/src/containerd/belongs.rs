//! Which images a record of containerd leads to: the configs below its target.
//!
//! Targets are addressed by their digests, so what was found once stays true and is kept in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::digest::Digest;
use windlass_core::manifest::{Document, DocumentLimits, IndexWalk, parse_document};

use super::HandoverError;
use super::client::Client;
use super::content;

/// Most targets kept; a node has some hundreds of images. Beyond that all are forgotten and found again.
const KEPT_MAX: usize = 8192;

/// Targets with the configs below them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    known: Mutex<HashMap<Digest, Arc<BTreeSet<Digest>>>>,
}

impl Targets {
    /// The configs below a target, as far as its documents are there and make sense.
    pub(super) async fn configs(
        &self,
        client: &Client,
        target: &Digest,
    ) -> Result<Arc<BTreeSet<Digest>>, HandoverError> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(target) {
            return Ok(known.clone());
        }
        let found = Arc::new(find(client, target).await?);
        // Nothing may mean not yet.
        if !found.is_empty() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KEPT_MAX {
                known.clear();
            }
            known.insert(target.clone(), found.clone());
        }
        Ok(found)
    }
}

async fn find(client: &Client, target: &Digest) -> Result<BTreeSet<Digest>, HandoverError> {
    let limits = DocumentLimits::default();
    let mut walk = IndexWalk::default();
    let mut configs = BTreeSet::new();
    let mut open = vec![(target.clone(), 0)];
    while let Some((digest, depth)) = open.pop() {
        if !matches!(walk.enter(&digest, depth, &limits), Ok(true)) {
            continue;
        }
        let Some(bytes) = content::read(client, &digest, limits.manifest_bytes).await? else { continue };
        match parse_document(&bytes, None, None, &limits) {
            Ok(Document::Manifest(manifest)) => drop(configs.insert(manifest.config.digest)),
            Ok(Document::Index(index)) => {
                let inner = index.entries.into_iter().filter(|entry| entry.is_document());
                open.extend(inner.map(|entry| (entry.digest, depth + 1)));
            }
            Err(error) => tracing::debug!(%digest, %error, "a document in containerd cannot be read"),
        }
    }
    Ok(configs)
}
