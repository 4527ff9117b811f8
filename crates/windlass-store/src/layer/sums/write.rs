//! Writes the record while the layer is unpacked, and puts it in order at the end.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use super::{Content, FLAG_COPIED, FLAG_IMPLICIT, FLAG_XATTRS, MAGIC, Origin, Record};
use super::{compact, read::Reader};
use crate::layer::rules::Meta;

/// Bytes collected before they go to the file.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes the records of one layer.
#[derive(Debug)]
pub struct Writer {
    file: File,
    buffer: Vec<u8>,
    last: Vec<u8>,
    crc: u32,
    count: u64,
    bytes: u64,
}

impl Writer {
    /// Starts the record in an empty file that can be read and written.
    pub fn new(file: File) -> Writer {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + 4096);
        buffer.extend_from_slice(MAGIC);
        Writer { file, buffer, last: Vec::new(), crc: 0, count: 0, bytes: 0 }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// What the file says.
    pub fn put(&mut self, path: &[u8], content: &Content, meta: &Meta, origin: Origin) -> io::Result<()> {
        let out = &mut self.buffer;
        let flags = if meta.xattrs.is_empty() { 0 } else { FLAG_XATTRS }
            | match origin {
                Origin::Archive => 0,
                Origin::Implicit => FLAG_IMPLICIT,
                Origin::CopiedUp => FLAG_COPIED,
            };
        out.extend_from_slice(&[content.code(), flags]);
        let shared = path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        number(out, shared as u64);
        bytes(out, &path[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&path[shared..]);
        number(out, u64::from(meta.mode));
        number(out, u64::from(meta.uid));
        number(out, u64::from(meta.gid));
        number(out, zigzag(meta.mtime.seconds));
        number(out, u64::from(meta.mtime.nanos));
        match content {
            Content::File { size_bytes, crc32c } => {
                number(out, *size_bytes);
                out.extend_from_slice(&crc32c.to_le_bytes());
            }
            Content::Symlink(target) | Content::HardLink(target) => bytes(out, target),
            Content::Device(device) => {
                number(out, u64::from(device.major));
                number(out, u64::from(device.minor));
            }
            Content::Directory
            | Content::Fifo
            | Content::Whiteout
            | Content::Opaque
            | Content::Unresolved
            | Content::Assumed
            | Content::Stacked
            | Content::Removed => {}
        }
        if !meta.xattrs.is_empty() {
            number(out, meta.xattrs.len() as u64);
            for (name, value) in &meta.xattrs {
                bytes(out, name);
                bytes(out, value);
            }
        }
        self.count += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Adds a record that was read.
    ///
    /// # Errors
    /// What the file says.
    pub fn put_record(&mut self, record: &Record) -> io::Result<()> {
        self.put(&record.path, &record.content, &record.meta, record.origin)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.buffer.push(0);
        self.buffer.extend_from_slice(&self.count.to_le_bytes());
        self.flush()?;
        let crc = self.crc;
        self.file.write_all(&crc.to_le_bytes())
    }

    /// Ends the record. With `overrides`, names came more than once: the file is written again with the last record of
    /// each. The file is handed back at its beginning.
    ///
    /// # Errors
    /// What the file says, or [`io::ErrorKind::FileTooLarge`] for more than `memory_max` bytes to be put in order.
    pub fn finish(mut self, overrides: bool, memory_max: u64) -> io::Result<File> {
        self.end()?;
        let mut file = self.file;
        file.seek(SeekFrom::Start(0))?;
        if !overrides {
            return Ok(file);
        }
        if self.bytes > memory_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let records = compact::last_of_each(Reader::new(file.try_clone()?).map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(0))?;
        file.set_len(0)?;
        let mut writer = Writer::new(file);
        for record in &records {
            writer.put_record(record)?;
        }
        writer.end()?;
        writer.file.seek(SeekFrom::Start(0))?;
        Ok(writer.file)
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
