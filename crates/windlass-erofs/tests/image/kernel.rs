//! What the kernel shows of an image is what was written. Needs root, and a kernel that mounts EROFS from plain files;
//! without them the tests say so aloud.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::support::{Contents, Listing, Seen, image_file, join, listing_of_tree, plain, skipped, whiteout};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use windlass_erofs::{Attributes, Device, Kind, New, Time, Tree};

/// Mounts of this test; nothing is attached to the tree of directories until [`Attached`].
fn mount(file_system: &str, options: &[(&str, &OsStr)]) -> Result<OwnedFd, Errno> {
    let context = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Mounts an image; `None`, said aloud, where that is not possible here.
fn mount_image(test: &str, file: &Path) -> Option<OwnedFd> {
    match mount("erofs", &[("source", file.as_os_str())]) {
        Ok(root) => Some(root),
        Err(why @ (Errno::PERM | Errno::NODEV | Errno::NOTBLK | Errno::NOSYS)) => {
            skipped(test, &format!("EROFS cannot be mounted from a plain file here ({why})"));
            None
        }
        Err(error) => panic!("the kernel refuses the image: {error}"),
    }
}

/// A directory on a disk, since the kernel mounts no image from memory.
fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("windlass-erofs-").tempdir_in("/var/tmp").expect("a temporary directory")
}

fn store(directory: &Path, name: &str, tree: &Tree, contents: &Contents) -> PathBuf {
    let path = directory.join(name);
    let mut file = fs::File::create(&path).expect("a file");
    file.write_all(&image_file(tree, contents)).expect("room on the disk");
    path
}

/// A path below an open directory.
fn below(root: &OwnedFd, path: &[u8]) -> PathBuf {
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    Path::new(&root).join(OsStr::from_bytes(path))
}

fn listing_of_mount(root: &OwnedFd) -> Listing {
    let mut listing = Listing::new();
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut paths = vec![Vec::new()];
    let mut done = Vec::new();
    while let Some(path) = paths.pop() {
        let at = below(root, &path);
        let meta = if path.is_empty() { fs::metadata(at.join(".")) } else { fs::symlink_metadata(&at) };
        let meta = meta.expect("a stat");
        if meta.is_dir() {
            for entry in fs::read_dir(&at).expect("a directory") {
                paths.push(join(&path, entry.expect("an entry").file_name().as_bytes()));
            }
        }
        let smallest = first.entry(meta.ino()).or_insert_with(|| path.clone());
        *smallest = smallest.clone().min(path.clone());
        done.push((path, meta));
    }
    for (path, meta) in done {
        let at = below(root, &path);
        let device = |block| {
            let number = meta.rdev();
            Kind::Device(Device { block, major: rustix::fs::major(number), minor: rustix::fs::minor(number) })
        };
        let (kind, bytes) = match FileType::from_raw_mode(meta.mode()) {
            FileType::Directory => (Kind::Directory, Vec::new()),
            FileType::RegularFile => (Kind::File, fs::read(&at).expect("a content")),
            FileType::Symlink => (Kind::Symlink, fs::read_link(&at).expect("a text").into_os_string().into_vec()),
            FileType::CharacterDevice => (device(false), Vec::new()),
            FileType::BlockDevice => (device(true), Vec::new()),
            FileType::Fifo => (Kind::Fifo, Vec::new()),
            other => panic!("{other:?}"),
        };
        let attributes = Attributes {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: Time { seconds: meta.mtime(), nanos: meta.mtime_nsec() as u32 },
            xattrs: xattrs(&at),
        };
        let same_as = first[&meta.ino()].clone();
        listing.insert(path, Seen { kind, attributes, links: meta.nlink() as u32, bytes, same_as });
    }
    listing
}

fn xattrs(path: &Path) -> windlass_erofs::Xattrs {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names).expect("a list of names");
    let mut found: windlass_erofs::Xattrs = names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).expect("a value");
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn the_kernel_shows_what_was_written() {
    let mut contents = Contents::default();
    let mut tree = Tree::new(1 << 30);
    let root = tree.root();
    let etc = tree.insert(root, b"etc", New::Directory, &plain(0o755)).unwrap();
    let file = tree.insert(etc, b"passwd", New::File, &plain(0o644)).unwrap();
    tree.set_content(file, contents.add(b"root:x:0:0\n")).unwrap();
    tree.link(root, b"again", file).unwrap();
    tree.insert(root, b"link", New::Symlink(b"etc/passwd"), &plain(0o777)).unwrap();
    whiteout(&mut tree, root, b"gone");
    let dir = directory();
    let path = store(dir.path(), "image", &tree, &contents);
    let Some(mounted) = mount_image("the_kernel_shows_what_was_written", &path) else { return };
    assert_eq!(listing_of_mount(&mounted), listing_of_tree(&tree, &contents));
}
