//! Images as the store shows them, and finding one.
//!
//! [`Store::find`] answers with what is there and whole: the size of each blob and the presence of each layer is
//! looked at each time, so that a damaged image is never called present, whoever damaged it and when.
//!
//! Invariants: `whatever_names_an_image_finds_it`, `a_damaged_image_is_not_present`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use jiff::Timestamp;
use windlass_core::digest::Digest;
use windlass_core::pin::Pin;
use windlass_core::reference::Reference;

use crate::error::StoreError;
use crate::layers;
use crate::layout::Layout;
use crate::meta::ReadTx;
use crate::meta::record::{
    BlobRecord, ImageRecord, LayerRecord, NameRecord, PinRecord, SnapshotRecord, Source, UseRecord,
};
use crate::names::{Meant, Name, meant};
use crate::snapshots::record::RuntimeRecord;
use crate::store::Store;

/// How many IDs a prefix may match before counting stops.
const PREFIX_MATCHES_MAX: usize = 100;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The image ID: the digest of its config.
    pub id: Digest,
    /// Names by tag, `host/path:tag`.
    pub repo_tags: Vec<Name>,
    /// Names by digest, `host/path@digest`.
    pub repo_digests: Vec<Name>,
    /// Manifests that describe it, oldest first, each with the index it was chosen from.
    pub manifests: Vec<(Digest, Option<Digest>)>,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Layers, bottom first.
    pub layers: Vec<LayerRecord>,
    /// Bytes of the unpacked files, shared layers counted in full.
    pub unpacked_bytes: u64,
    /// Bytes of the layers as a registry has them.
    pub compressed_bytes: u64,
    /// When it was first committed here.
    pub first_seen: Timestamp,
    /// When it was last used; `None`: never.
    pub last_used: Option<Timestamp>,
    /// Registries that can serve its parts again.
    pub sources: Vec<Source>,
    /// Why it must not go, one line for each pin.
    pub pins: Vec<Pin>,
    /// What is wrong with it; `None`: present and whole.
    pub damage: Option<String>,
}

impl Image {
    /// The manifest last committed.
    pub fn manifest(&self) -> Option<&Digest> {
        self.manifests.last().map(|(manifest, _)| manifest)
    }
}

/// Room that the store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of blobs and of the files of unpacked layers, those that a container runtime unpacked itself included.
    pub used_bytes: u64,
    /// Blobs and entries of unpacked layers.
    pub inodes: u64,
}

impl Store {
    /// Every image, damaged ones too, in the order of their IDs.
    ///
    /// # Errors
    /// The metadata cannot be read, or [`StoreError::Locked`].
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let images = self.read(|tx| Gathered::all(tx)?.images(self.layout()))?;
        Ok(images)
    }

    /// The image that a text names: a reference, a repository with the digest of its manifest or index, an image ID
    /// or the beginning of one that no other image has. Damaged images are found too, with [`Image::damage`] set.
    ///
    /// # Errors
    /// [`StoreError::BadName`] for a text that can name nothing, [`StoreError::Ambiguous`] for a prefix of several.
    pub fn find(&self, text: &str) -> Result<Option<Image>, StoreError> {
        let Some(meant) = meant(text) else { return Err(StoreError::BadName { name: text.to_owned() }) };
        self.read(|tx| {
            let Some(id) = resolve(tx, &meant, text)? else { return Ok(None) };
            image(tx, &id, self.layout())
        })
    }

    /// The image that a reference names.
    ///
    /// # Errors
    /// The metadata cannot be read, or [`StoreError::Locked`].
    pub fn find_reference(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        self.read(|tx| {
            let Some(name) = tx.get::<NameRecord>(&Name::of(reference).to_string())? else { return Ok(None) };
            image(tx, &name.image, self.layout())
        })
    }

    /// The image with this ID.
    ///
    /// # Errors
    /// The metadata cannot be read, or [`StoreError::Locked`].
    pub fn find_id(&self, id: &Digest) -> Result<Option<Image>, StoreError> {
        self.read(|tx| image(tx, id, self.layout()))
    }

    /// The manifest, and the index it was chosen from, that a reference leads to.
    ///
    /// # Errors
    /// The metadata cannot be read, or [`StoreError::Locked`].
    pub fn resolved(&self, reference: &Reference) -> Result<Option<(Digest, Option<Digest>)>, StoreError> {
        self.read(|tx| {
            let found = tx.get::<NameRecord>(&Name::of(reference).to_string())?;
            Ok(found.map(|name| (name.manifest, name.index)))
        })
    }

    /// Names by digest that came along with a tag and that nobody asked for.
    ///
    /// # Errors
    /// The metadata cannot be read, or [`StoreError::Locked`].
    pub fn implied_names(&self) -> Result<BTreeSet<Name>, StoreError> {
        self.read(|tx| {
            let names = tx.all::<NameRecord>()?.into_iter().filter(|(_, name)| name.implied);
            Ok(names.filter_map(|(key, _)| Name::from_key(&key)).collect())
        })
    }

    /// Bytes and inodes of everything recorded. What containers write is not: see [`Snapshots::writable_usage`].
    ///
    /// [`Snapshots::writable_usage`]: crate::Snapshots::writable_usage
    ///
    /// # Errors
    /// The metadata cannot be read, or [`StoreError::Locked`].
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.read(|tx| {
            let mut usage = Usage::default();
            for (_, blob) in tx.all::<BlobRecord>()? {
                usage.used_bytes += blob.size_bytes;
                usage.inodes += 1;
            }
            for (_, snapshot) in tx.all::<SnapshotRecord>()? {
                usage.used_bytes += snapshot.size_bytes;
                usage.inodes += snapshot.entries;
            }
            for (_, record) in tx.all::<RuntimeRecord>()? {
                let own = record.state.recorded_usage();
                usage.used_bytes += own.used_bytes;
                usage.inodes += own.inodes;
            }
            Ok(usage)
        })
    }
}

