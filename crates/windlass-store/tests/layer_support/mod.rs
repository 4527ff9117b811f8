//! Applies layers in every way there is, and reads the resulting trees.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use windlass_core::digest::Digest;
use windlass_store::layer::{
    self, Completion, Compression, Form, Format, IMAGE, LayerError, LayerLimits, LayerSpec, Settled, Stored, TREE,
};

/// One layer's blob.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) compression: Compression,
    pub(crate) diff_id: Digest,
}

impl Blob {
    pub(crate) fn of_tar(tar: Vec<u8>) -> Blob {
        Blob { diff_id: Digest::sha256(&tar), bytes: tar, compression: Compression::None }
    }
}

pub(crate) fn private_directory(path: &Path) -> File {
    fs::DirBuilder::new().mode(0o700).create(path).expect("a directory");
    File::open(path).expect("a directory")
}

/// Applies the layers one after the other into one tree, at `place/plain`.
pub(crate) fn plain(place: &Path, layers: &[Blob], limits: &LayerLimits) -> Result<PathBuf, LayerError> {
    let target_path = place.join("plain");
    let (target, scratch) = (private_directory(&target_path), private_directory(&place.join("scratch")));
    for blob in layers {
        let digest = Digest::sha256(&blob.bytes);
        let spec = LayerSpec::new(&digest, blob.bytes.len() as u64, blob.compression, &blob.diff_id, limits);
        let done = layer::apply_plain(&mut &blob.bytes[..], &spec, target.as_fd(), scratch.as_fd(), &());
        let left = fs::read_dir(place.join("scratch")).expect("scratch").count();
        assert_eq!(left, 0, "nothing is left in the scratch directory");
        done?;
    }
    Ok(target_path)
}

/// Unpacks every layer by itself, then settles them from the lowest on; snapshots `place/l0`, `l1` ...
pub(crate) fn side_by_side(
    place: &Path,
    layers: &[Blob],
    limits: &LayerLimits,
    split: bool,
    format: FormatAt,
) -> Result<Vec<PathBuf>, LayerError> {
    let form = Form::of_this_process();
    let mut stages = Vec::new();
    for (at, blob) in layers.iter().enumerate() {
        let path = place.join(format!("l{at}"));
        let stage = private_directory(&path);
        let digest = Digest::sha256(&blob.bytes);
        let mut spec = LayerSpec::new(&digest, blob.bytes.len() as u64, blob.compression, &blob.diff_id, limits);
        spec.split = split;
        spec.format = format(at);
        let mut extracted = layer::extract(&mut &blob.bytes[..], &spec, stage.as_fd(), &())?;
        let from_record = layer::needs_of(stage.as_fd(), limits)?;
        if spec.format == Format::Overlay {
            assert_eq!(from_record.redo, extracted.needs.redo, "the record knows it too");
            assert!(from_record.implicit.keys().eq(extracted.needs.implicit.keys()), "the record knows them too");
            assert_eq!(from_record.whiteouts, extracted.needs.whiteouts, "the record knows them too");
        }
        // As after a restart for every second layer.
        if at % 2 == 1 {
            extracted.needs = from_record;
        }
        stages.push((path, extracted));
    }
    let mut below: Vec<Stored> = Vec::new();
    let mut paths = Vec::new();
    for (at, (mut path, mut extracted)) in stages.into_iter().enumerate() {
        let (blob, digest) = (&layers[at], Digest::sha256(&layers[at].bytes));
        let chain_id = Digest::sha256(at.to_string().as_bytes());
        let completion = Completion {
            below: &below,
            form,
            diff_id: &blob.diff_id,
            chain_id: &chain_id,
            limits,
            integrity_xattrs: false,
        };
        let stage = File::open(&path).expect("stage");
        if layer::settle(stage.as_fd(), &mut extracted, &completion)? == Settled::Redo {
            path = place.join(format!("redo{at}"));
            let stage = private_directory(&path);
            let mut spec = LayerSpec::new(&digest, blob.bytes.len() as u64, blob.compression, &blob.diff_id, limits);
            spec.below = Some(&below);
            let mut again = layer::extract(&mut &blob.bytes[..], &spec, stage.as_fd(), &())?;
            let settled = layer::settle(stage.as_fd(), &mut again, &completion)?;
            assert_eq!(settled, Settled::Done, "redone once");
        } else if split || !path.join(IMAGE).exists() {
            // An image file is then made again from its tar.
            let settled = layer::settle(stage.as_fd(), &mut extracted, &completion)?;
            assert_eq!(settled, Settled::Done, "settling twice");
        }
        below.insert(0, Stored::open(File::open(&path).expect("snapshot").as_fd())?);
        paths.push(path);
    }
    Ok(paths)
}

/// Which form a layer gets, by its place in the stack.
pub(crate) type FormatAt = fn(usize) -> Format;

