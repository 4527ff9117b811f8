//! The entries of a stored layer, as its form shows them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::hash::Hash;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use windlass_erofs::{Device, FileType, Image, Inode, Kind};

/// What stands under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Directory { opaque: bool },
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
    Whiteout,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
    /// Sorted by name; without access lists, which a file system keeps in a form of its own.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many names it has, or for a directory 2 and its subdirectories.
    pub(super) links: u64,
    /// The first path of the same node.
    pub(super) first: Vec<u8>,
}

/// Every entry by its path; the root's is empty.
pub(super) type Listing = BTreeMap<Vec<u8>, Seen>;

/// Whether an attribute is compared: marks of overlayfs are [`What`].
fn is_compared(name: &[u8]) -> bool {
    !name.starts_with(b"system.posix_acl_") && !name.starts_with(b"trusted.overlay.") && name != b"security.selinux"
}

/// Paths of a listing by the number of their node, so that names of one node are known.
struct Nodes<N>(HashMap<N, BTreeSet<Vec<u8>>>);

impl<N: Eq + Hash> Nodes<N> {
    fn add(&mut self, node: N, path: &[u8]) {
        self.0.entry(node).or_default().insert(path.to_vec());
    }

    /// Says for each entry which name of its node comes first, and that the node counts its names.
    fn into_listing(self, mut listing: Listing) -> Listing {
        for paths in self.0.into_values() {
            let first = paths.first().cloned().unwrap_or_default();
            for path in &paths {
                let seen = listing.get_mut(path).expect("a path that was listed");
                seen.first.clone_from(&first);
                if !matches!(seen.what, What::Directory { .. }) {
                    assert_eq!(seen.links, paths.len() as u64, "names of {}", path.escape_ascii());
                }
            }
        }
        listing
    }
}

/// A tree of files.
pub(super) fn directory(root: &Path) -> Listing {
    let (mut listing, mut nodes) = (Listing::new(), Nodes(HashMap::new()));
    // Each name with its directory kept open: a whole path may be longer than the kernel takes.
    let mut todo = vec![(Vec::new(), root.to_owned(), None)];
    while let Some((path, full, _parent)) = todo.pop() {
        let meta = fs::symlink_metadata(&full).expect("it was listed just now");
        let what = match meta.file_type() {
            kind if kind.is_dir() => {
                let open = Rc::new(File::open(&full).expect("a directory"));
                let within = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
                for entry in fs::read_dir(&within).expect("a directory") {
                    let name = entry.expect("an entry").file_name();
                    todo.push((join(&path, name.as_bytes()), within.join(name), Some(Rc::clone(&open))));
                }
                What::Directory { opaque: attribute(&full, b"trusted.overlay.opaque").is_some_and(|mark| mark == b"y") }
            }
            kind if kind.is_symlink() => {
                What::Symlink(fs::read_link(&full).expect("a link").into_os_string().into_vec())
            }
            kind if kind.is_file() => What::File(fs::read(&full).expect("a file")),
            kind if kind.is_fifo() => What::Fifo,
            kind if kind.is_char_device() && meta.rdev() == 0 => What::Whiteout,
            kind => What::Device {
                block: kind.is_block_device(),
                major: rustix::fs::major(meta.rdev()),
                minor: rustix::fs::minor(meta.rdev()),
            },
        };
        let has_xattrs = matches!(what, What::Directory { .. } | What::File(_));
        let seen = Seen {
            what,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), u32::try_from(meta.mtime_nsec()).expect("nanoseconds")),
            xattrs: if has_xattrs { attributes(&full) } else { Vec::new() },
            links: meta.nlink(),
            first: Vec::new(),
        };
        nodes.add(meta.ino(), &path);
        listing.insert(path, whiteouts_alike(seen));
    }
    nodes.into_listing(listing)
}

/// An image file. What it says about itself has to be consistent, too.
pub(super) fn image(path: &Path) -> Listing {
    let file = File::open(path).expect("an image file");
    let size_bytes = file.metadata().expect("an image file").len();
    let image = Image::open(file, size_bytes).expect("an image");
    image.check_metadata().expect("whole metadata");
    let (mut listing, mut nodes) = (Listing::new(), Nodes(HashMap::new()));
    let mut todo = vec![(Vec::new(), image.root())];
    while let Some((path, nid)) = todo.pop() {
        let inode = image.inode(nid).expect("an inode");
        let what = match inode.kind {
            Kind::Directory => {
                let opaque = image.is_opaque(&inode).expect("its attributes");
                for (name, nid) in names(&image, &inode) {
                    todo.push((join(&path, &name), nid));
                }
                What::Directory { opaque }
            }
            Kind::File => What::File(content(&image, &inode)),
            Kind::Symlink => What::Symlink(image.link_text(&inode).expect("a text")),
            Kind::Device(Device::WHITEOUT) => What::Whiteout,
            Kind::Device(Device { block, major, minor }) => What::Device { block, major, minor },
            Kind::Fifo => What::Fifo,
        };
        let attributes = image.attributes(&inode).expect("its attributes");
        let mut xattrs = attributes.xattrs;
        assert!(xattrs.is_sorted(), "attributes in the order of their names");
        xattrs.retain(|(name, _)| is_compared(name));
        let seen = Seen {
            what,
            mode: attributes.mode,
            owner: (attributes.uid, attributes.gid),
            mtime: (attributes.mtime.seconds, attributes.mtime.nanos),
            xattrs,
            links: inode.links.into(),
            first: Vec::new(),
        };
        nodes.add(nid, &path);
        listing.insert(path, whiteouts_alike(seen));
    }
    assert_eq!(image.inodes(), nodes.0.len() as u64, "the inodes are counted");
    nodes.into_listing(listing)
}

/// The names of a directory: in order, each found when it is looked up, each of the kind that its inode has.
fn names(image: &Image<File>, directory: &Inode) -> Vec<(Vec<u8>, windlass_erofs::Nid)> {
    let mut names: Vec<(Vec<u8>, windlass_erofs::Nid)> = Vec::new();
    for entry in image.list(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        assert!(names.last().is_none_or(|(last, _)| *last < entry.name), "names in order");
        assert_eq!(image.lookup(directory, &entry.name).expect("a directory"), Some(entry.nid), "it is found");
        let file_type = match image.inode(entry.nid).expect("an inode").kind {
            Kind::Directory => FileType::Directory,
            Kind::File => FileType::File,
            Kind::Symlink => FileType::Symlink,
            Kind::Device(Device { block: false, .. }) => FileType::CharDevice,
            Kind::Device(Device { block: true, .. }) => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
        };
        assert_eq!(entry.file_type, file_type, "the kind in the directory");
        names.push((entry.name, entry.nid));
    }
    names
}

fn content(image: &Image<File>, inode: &Inode) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(inode.size_bytes).expect("a small file")];
    assert_eq!(image.read(inode, 0, &mut content).expect("a content"), content.len());
    content
}

/// Nobody sees more of a whiteout than that it is there.
fn whiteouts_alike(seen: Seen) -> Seen {
    match seen.what {
        What::Whiteout => Seen { mode: 0, owner: (0, 0), mtime: (0, 0), xattrs: Vec::new(), ..seen },
        _ => seen,
    }
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty() && is_compared(name));
    let mut found: Vec<_> =
        names.map(|name| (name.to_vec(), attribute(path, name).expect("it was listed just now"))).collect();
    found.sort();
    found
}

fn attribute(path: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
