//! Layers: entries as a tar stream, compressed.

use std::io::Write;

use flate2::GzBuilder;
use windlass_core::digest::Digest;

use super::{Content, Entry, EntryKind, Family};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// What a layer is made of.
#[derive(Clone, Debug)]
pub struct Layer {
    tar: Vec<u8>,
    compression: Compression,
    level: u32,
}

/// A finished layer.
#[derive(Clone, Debug)]
pub struct BuiltLayer {
    /// The blob as it is in a registry.
    pub blob: Content,
    /// Digest of the tar stream.
    pub diff_id: Digest,
    /// The tar stream.
    pub tar: Vec<u8>,
    /// How the blob is compressed.
    pub compression: Compression,
}

impl Layer {
    /// A gzip layer of these entries, in this order.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Layer {
        let mut tar = Vec::new();
        for entry in entries {
            write_entry(&mut tar, &entry);
        }
        tar.resize(tar.len() + 1024, 0);
        Layer::from_tar(tar)
    }

    /// A gzip layer of this stream, whatever it is.
    pub fn from_tar(tar: impl Into<Vec<u8>>) -> Layer {
        Layer { tar: tar.into(), compression: Compression::Gzip, level: 6 }
    }

    /// Compresses in another way.
    pub fn compression(mut self, compression: Compression) -> Layer {
        self.compression = compression;
        self
    }

    /// Compression level, 1 (fast) to 9. Default 6.
    pub fn level(mut self, level: u32) -> Layer {
        self.level = level;
        self
    }

    /// The tar stream.
    pub fn into_tar(self) -> Vec<u8> {
        self.tar
    }

    /// Builds the bytes with the media types of `family`.
    pub fn build(&self, family: Family) -> BuiltLayer {
        let bytes = compress(&self.tar, self.compression, self.level);
        BuiltLayer {
            blob: Content::new(family.layer(self.compression), bytes),
            diff_id: Digest::sha256(&self.tar),
            tar: self.tar.clone(),
            compression: self.compression,
        }
    }
}

fn compress(tar: &[u8], compression: Compression, level: u32) -> Vec<u8> {
    match compression {
        Compression::None => tar.to_vec(),
        Compression::Gzip => {
            let mut gzip = GzBuilder::new().write(Vec::new(), flate2::Compression::new(level));
            gzip.write_all(tar).and_then(|()| gzip.finish()).expect("memory takes every byte")
        }
        Compression::Zstd => {
            zstd::encode_all(tar, i32::try_from(level).expect("a level")).expect("memory takes every byte")
        }
    }
}

/// Appends one entry, with a pax header where ustar cannot say it.
fn write_entry(tar: &mut Vec<u8>, entry: &Entry) {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Dir && !path.ends_with(b"/") {
        path.push(b'/');
    }
    if path.len() > 100 {
        records.push((b"path".to_vec(), path.clone()));
    }
    let (type_flag, link, size, major, minor) = match &entry.kind {
        EntryKind::File(content) => (b'0', &[][..], content.len() as u64, 0, 0),
        EntryKind::HardLink(target) => (b'1', &target[..], 0, 0, 0),
        EntryKind::Symlink(target) => (b'2', &target[..], 0, 0, 0),
        EntryKind::CharDevice { major, minor } => (b'3', &[][..], 0, *major, *minor),
        EntryKind::BlockDevice { major, minor } => (b'4', &[][..], 0, *major, *minor),
        EntryKind::Dir => (b'5', &[][..], 0, 0, 0),
        EntryKind::Fifo => (b'6', &[][..], 0, 0, 0),
    };
    if link.len() > 100 {
        records.push((b"linkpath".to_vec(), link.to_vec()));
    }
    if entry.mtime_nanoseconds != 0 || entry.mtime_seconds < 0 || entry.mtime_seconds >= 1 << 33 {
        let fraction = format!("{}.{:09}", entry.mtime_seconds, entry.mtime_nanoseconds);
        records.push((b"mtime".to_vec(), fraction.into_bytes()));
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id >= 1 << 21 {
            records.push((key.as_bytes().to_vec(), id.to_string().into_bytes()));
        }
    }
    for (name, value) in &entry.xattrs {
        records.push(([b"SCHILY.xattr.", &name[..]].concat(), value.clone()));
    }
    if !records.is_empty() {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        let head =
            Header { path: b"PaxHeaders.0/entry", type_flag: b'x', size: body.len() as u64, ..Header::default() };
        head.write(tar);
        pad(tar, &body);
    }
    let head = Header {
        path: &path,
        type_flag,
        link,
        size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: u64::try_from(entry.mtime_seconds).unwrap_or(0),
        major,
        minor,
    };
    head.write(tar);
    if let EntryKind::File(content) = &entry.kind {
        pad(tar, content);
    }
}

/// `LENGTH key=value\n`, where the length counts itself.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn pad(tar: &mut Vec<u8>, content: &[u8]) {
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

#[derive(Default)]
struct Header<'a> {
    path: &'a [u8],
    type_flag: u8,
    link: &'a [u8],
    size: u64,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: u64,
    major: u32,
    minor: u32,
}

impl Header<'_> {
    fn write(&self, tar: &mut Vec<u8>) {
        let mut block = [0u8; 512];
        put(&mut block[..100], self.path);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], if self.uid < 1 << 21 { self.uid } else { 0 });
        octal(&mut block[116..124], if self.gid < 1 << 21 { self.gid } else { 0 });
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], if self.mtime < 1 << 33 { self.mtime } else { 0 });
        block[148..156].fill(b' ');
        block[156] = self.type_flag;
        put(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(self.major));
        octal(&mut block[337..345], u64::from(self.minor));
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        octal(&mut block[148..155], sum);
        tar.extend_from_slice(&block);
    }
}

fn put(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
}

/// Octal digits that fill the field but for a closing NUL.
fn octal(field: &mut [u8], number: u64) {
    let digits = format!("{number:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(digits.as_bytes());
}

/// Bytes that no compressor shortens, the same for the same seed.
pub fn incompressible(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Text that compresses about as well as source code does, the same for the same seed.
pub fn text(len: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "fn ", "let ", "return ", "struct ", "match ", "value", "layer", "digest", " = ", "();\n", "    ", "{\n",
        "}\n", "// the ", "0x", "\n",
    ];
    let noise = incompressible(len / 2 + 16, seed);
    let mut text = Vec::with_capacity(len + 16);
    for pair in noise.chunks(2).cycle() {
        if text.len() >= len {
            break;
        }
        text.extend_from_slice(WORDS[usize::from(pair[0] % 16)].as_bytes());
        if pair[0] > 200 {
            text.extend_from_slice(format!("{:02x}", pair.get(1).copied().unwrap_or(0)).as_bytes());
        }
    }
    text.truncate(len);
    text
}
