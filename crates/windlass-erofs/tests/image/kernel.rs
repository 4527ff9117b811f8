//! What the kernel shows of an image is what was written. Needs root, and a kernel that mounts EROFS from plain files;
//! without them the tests say so aloud.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, unmount,
};
use windlass_erofs::{Attributes, Device, Kind, New, Time, Tree, Xattrs};

use crate::support::{
    Contents, LEVELS, Listing, Seen, directory_on_disk, join, listing_of_tree, plain, skipped, store,
};
use crate::{model, samples};

/// A mount that stands nowhere in the tree of directories.
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

/// Everything below a mount, as the kernel shows it.
fn listing_of_mount(root: &OwnedFd) -> Listing {
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut all = Vec::new();
    let mut waiting = vec![(Vec::new(), open_directory(root, b"."))];
    let stat = statat(root, ".", AtFlags::empty()).expect("a root");
    first.insert(stat.st_ino, Vec::new());
    all.push((Vec::new(), stat.st_ino, seen(&stat, root, b".")));
    while let Some((path, directory)) = waiting.pop() {
        for entry in Dir::read_from(&directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = join(&path, name);
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("an entry that is there");
            assert_eq!(entry.file_type(), FileType::from_raw_mode(stat.st_mode), "{path:?}");
            if entry.file_type() == FileType::Directory {
                waiting.push((path.clone(), open_directory(&directory, name)));
            }
            let smallest = first.entry(stat.st_ino).or_insert_with(|| path.clone());
            *smallest = smallest.clone().min(path.clone());
            all.push((path, stat.st_ino, seen(&stat, &directory, name)));
        }
    }
    all.into_iter().map(|(path, ino, seen)| (path, Seen { same_as: first[&ino].clone(), ..seen })).collect()
}

fn seen(stat: &Stat, directory: &OwnedFd, name: &[u8]) -> Seen {
    let at = Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(OsStr::from_bytes(name));
    let device = |block| {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        Kind::Device(Device { block, major, minor })
    };
    let (kind, bytes) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => (Kind::Directory, Vec::new()),
        FileType::RegularFile => (Kind::File, fs::read(&at).expect("a content")),
        FileType::Symlink => (Kind::Symlink, readlinkat(directory, name, Vec::new()).expect("a text").into_bytes()),
        FileType::CharacterDevice => (device(false), Vec::new()),
        FileType::BlockDevice => (device(true), Vec::new()),
        FileType::Fifo => (Kind::Fifo, Vec::new()),
        other => panic!("{other:?}"),
    };
    let attributes = Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs: xattrs(&at),
    };
    Seen { kind, attributes, links: stat.st_nlink as u32, bytes, same_as: Vec::new() }
}

fn xattrs(path: &Path) -> Xattrs {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names).expect("a list of names");
    let mut found: Xattrs = names[..len]
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

fn open_directory(at: &OwnedFd, name: &[u8]) -> OwnedFd {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
}

/// Says where two listings differ, without printing the megabytes they may have.
fn assert_same(what: &str, got: &Listing, want: &Listing) {
    for (path, want) in want {
        assert_eq!(got.get(path), Some(want), "{what}: {:?}", String::from_utf8_lossy(path));
    }
    assert_eq!(got.len(), want.len(), "{what}");
}

#[test]
fn the_kernel_shows_what_was_written() {
    let dir = directory_on_disk();
    for (what, tree, contents) in samples::all(LEVELS) {
        let path = store(dir.path(), what, &tree, &contents);
        let Some(root) = mount_image("the_kernel_shows_what_was_written", &path) else { return };
        assert_same(what, &listing_of_mount(&root), &listing_of_tree(&tree, &contents));
    }
}

#[test]
fn the_kernel_shows_what_random_operations_made() {
    let dir = directory_on_disk();
    for (number, model) in model::some(50).enumerate() {
        let path = store(dir.path(), "image", &model.tree, &model.contents);
        let Some(root) = mount_image("the_kernel_shows_what_random_operations_made", &path) else { return };
        assert_same(&number.to_string(), &listing_of_mount(&root), &model.listing());
    }
}

/// A mount at a place of its own, taken away at the end.
struct Attached(PathBuf);

impl Attached {
    fn new(mount: &OwnedFd, place: PathBuf) -> Attached {
        fs::create_dir(&place).expect("a free name");
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount, "", CWD, &place, flags).expect("a place to mount at");
        Attached(place)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // What cannot be taken away now goes with the temporary directory's mount namespace.
        let _gone = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn an_overlay_honours_whiteouts_and_opaque_directories() {
    let test = "an_overlay_honours_whiteouts_and_opaque_directories";
    let dir = directory_on_disk();
    let mut lower = Tree::new(1 << 20);
    let mut upper = Tree::new(1 << 20);
    let make = |tree: &mut Tree, directory: &[u8], files: &[&[u8]]| {
        let directory = tree.insert(tree.root(), directory, New::Directory, &plain(0o755)).expect("a free name");
        for file in files {
            tree.insert(directory, file, New::File, &plain(0o644)).expect("a free name");
        }
        directory
    };
    make(&mut lower, b"kept", &[b"hidden", b"shown"]);
    make(&mut lower, b"opaque", &[b"below"]);
    make(&mut lower, b"gone", &[b"below"]);
    let kept = make(&mut upper, b"kept", &[b"new"]);
    let opaque = make(&mut upper, b"opaque", &[b"above"]);
    upper.set_opaque(opaque).expect("a directory");
    for (directory, name) in [(kept, &b"hidden"[..]), (upper.root(), b"gone")] {
        upper.insert(directory, name, New::Device(Device::WHITEOUT), &plain(0)).expect("a free name");
    }
    let mut places = Vec::new();
    for (name, tree) in [("upper", &upper), ("lower", &lower)] {
        let file = store(dir.path(), &format!("{name}.erofs"), tree, &Contents::default());
        let Some(mounted) = mount_image(test, &file) else { return };
        places.push(Attached::new(&mounted, dir.path().join(name)));
    }
    let layers = places.iter().map(|place| place.0.to_str().expect("a plain path")).collect::<Vec<_>>().join(":");
    let merged = match mount("overlay", &[("lowerdir", OsStr::new(&layers))]) {
        Ok(merged) => merged,
        Err(error) => return skipped(test, &format!("no overlay can be mounted here ({error})")),
    };
    let listing = listing_of_mount(&merged);
    let paths: Vec<_> = listing.keys().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["", "kept", "kept/new", "kept/shown", "opaque", "opaque/above"]);
}
