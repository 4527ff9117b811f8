//! The media types of images, and what each says about its content.
//!
//! Source of truth: image-spec `media-types.md`; Docker's `image-manifest-v2-2.md`.

/// An OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's name for an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// An OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A Docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The type of the two bytes `{}`, which stand for "none".
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An OCI layer without compression.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer compressed by gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer compressed by zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A Docker layer without compression.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A Docker layer compressed by gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A Docker layer compressed by zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker's first manifest.
pub const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker's first manifest, signed.
pub const SCHEMA_1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The `Accept` header of manifest requests. The last range only serves to recognise schema 1 and refuse it by name.
pub const ACCEPT_DOCUMENTS: &str = concat!(
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, ",
    "*/*;q=0.1"
);

/// What a media type says a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// A list of manifests.
    Index,
    /// One image or artifact.
    Manifest,
    /// Docker's first format.
    SchemaOne,
    /// Nothing: `application/json`, `text/plain`, no type.
    Unsaid,
    /// Something else.
    Other,
}

impl DocumentKind {
    /// Reads a type that [`essence`] has cleaned.
    pub fn of(media_type: &str) -> DocumentKind {
        match media_type {
            OCI_INDEX | DOCKER_LIST => DocumentKind::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => DocumentKind::Manifest,
            SCHEMA_1 | SCHEMA_1_SIGNED => DocumentKind::SchemaOne,
            "" | "application/json" | "application/octet-stream" | "binary/octet-stream" | "text/plain" => {
                DocumentKind::Unsaid
            }
            _ => DocumentKind::Other,
        }
    }
}

/// A media type without parameters, in lower case.
pub fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Whether a config of this type makes its manifest an image.
pub fn is_image_config(media_type: &str) -> bool {
    media_type == OCI_CONFIG || media_type == DOCKER_CONFIG
}

/// How a layer's bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), possibly several members.
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// What a layer's media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerType {
    /// The compression it announces. Between gzip and zstd the magic bytes win; without compression nothing is
    /// ever decompressed.
    pub compression: Compression,
    /// Deprecated layers that may be served from other addresses (`urls`).
    pub foreign: bool,
}

impl LayerType {
    /// Reads a layer's media type; `None` for what is not a layer of an image.
    pub fn of(media_type: &str) -> Option<LayerType> {
        let (compression, foreign) = match media_type {
            OCI_LAYER | DOCKER_LAYER => (Compression::None, false),
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => (Compression::Gzip, false),
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => (Compression::Zstd, false),
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => (Compression::None, true),
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => (Compression::Gzip, true),
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => (Compression::Zstd, true),
            _ => return None,
        };
        Some(LayerType { compression, foreign })
    }
}

/// Whether a layer's type says that it is encrypted.
pub fn is_encrypted(media_type: &str) -> bool {
    media_type.ends_with("+encrypted")
}

/// What people call the thing behind an artifact's type.
pub(super) fn describe(media_type: &str) -> &'static str {
    let names = [
        ("application/vnd.cncf.helm.", "a Helm chart"),
        ("application/vnd.wasm.", "a WebAssembly module"),
        ("application/vnd.module.wasm.", "a WebAssembly module"),
        ("application/wasm", "a WebAssembly module"),
        ("application/vnd.dev.cosign.", "a cosign signature"),
        ("application/vnd.dev.sigstore.", "a sigstore bundle"),
        ("application/vnd.cncf.notary.", "a Notary signature"),
        ("application/vnd.docker.plugin.", "a Docker plugin"),
        ("application/vnd.in-toto", "an attestation"),
        ("application/spdx", "an SBOM"),
        ("application/vnd.cyclonedx", "an SBOM"),
        ("application/vnd.buildkit.cacheconfig.", "a build cache"),
    ];
    names.into_iter().find(|(prefix, _)| media_type.starts_with(prefix)).map_or("an artifact", |(_, name)| name)
}
