//! What the tests of this crate share: a plain model of a layer, and image files made from a tree.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use windlass_erofs::{Attributes, Content, DATA_START, Image, Kind, Layer, Nid, NodeId, ReadAt, Tree};

/// Text of a digest for images whose tar is no tar.
pub(crate) const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

pub(crate) const UUID: [u8; 16] = *b"0123456789abcdef";

/// Directories in each other that a layer may have.
pub(crate) const LEVELS: usize = 2048;

/// Says that a test did not run and why.
pub(crate) fn skipped(test: &str, why: &str) {
    // Straight to the descriptor: the test harness keeps what `eprintln!` writes.
    let line = format!("SKIPPED {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
}

/// One entry as anybody would describe it. Equal for the tree, our reader and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    pub(crate) links: u32,
    /// Text of a link or content of a file.
    pub(crate) bytes: Vec<u8>,
    /// The smallest path of the same node.
    pub(crate) same_as: Vec<u8>,
}

/// Every entry by its path; the root's is empty.
pub(crate) type Listing = BTreeMap<Vec<u8>, Seen>;

/// The bytes between the head and the metadata: what tests take for a tar.
#[derive(Debug, Default)]
pub(crate) struct Contents(pub(crate) Vec<u8>);

impl Contents {
    /// Adds a content and says where it is.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Content {
        let offset = if bytes.is_empty() { 0 } else { DATA_START + self.0.len() as u64 };
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        Content { offset, size_bytes: bytes.len() as u64 }
    }
}

/// The whole file of an image.
pub(crate) fn image_file(tree: &Tree, contents: &Contents) -> Vec<u8> {
    let mut file = vec![0; DATA_START as usize];
    file.extend_from_slice(&contents.0);
    let at = file.len() as u64;
    let layer = Layer { tar_bytes: contents.0.len() as u64, tar_digest: DIGEST, between_crc32c: 0, uuid: UUID };
    let written = windlass_erofs::write(tree, &layer, at, &mut file).expect("a tree that can be written");
    assert_eq!(written.head.total_bytes, file.len() as u64);
    file[..DATA_START as usize].copy_from_slice(&written.front[..]);
    file
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// What a tree says it holds.
pub(crate) fn listing_of_tree(tree: &Tree, contents: &Contents) -> Listing {
    let mut listing = Listing::new();
    let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    let mut waiting = vec![(Vec::new(), tree.root())];
    let mut all = Vec::new();
    while let Some((path, node)) = waiting.pop() {
        waiting.extend(tree.children(node).map(|(name, child)| (join(&path, name), child)));
        let smallest = first.entry(node).or_insert_with(|| path.clone());
        *smallest = smallest.clone().min(path.clone());
        all.push((path, node));
    }
    for (path, node) in all {
        let bytes = match (tree.link_text(node), tree.content(node)) {
            (Some(text), _) => text.to_vec(),
            (_, Some(Content { size_bytes: 0, .. })) => Vec::new(),
            (_, Some(Content { offset, size_bytes })) => {
                let at = (offset - DATA_START) as usize;
                contents.0[at..at + size_bytes as usize].to_vec()
            }
            (None, None) => Vec::new(),
        };
        let seen = Seen {
            kind: tree.kind(node).expect("an entry that is there"),
            attributes: tree.attributes(node),
            links: tree.links(node),
            bytes,
            same_as: first[&node].clone(),
        };
        listing.insert(path, seen);
    }
    listing
}

/// What an image holds, as our reader sees it; every name is looked up too.
pub(crate) fn listing_of_image<S: ReadAt>(image: &Image<S>) -> Listing {
    let mut listing = Listing::new();
    let mut first: BTreeMap<Nid, Vec<u8>> = BTreeMap::new();
    let mut waiting = vec![(Vec::new(), image.root())];
    let mut all = Vec::new();
    while let Some((path, nid)) = waiting.pop() {
        let inode = image.inode(nid).expect("an inode");
        if inode.is_directory() {
            let mut before = Vec::new();
            for entry in image.list(&inode).expect("a directory") {
                let entry = entry.expect("an entry");
                assert!(before < entry.name, "names are sorted");
                assert_eq!(image.lookup(&inode, &entry.name).expect("a name"), Some(entry.nid));
                waiting.push((join(&path, &entry.name), entry.nid));
                before = entry.name;
            }
            before.push(b'~');
            assert_eq!(image.lookup(&inode, &before).expect("no name"), None);
        }
        let smallest = first.entry(nid).or_insert_with(|| path.clone());
        *smallest = smallest.clone().min(path.clone());
        all.push((path, inode));
    }
    for (path, inode) in all {
        let bytes = match inode.kind {
            Kind::Symlink => image.link_text(&inode).expect("a text"),
            Kind::File => {
                let mut bytes = vec![0; inode.size_bytes as usize + 1];
                let read = image.read(&inode, 0, &mut bytes).expect("a content");
                bytes.truncate(read);
                bytes
            }
            Kind::Directory | Kind::Device(_) | Kind::Fifo => Vec::new(),
        };
        let attributes = image.attributes(&inode).expect("attributes");
        let same_as = first[&inode.nid].clone();
        listing.insert(path, Seen { kind: inode.kind, attributes, links: inode.links, bytes, same_as });
    }
    listing
}

/// Attributes with nothing special.
pub(crate) fn plain(mode: u32) -> Attributes {
    Attributes { mode, ..Attributes::default() }
}

/// A directory on a disk, since the kernel mounts no image from memory.
pub(crate) fn directory_on_disk() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("windlass-erofs-").tempdir_in("/var/tmp").expect("a temporary directory")
}

/// Writes an image into a directory.
pub(crate) fn store(directory: &Path, name: &str, tree: &Tree, contents: &Contents) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, image_file(tree, contents)).expect("room on the disk");
    path
}
