//! Looks whether an image that is to be unpacked is here already: found as `mount` and `save` find it, whole, and for the
//! platform asked for. Then no registry is asked, as with the kubelet's policy `IfNotPresent`.
//!
//! | what is asked for | the store | then |
//! | --- | --- | --- |
//! | a reference | has it for this platform | from the store |
//! | a reference | does not have it, or has another platform of its index | from the registry |
//! | a reference | has it damaged, or cannot be read | a warning, and from the registry |
//! | an image ID, or the beginning of one | has it | from the store |
//! | an image ID, or the beginning of one | has it damaged, or several | an error: no registry knows IDs |
//!
//! Invariants: `what_is_here_is_unpacked_without_a_registry`, `another_platform_is_not_the_image_that_is_here`,
//! `an_image_that_is_not_whole_comes_from_its_registry`.

use bytes::Bytes;
use windlass_core::digest::Digest;
use windlass_core::manifest::{Document, DocumentLimits, parse_config, parse_document};
use windlass_core::platform::{self, ConfigVerdict, Platform, Wanted};
use windlass_core::reference::Reference;
use windlass_store::{Store, StoreError};

use crate::PullError;
use crate::engine::{Inner, blocking};
use crate::events::Events;
use crate::resolve::Resolved;
use crate::uptodate::stored_for;

/// An image of the store.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) resolved: Resolved,
    pub(super) config: Bytes,
}

/// What a look came to.
enum Look {
    Here(Box<Here>),
    /// No image, or not the one that is wanted.
    Absent,
    /// It cannot be used, and its name is one that a registry may know.
    Unusable(PullError),
}

/// The image, if it is here; see the module.
///
/// # Errors
/// [`StoreError::Ambiguous`] and [`StoreError::Damaged`] for an image ID, [`PullError::ImageUnknown`] for a whole one that
/// is not here.
pub(super) async fn here(
    engine: &Inner,
    name: &str,
    wanted: &Wanted,
    events: &Events,
) -> Result<Option<Here>, PullError> {
    let (store, limits) = (engine.store.clone(), engine.limits.clone());
    let (name, wanted) = (name.to_owned(), wanted.clone());
    match blocking(move || look(&store, &limits, &name, &wanted)).await? {
        Look::Here(found) => Ok(Some(*found)),
        Look::Absent => Ok(None),
        Look::Unusable(error) => {
            events.warning(format!("not unpacked from the store, but fetched: {}", error.chain()));
            Ok(None)
        }
    }
}

fn look(store: &Store, limits: &DocumentLimits, name: &str, wanted: &Wanted) -> Result<Look, PullError> {
    if let Ok(reference) = Reference::parse(name) {
        match by_name(store, limits, &reference, wanted) {
            Ok(Named::Here(found)) => return Ok(Look::Here(found)),
            Ok(Named::Other) => return Ok(Look::Absent),
            Ok(Named::Unknown) => {}
            Err(error) => return Ok(Look::Unusable(error)),
        }
    }
    let found = match store.find(name) {
        Err(StoreError::BadName { .. }) => return Ok(Look::Absent),
        found => found?,
    };
    let Some(image) = found else {
        let is_id = Digest::parse(name).is_ok();
        return if is_id { Err(PullError::ImageUnknown { name: name.to_owned() }) } else { Ok(Look::Absent) };
    };
    if let Some(what) = image.damage {
        return Err(StoreError::Damaged { image: image.id, what }.into());
    }
    let manifest = image.manifest().ok_or(PullError::Internal("a stored image has no manifest"))?;
    read(store, limits, manifest, None, None).map(|found| Look::Here(Box::new(found)))
}

/// What stands under a reference.
enum Named {
    Here(Box<Here>),
    /// The image of another platform, as far as can be told.
    Other,
    Unknown,
}

fn by_name(store: &Store, limits: &DocumentLimits, reference: &Reference, wanted: &Wanted) -> Result<Named, PullError> {
    let Some(image) = store.find_reference(reference)? else { return Ok(Named::Unknown) };
    if let Some(what) = image.damage {
        return Err(StoreError::Damaged { image: image.id, what }.into());
    }
    let Some(stored) = stored_for(store, limits, reference, wanted)? else { return Ok(Named::Other) };
    let is_unnamed = stored.index.is_some() && stored.entry_platform.is_none();
    let found = read(store, limits, &stored.manifest, stored.index, stored.entry_platform)?;
    if is_unnamed {
        // The index does not say what it is for, and may have others of that kind.
        let config = parse_config(&found.config, limits)?;
        if !matches!(platform::judge_config(wanted, &config), Ok(ConfigVerdict::Fits)) {
            return Ok(Named::Other);
        }
    }
    Ok(Named::Here(Box::new(found)))
}

fn read(
    store: &Store,
    limits: &DocumentLimits,
    digest: &Digest,
    index: Option<Digest>,
    entry_platform: Option<Platform>,
) -> Result<Here, PullError> {
    let missing = |part: &'static str, digest: &Digest| StoreError::Incomplete { part, digest: digest.clone() };
    let bytes = store.read_blob(digest, limits.manifest_bytes)?.ok_or_else(|| missing("manifest", digest))?;
    let Document::Manifest(manifest) = parse_document(&bytes, None, None, limits)? else {
        return Err(PullError::Internal("a stored image's manifest is an index"));
    };
    let config = &manifest.config.digest;
    let config = store.read_blob(config, limits.config_bytes)?.ok_or_else(|| missing("config", config))?;
    let resolved = Resolved {
        root: index.clone().unwrap_or_else(|| digest.clone()),
        index,
        documents: Vec::new(),
        digest: digest.clone(),
        manifest,
        entry_platform,
        source: None,
    };
    Ok(Here { resolved, config: config.into() })
}
