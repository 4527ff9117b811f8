//! The reader of image files on foreign bytes: it ends, gives out nothing that is not in the file, and says the same
//! however the bytes come.
//!
//! | first byte | the rest |
//! | --- | --- |
//! | 255 | an image file as it is |
//! | 254 | an image file whose front gets the sums it should have |
//! | other | the number of the root (2 bytes) and metadata: the front and so many blocks of tar (6 bits) are put before |

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;

use windlass_core::digest::Digest;
use windlass_erofs::{BLOCK_BYTES, DATA_START, Image, Inode, Kind, LINK_TEXT_MAX, NAME_MAX, Nid, ReadAt, ReadError};
use windlass_store::layer::{self, Depth, Form, IMAGE, LayerError};

use super::layer_apply::memory;

/// Entries that are looked at: a few blocks that all inodes share could list millions.
const ENTRIES_MAX: usize = 4000;

/// Bytes of files that are read: inodes share their contents, too.
const READ_BYTES_MAX: usize = 1 << 20;

/// Asks everything that can be asked about an image.
pub fn run(bytes: &[u8]) {
    let file = match bytes {
        [255, file @ ..] => file.to_vec(),
        [254, file @ ..] => with_sums(file.to_vec()),
        [blocks, low, high, metadata @ ..] => with_front(blocks % 64, u16::from_le_bytes([*low, *high]), metadata),
        _ => return,
    };
    let whole = ask(&file[..], &file);
    // The same bytes in small pieces and with interruptions are the same image.
    assert!(
        whole == ask(Pieces { bytes: &file, step: 1 + bytes.len() % 700, asked: Cell::new(0) }, &file),
        "read in pieces"
    );
    if let Ok(image) = Image::open(&file[..], file.len() as u64) {
        stored(&image, &file);
    }
}

/// Puts the sums of head and superblock right (the table at the head of `windlass_erofs`'s `head.rs`).
fn with_sums(mut file: Vec<u8>) -> Vec<u8> {
    if let Some(front) = file.first_chunk_mut::<{ DATA_START as usize }>() {
        let superblock = crc32c::crc32c(&front[1024..]);
        front[44..48].copy_from_slice(&superblock.to_le_bytes());
        let head = crc32c::crc32c(&front[..1020]);
        front[1020..1024].copy_from_slice(&head.to_le_bytes());
    }
    file
}

/// A file with this metadata that the reader opens.
fn with_front(blocks: u8, root: u16, metadata: &[u8]) -> Vec<u8> {
    let tar = vec![b't'; usize::from(blocks) * BLOCK_BYTES as usize];
    let metadata_offset = DATA_START + tar.len() as u64;
    let mut file = vec![0; DATA_START as usize];
    file.extend_from_slice(&tar);
    file.extend_from_slice(metadata);
    file.resize(file.len().next_multiple_of(BLOCK_BYTES as usize), 0);
    let total_bytes = file.len() as u64;
    let digest = Digest::sha256(&tar);
    let metadata_sum = crc32c::crc32c(&file[metadata_offset as usize..]);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"windlass-layer 1");
    put(16, &(tar.len() as u64).to_le_bytes());
    put(24, &metadata_offset.to_le_bytes());
    put(32, &total_bytes.to_le_bytes());
    put(40, &metadata_sum.to_le_bytes());
    put(48, &(digest.as_str().len() as u16).to_le_bytes());
    put(50, digest.as_str().as_bytes());
    // Linux `struct erofs_super_block`: magic, times of change, block bits, root, inodes, blocks, metadata's block.
    put(1024, &0xe0f5_e1e2_u32.to_le_bytes());
    put(1032, &2_u32.to_le_bytes());
    put(1036, &[9]);
    put(1038, &root.to_le_bytes());
    put(1040, &1_u64.to_le_bytes());
    put(1060, &((total_bytes / BLOCK_BYTES) as u32).to_le_bytes());
    put(1064, &((metadata_offset / BLOCK_BYTES) as u32).to_le_bytes());
    with_sums(file)
}

/// All that was seen, in the order it was asked for.
type Heard = Vec<String>;

