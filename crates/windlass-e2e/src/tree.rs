//! A directory tree as data, and where two of them differ.
//!
//! Every property a layer can set is read: kind, content, mode, owner, modification time, extended attributes, link
//! text, device number, and which names are one file. Access and change times are the machine's own affair.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use windlass_core::digest::Digest;

/// Longest list of names and longest value of extended attributes: the kernel's own bounds.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: its length and the digest of its content.
    File(u64, Digest),
    /// A directory.
    Directory,
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One path of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The other names of the same file, in order; empty for directories.
    pub same_as: Vec<Vec<u8>>,
}

/// Paths below a root, without a slash in front; the root itself is empty.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads everything below a root. Nothing is followed.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut files: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    let mut inodes: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
    let mut open = vec![Vec::new()];
    while let Some(name) = open.pop() {
        let path = if name.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&name)) };
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if meta.is_dir() {
            for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
                let child = entry.expect("an entry").file_name();
                let prefix = if name.is_empty() { Vec::new() } else { [&name[..], b"/"].concat() };
                open.push([&prefix[..], child.as_bytes()].concat());
            }
        } else {
            let inode = (meta.dev(), meta.ino());
            files.entry(inode).or_default().push(name.clone());
            inodes.insert(name.clone(), inode);
        }
        let node = Node {
            kind: kind(&path, &meta),
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            xattrs: xattrs(&path),
            same_as: Vec::new(),
        };
        tree.insert(name, node);
    }
    for (name, inode) in inodes {
        let mut others: Vec<Vec<u8>> = files[&inode].iter().filter(|other| **other != name).cloned().collect();
        others.sort();
        tree.get_mut(&name).expect("read above").same_as = others;
    }
    tree
}

fn kind(path: &Path, meta: &fs::Metadata) -> Kind {
    let file_type = meta.file_type();
    let device = || (major(meta.rdev()), minor(meta.rdev()));
    if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(path).expect("a link").as_os_str().as_bytes().to_vec())
    } else if file_type.is_char_device() {
        let (major, minor) = device();
        Kind::Character(major, minor)
    } else if file_type.is_block_device() {
        let (major, minor) = device();
        Kind::Block(major, minor)
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Kind::File(meta.len(), Digest::sha256(&bytes))
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let Ok(len) = llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0u8; XATTR_BYTES_MAX];
            let len = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).expect("an attribute that was listed");
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Which property differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// There or not.
    Presence,
    /// Kind, content, link text or device number.
    Kind,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Modification time.
    Mtime,
    /// Extended attributes.
    Xattrs,
    /// Which names are one file.
    Links,
}

/// One difference between two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: Vec<u8>,
    /// What.
    pub property: Property,
    /// Its value here, in words.
    pub ours: String,
    /// Its value there, in words.
    pub theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { path, property, ours, theirs } = self;
        write!(f, "{} {property:?}: {ours}, there {theirs}", path.escape_ascii())
    }
}

/// Every difference of two trees; times of the directories in `timeless` are left out.
pub fn differences(ours: &Tree, theirs: &Tree, timeless: &BTreeSet<Vec<u8>>) -> Vec<Difference> {
    let paths: BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        let mut add = |property, ours: String, theirs: String| {
            if ours != theirs {
                found.push(Difference { path: path.clone(), property, ours, theirs });
            }
        };
        let (Some(our), Some(their)) = (ours.get(path), theirs.get(path)) else {
            let word = |tree: &Tree| tree.get(path).map_or("absent".to_owned(), |node| format!("{:?}", node.kind));
            add(Property::Presence, word(ours), word(theirs));
            continue;
        };
        add(Property::Kind, format!("{:?}", our.kind), format!("{:?}", their.kind));
        add(Property::Mode, format!("{:04o}", our.mode), format!("{:04o}", their.mode));
        add(Property::Owner, format!("{:?}", our.owner), format!("{:?}", their.owner));
        if !timeless.contains(path) {
            add(Property::Mtime, format!("{:?}", our.mtime), format!("{:?}", their.mtime));
        }
        add(Property::Xattrs, shown(&our.xattrs), shown(&their.xattrs));
        let names = |node: &Node| node.same_as.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>();
        add(Property::Links, names(our).join(" "), names(their).join(" "));
    }
    found
}

fn shown(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let all = xattrs.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()));
    all.collect::<Vec<_>>().join(" ")
}

/// Directories whose time no layer decides: the highest layer that adds something to them, or takes something away,
/// has no entry for them. Layers are tar streams, lowest first.
pub fn directories_without_entry(layers: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    let mut known = BTreeSet::from([Vec::new()]);
    let mut timeless = known.clone();
    for layer in layers {
        let mut own = BTreeSet::new();
        for entry in tar::Archive::new(*layer).entries().expect("a tar stream") {
            let entry = entry.expect("an entry");
            let path = entry.path_bytes();
            let path = path.strip_prefix(b"./").unwrap_or(&path);
            let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
            let mut above = parent(&path);
            timeless.insert(above.clone());
            while known.insert(above.clone()) {
                above = parent(&above);
                timeless.insert(above.clone());
            }
            if entry.header().entry_type().is_dir() {
                known.insert(path.clone());
                own.insert(path);
            }
        }
        timeless.retain(|path| !own.contains(path));
    }
    timeless
}

fn parent(path: &[u8]) -> Vec<u8> {
    path.iter().rposition(|byte| *byte == b'/').map_or_else(Vec::new, |at| path[..at].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_property_that_differs_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        for side in ["a", "b"] {
            fs::create_dir_all(dir.path().join(side).join("d")).expect("a directory");
            fs::write(dir.path().join(side).join("d/f"), side).expect("a file");
        }
        fs::hard_link(dir.path().join("a/d/f"), dir.path().join("a/d/g")).expect("a link");
        let (a, b) = (read(&dir.path().join("a")), read(&dir.path().join("b")));
        assert_eq!(differences(&a, &a, &BTreeSet::new()), []);
        let timeless = [b"".to_vec(), b"d".to_vec(), b"d/f".to_vec()].into();
        let found: Vec<_> = differences(&a, &b, &timeless).into_iter().map(|d| (d.path, d.property)).collect();
        let f = b"d/f".to_vec();
        assert_eq!(found, [(f.clone(), Property::Kind), (f, Property::Links), (b"d/g".to_vec(), Property::Presence)]);
    }
}
