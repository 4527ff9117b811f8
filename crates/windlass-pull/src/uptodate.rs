//! Nothing changed? One HEAD answers it when an image is stored under the reference.
//!
//! Invariant: `always_with_nothing_new_is_one_head`.

use tokio::time::Instant;
use windlass_core::digest::Digest;
use windlass_core::manifest::{Document, DocumentLimits, parse_document};
use windlass_core::platform::{self, Platform, Wanted};
use windlass_core::reference::Reference;
use windlass_distribution::TagOrDigest;
use windlass_store::{Image, Store};

use crate::PullError;
use crate::engine::{Inner, blocking};
use crate::events::Outcome;
use crate::origin::Origin;
use crate::request::PullReport;

/// The stored image, if the registry still means it by this reference and it is whole and for the platform wanted.
///
/// An unusable HEAD (405, missing headers) is no answer: the pull goes on with GET.
pub(crate) async fn unchanged(
    engine: &Inner,
    origin: &Origin,
    reference: &Reference,
    wanted: &Wanted,
) -> Result<Option<Image>, PullError> {
    let Some(stored) = stored(engine, reference, wanted).await? else { return Ok(None) };
    let Origin::Registry { repository, .. } = origin else { return Ok(None) };
    let head = repository.head(&TagOrDigest::from(reference)).await.map_err(|error| origin.fetch_error(error))?;
    let Some(head) = head else { return Ok(None) };
    let same = stored.manifest == head.digest || stored.index.as_ref() == Some(&head.digest);
    if !same {
        return Ok(None);
    }
    if reference.digest().is_some() {
        // The name may have come along with a tag; now it is wanted for itself.
        let (store, reference) = (engine.store.clone(), reference.clone());
        blocking(move || store.ask_for(&reference)).await?;
    }
    Ok(Some(stored.image))
}

/// What is stored under a reference.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) image: Image,
    pub(crate) manifest: Digest,
    /// The index it was chosen from.
    pub(crate) index: Option<Digest>,
    /// What the index says it is for.
    pub(crate) entry_platform: Option<Platform>,
}

async fn stored(engine: &Inner, reference: &Reference, wanted: &Wanted) -> Result<Option<Stored>, PullError> {
    let (store, reference, wanted) = (engine.store.clone(), reference.clone(), wanted.clone());
    let limits = engine.limits.clone();
    blocking(move || stored_for(&store, &limits, &reference, &wanted)).await
}

/// The image stored under a reference, if it is whole and the one that its index offers for the platform wanted.
/// Blocking. What an index within an index offers is not looked at: that is for a registry to answer.
pub(crate) fn stored_for(
    store: &Store,
    limits: &DocumentLimits,
    reference: &Reference,
    wanted: &Wanted,
) -> Result<Option<Stored>, PullError> {
    let Some((manifest, index)) = store.resolved(reference)? else { return Ok(None) };
    let Some(image) = store.find_reference(reference)?.filter(|image| image.damage.is_none()) else {
        return Ok(None);
    };
    let Some(root) = &index else {
        return Ok(Some(Stored { image, manifest, index, entry_platform: None }));
    };
    // Another platform of the same index may be wanted now.
    let Some(bytes) = store.read_blob(root, limits.manifest_bytes)? else { return Ok(None) };
    let Document::Index(document) = parse_document(&bytes, None, None, limits)? else { return Ok(None) };
    let chosen = platform::choose(&document, wanted).ok().filter(|entry| entry.descriptor.digest == manifest);
    let entry_platform = chosen.as_ref().map(|entry| entry.descriptor.platform.clone());
    Ok(entry_platform.map(|entry_platform| Stored { image, manifest, index, entry_platform }))
}

/// The report of a pull that found nothing to do.
pub(crate) fn report(reference: &Reference, image: Image, origin: &Origin, began: Instant) -> PullReport {
    let manifest = image.manifest().cloned().unwrap_or_else(|| image.id.clone());
    let index = image.manifests.last().and_then(|(_, index)| index.clone());
    let layers: std::collections::BTreeSet<_> = image.layers.iter().map(|layer| &layer.blob).collect();
    let layers = layers.len();
    PullReport {
        image: reference.as_typed().to_owned(),
        digest: index.unwrap_or_else(|| manifest.clone()),
        manifest,
        platform: image.platform.clone(),
        outcome: Outcome::UpToDate,
        layers,
        layers_already_here: layers,
        size_bytes: image.compressed_bytes,
        fetched_bytes: 0,
        source: None,
        attempts: origin.attempts(),
        accepted: origin.accepted(),
        requests: origin.requests(),
        took: began.elapsed(),
        warnings: Vec::new(),
        notes: Vec::new(),
        id: image.id,
    }
}
