//! From a reference to one manifest for one platform.
//!
//! In: an [`Origin`] (registry or archive) and the platform wanted. Out: [`Resolved`], the manifest with every
//! document on the way to it. An index may nest: entries are tried best first, those that name no platform are
//! judged by their config, and depth, number and repetition of documents are bounded.
//! Source of truth: image-spec `image-index.md`; `core::platform` holds the rules of choice.

use bytes::Bytes;
use windlass_core::digest::Digest;
use windlass_core::manifest::{Descriptor, Document, Index, IndexWalk, Manifest, parse_config};
use windlass_core::platform::{self, ConfigVerdict, Platform, PlatformError, Wanted};

use crate::PullError;
use crate::engine::Inner;
use crate::origin::{Fetched, Origin};

/// A manifest and how it was reached.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// What the reference names.
    pub(crate) root: Digest,
    /// The outermost index, if the root is one.
    pub(crate) index: Option<Digest>,
    /// Every document to keep: the root first, the manifest last.
    pub(crate) documents: Vec<(Digest, Bytes)>,
    /// The manifest's digest.
    pub(crate) digest: Digest,
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// What the index said it is for.
    pub(crate) entry_platform: Option<Platform>,
    /// The host that served the root.
    pub(crate) source: Option<String>,
}

/// A document that may be the one.
struct Candidate {
    descriptor: Descriptor,
    depth: usize,
    /// The index does not say what it is for.
    unnamed: bool,
    /// Indexes on the way, outermost first.
    way: Vec<(Digest, Bytes)>,
}

/// Chooses the manifest.
pub(crate) async fn resolve(engine: &Inner, origin: &Origin, wanted: &Wanted) -> Result<Resolved, PullError> {
    let root = origin.root(&engine.limits).await?;
    let mut walk = IndexWalk::default();
    walk.enter(&root.digest, 0, &engine.limits)?;
    let Fetched { digest, bytes, document, source } = root;
    match document {
        Document::Manifest(manifest) => {
            let above = origin.chosen_from(&engine.limits).await?;
            let index = above.as_ref().map(|(index, _)| index.clone());
            Ok(Resolved {
                root: index.clone().unwrap_or_else(|| digest.clone()),
                index,
                documents: above.into_iter().chain([(digest.clone(), bytes)]).collect(),
                digest,
                manifest,
                entry_platform: None,
                source,
            })
        }
        Document::Index(index) => {
            // Refuses with the list of platforms where nothing fits at all.
            platform::choose(&index, wanted)?;
            let first = candidates(&index, wanted, 1, vec![(digest.clone(), bytes)]);
            let mut resolved = choose(engine, origin, wanted, first, walk).await?;
            (resolved.root, resolved.index, resolved.source) = (digest.clone(), Some(digest), source);
            Ok(resolved)
        }
    }
}

/// Walks an index, best entry first.
async fn choose(
    engine: &Inner,
    origin: &Origin,
    wanted: &Wanted,
    mut stack: Vec<Candidate>,
    mut walk: IndexWalk,
) -> Result<Resolved, PullError> {
    while let Some(candidate) = stack.pop() {
        let entry = candidate.descriptor;
        if !walk.enter(&entry.digest, candidate.depth, &engine.limits)? {
            continue;
        }
        let found = origin.document(&entry, &engine.limits).await?;
        let mut way = candidate.way;
        way.push((found.digest.clone(), found.bytes));
        match found.document {
            Document::Index(inner) => stack.extend(candidates(&inner, wanted, candidate.depth + 1, way)),
            Document::Manifest(manifest) => {
                if candidate.unnamed && !fits_by_config(engine, origin, wanted, &manifest).await? {
                    continue;
                }
                return Ok(Resolved {
                    root: found.digest.clone(),
                    index: None,
                    documents: way,
                    digest: found.digest,
                    manifest,
                    entry_platform: entry.platform,
                    source: found.source,
                });
            }
        }
    }
    Err(PlatformError::NoMatch { wanted: Box::new(wanted.platform.clone()), offered: Vec::new(), more: 0 }.into())
}

/// The entries that may fit, best last, so that they are popped best first.
fn candidates(index: &Index, wanted: &Wanted, depth: usize, way: Vec<(Digest, Bytes)>) -> Vec<Candidate> {
    let ranked = platform::rank(index, wanted);
    let candidate = |entry: platform::Candidate<'_>| Candidate {
        descriptor: entry.descriptor.clone(),
        depth,
        unnamed: entry.unnamed,
        way: way.clone(),
    };
    ranked.into_iter().rev().map(candidate).collect()
}

async fn fits_by_config(
    engine: &Inner,
    origin: &Origin,
    wanted: &Wanted,
    manifest: &Manifest,
) -> Result<bool, PullError> {
    if manifest.layer_types(&engine.limits).is_err() {
        // An artifact among images.
        return Ok(false);
    }
    let bytes = origin.config(&manifest.config, &engine.limits).await?;
    let config = parse_config(&bytes, &engine.limits)?;
    Ok(matches!(platform::judge_config(wanted, &config), Ok(ConfigVerdict::Fits)))
}
