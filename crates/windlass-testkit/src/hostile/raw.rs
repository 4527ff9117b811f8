//! Writes tar archives block by block, right or wrong, and compresses them.

use std::io::Write;

/// Size of a block.
pub const BLOCK: usize = 512;

/// A header block.
#[derive(Clone, Debug)]
pub struct Header {
    block: [u8; BLOCK],
    sum: Sum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    Unsigned,
    Signed,
    Wrong,
}

impl Header {
    /// A ustar header: mode 0644, root's, 1970, no size. Names longer than 100 bytes are cut.
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Header {
        let name = name.as_ref();
        let mut header = Header { block: [0; BLOCK], sum: Sum::Unsigned };
        header.block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header.block[156] = kind;
        header.block[257..265].copy_from_slice(b"ustar\x0000");
        header.mode(if kind == b'5' { 0o755 } else { 0o644 }).uid(0).gid(0).size(0).mtime(0)
    }

    /// Writes bytes anywhere.
    #[must_use]
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Header {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A number as octal digits that fill a field up to its NUL.
    #[must_use]
    pub fn octal(self, at: usize, length: usize, value: u64) -> Header {
        let text = format!("{value:0width$o}\0", width = length - 1);
        self.put(at, text.as_bytes())
    }

    /// A number in base 256.
    #[must_use]
    pub fn base256(self, at: usize, length: usize, value: i64) -> Header {
        let fill = if value < 0 { 0xff } else { 0 };
        let mut field = vec![fill; length];
        let bytes = value.to_be_bytes();
        let count = bytes.len().min(length);
        field[length - count..].copy_from_slice(&bytes[8 - count..]);
        field[0] |= 0x80;
        self.put(at, &field)
    }

    /// Permission bits.
    #[must_use]
    pub fn mode(self, mode: u64) -> Header {
        self.octal(100, 8, mode)
    }

    /// Owner.
    #[must_use]
    pub fn uid(self, uid: u64) -> Header {
        self.octal(108, 8, uid)
    }

    /// Group.
    #[must_use]
    pub fn gid(self, gid: u64) -> Header {
        self.octal(116, 8, gid)
    }

    /// Bytes that follow.
    #[must_use]
    pub fn size(self, size: usize) -> Header {
        self.octal(124, 12, size as u64)
    }

    /// Time.
    #[must_use]
    pub fn mtime(self, seconds: u64) -> Header {
        self.octal(136, 12, seconds)
    }

    /// Target of a link, cut at 100 bytes.
    #[must_use]
    pub fn link(self, target: impl AsRef<[u8]>) -> Header {
        let target = target.as_ref();
        self.put(157, &target[..target.len().min(100)])
    }

    /// Number of a device.
    #[must_use]
    pub fn device(self, major: u64, minor: u64) -> Header {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    /// GNU's magic.
    #[must_use]
    pub fn gnu(self) -> Header {
        self.put(257, b"ustar  \0")
    }

    /// No magic at all: the oldest form.
    #[must_use]
    pub fn v7(self) -> Header {
        self.put(257, &[0; 8])
    }

    /// The sum as some old programs made it, of signed bytes.
    #[must_use]
    pub fn signed_sum(mut self) -> Header {
        self.sum = Sum::Signed;
        self
    }

    /// A sum that does not fit.
    #[must_use]
    pub fn wrong_sum(mut self) -> Header {
        self.sum = Sum::Wrong;
        self
    }

    fn seal(mut self) -> [u8; BLOCK] {
        self.block[148..156].copy_from_slice(b"        ");
        let sum: i64 = match self.sum {
            Sum::Unsigned => self.block.iter().map(|&b| i64::from(b)).sum(),
            Sum::Signed => self.block.iter().map(|&b| i64::from(b.cast_signed())).sum(),
            Sum::Wrong => 1,
        };
        self.block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

/// An archive being written.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// An empty archive.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A header and nothing else.
    #[must_use]
    pub fn head(self, header: Header) -> Tar {
        self.raw(&header.seal())
    }

    /// A header whose size is that of the data, and the data, padded.
    #[must_use]
    pub fn with(self, header: Header, data: impl AsRef<[u8]>) -> Tar {
        let data = data.as_ref();
        self.head(header.size(data.len())).data(data)
    }

    /// Data, padded to whole blocks.
    #[must_use]
    pub fn data(mut self, data: impl AsRef<[u8]>) -> Tar {
        let data = data.as_ref();
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len() + data.len().next_multiple_of(BLOCK) - data.len(), 0);
        self
    }

    /// A file.
    #[must_use]
    pub fn file(self, name: impl AsRef<[u8]>, content: &str) -> Tar {
        self.with(Header::new(b'0', name), content)
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, name: impl AsRef<[u8]>) -> Tar {
        self.head(Header::new(b'5', name))
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.head(Header::new(b'2', name).mode(0o777).link(target))
    }

    /// A hard link.
    #[must_use]
    pub fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.head(Header::new(b'1', name).link(target))
    }

    /// An extended header for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.with(Header::new(b'x', "pax"), pax_records(records))
    }

    /// An extended header of this text.
    #[must_use]
    pub fn pax_text(self, text: impl AsRef<[u8]>) -> Tar {
        self.with(Header::new(b'x', "pax"), text)
    }

    /// GNU's long name (`L`) or long link target (`K`) of the next entry.
    #[must_use]
    pub fn long(self, kind: u8, text: impl AsRef<[u8]>) -> Tar {
        self.with(Header::new(kind, "././@LongLink").gnu(), [text.as_ref(), b"\0"].concat())
    }

    /// The archive as it is, without an end marker.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }

    /// The archive with its end marker.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

/// Records of an extended header.
pub fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while body + length.to_string().len() != length {
            length = body + length.to_string().len();
        }
        out.extend_from_slice(format!("{length} {key}=").as_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// Compresses with gzip.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

/// Compresses with zstd, with a checksum.
pub fn zstd(data: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("level 3 exists");
    encoder.include_checksum(true).expect("zstd has checksums");
    encoder.write_all(data).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

/// A zstd frame that decoders skip.
pub fn skippable(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("small");
    [&[0x53, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), data].concat()
}
