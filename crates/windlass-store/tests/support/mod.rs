//! Small images made in memory, and a pull of one that needs no registry.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use windlass_core::digest::Digest;
use windlass_store::{
    BlobKind, Image, ImageCommit, LayerClaim, LayerKey, LeaseOptions, Name, PullLease, SnapshotFormat, Source, Store,
    StoreError, StoreOptions,
};
use windlass_testkit::hostile::raw::{Header, Tar};

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

/// A tar of one sparse file (GNU's form 0.1): offsets and their bytes, holes between them.
pub(crate) fn sparse_tar(path: &str, size_bytes: u64, pieces: &[(u64, &[u8])]) -> Vec<u8> {
    let map: Vec<String> = pieces.iter().map(|(at, bytes)| format!("{at},{}", bytes.len())).collect();
    let (size, count, map) = (size_bytes.to_string(), pieces.len().to_string(), map.join(","));
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.numblocks", count.as_bytes()),
        ("GNU.sparse.map", map.as_bytes()),
        ("GNU.sparse.name", path.as_bytes()),
    ];
    let data: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    Tar::new().pax(&records).with(Header::new(b'0', "GNUSparseFile.0/s"), data).end()
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

/// What layers can be kept as in this directory; that image files cannot is said aloud.
pub(crate) fn formats(place: &Path) -> Vec<SnapshotFormat> {
    let dir = tempfile::tempdir_in(place).unwrap();
    let store = open_as(&dir.path().join("store"), SnapshotFormat::Erofs);
    match small("registry.example/probe:1").pull(&store) {
        Ok(_) => vec![SnapshotFormat::Overlay, SnapshotFormat::Erofs],
        Err(error @ StoreError::NoImageFiles { .. }) => {
            skipped(&format!("with image files: {error}"));
            vec![SnapshotFormat::Overlay]
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// The same where tests usually have their stores.
pub(crate) fn usual_formats() -> Vec<SnapshotFormat> {
    formats(&std::env::temp_dir())
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
pub(crate) fn skipped(what: &str) {
    eprintln!("SKIPPED store: {what}");
}

/// A file system that goes with its value.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }
}

impl Disk {
    /// A file system in memory; none, said aloud, without the right to mount.
    pub(crate) fn tmpfs(options: &str) -> Option<Disk> {
        Disk::mount("tmpfs", |_| options.to_owned())
    }

    /// An overlay, as the root of a container is one.
    pub(crate) fn overlay() -> Option<Disk> {
        Disk::mount("overlay", |dir| {
            let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
                let path = dir.join(name);
                fs::create_dir(&path).unwrap();
                path.display().to_string()
            });
            format!("lowerdir={lower},upperdir={upper},workdir={work}")
        })
    }

    fn mount(kind: &str, options: impl FnOnce(&Path) -> String) -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            skipped(&format!("only root can mount a {kind}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("disk");
        fs::create_dir(&at).unwrap();
        let options = std::ffi::CString::new(options(dir.path())).unwrap();
        match rustix::mount::mount("none", &at, kind, MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Disk { at, _dir: dir }),
            Err(errno) => {
                skipped(&format!("no {kind} here: {errno}"));
                None
            }
        }
    }

    /// A small ext4 on a loop device.
    pub(crate) fn ext4(bytes: u64, inodes: u64) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N"]).arg(inodes.to_string()).arg(&image).status();
        let mounted = made.and_then(|_| Command::new("mount").args(["-o", "loop"]).args([&image, &at]).output());
        match mounted {
            Ok(output) if output.status.success() => Some(Disk { at, _dir: dir }),
            Ok(_) | Err(_) => {
                skipped("no ext4 on a loop device here");
                None
            }
        }
    }
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