/// The ID of the image that a text means: the name first, as with other tools, then the ID.
pub(crate) fn resolve(tx: &ReadTx<'_>, meant: &Meant, text: &str) -> Result<Option<Digest>, StoreError> {
    if let Some(reference) = &meant.reference
        && let Some(name) = tx.get::<NameRecord>(&Name::of(reference).to_string())?
    {
        return Ok(Some(name.image));
    }
    let Some(prefix) = &meant.id_prefix else { return Ok(None) };
    let ids = tx.keys_from::<ImageRecord>(prefix, PREFIX_MATCHES_MAX)?;
    match ids.as_slice() {
        [] => Ok(None),
        [id] => Ok(Digest::parse(id).ok()),
        several => Err(StoreError::Ambiguous { prefix: text.to_owned(), count: several.len() }),
    }
}

/// What the tables say, gathered once for all images.
pub(crate) struct Gathered {
    pub(crate) images: Vec<(String, ImageRecord)>,
    pub(crate) names: BTreeMap<Digest, Vec<Name>>,
    uses: BTreeMap<String, UseRecord>,
    pub(crate) pins: BTreeMap<Digest, Vec<Pin>>,
    pub(crate) snapshots: BTreeMap<String, SnapshotRecord>,
    pub(crate) blobs: BTreeMap<String, BlobRecord>,
}

impl Gathered {
    pub(crate) fn all(tx: &ReadTx<'_>) -> Result<Gathered, StoreError> {
        let mut names: BTreeMap<Digest, Vec<Name>> = BTreeMap::new();
        for (key, record) in tx.all::<NameRecord>()? {
            names.entry(record.image).or_default().extend(Name::from_key(&key));
        }
        let mut pins: BTreeMap<Digest, Vec<Pin>> = BTreeMap::new();
        for (_, record) in tx.all::<PinRecord>()? {
            pins.entry(record.image.clone()).or_default().push(pin(record));
        }
        Ok(Gathered {
            images: tx.all()?,
            names,
            uses: tx.all()?.into_iter().collect(),
            pins,
            snapshots: tx.all()?.into_iter().collect(),
            blobs: tx.all()?.into_iter().collect(),
        })
    }

    pub(crate) fn images(self, layout: &Layout) -> Result<Vec<Image>, StoreError> {
        let ids = self.images.iter().map(|(id, record)| (id.as_str(), record));
        Ok(ids
            .filter_map(|(id, record)| {
                let id = Digest::parse(id).ok()?;
                let mut image = assemble(id.clone(), record.clone(), |chain| self.snapshots.get(chain));
                let known = Known {
                    snapshot: |chain: &str| self.snapshots.get(chain).cloned(),
                    blob: |digest: &str| self.blobs.get(digest).cloned(),
                };
                image.damage = known.missing(&id, record, layout);
                share(&mut image, self.names.get(&id).cloned().unwrap_or_default());
                image.pins = self.pins.get(&id).cloned().unwrap_or_default();
                image.last_used = self.uses.get(id.as_str()).map(|used| used.last_used);
                Some(image)
            })
            .collect())
    }
}

