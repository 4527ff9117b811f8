//! From the store's images to what is shown of them. Blocking.
//!
//! An image that is damaged is not shown: the kubelet then pulls it again, which repairs it.
//!
//! Invariants: `a_damaged_image_is_not_present`, `an_index_is_what_its_name_resolved_to`.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::digest::Digest;
use windlass_core::manifest::{DocumentLimits, parse_config};
use windlass_core::reason;
use windlass_store::{Image, Name, Stamp, Store, StoreError};

use crate::view::{ImageEntry, ImageUser, Index};

/// The store at one moment.
#[derive(Debug)]
pub(crate) struct Read {
    /// Images that are here and whole.
    pub(crate) entries: Vec<ImageEntry>,
    /// All that have a record, damaged ones too.
    pub(crate) ids: BTreeSet<Digest>,
    /// What is wrong with those that are damaged.
    pub(crate) damaged: BTreeMap<Digest, String>,
    /// The state that was read, or one before it.
    pub(crate) stamp: Stamp,
}

/// Reads the store. What is known from `shown` is not read again.
pub(crate) fn read(store: &Store, limits: &DocumentLimits, shown: &Index) -> Result<Read, StoreError> {
    let stamp = store.stamp();
    let implied = store.implied_names()?;
    let (mut entries, mut ids, mut damaged) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for image in store.images()? {
        ids.insert(image.id.clone());
        let entry = match &image.damage {
            Some(damage) => Err(damage.clone()),
            None => entry(store, limits, shown, &image, &implied),
        };
        match entry {
            Ok(entry) => entries.push(entry),
            Err(damage) => drop(damaged.insert(image.id, damage)),
        }
    }
    Ok(Read { entries, ids, damaged, stamp })
}

/// One image, if it is here and whole.
pub(crate) fn one(store: &Store, limits: &DocumentLimits, id: &Digest) -> Result<Option<ImageEntry>, StoreError> {
    let Some(image) = store.find_id(id)?.filter(|image| image.damage.is_none()) else { return Ok(None) };
    let implied = store.implied_names()?;
    Ok(entry(store, limits, &Index::default(), &image, &implied).ok())
}

fn entry(
    store: &Store,
    limits: &DocumentLimits,
    shown: &Index,
    image: &Image,
    implied: &BTreeSet<Name>,
) -> Result<ImageEntry, String> {
    let manifest = image.manifests.last().cloned().ok_or("it has no manifest")?;
    let known = shown.by_id(&image.id).filter(|known| known.manifest == manifest);
    let (size_bytes, user) = match known {
        Some(known) => (known.size_bytes, known.user.clone()),
        None => details(store, limits, image, &manifest)?,
    };
    let of_index = |name: &&Name| implied.contains(*name) && is_of_index(image, name);
    let (more, digests): (Vec<&Name>, Vec<&Name>) = image.repo_digests.iter().partition(of_index);
    Ok(ImageEntry {
        id: image.id.clone(),
        repo_tags: sorted(&image.repo_tags.iter().collect::<Vec<_>>()),
        repo_digests: sorted(&digests),
        more_digests: sorted(&more),
        size_bytes,
        user,
        pinned: !image.pins.is_empty(),
        manifest,
    })
}

/// Whether a name is that of a manifest which was reached through an index: the index is what the tag resolved to.
fn is_of_index(image: &Image, name: &Name) -> bool {
    let through = |manifest: &Digest, index: &Option<Digest>| {
        *name == Name::digested(name.repository(), manifest)
            && index
                .as_ref()
                .is_some_and(|index| image.repo_digests.contains(&Name::digested(name.repository(), index)))
    };
    image.manifests.iter().any(|(manifest, index)| through(manifest, index))
}

/// Bytes of all descriptors on the way, and the config's user.
fn details(
    store: &Store,
    limits: &DocumentLimits,
    image: &Image,
    (manifest, index): &(Digest, Option<Digest>),
) -> Result<(u64, ImageUser), String> {
    let blob = |digest: &Digest, limit| match store.read_blob(digest, limit) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("blob {digest} is missing")),
        Err(error) => Err(reason::chain(&error)),
    };
    let config = blob(&image.id, limits.config_bytes)?;
    let mut size_bytes = image.compressed_bytes + config.len() as u64;
    for document in std::iter::once(manifest).chain(index) {
        size_bytes += blob(document, limits.manifest_bytes)?.len() as u64;
    }
    let config = parse_config(&config, limits).map_err(|error| reason::chain(&error))?;
    Ok((size_bytes, ImageUser::of_config(&config.run.user)))
}

fn sorted(names: &[&Name]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}
