//! From the bytes of an input to archives.
//!
//! A program is a list of entries of five bytes and more: kind, mode and owner, name, and for links their target. Names
//! are made of few components, so that entries meet each other.
//!
//! A [`Plain`](Dialect::Plain) program knows what every file system and every user can have; in a
//! [`Rich`](Dialect::Rich) one the bits that choose a content also choose devices, times, extended attributes and holes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most layers of one input, and most entries of all of them.
const LAYERS_MAX: usize = 4;
const ENTRIES_MAX: usize = 48;

const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"..",
    b".",
    b"",
    b"a",
    b"b",
    b"f",
    b".wh.a",
    b".wh.b",
    b".wh.c",
    b".wh..wh..opq",
    b".wh.f",
    b".wh.",
];

/// What a program can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Plain,
    Rich,
}

/// The archives of an input, lowest layer first.
pub(crate) fn of(bytes: &[u8], outside: &Path, dialect: Dialect) -> Vec<Vec<u8>> {
    match (bytes, dialect) {
        ([255, archive @ ..], _) => return vec![archive.to_vec()],
        ([254, blocks, archives @ ..], Dialect::Rich) => {
            let (lower, upper) = archives.split_at(archives.len().min(usize::from(*blocks) * 512));
            return vec![lower.to_vec(), upper.to_vec()];
        }
        _ => {}
    }
    let mut bytes = Bytes(bytes);
    let mut layers = vec![Vec::new()];
    let mut entries = 0;
    while let Some(kind) = bytes.next() {
        let last = layers.len() - 1;
        if kind % 10 == 9 {
            if layers.len() == LAYERS_MAX {
                break;
            }
            layers.push(Vec::new());
            continue;
        }
        entries += 1;
        if entries > ENTRIES_MAX {
            break;
        }
        let look = bytes.next().unwrap_or(0);
        let mode = [0o644, 0o755, 0o700, 0o4755, 0o1777, 0o000, 0o2750, 0o600][usize::from(look & 7)];
        let owner = [0, 0, 1000, 65_534][usize::from(look >> 3 & 3)];
        let name = path(&mut bytes, outside);
        let more = look >> 5;
        let (code, link, content): (u8, Vec<u8>, &[u8]) = match kind % 10 {
            0 | 1 => (b'0', Vec::new(), [&b"one"[..], b"", b"two\n"][usize::from(more) % 3]),
            2 | 3 => (b'5', Vec::new(), b""),
            4 | 5 => (b'2', path(&mut bytes, outside), b""),
            6 | 7 => (b'1', path(&mut bytes, outside), b""),
            _ => (b'6', Vec::new(), b""),
        };
        let (code, content) = match (dialect, code, more) {
            (Dialect::Rich, b'0', 4) => (code, &[b'x'; 700][..]),
            (Dialect::Rich, b'0', 7) => (code, &b"pieces"[..]),
            (Dialect::Rich, b'6', 2 | 3) => (b'3', content),
            (Dialect::Rich, b'6', 4) => (b'4', content),
            _ => (code, content),
        };
        if let (Dialect::Rich, Some(records)) = (dialect, records(code, more)) {
            layers[last].extend(entry(b"pax", b'x', 0o644, 0, b"", &records));
        }
        layers[last].extend(entry(&name, code, mode, owner, &link, content));
    }
    for layer in &mut layers {
        layer.extend([0; 1024]);
    }
    layers
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

/// One byte for length and slashes, one for each component.
fn path(bytes: &mut Bytes<'_>, outside: &Path) -> Vec<u8> {
    let shape = bytes.next().unwrap_or(0);
    if shape == 0xff {
        return outside.as_os_str().as_bytes().to_vec();
    }
    let count = 1 + usize::from(shape & 3);
    let mut parts: Vec<&[u8]> = Vec::new();
    for _ in 0..count {
        // Plain names are twice as likely as the odd ones.
        let byte = usize::from(bytes.next().unwrap_or(0));
        parts.push(if byte & 0x10 == 0 { NAMES[byte & 3] } else { NAMES[byte & 15] });
    }
    let mut path = parts.join(&b'/');
    if shape & 4 != 0 {
        path.insert(0, b'/');
    }
    if shape & 8 != 0 {
        path.push(b'/');
    }
    path
}

/// Extended headers for the next entry, if it is to have some.
fn records(code: u8, more: u8) -> Option<Vec<u8>> {
    // `struct vfs_cap_data` of revision 2 with CAP_NET_BIND_SERVICE.
    const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: &[(&str, &[u8])] = match (code, more) {
        (b'1', _) => return None,
        (_, 5) => &[("mtime", b"1600000000.123456789"), ("SCHILY.xattr.user.a", b"1")],
        (b'5', 6) => &[("SCHILY.xattr.user.b", b"of a directory"), ("SCHILY.xattr.user.a", b"")],
        (b'0', 6) => &[("SCHILY.xattr.security.capability", CAPABILITY)],
        (b'0', 7) => &[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.size", b"1500"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"3,2,1024,4"),
        ],
        (_, 7) => &[("mtime", b"-1.5")],
        _ => return None,
    };
    Some(records.iter().flat_map(|(key, value)| record(key, value)).collect())
}

/// A record of POSIX.1-2001: its own length, key, value.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let length = (1..4).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    let head = format!("{} {key}=", length.expect("a short record"));
    [head.as_bytes(), value, b"\n"].concat()
}

/// A ustar entry (POSIX.1-1988): header, content, padding.
fn entry(name: &[u8], code: u8, mode: u32, owner: u32, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{mode:07o}\0{owner:07o}\0{owner:07o}\0{:011o}\0{:011o}\0        ", content.len(), 1).as_bytes());
    put(156, &[code]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    if matches!(code, b'3' | b'4') {
        put(329, b"0000001\x000000003\0");
    }
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}
