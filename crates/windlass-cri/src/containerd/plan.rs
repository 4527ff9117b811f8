//! What an image is in containerd: read from the store, before anything is sent.
//!
//! In: the image's records and documents. Out: a [`Plan`] with every blob, label and record. [`Plan::read`] blocks; the
//! rules below it are pure.
//! Source of truth: containerd `core/images/mediatypes.go` (`ChildGCLabels`), `core/remotes/docker/handler.go`
//! (`containerd.io/distribution.source`), `core/unpack/unpacker.go` (`containerd.io/gc.ref.snapshot`); what its CRI
//! plugin leaves behind after a pull of its own.
//!
//! Invariants: `labels_are_those_of_a_pull_by_containerd`, `an_index_is_the_target_unless_containerd_could_choose_otherwise`.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::digest::Digest;
use windlass_core::manifest::{Descriptor, Document, DocumentLimits, Index, Manifest, parse_document};
use windlass_core::reference::Reference;
use windlass_store::{Image, Name, Source, Store};

use super::HandoverError;

/// Labels, as containerd takes them.
pub(super) type Labels = BTreeMap<String, String>;

/// Most bytes of a label's key and value together (containerd `pkg/labels/validate.go`).
const LABEL_MAX_BYTES: usize = 4096;

/// Everything containerd is told of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) id: Digest,
    pub(super) config: Blob,
    /// Manifests and the indexes that they were chosen from, each once; a manifest before its index.
    pub(super) documents: Vec<Blob>,
    /// Chain IDs of the layers, bottom first.
    pub(super) chains: Vec<Digest>,
    /// What leads to the image, its ID first.
    pub(super) records: Vec<Record>,
    pub(super) pinned: bool,
}

/// A blob with what is written beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// Name under which it is being written, the one that containerd uses: two writers of one blob meet there.
    pub(super) reference: String,
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    /// Labels without which it, or what it leads to, would be collected.
    pub(super) labels: Labels,
    /// Repositories that serve it, by the label's key. What others wrote there stays.
    pub(super) sources: Labels,
}

/// An image record of containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) target: Target,
}

/// What a record leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
}

/// A manifest and the index it was chosen from.
type Pair = (Digest, Option<Digest>);

impl Plan {
    /// Reads what there is to know of an image that is here and whole. Blocks.
    ///
    /// # Errors
    /// [`HandoverError::Missing`], [`HandoverError::Document`], errors of the store.
    pub(super) fn read(store: &Store, image: &Image, snapshotter: &str) -> Result<Plan, HandoverError> {
        let limits = DocumentLimits::default();
        let mut reader = Reader { store, limits: &limits, documents: Vec::new(), read: BTreeMap::new() };
        let sources = distribution_sources(&image.sources);
        let last = image.manifests.last().cloned().ok_or(HandoverError::Missing { digest: image.id.clone() })?;
        let mut records = vec![Record { name: image.id.to_string(), target: reader.target(&last, &sources)? }];
        for (name, pair) in shown_names(store, image)? {
            records.push(Record { name, target: reader.target(&pair, &sources)? });
        }
        let chains: Vec<Digest> = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
        let config = Blob {
            reference: format!("config-{}", image.id),
            digest: image.id.clone(),
            bytes: reader.bytes(&image.id, limits.config_bytes)?,
            labels: chains.last().map(|top| (snapshot_label(snapshotter), top.to_string())).into_iter().collect(),
            sources,
        };
        let pinned = !image.pins.is_empty();
        Ok(Plan { id: image.id.clone(), config, documents: reader.documents, chains, records, pinned })
    }
}

/// The label by which a config keeps the layers of its image.
pub(super) fn snapshot_label(snapshotter: &str) -> String {
    format!("containerd.io/gc.ref.snapshot.{snapshotter}")
}

/// The names of an image that others see, each with what it leads to. A name by the digest of a manifest that came
/// along with its index is none: who asked for the image asked for the index.
fn shown_names(store: &Store, image: &Image) -> Result<Vec<(String, Pair)>, HandoverError> {
    let implied = store.implied_names()?;
    let mut shown = Vec::new();
    for name in image.repo_tags.iter().chain(&image.repo_digests) {
        let text = name.to_string();
        let Ok(reference) = Reference::parse(&text) else { continue };
        let Some(pair) = store.resolved(&reference)? else { continue };
        if !(implied.contains(name) && is_inner(name, &pair)) {
            shown.push((text, pair));
        }
    }
    Ok(shown)
}

/// Whether a name is by the digest of a manifest that was reached through an index.
fn is_inner(name: &Name, (manifest, index): &Pair) -> bool {
    index.is_some() && name.to_string().ends_with(&format!("@{manifest}"))
}

struct Reader<'s> {
    store: &'s Store,
    limits: &'s DocumentLimits,
    documents: Vec<Blob>,
    /// Targets of what was read already.
    read: BTreeMap<Pair, Target>,
}