fn ask<S: ReadAt>(source: S, file: &[u8]) -> Result<Heard, String> {
    let image = Image::open(source, file.len() as u64).map_err(|error| error.to_string())?;
    let head = image.head();
    assert!(DATA_START + head.tar_bytes <= head.metadata_offset && head.metadata_offset <= head.total_bytes);
    assert_eq!(head.total_bytes, file.len() as u64, "a file has the size it was written with");
    let metadata = &file[head.metadata_offset as usize..];
    assert_eq!(image.check_metadata().is_ok(), crc32c::crc32c(metadata) == head.metadata_crc32c, "the sum");
    let mut asked = Asked { image, file, heard: Vec::new(), entries: 0, read: 0 };
    asked.walk();
    Ok(asked.heard)
}

struct Asked<'f, S> {
    image: Image<S>,
    file: &'f [u8],
    heard: Heard,
    entries: usize,
    read: usize,
}

impl<S: ReadAt> Asked<'_, S> {
    /// From the root on, and then whatever else could be an inode.
    fn walk(&mut self) {
        let mut seen = HashSet::new();
        let mut waiting: Vec<Nid> = [u64::MAX, u64::MAX / 32, 1 << 40].map(Nid).into();
        let slots = (self.file.len() as u64 - self.image.head().metadata_offset) / 32;
        waiting.extend((0..=slots).rev().map(Nid));
        waiting.push(self.image.root());
        while let Some(nid) = waiting.pop() {
            if seen.len() < ENTRIES_MAX && seen.insert(nid) {
                match self.image.inode(nid) {
                    Ok(inode) => self.inode(&inode, &mut waiting),
                    Err(error) => self.hear(&error),
                }
            }
        }
    }

    fn hear(&mut self, error: &ReadError) {
        assert!(!matches!(error, ReadError::Io(_)), "{error}");
        self.heard.push(error.to_string());
    }

    fn inode(&mut self, inode: &Inode, waiting: &mut Vec<Nid>) {
        self.heard.push(format!("{inode:?}"));
        assert!(inode.mode <= 0o7777 && inode.mtime.nanos < 1_000_000_000);
        let opaque = self.image.is_opaque(inode);
        match self.image.attributes(inode) {
            Ok(attributes) => {
                let bytes: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
                assert!(bytes <= 64 * self.file.len(), "attributes are in the file");
                let mark = attributes.xattrs.contains(&(b"trusted.overlay.opaque".to_vec(), b"y".to_vec()));
                assert_eq!(opaque.ok(), Some(mark && inode.is_directory()), "what the attributes say");
                self.heard.push(format!("{attributes:?}"));
            }
            Err(error) => self.hear(&error),
        }
        match inode.kind {
            Kind::Directory => self.directory(inode, waiting),
            Kind::File => self.content(inode),
            Kind::Symlink => match self.image.link_text(inode) {
                Ok(text) => {
                    assert!((1..=LINK_TEXT_MAX).contains(&text.len()) && text.len() as u64 == inode.size_bytes);
                    assert!(!text.contains(&0));
                    self.heard.push(format!("{text:?}"));
                }
                Err(error) => self.hear(&error),
            },
            Kind::Device(_) | Kind::Fifo => {}
        }
        // What an inode is not is refused.
        assert_eq!(self.image.list(inode).is_ok(), inode.kind == Kind::Directory);
        assert_eq!(self.image.content(inode).is_ok(), inode.kind == Kind::File);
        assert!(inode.kind == Kind::Symlink || self.image.link_text(inode).is_err());
    }

    fn directory(&mut self, directory: &Inode, waiting: &mut Vec<Nid>) {
        let mut names: BTreeMap<Vec<u8>, Vec<Nid>> = BTreeMap::new();
        let (mut count, mut whole) = (0, true);
        let mut failed = None;
        for entry in self.image.list(directory).expect("a directory") {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                whole = false;
                break;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            assert!(failed.is_none(), "nothing comes behind an error");
            count += 1;
            assert!(!entry.name.is_empty() && entry.name.len() <= NAME_MAX);
            assert!(!entry.name.iter().any(|byte| matches!(byte, 0 | b'/')));
            assert!(entry.name != b"." && entry.name != b"..");
            self.heard.push(format!("{entry:?}"));
            waiting.push(entry.nid);
            names.entry(entry.name).or_default().push(entry.nid);
        }
        // An entry takes 12 bytes and a name.
        assert!(count as u64 * 13 <= directory.size_bytes, "{count} entries in {} bytes", directory.size_bytes);
        whole &= failed.is_none();
        if let Some(error) = failed {
            self.hear(&error);
        }
        for (name, nids) in &names {
            match self.image.lookup(directory, name) {
                // Where names are not in order, some are not found.
                Ok(None) => self.heard.push("not found".to_owned()),
                Ok(Some(nid)) => assert!(!whole || nids.contains(&nid), "{name:?} is another"),
                Err(error) => self.heard.push(error.to_string()),
            }
        }
        for name in [&b""[..], b".", b"..", b"/", &[0xff; 300]] {
            if let Ok(Some(_)) = self.image.lookup(directory, name) {
                panic!("{name:?} is no name");
            }
        }
    }

    fn content(&mut self, inode: &Inode) {
        let content = self.image.content(inode).expect("a file");
        let from = content.offset as usize;
        let want = &self.file[from..from + content.size_bytes as usize];
        let metadata = self.image.head().metadata_offset;
        assert!(want.is_empty() || content.offset >= DATA_START && content.offset + content.size_bytes <= metadata);
        assert_eq!(content.size_bytes, inode.size_bytes);
        if self.read + want.len() > READ_BYTES_MAX {
            return;
        }
        self.read += want.len();
        let mut buffer = [0; 777];
        let mut at = 0;
        loop {
            let count = self.image.read(inode, at as u64, &mut buffer).expect("a content");
            assert_eq!(&buffer[..count], &want[at..at + count]);
            at += count;
            if count == 0 {
                break;
            }
        }
        assert_eq!(at, want.len(), "read to its end");
        for behind in [inode.size_bytes, inode.size_bytes + 1, u64::MAX] {
            assert_eq!(self.image.read(inode, behind, &mut buffer).expect("nothing"), 0);
        }
    }
}

