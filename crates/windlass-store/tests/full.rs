//! A full disk: the pull fails as `no-space`, its space comes back, older images stay whole.
//!
//! Needs root for small file systems of its own; without it nothing is tested, and that is said aloud.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use support::{TestImage, small};
use windlass_core::reason::Reason;
use windlass_store::{Depth, GcRequest, LeaseOptions, Repair, Reserve, SnapshotFormat, Store, StoreOptions};

const OLD: &str = "registry.example/team/old:1";
const BIG: &str = "registry.example/team/big:1";

/// A small file system that goes with its value.
struct Small {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Small {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED store::full: {what}");
}

fn tmpfs(options: &str) -> Option<Small> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can make a small file system");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("disk");
    fs::create_dir(&at).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    match rustix::mount::mount("none", &at, "tmpfs", MountFlags::empty(), options.as_c_str()) {
        Ok(()) => Some(Small { at, _dir: dir }),
        Err(errno) => {
            skipped(&format!("no tmpfs here: {errno}"));
            None
        }
    }
}

fn ext4(bytes: u64, inodes: u64) -> Option<Small> {
    let dir = tempfile::tempdir().unwrap();
    let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(bytes).unwrap();
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N"]).arg(inodes.to_string()).arg(&image).status();
    let mounted = made.and_then(|_| Command::new("mount").args(["-o", "loop"]).args([&image, &at]).output());
    match mounted {
        Ok(output) if output.status.success() => Some(Small { at, _dir: dir }),
        Ok(_) | Err(_) => {
            skipped("no ext4 on a loop device here");
            None
        }
    }
}

fn open(root: &Path) -> Store {
    let mut options = StoreOptions::default();
    options.snapshot_format = SnapshotFormat::Overlay;
    options.reserve = Reserve::NONE;
    Store::open(root, options).unwrap()
}

/// Pulls an image that does not fit; then everything must be as it was.
fn fails_and_recovers(disk: &Small, big: &TestImage) {
    let store = open(&disk.at);
    let old = small(OLD);
    old.pull(&store).unwrap();
    store.gc(&GcRequest::sweep()).unwrap();
    let before = store.file_system().unwrap();
    for _ in 0..2 {
        let error = big.pull(&store).unwrap_err();
        assert_eq!(error.reason(), Reason::NoSpace, "{error:?}");
        assert_eq!(store.find(BIG).unwrap(), None);
        store.gc(&GcRequest::sweep()).unwrap();
        let after = store.file_system().unwrap();
        // Directories and the database may have grown by some blocks.
        let slack_bytes = 1 << 20;
        assert!(after.available_bytes + slack_bytes >= before.available_bytes, "{before:?} {after:?}");
        assert!(after.free_inodes + 8 >= before.free_inodes, "{before:?} {after:?}");
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

#[test]
fn no_space() {
    if let Some(disk) = tmpfs("size=16m,mode=0700") {
        fails_and_recovers(&disk, &large());
    }
    if let Some(disk) = ext4(24 << 20, 4096) {
        fails_and_recovers(&disk, &large());
    }
}

#[test]
fn no_inodes() {
    if let Some(disk) = tmpfs("size=64m,nr_inodes=400,mode=0700") {
        fails_and_recovers(&disk, &many());
    }
    if let Some(disk) = ext4(32 << 20, 256) {
        fails_and_recovers(&disk, &many());
    }
}

#[test]
fn a_blob_that_does_not_fit_is_refused_before_its_first_byte() {
    let Some(disk) = tmpfs("size=4m,mode=0700") else { return };
    let store = open(&disk.at);
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