/// The forms that layers are stored in: all directories, all image files, both in one image.
pub(crate) const FORMS: [(&str, FormatAt); 3] = [
    ("directories", |_| Format::Overlay),
    ("image files", |_| Format::Erofs),
    ("mixed", |at| if at.is_multiple_of(2) { Format::Overlay } else { Format::Erofs }),
];

/// The root of one stored layer, image files mounted in no place at all.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) fd: OwnedFd,
}

impl Root {
    pub(crate) fn of(snapshot: &Path) -> Option<Root> {
        let image = snapshot.join(IMAGE);
        if !image.exists() {
            return Some(Root { fd: File::open(snapshot.join(TREE)).ok()?.into() });
        }
        let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
        rustix::mount::fsconfig_set_string(&context, "source", &image).ok()?;
        rustix::mount::fsconfig_create(&context).ok()?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let fd = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).ok()?;
        Some(Root { fd })
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// Mounts settled layers, lowest first, as overlayfs shows them, in no place at all. None where the kernel or the
/// user's rights do not allow it.
pub(crate) fn overlay(place: &Path, layers: &[PathBuf]) -> Option<OwnedFd> {
    let empty = place.join("empty");
    fs::create_dir(&empty).ok();
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    // A mount in no place goes with its last descriptor, so they stay until the overlay has them.
    let mut roots = Vec::new();
    for layer in layers.iter().rev() {
        if layer.join(IMAGE).exists() {
            let root = Root::of(layer)?;
            rustix::mount::fsconfig_set_fd(&context, "lowerdir+", &root.fd).ok()?;
            roots.push(root);
        } else {
            rustix::mount::fsconfig_set_string(&context, "lowerdir+", layer.join(TREE)).ok()?;
        }
    }
    // Overlayfs wants two at least.
    rustix::mount::fsconfig_set_string(&context, "lowerdir+", &empty).ok()?;
    rustix::mount::fsconfig_create(&context).ok()?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).ok()
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { size: u64, content: Vec<u8> },
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Other,
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) inode: (u64, u64),
}

/// Content beyond this is kept as its digest, or as nothing when it is all zeros.
const CONTENT_MAX: u64 = 64 << 10;

/// All entries of a tree, the root as the empty path.
pub(crate) fn read_tree(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(std::ffi::OsStr::from_bytes(&path));
        let seen = look(&full);
        if seen.kind == Kind::Directory {
            for entry in fs::read_dir(&full).expect("a directory") {
                let name = entry.expect("an entry").file_name().into_vec();
                let slash = if path.is_empty() { &b""[..] } else { b"/" };
                todo.push([&path[..], slash, &name].concat());
            }
        }
        found.insert(path, seen);
    }
    found
}

/// The tree behind a descriptor.
pub(crate) fn read_tree_of(fd: &OwnedFd) -> BTreeMap<Vec<u8>, Seen> {
    read_tree(Path::new(&format!("/proc/self/fd/{}/", fd.as_raw_fd())))
}

fn look(path: &Path) -> Seen {
    let is_root = path.as_os_str().as_bytes().ends_with(b"/");
    let meta = if is_root { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let meta = meta.unwrap_or_else(|error| panic!("{} shows up but cannot be looked at: {error}", path.display()));
    let kind = meta.file_type();
    let number = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path).expect("a link").into_os_string().into_vec())
    } else if kind.is_file() {
        content(path, meta.len())
    } else if kind.is_char_device() {
        Kind::Char(number.0, number.1)
    } else if kind.is_block_device() {
        Kind::Block(number.0, number.1)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Other
    };
    let has_xattrs = matches!(kind, Kind::Directory | Kind::File { .. });
    Seen {
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), u32::try_from(meta.mtime_nsec()).expect("nanoseconds")),
        xattrs: if has_xattrs { xattrs(path) } else { Vec::new() },
        inode: (meta.dev(), meta.ino()),
        kind,
    }
}

fn content(path: &Path, size: u64) -> Kind {
    let Ok(mut file) = File::open(path) else { return Kind::File { size, content: b"unreadable".to_vec() } };
    let mut content = Vec::new();
    if size <= CONTENT_MAX {
        file.read_to_end(&mut content).expect("content");
    } else {
        let mut whole = Vec::new();
        file.read_to_end(&mut whole).expect("content");
        if whole.iter().any(|&b| b != 0) {
            content = Digest::sha256(&whole).to_string().into_bytes();
        }
    }
    Kind::File { size, content }
}

/// Attributes that belong to the content.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(path, &mut names).unwrap_or(0);
    let mut found = Vec::new();
    for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name == b"security.selinux" || name == b"user.overlay.opaque" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(path, name, &mut value).expect("a value");
        found.push((name.to_vec(), value[..length].to_vec()));
    }
    found.sort();
    found
}
