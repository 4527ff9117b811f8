//! Images from lists of entries. The same list gives the same bytes on every run.
//!
//! ```no_run
//! use windlass_testkit::images::{Entry, Image, Layer};
//! let image = Image::build().layer(Layer::new([Entry::dir("etc"), Entry::file("etc/motd", "hello\n")])).finish();
//! image.bundle().write_layout("/tmp/layout".as_ref(), "v1");
//! ```

mod archive;
mod entry;
mod layer;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_core::digest::Digest;
use windlass_registry::Storage;
use windlass_registry::route::{RepositoryName, Tag};

pub use entry::{Entry, EntryKind};
pub use layer::{BuiltLayer, Compression, Layer, incompressible, text};

/// Bytes with their address and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The media type a descriptor gives.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Bytes,
}

impl Content {
    /// Content under its own digest.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Content {
        let bytes = bytes.into();
        Content { media_type: media_type.to_owned(), digest: Digest::sha256(&bytes), bytes }
    }

    /// JSON content, written without blanks.
    pub fn json(media_type: &str, value: &Value) -> Content {
        Content::new(media_type, value.to_string())
    }

    /// The descriptor: media type, digest and size.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest.as_str(), "size": self.bytes.len() })
    }
}

/// Which set of media types an image uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `application/vnd.oci.image.*`.
    Oci,
    /// `application/vnd.docker.*`, schema 2.
    Docker,
}

