//! What `docker save` and `podman save` write: `manifest.json`, configs and uncompressed layers.

use std::collections::HashMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use windlass_core::digest::{Algorithm, Digest};
use windlass_core::manifest::{Descriptor, DocumentLimits, media_type, parse_config};
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;

use super::source::Source;
use super::{Archive, Lies, Listed};
use crate::PullError;

/// Size of the reads that hash a compressed layer.
const HASH_BYTES: usize = 256 << 10;

/// One image of `manifest.json`. docker: `image/tarexport`, `manifestItem`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// An OCI manifest as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WrittenManifest<'d> {
    pub(crate) schema_version: u8,
    pub(crate) media_type: &'d str,
    pub(crate) config: &'d Descriptor,
    pub(crate) layers: &'d [Descriptor],
}

pub(super) fn open(source: Source, limits: &DocumentLimits) -> Result<Archive, PullError> {
    let bytes = source.small("manifest.json", limits.manifest_bytes)?.unwrap_or_default();
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|error| source.bad(format!("manifest.json cannot be read: {error}")))?;
    let mut elsewhere = HashMap::new();
    let mut images = Vec::new();
    for item in &items {
        images.push(listed(&source, item, &mut elsewhere, limits)?);
    }
    Ok(Archive { source, images, elsewhere })
}

/// Shows one image as a manifest with its blobs.
fn listed(
    source: &Source,
    item: &Item,
    elsewhere: &mut HashMap<Digest, Lies>,
    limits: &DocumentLimits,
) -> Result<Listed, PullError> {
    let config = source.small(&item.config, limits.config_bytes)?;
    let config = config.ok_or_else(|| missing(source, &item.config))?;
    let diff_ids = parse_config(&config, limits)?.diff_ids;
    let paths = item.layers.as_deref().unwrap_or_default();
    if diff_ids.len() != paths.len() {
        let (found, want) = (paths.len(), diff_ids.len());
        return Err(source.bad(format!("{} lists {want} layers, manifest.json {found}", item.config)));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(&diff_ids) {
        let layer = layer(source, path, diff_id)?;
        elsewhere.insert(layer.digest.clone(), Lies::Member(path.clone()));
        layers.push(layer);
    }
    let config_at = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
    elsewhere.insert(config_at.digest.clone(), Lies::Member(item.config.clone()));
    let manifest = WrittenManifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST,
        config: &config_at,
        layers: &layers,
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|_| PullError::Internal("a manifest did not serialise"))?;
    let root = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&manifest), manifest.len() as u64);
    elsewhere.insert(root.digest.clone(), Lies::Made(manifest));
    let tags = item.repo_tags.iter().flatten();
    Ok(Listed { names: tags.filter_map(|tag| Reference::parse(tag).ok()).collect(), tags: Vec::new(), root })
}

/// A plain tar is named by its diff ID, which unpacking checks; a compressed one has to be hashed.
fn layer(source: &Source, path: &str, diff_id: &Digest) -> Result<Descriptor, PullError> {
    let mut member = source.open(path)?.ok_or_else(|| missing(source, path))?;
    let size_bytes = member.size_bytes();
    let mut buffer = vec![0; HASH_BYTES];
    let mut hasher = Algorithm::Sha256.hasher();
    let mut media_type = None;
    loop {
        let got = member.read(&mut buffer).map_err(|error| super::source::io_error(source.path(), error))?;
        let kind = *media_type.get_or_insert_with(|| match &buffer[..got] {
            [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        });
        if kind == media_type::OCI_LAYER {
            return Ok(Descriptor::new(kind, diff_id.clone(), size_bytes));
        }
        if got == 0 {
            return Ok(Descriptor::new(kind, hasher.finish(), size_bytes));
        }
        hasher.update(&buffer[..got]);
    }
}

fn missing(source: &Source, name: &str) -> PullError {
    let shown: String = name.chars().take(200).flat_map(char::escape_default).collect();
    let what = format!("{shown}, which manifest.json names, is missing");
    PullError::Layout { path: source.path().to_owned(), what, reason: Reason::BlobMissing }
}
