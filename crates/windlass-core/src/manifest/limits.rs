//! How much a document may cost.

use std::collections::HashSet;

use super::ManifestError;
use crate::digest::Digest;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Bounds on documents and on what they announce. The configuration keys under `limits:` carry the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentLimits {
    /// `manifestBytes`: manifest or index. 4 MiB is what a registry must accept (distribution-spec).
    pub manifest_bytes: u64,
    /// `configBytes`: image config.
    pub config_bytes: u64,
    /// `jsonDepth`: nesting of arrays and objects.
    pub json_depth: usize,
    /// `jsonNodes`: values of all kinds in one document.
    pub json_nodes: usize,
    /// `indexDepth`: indexes within indexes.
    pub index_depth: usize,
    /// `indexEntries`: entries of one index.
    pub index_entries: usize,
    /// `documents`: manifests and indexes fetched for one reference.
    pub documents: usize,
    /// `layers`: layers of one image. An overlay mount's option page holds about 500.
    pub layers: usize,
    /// `layerBytes`: one compressed layer.
    pub layer_bytes: u64,
    /// Longest `data` field that is honoured, decoded; longer ones are ignored.
    pub embedded_bytes: u64,
}

impl Default for DocumentLimits {
    fn default() -> DocumentLimits {
        DocumentLimits {
            manifest_bytes: 4 * MIB,
            config_bytes: 8 * MIB,
            json_depth: 64,
            json_nodes: 200_000,
            index_depth: 4,
            index_entries: 4096,
            documents: 256,
            layers: 500,
            layer_bytes: 64 * GIB,
            embedded_bytes: MIB,
        }
    }
}

/// Counts the documents visited for one reference: bounded in depth and number, each digest once.
#[derive(Debug, Default)]
pub struct IndexWalk {
    visited: HashSet<Digest>,
}

impl IndexWalk {
    /// Notes that the document `digest` is about to be fetched, `depth` indexes below the one first named.
    /// `false`: it was visited before and is to be skipped.
    ///
    /// # Errors
    /// [`ManifestError::Limit`] for `indexDepth` or `documents`.
    pub fn enter(&mut self, digest: &Digest, depth: usize, limits: &DocumentLimits) -> Result<bool, ManifestError> {
        ManifestError::check_limit("indexDepth", depth as u64, limits.index_depth as u64)?;
        if !self.visited.insert(digest.clone()) {
            return Ok(false);
        }
        ManifestError::check_limit("documents", self.visited.len() as u64, limits.documents as u64)?;
        Ok(true)
    }
}