impl Family {
    /// Media type of a manifest.
    pub const fn manifest(self) -> &'static str {
        match self {
            Family::Oci => "application/vnd.oci.image.manifest.v1+json",
            Family::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// Media type of an index or manifest list.
    pub const fn index(self) -> &'static str {
        match self {
            Family::Oci => "application/vnd.oci.image.index.v1+json",
            Family::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// Media type of a config.
    pub const fn config(self) -> &'static str {
        match self {
            Family::Oci => "application/vnd.oci.image.config.v1+json",
            Family::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// Media type of a layer.
    pub const fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Family::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Family::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Family::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Family::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Family::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Family::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

/// Collects what an image is made of.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    family: Family,
    os: String,
    architecture: String,
    variant: Option<String>,
    layers: Vec<Layer>,
    config: Value,
    annotations: BTreeMap<String, String>,
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Media types used.
    pub family: Family,
    /// Operating system, e.g. `linux`.
    pub os: String,
    /// Architecture, e.g. `amd64`.
    pub architecture: String,
    /// Variant, e.g. `v8`.
    pub variant: Option<String>,
    /// The manifest.
    pub manifest: Content,
    /// The config.
    pub config: Content,
    /// The layers, lowest first.
    pub layers: Vec<BuiltLayer>,
}

impl Image {
    /// Starts an OCI image for linux/amd64 without layers.
    pub fn build() -> ImageBuilder {
        ImageBuilder {
            family: Family::Oci,
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
            layers: Vec::new(),
            config: json!({ "Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"] }),
            annotations: BTreeMap::new(),
        }
    }

    /// The image ID: the digest of its config.
    pub fn id(&self) -> &Digest {
        &self.config.digest
    }

    /// The entry for an index, with its platform.
    pub fn index_entry(&self) -> Value {
        let mut entry = self.manifest.descriptor();
        entry["platform"] = json!({ "os": self.os, "architecture": self.architecture });
        if let Some(variant) = &self.variant {
            entry["platform"]["variant"] = variant.as_str().into();
        }
        entry
    }

    /// Everything that has to be in a registry.
    pub fn bundle(&self) -> Bundle {
        let mut blobs = vec![self.config.clone()];
        blobs.extend(self.layers.iter().map(|layer| layer.blob.clone()));
        Bundle { root: self.manifest.clone(), manifests: Vec::new(), blobs }
    }
}

impl ImageBuilder {
    /// Media types to use.
    pub fn family(mut self, family: Family) -> ImageBuilder {
        self.family = family;
        self
    }

    /// The platform.
    pub fn platform(mut self, os: &str, architecture: &str, variant: Option<&str>) -> ImageBuilder {
        self.os = os.to_owned();
        self.architecture = architecture.to_owned();
        self.variant = variant.map(str::to_owned);
        self
    }

    /// Adds a layer above those added before.
    pub fn layer(mut self, layer: Layer) -> ImageBuilder {
        self.layers.push(layer);
        self
    }

    /// Replaces the `config` object of the image config (`Env`, `Cmd`, `User` ...).
    pub fn config(mut self, config: Value) -> ImageBuilder {
        self.config = config;
        self
    }

    /// Adds an annotation to the manifest.
    pub fn annotation(mut self, key: &str, value: &str) -> ImageBuilder {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Builds the bytes.
    pub fn finish(self) -> Image {
        let layers: Vec<BuiltLayer> = self.layers.iter().map(|layer| layer.build(self.family)).collect();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let history: Vec<Value> = diff_ids.iter().map(|_| json!({ "created_by": "windlass-testkit" })).collect();
        let mut config = json!({
            "created": "2024-01-02T03:04:05Z",
            "architecture": self.architecture,
            "os": self.os,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        if let Some(variant) = &self.variant {
            config["variant"] = variant.as_str().into();
        }
        let config = Content::json(self.family.config(), &config);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.family.manifest(),
            "config": config.descriptor(),
            "layers": layers.iter().map(|layer| layer.blob.descriptor()).collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = json!(self.annotations);
        }
        let manifest = Content::json(self.family.manifest(), &manifest);
        let ImageBuilder { family, os, architecture, variant, .. } = self;
        Image { family, os, architecture, variant, manifest, config, layers }
    }
}

/// An index of several images.
#[derive(Clone, Debug)]
pub struct Index {
    /// The index.
    pub index: Content,
    /// What it lists, in its order.
    pub images: Vec<Image>,
}

impl Index {
    /// Lists the images in this order, in the media types of the first.
    pub fn of(images: impl IntoIterator<Item = Image>) -> Index {
        let images: Vec<Image> = images.into_iter().collect();
        let family = images.first().map_or(Family::Oci, |image| image.family);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": family.index(),
            "manifests": images.iter().map(Image::index_entry).collect::<Vec<_>>(),
        });
        Index { index: Content::json(family.index(), &index), images }
    }

    /// Everything that has to be in a registry.
    pub fn bundle(&self) -> Bundle {
        let mut bundle = Bundle { root: self.index.clone(), manifests: Vec::new(), blobs: Vec::new() };
        for image in &self.images {
            bundle.manifests.push(image.manifest.clone());
            for blob in image.bundle().blobs {
                if !bundle.blobs.contains(&blob) {
                    bundle.blobs.push(blob);
                }
            }
        }
        bundle
    }
}

/// What one reference needs: the document it names, the documents below that, and blobs.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The manifest or index that the tag names.
    pub root: Content,
    /// Manifests and indexes below the root.
    pub manifests: Vec<Content>,
    /// Configs and layers.
    pub blobs: Vec<Content>,
}

impl Bundle {
    /// Puts everything into a registry's storage and points `tag` at the root. Nothing is checked, so malformed
    /// documents get in as well.
    pub fn place(&self, storage: &Storage, repository: &str, tag: &str) {
        let name = RepositoryName::parse(repository).expect("a repository name");
        for blob in &self.blobs {
            storage.put_blob(&name, &blob.digest, &blob.bytes).expect("the blob is stored");
        }
        for document in self.manifests.iter().chain([&self.root]) {
            storage
                .put_manifest(&name, &document.digest, &document.media_type, &document.bytes)
                .expect("the manifest is stored");
        }
        storage.put_tag(&name, &Tag::parse(tag).expect("a tag"), &self.root.digest).expect("the tag is stored");
    }

    /// Everything, the root last.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.blobs.iter().chain(&self.manifests).chain([&self.root])
    }
}

/// A small image: two gzip layers with a directory, files, a symbolic link and a hard link; `marker` makes it unlike
/// others. Enough for tests that are not about layers.
pub fn small(marker: &str) -> Image {
    small_for(marker, "amd64", None)
}

/// [`small`] for another architecture.
pub fn small_for(marker: &str, architecture: &str, variant: Option<&str>) -> Image {
    Image::build()
        .platform("linux", architecture, variant)
        .layer(Layer::new([
            Entry::dir("etc"),
            Entry::file("etc/hostname", "base\n"),
            Entry::dir("usr/"),
            Entry::dir("usr/bin"),
            Entry::file("usr/bin/tool", "#!/bin/sh\necho tool\n").mode(0o755),
            Entry::hard_link("usr/bin/alias", "usr/bin/tool"),
            Entry::symlink("bin", "usr/bin"),
        ]))
        .layer(Layer::new([
            Entry::file("etc/marker", format!("{marker} {architecture}\n")),
            Entry::whiteout("etc/hostname"),
        ]))
        .finish()
}