impl Reader<'_> {
    /// Reads a manifest and its index, and says which of them a record leads to.
    fn target(&mut self, pair: &Pair, sources: &Labels) -> Result<Target, HandoverError> {
        if let Some(target) = self.read.get(pair) {
            return Ok(target.clone());
        }
        let (manifest, index) = pair;
        let (bytes, document) = self.document(manifest)?;
        let (mut target, labels) = match &document {
            Document::Manifest(found) => (target(&found.media_type, manifest, &bytes), manifest_labels(found)),
            Document::Index(_) => return Err(HandoverError::Internal("a stored image's manifest is an index")),
        };
        self.add("manifest", manifest, bytes, labels, sources);
        if let Some(index) = index {
            let (bytes, document) = self.document(index)?;
            let Document::Index(found) = &document else {
                return Err(HandoverError::Internal("a stored image's index is a manifest"));
            };
            if containerd_chooses(found, manifest) {
                target = self::target(&found.media_type, index, &bytes);
                self.add("index", index, bytes, index_labels(found), sources);
            }
        }
        self.read.insert(pair.clone(), target.clone());
        Ok(target)
    }

    fn add(&mut self, kind: &str, digest: &Digest, bytes: Vec<u8>, labels: Labels, sources: &Labels) {
        if !self.documents.iter().any(|known| known.digest == *digest) {
            let reference = format!("{kind}-{digest}");
            let (digest, sources) = (digest.clone(), sources.clone());
            self.documents.push(Blob { reference, digest, bytes, labels, sources });
        }
    }

    fn document(&self, digest: &Digest) -> Result<(Vec<u8>, Document), HandoverError> {
        let bytes = self.bytes(digest, self.limits.manifest_bytes)?;
        let document = parse_document(&bytes, None, None, self.limits)
            .map_err(|source| HandoverError::Document { digest: digest.clone(), source })?;
        Ok((bytes, document))
    }

    fn bytes(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, HandoverError> {
        let bytes = self.store.read_blob(digest, max_bytes)?;
        bytes.ok_or_else(|| HandoverError::Missing { digest: digest.clone() })
    }
}

fn target(media_type: &str, digest: &Digest, bytes: &[u8]) -> Target {
    Target { media_type: media_type.to_owned(), digest: digest.clone(), size_bytes: bytes.len() as u64 }
}

/// Whether containerd, left alone with an index, takes this manifest of it. It must be there at first hand, and the only
/// one for its system and architecture: which variant fits best is a matter on which versions differ.
fn containerd_chooses(index: &Index, manifest: &Digest) -> bool {
    let family = |entry: &Descriptor| entry.platform.as_ref().map(|p| (p.os.clone(), p.architecture.clone()));
    let Some(ours) = index.entries.iter().find(|entry| entry.digest == *manifest) else { return false };
    let others = index.entries.iter().filter(|entry| entry.digest != *manifest && entry.is_document());
    let mut rivals = others.filter(|entry| family(entry).is_none() || family(entry) == family(ours));
    rivals.next().is_none()
}

/// Labels that keep the children of an index, fetched or not.
fn index_labels(index: &Index) -> Labels {
    let (mut documents, mut others) = (0, 0);
    let mut labels = Labels::new();
    for entry in &index.entries {
        let (kind, number) = if entry.is_document() { ("m.", &mut documents) } else { ("", &mut others) };
        labels.insert(format!("containerd.io/gc.ref.content.{kind}{number}"), entry.digest.to_string());
        *number += 1;
    }
    labels
}

/// The label that keeps a manifest's config. Its layers are no blobs there, so none are named.
fn manifest_labels(manifest: &Manifest) -> Labels {
    [("containerd.io/gc.ref.content.config".to_owned(), manifest.config.digest.to_string())].into()
}

/// Which repositories serve a blob: one label for each host, its port left out. One that grew too long is left out.
fn distribution_sources(sources: &[Source]) -> Labels {
    let mut paths: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        let host = without_port(&source.host);
        paths.entry(format!("containerd.io/distribution.source.{host}")).or_default().insert(&source.path);
    }
    let labels = paths.into_iter().map(|(key, paths)| (key, paths.into_iter().collect::<Vec<_>>().join(",")));
    labels.filter(|(key, value)| fits(key, value)).collect()
}

/// A host as Go's `URL.Hostname` has it.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// A label's value with ours joined to what is there; the old one where that grew too long.
pub(super) fn joined(key: &str, old: &str, ours: &str) -> String {
    let paths: BTreeSet<&str> = old.split(',').chain(ours.split(',')).filter(|path| !path.is_empty()).collect();
    let joined = paths.into_iter().collect::<Vec<_>>().join(",");
    if fits(key, &joined) { joined } else { old.to_owned() }
}

fn fits(key: &str, value: &str) -> bool {
    key.len() + value.len() <= LABEL_MAX_BYTES
}

#[cfg(test)]
mod tests;
