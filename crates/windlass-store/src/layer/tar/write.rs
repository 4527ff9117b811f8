//! Writes tar entries: ustar headers, with an extended header where a field does not fit.

use std::io::{self, Write};

use super::number::Time;
use super::{BLOCK, Kind};
use crate::layer::rules::{Device, Meta};

/// Writes an archive.
pub struct Writer<'w> {
    out: &'w mut dyn Write,
    padding: usize,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What an entry is beside its metadata.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'a [u8],
    /// Target of a link.
    pub link: &'a [u8],
    /// Bytes that follow.
    pub size_bytes: u64,
    /// Number of a device.
    pub device: Option<Device>,
}

impl<'w> Writer<'w> {
    /// Starts an archive.
    pub fn new(out: &'w mut dyn Write) -> Writer<'w> {
        Writer { out, padding: 0 }
    }

    /// Begins an entry; exactly its size has to follow through [`Writer::data`].
    ///
    /// # Errors
    /// What the output says.
    pub fn entry(&mut self, head: &Head<'_>, meta: &Meta) -> io::Result<()> {
        self.pad()?;
        let records = records(head, meta);
        if !records.is_empty() {
            let fixed = Meta { mode: 0o644, ..Meta::default() };
            let pax =
                Head { kind: Kind::File, name: b"pax", link: b"", size_bytes: records.len() as u64, device: None };
            self.out.write_all(&block(&pax, &fixed, b'x'))?;
            self.out.write_all(&records)?;
            self.padding = records.len().wrapping_neg() % BLOCK;
            self.pad()?;
        }
        self.out.write_all(&block(head, meta, code(head.kind)))?;
        self.padding = usize::try_from(head.size_bytes.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        Ok(())
    }

    /// Adds content of the current entry.
    ///
    /// # Errors
    /// What the output says.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<()> {
        self.pad()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn pad(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }
}

const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Largest number that fits a field of eight octal digits with its NUL.
const SMALL_MAX: u64 = 0o7_777_777;

/// The same for twelve.
const LARGE_MAX: u64 = 0o77_777_777_777;

fn records(head: &Head<'_>, meta: &Meta) -> Vec<u8> {
    let mut out = Vec::new();
    if head.name.len() > 100 {
        record(&mut out, b"path", head.name);
    }
    if head.link.len() > 100 {
        record(&mut out, b"linkpath", head.link);
    }
    for (key, value, max) in [
        (&b"uid"[..], u64::from(meta.uid), SMALL_MAX),
        (b"gid", u64::from(meta.gid), SMALL_MAX),
        (b"size", head.size_bytes, LARGE_MAX),
    ] {
        if value > max {
            record(&mut out, key, value.to_string().as_bytes());
        }
    }
    let Time { seconds, nanos } = meta.mtime;
    if nanos > 0 || u64::try_from(seconds).map_or(true, |seconds| seconds > LARGE_MAX) {
        let fraction = format!(".{nanos:09}");
        let text = format!("{seconds}{}", fraction.trim_end_matches('0').trim_end_matches('.'));
        record(&mut out, b"mtime", text.as_bytes());
    }
    for (name, value) in &meta.xattrs {
        record(&mut out, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    out
}

fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn block(head: &Head<'_>, meta: &Meta, kind: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &head.name[..head.name.len().min(100)]);
    let small = |value: u64| format!("{:07o}\0", if value > SMALL_MAX { 0 } else { value });
    let large = |value: u64| format!("{:011o}\0", if value > LARGE_MAX { 0 } else { value });
    put(100, small(u64::from(meta.mode)).as_bytes());
    put(108, small(u64::from(meta.uid)).as_bytes());
    put(116, small(u64::from(meta.gid)).as_bytes());
    put(124, large(head.size_bytes).as_bytes());
    put(136, large(u64::try_from(meta.mtime.seconds).unwrap_or_default()).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &head.link[..head.link.len().min(100)]);
    put(257, b"ustar\x0000");
    if let Some(device) = head.device {
        put(329, small(u64::from(device.major)).as_bytes());
        put(337, small(u64::from(device.minor)).as_bytes());
    }
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