/// Bytes that come in small pieces, every second time after an interruption.
struct Pieces<'f> {
    bytes: &'f [u8],
    step: usize,
    asked: Cell<u64>,
}

impl ReadAt for Pieces<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get().is_multiple_of(2) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buf.len().min(self.step);
        ReadAt::read_at(self.bytes, &mut buf[..len], offset)
    }
}

/// The same for a store, which finds the file in a snapshot.
fn stored(image: &Image<&[u8]>, file: &[u8]) {
    let place = tempfile::Builder::new().prefix("windlass-fuzz-").tempdir_in(memory()).expect("a directory");
    fs::write(place.path().join(IMAGE), file).expect("a file");
    let snapshot = File::open(place.path()).expect("a directory");
    let head = image.head();
    let tar = &file[DATA_START as usize..][..head.tar_bytes as usize];
    let mut read_back = Vec::new();
    layer::read_back(snapshot.as_fd(), &mut read_back).expect("a head that was read");
    assert!(read_back == tar, "the tar comes back as it stands there");
    let diff_id = Digest::sha256(tar);
    let mut damage = Vec::new();
    let mut note = |found: layer::Damage| damage.push(found);
    layer::verify(snapshot.as_fd(), Depth::Full, Form::of_this_process(), &diff_id, &mut note)
        .expect("a head that was read");
    let between = &file[DATA_START as usize + tar.len()..head.metadata_offset as usize];
    let metadata = &file[head.metadata_offset as usize..];
    let is_whole = head.tar_digest == diff_id.as_str()
        && crc32c::crc32c(between) == head.between_crc32c
        && crc32c::crc32c(metadata) == head.metadata_crc32c;
    assert_eq!(damage.is_empty(), is_whole, "{damage:?}");
    // Cut off it is no image any more, which is an error and no damage.
    let cut = File::options().write(true).open(place.path().join(IMAGE));
    cut.and_then(|image| image.set_len(file.len() as u64 - 1)).expect("a shorter file");
    let cut = layer::read_back(snapshot.as_fd(), &mut io::sink());
    assert!(matches!(cut, Err(LayerError::Sums { .. })), "{cut:?}");
}