/// One image, read with as few look-ups as it takes.
pub(crate) fn image(tx: &ReadTx<'_>, id: &Digest, layout: &Layout) -> Result<Option<Image>, StoreError> {
    let Some(record) = tx.get::<ImageRecord>(id.as_str())? else { return Ok(None) };
    let mut snapshots = BTreeMap::new();
    for layer in &record.layers {
        if let Some(found) = tx.get::<SnapshotRecord>(layer.chain_id.as_str())? {
            snapshots.insert(layer.chain_id.to_string(), found);
        }
    }
    let mut blobs = BTreeMap::new();
    for digest in needed_blobs(id, &record) {
        if let Some(found) = tx.get::<BlobRecord>(digest.as_str())? {
            blobs.insert(digest.to_string(), found);
        }
    }
    let mut image = assemble(id.clone(), record.clone(), |chain| snapshots.get(chain));
    let known = Known {
        snapshot: |chain: &str| snapshots.get(chain).cloned(),
        blob: |digest: &str| blobs.get(digest).cloned(),
    };
    image.damage = known.missing(id, &record, layout);
    let names = tx.about::<NameRecord>(id)?.into_iter();
    share(&mut image, names.filter_map(|(key, _)| Name::from_key(&key)).collect());
    image.pins = tx.about::<PinRecord>(id)?.into_iter().map(|(_, record)| pin(record)).collect();
    image.last_used = tx.get::<UseRecord>(id.as_str())?.map(|used| used.last_used);
    Ok(Some(image))
}

/// Blobs without which an image is not whole. Layers are not among them: their unpacked form is what counts.
pub(crate) fn needed_blobs<'a>(id: &'a Digest, record: &'a ImageRecord) -> impl Iterator<Item = &'a Digest> {
    let manifests = record.manifests.iter().flat_map(|m| std::iter::once(&m.manifest).chain(m.index.as_ref()));
    std::iter::once(id).chain(manifests)
}

/// Look-ups of records, from memory or from a transaction.
pub(crate) struct Known<S, B> {
    pub(crate) snapshot: S,
    pub(crate) blob: B,
}

impl<S, B> Known<S, B>
where
    S: Fn(&str) -> Option<SnapshotRecord>,
    B: Fn(&str) -> Option<BlobRecord>,
{
    /// The first part of an image that is not there or not as long as it should be.
    pub(crate) fn missing(&self, id: &Digest, record: &ImageRecord, layout: &Layout) -> Option<String> {
        for digest in needed_blobs(id, record) {
            let Some(blob) = (self.blob)(digest.as_str()) else { return Some(format!("no record of blob {digest}")) };
            match fs::symlink_metadata(layout.blob(digest)) {
                Ok(found) if found.is_file() && found.len() == blob.size_bytes => {}
                Ok(_) => return Some(format!("blob {digest} has another size")),
                Err(_) => return Some(format!("blob {digest} is missing")),
            }
        }
        record.layers.iter().find_map(|layer| {
            let Some(snapshot) = (self.snapshot)(layer.chain_id.as_str()) else {
                return Some(format!("no record of layer {}", layer.diff_id));
            };
            let is_there = layers::is_there(&layout.snapshot(snapshot.n), snapshot.form);
            (!is_there).then(|| format!("unpacked layer {} is missing", layer.diff_id))
        })
    }
}

fn assemble<'a>(id: Digest, record: ImageRecord, snapshot: impl Fn(&str) -> Option<&'a SnapshotRecord>) -> Image {
    let sizes = record.layers.iter().filter_map(|layer| snapshot(layer.chain_id.as_str()));
    Image {
        id,
        repo_tags: Vec::new(),
        repo_digests: Vec::new(),
        manifests: record.manifests.into_iter().map(|found| (found.manifest, found.index)).collect(),
        platform: record.platform,
        unpacked_bytes: sizes.map(|found| found.size_bytes).sum(),
        compressed_bytes: record.layers.iter().map(|layer| layer.size_bytes).sum(),
        layers: record.layers,
        first_seen: record.first_seen,
        last_used: None,
        sources: record.sources,
        pins: Vec::new(),
        damage: None,
    }
}

fn share(image: &mut Image, names: Vec<Name>) {
    (image.repo_tags, image.repo_digests) = names.into_iter().partition(|name| name.tag().is_some());
}

fn pin(record: PinRecord) -> Pin {
    Pin { source: record.source, reason: record.reason, since: record.since }
}
