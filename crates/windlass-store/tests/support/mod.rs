//! Small images made in memory, and a pull of one that needs no registry.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write as _;
use std::path::Path;

use windlass_core::digest::Digest;
use windlass_store::{
    BlobKind, Image, ImageCommit, LayerClaim, LayerKey, LeaseOptions, Name, PullLease, SnapshotFormat, Source, Store,
    StoreError, StoreOptions,
};

pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image as a registry would give it.
#[derive(Clone, Debug)]
pub(crate) struct TestImage {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) keys: Vec<LayerKey>,
    pub(crate) blobs: Vec<Vec<u8>>,
}

/// A layer: path (a trailing slash makes a directory) and content.
pub(crate) type Files<'a> = &'a [(&'a str, &'a [u8])];

pub(crate) fn tar_of(files: Files<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000);
        header.set_uid(u64::from(rustix::process::getuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getgid().as_raw()));
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
        }
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl TestImage {
    pub(crate) fn new(name: &str, layers: &[Files<'_>]) -> TestImage {
        let tars: Vec<Vec<u8>> = layers.iter().map(|files| tar_of(files)).collect();
        TestImage::of_tars(name, &tars)
    }

    pub(crate) fn of_tars(name: &str, tars: &[Vec<u8>]) -> TestImage {
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let blobs: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let keys =
            LayerKey::stack(tars.iter().zip(&blobs).map(|(tar, blob)| {
                (Digest::sha256(blob), blob.len() as u64, LAYER_TYPE.to_owned(), Digest::sha256(tar))
            }));
        let diff_ids: Vec<&Digest> = keys.iter().map(|key| &key.layer.diff_id).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "author": name,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let layers: Vec<serde_json::Value> = keys
            .iter()
            .map(|key| serde_json::json!({"mediaType": LAYER_TYPE, "digest": key.layer.blob, "size": key.layer.size_bytes}))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::sha256(&config), "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        TestImage { repository: repository.to_owned(), tag: tag.to_owned(), config, manifest, keys, blobs }
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::sha256(&self.config)
    }

    pub(crate) fn manifest_digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    pub(crate) fn commit(&self) -> ImageCommit {
        let (host, path) = self.repository.split_once('/').unwrap();
        ImageCommit {
            names: vec![
                Name::tagged(&self.repository, &self.tag),
                Name::digested(&self.repository, &self.manifest_digest()),
            ],
            config: self.id(),
            manifest: self.manifest_digest(),
            index: None,
            platform: "linux/amd64".to_owned(),
            layers: self.keys.iter().map(|key| key.layer.clone()).collect(),
            source: Some(Source { host: host.to_owned(), path: path.to_owned() }),
        }
    }

    pub(crate) fn put_documents(&self, lease: &PullLease) -> Result<(), StoreError> {
        lease.put_blob(BlobKind::Config, &self.id(), &self.config)?;
        lease.put_blob(BlobKind::Manifest, &self.manifest_digest(), &self.manifest)
    }

    /// Brings the layers, the upper ones first if `reversed`. Returns how many were fetched.
    pub(crate) fn bring_layers(&self, lease: &PullLease, reversed: bool) -> Result<usize, StoreError> {
        let mut order: Vec<usize> = (0..self.keys.len()).collect();
        if reversed {
            order.reverse();
        }
        let mut fetched = 0;
        for at in order {
            let mut works = match lease.claim_layer(&self.keys[at], &|| false)? {
                LayerClaim::Present => Vec::new(),
                LayerClaim::Work(work) => vec![work],
            };
            while let Some(work) = works.pop() {
                fetched += 1;
                let blob = self.keys.iter().position(|key| key == work.key()).unwrap();
                works.extend(work.unpack(&mut self.blobs[blob].as_slice(), &())?.again);
            }
        }
        Ok(fetched)
    }

    /// The whole pull. Returns the image and how many layers were fetched.
    pub(crate) fn pull(&self, store: &Store) -> Result<(Image, usize), StoreError> {
        let lease = store.begin(LeaseOptions::pull(&self.name()))?;
        self.put_documents(&lease)?;
        let fetched = self.bring_layers(&lease, false)?;
        Ok((lease.commit(self.commit())?, fetched))
    }
}

/// An image of two small layers.
pub(crate) fn small(name: &str) -> TestImage {
    let own = name.as_bytes();
    TestImage::new(name, &[&[("etc/", b""), ("etc/name", own)], &[("usr/", b""), ("usr/text", b"upper")]])
}

pub(crate) fn open(root: &Path) -> Store {
    open_as(root, SnapshotFormat::Auto)
}

pub(crate) fn open_as(root: &Path, format: SnapshotFormat) -> Store {
    let mut options = StoreOptions::default();
    options.snapshot_format = format;
    Store::open(root, options).unwrap()
}

/// Bytes that a directory takes on the disk.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    let mut sum = found.blocks() * 512;
    if found.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sum += disk_bytes(&entry.unwrap().path());
        }
    }
    sum
}
