//! A full disk: the pull fails as `no-space`, its space comes back, older images stay whole.
//!
//! Needs root for small file systems of its own; without it nothing is tested, and that is said aloud.

mod support;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Disk, TestImage, small, usual_formats};
use windlass_core::reason::Reason;
use windlass_store::{Depth, GcRequest, LeaseOptions, Repair, Reserve, SnapshotFormat, Store, StoreOptions};

const OLD: &str = "registry.example/team/old:1";
const BIG: &str = "registry.example/team/big:1";

fn open(root: &Path, format: SnapshotFormat) -> Store {
    let mut options = StoreOptions::default();
    options.snapshot_format = format;
    options.reserve = Reserve::NONE;
    Store::open(root, options).unwrap()
}

/// How long the kernel may take to free what was removed.
const FREED_WITHIN: Duration = Duration::from_secs(20);

/// Pulls an image that does not fit; then everything must be as it was.
fn fails_and_recovers(disk: &Disk, format: SnapshotFormat, big: &TestImage) {
    let store = open(&disk.at, format);
    let old = small(OLD);
    old.pull(&store).unwrap();
    store.gc(&GcRequest::sweep()).unwrap();
    let before = store.file_system().unwrap();
    for _ in 0..2 {
        let error = big.pull(&store).unwrap_err();
        assert_eq!(error.reason(), Reason::NoSpace, "{error:?}");
        assert_eq!(store.find(BIG).unwrap(), None);
        store.gc(&GcRequest::sweep()).unwrap();
        // Directories and the database may have grown by some blocks.
        let slack_bytes = 1 << 20;
        // A removed file is free once the kernel has stopped writing it, a moment later.
        let deadline = Instant::now() + FREED_WITHIN;
        loop {
            rustix::fs::syncfs(File::open(&disk.at).unwrap()).unwrap();
            let after = store.file_system().unwrap();
            let has_bytes = after.available_bytes + slack_bytes >= before.available_bytes;
            if has_bytes && after.free_inodes + 8 >= before.free_inodes {
                break;
            }
            assert!(Instant::now() < deadline, "{before:?} {after:?}");
        }
    }
    let found = store.find(OLD).unwrap().unwrap();
    assert_eq!((found.id, found.damage), (old.id(), None));
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    small("registry.example/team/next:1").pull(&store).unwrap();
}

fn large() -> TestImage {
    let content = vec![1; 3 << 20];
    let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), content.as_slice())).collect();
    TestImage::new(BIG, &[&files, &[("small", b"x")]])
}

fn many() -> TestImage {
    let names: Vec<String> = (0..2000).map(|n| format!("f{n}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
    TestImage::new(BIG, &[&files])
}

/// Many layers: each takes some files, whatever is in it.
fn deep() -> TestImage {
    let names: Vec<String> = (0..150).map(|n| format!("f{n}")).collect();
    let layers: Vec<Vec<(&str, &[u8])>> = names.iter().map(|name| vec![(name.as_str(), b"x".as_slice())]).collect();
    let layers: Vec<&[(&str, &[u8])]> = layers.iter().map(Vec::as_slice).collect();
    TestImage::new(BIG, &layers)
}

/// A file that stands in the tar in two pieces and again, put together, behind it: there is room for one of them.
fn scattered() -> TestImage {
    let piece = vec![7; 6 << 20];
    let size_bytes = 12 << 20;
    TestImage::of_tars(BIG, &[support::sparse_tar("f", size_bytes + 512, &[(0, &piece), ((6 << 20) + 512, &piece)])])
}

#[test]
fn no_space() {
    if let Some(disk) = Disk::tmpfs("size=16m,mode=0700") {
        fails_and_recovers(&disk, SnapshotFormat::Auto, &large());
    }
    for format in usual_formats() {
        if let Some(disk) = Disk::ext4(24 << 20, 4096) {
            fails_and_recovers(&disk, format, &large());
        }
        if let (Some(disk), SnapshotFormat::Erofs) = (Disk::ext4(24 << 20, 4096), format) {
            fails_and_recovers(&disk, format, &scattered());
        }
    }
}

#[test]
fn no_inodes() {
    if let Some(disk) = Disk::tmpfs("size=64m,nr_inodes=400,mode=0700") {
        fails_and_recovers(&disk, SnapshotFormat::Auto, &many());
    }
    for format in usual_formats() {
        if let Some(disk) = Disk::ext4(32 << 20, 256) {
            let big = if format == SnapshotFormat::Erofs { deep() } else { many() };
            fails_and_recovers(&disk, format, &big);
        }
    }
}

#[test]
fn a_blob_that_does_not_fit_is_refused_before_its_first_byte() {
    let Some(disk) = Disk::tmpfs("size=4m,mode=0700") else { return };
    let store = open(&disk.at, SnapshotFormat::Auto);
    let lease = store.begin(LeaseOptions::load(BIG)).unwrap();
    let digest = windlass_core::digest::Digest::sha256(b"large");
    let mut never = Unread;
    let error = lease.put_blob_from(windlass_store::BlobKind::Layer, &digest, 64 << 20, &mut never).unwrap_err();
    assert_eq!(error.reason(), Reason::NoSpace);
    assert!(error.to_string().contains("67108864 bytes needed"), "{error}");
}

/// A reader that must not be read.
struct Unread;

impl std::io::Read for Unread {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("nothing may be read before there is room")
    }
}
