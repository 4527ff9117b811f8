//! What the tables hold. One type per table; the key is said at each.
//!
//! Unknown fields are errors: a store written by a newer version is told by its format, never by losing fields.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;
use windlass_core::pin::PinSource;

use super::WriteTx;
use crate::error::StoreError;
// The snapshots of a container runtime: what is written of them is told where they are made.
use crate::snapshots::record::RuntimeRecord;

/// A type with a table of its own.
pub(crate) trait Record: Serialize + DeserializeOwned {
    const TABLE: &'static str;
}

macro_rules! tables {
    ($($record:ident: $name:literal;)+) => {
        $(impl Record for $record { const TABLE: &'static str = $name; })+

        /// Makes every table, so that readers of a fresh store find them.
        pub(super) fn create_tables(tx: &WriteTx<'_>) -> Result<(), StoreError> {
            $(tx.make::<$record>()?;)+
            Ok(())
        }
    };
}

tables! {
    NameRecord: "names";
    ImageRecord: "images";
    UseRecord: "uses";
    BlobRecord: "blobs";
    SnapshotRecord: "snapshots";
    PinRecord: "pins";
    RuntimeRecord: "runtime";
}

/// What a name leads to. Key: `host/path:tag` or `host/path@digest`, normalised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NameRecord {
    /// The image ID.
    pub(crate) image: Digest,
    /// The manifest chosen for the platform.
    pub(crate) manifest: Digest,
    /// The index the manifest was chosen from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) index: Option<Digest>,
    /// Whether it came along with a tag of the same repository, with which it goes.
    pub(crate) implied: bool,
    /// When the name last changed.
    pub(crate) since: Timestamp,
}

/// One image. Key: the image ID, that is the config's digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRecord {
    /// Every manifest (with the index it came from) that was committed for this config, oldest first.
    pub(crate) manifests: Vec<ManifestRecord>,
    /// `os/architecture[/variant]`.
    pub(crate) platform: String,
    /// The layers, bottom first.
    pub(crate) layers: Vec<LayerRecord>,
    /// When the image was first committed here.
    pub(crate) first_seen: Timestamp,
    /// Registries that can serve it again.
    pub(crate) sources: Vec<Source>,
}

/// A manifest and where it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestRecord {
    pub(crate) manifest: Digest,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) index: Option<Digest>,
}

/// A layer of an image, as its manifest and config name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRecord {
    /// Digest of the compressed bytes.
    pub blob: Digest,
    /// Number of the compressed bytes.
    pub size_bytes: u64,
    /// Media type of the blob, as the manifest has it.
    pub media_type: String,
    /// Digest of the tar stream.
    pub diff_id: Digest,
    /// Digest over this and all lower layers.
    pub chain_id: Digest,
}

/// A repository that can serve an image's parts by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Registry host, normalised.
    pub host: String,
    /// Path of the repository, with `library/` where implied.
    pub path: String,
}

/// Last use of an image. Key: the image ID. Apart from the image so that touching it writes little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UseRecord {
    pub(crate) last_used: Timestamp,
}

/// A blob in `blobs/`. Key: its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlobRecord {
    pub(crate) size_bytes: u64,
    pub(crate) kind: BlobKind,
}

/// Why a blob is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A manifest or an index.
    Manifest,
    /// An image's config.
    Config,
    /// A compressed layer: kept by configuration or because the image was loaded.
    Layer,
}

/// An unpacked layer. Key: its chain ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotRecord {
    /// Number of its directory in `snapshots/`.
    pub(crate) n: u64,
    pub(crate) form: Form,
    pub(crate) diff_id: Digest,
    /// Digest of the tar in an image file that was made of a directory, where it is not the diff ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) tar: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) parent: Option<Digest>,
    /// Bytes of the files' content.
    pub(crate) size_bytes: u64,
    pub(crate) entries: u64,
}

impl SnapshotRecord {
    /// What the tar in its image file hashes to.
    pub(crate) fn tar_digest(&self) -> &Digest {
        self.tar.as_ref().unwrap_or(&self.diff_id)
    }
}

/// In which form an unpacked layer is stored. Nothing above the store sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// A directory `fs` that can be a lower layer of overlayfs.
    Directory,
    /// The same, written by an ordinary user: owners, devices and some attributes are in `sums` only.
    UserDirectory,
    /// A file `image` that the kernel mounts: the tar with EROFS metadata behind it.
    Erofs,
}

/// A pin. Key: the image ID or a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinRecord {
    pub(crate) image: Digest,
    pub(crate) source: PinSource,
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
}

/// How every value about an image begins whose type has the image as its first field: [`NameRecord`], [`PinRecord`].
pub(super) fn beginning(image: &Digest) -> String {
    format!("{{\"image\":\"{image}\"")
}

/// Decodes a value.
pub(super) fn decode<R: Record>(key: &str, value: &[u8]) -> Result<R, StoreError> {
    serde_json::from_slice(value).map_err(|source| StoreError::Record { table: R::TABLE, key: key.to_owned(), source })
}

/// Encodes a value.
pub(super) fn encode<R: Record>(key: &str, record: &R) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|source| StoreError::Record { table: R::TABLE, key: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_about_an_image_begin_with_it() {
        let image = Digest::sha256(b"image");
        let since = Timestamp::UNIX_EPOCH;
        let name = NameRecord { image: image.clone(), manifest: image.clone(), index: None, implied: false, since };
        let pin = PinRecord { image: image.clone(), source: PinSource::user(), reason: String::new(), since };
        for value in [encode("name", &name).unwrap(), encode("pin", &pin).unwrap()] {
            assert!(value.starts_with(beginning(&image).as_bytes()));
        }
    }
}
