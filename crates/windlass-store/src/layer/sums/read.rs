//! Reads the record of a layer. The file is ours, but may have been damaged: nothing in it is trusted.

use std::fs::File;
use std::io::{BufReader, Read};

use super::{Content, FLAG_COPIED, FLAG_IMPLICIT, FLAG_XATTRS, MAGIC, Origin, Record};
use crate::layer::error::LayerError;
use crate::layer::rules::{Device, Meta};
use crate::layer::tar::Time;

/// Longest name, target or attribute in a record; the limits of unpacking are below it.
const FIELD_MAX: u64 = 1 << 20;

/// Extended attributes of one record at most.
const XATTRS_MAX: u64 = 4096;

/// What a whole record file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes of regular files.
    pub file_bytes: u64,
}

/// Iterates over the records of one layer. Errors end it.
#[derive(Debug)]
pub struct Reader<R = File> {
    input: BufReader<R>,
    crc: u32,
    last: Vec<u8>,
    count: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of a file.
    ///
    /// # Errors
    /// [`LayerError::Sums`] if it is not a record of this version.
    pub fn new(input: R) -> Result<Reader<R>, LayerError> {
        let input = BufReader::with_capacity(64 << 10, input);
        let mut reader = Reader { input, crc: 0, last: Vec::new(), count: 0, ended: false };
        let mut magic = [0; MAGIC.len()];
        reader.exact(&mut magic)?;
        if magic != MAGIC {
            return Err(damaged("it is not a record of version 1"));
        }
        Ok(reader)
    }

    /// Reads to the end and adds up; checks the checksum of the file on the way.
    ///
    /// # Errors
    /// As for reading.
    pub fn totals(mut self) -> Result<Totals, LayerError> {
        let mut totals = Totals::default();
        while let Some(record) = self.record()? {
            totals.records += 1;
            if let Content::File { size_bytes, .. } = record.content {
                totals.file_bytes = totals.file_bytes.saturating_add(size_bytes);
            }
        }
        Ok(totals)
    }

    fn record(&mut self) -> Result<Option<Record>, LayerError> {
        if self.ended {
            return Ok(None);
        }
        let code = self.byte()?;
        if code == 0 {
            self.ended = true;
            return self.check_end().map(|()| None);
        }
        let flags = self.byte()?;
        let shared = usize::try_from(self.number()?).map_err(|_| damaged("a name that is too long"))?;
        if shared > self.last.len() {
            return Err(damaged("a name without its beginning"));
        }
        let rest = self.bytes()?;
        self.last.truncate(shared);
        self.last.extend_from_slice(&rest);
        let mut meta = Meta {
            mode: self.small()?,
            uid: self.small()?,
            gid: self.small()?,
            mtime: Time { seconds: unzigzag(self.number()?), nanos: self.small()? },
            xattrs: Vec::new(),
        };
        let content = self.content(code)?;
        if flags & FLAG_XATTRS != 0 {
            let count = self.number()?;
            if count > XATTRS_MAX {
                return Err(damaged("too many attributes"));
            }
            for _ in 0..count {
                meta.xattrs.push((self.bytes()?, self.bytes()?));
            }
        }
        let origin = match flags & (FLAG_IMPLICIT | FLAG_COPIED) {
            0 => Origin::Archive,
            FLAG_IMPLICIT => Origin::Implicit,
            FLAG_COPIED => Origin::CopiedUp,
            _ => return Err(damaged("an unknown flag")),
        };
        self.count += 1;
        Ok(Some(Record { path: self.last.clone(), content, meta, origin }))
    }

    fn content(&mut self, code: u8) -> Result<Content, LayerError> {
        Ok(match code {
            b'd' => Content::Directory,
            b'f' => {
                let size_bytes = self.number()?;
                let mut crc = [0; 4];
                self.exact(&mut crc)?;
                Content::File { size_bytes, crc32c: u32::from_le_bytes(crc) }
            }
            b'l' => Content::Symlink(self.bytes()?),
            b'h' => Content::HardLink(self.bytes()?),
            b'c' | b'b' => Content::Device(Device { block: code == b'b', major: self.small()?, minor: self.small()? }),
            b'p' => Content::Fifo,
            b'w' => Content::Whiteout,
            b'o' => Content::Opaque,
            b'u' => Content::Unresolved,
            b'a' => Content::Assumed,
            b's' => Content::Stacked,
            b'r' => Content::Removed,
            _ => return Err(damaged("an unknown kind of entry")),
        })
    }

    fn check_end(&mut self) -> Result<(), LayerError> {
        let mut count = [0; 8];
        self.exact(&mut count)?;
        let (want, crc) = (u64::from_le_bytes(count), self.crc);
        let mut stated = [0; 4];
        self.exact(&mut stated)?;
        if want != self.count || u32::from_le_bytes(stated) != crc {
            return Err(damaged("its checksum does not fit"));
        }
        let mut more = [0; 1];
        match self.input.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged("bytes follow its end")),
            Err(source) => Err(LayerError::Stage { action: "read the record of", source }),
        }
    }

    fn exact(&mut self, out: &mut [u8]) -> Result<(), LayerError> {
        self.input.read_exact(out).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
            _ => LayerError::Stage { action: "read the record of", source },
        })?;
        self.crc = crc32c::crc32c_append(self.crc, out);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, LayerError> {
        let mut byte = [0; 1];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, LayerError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(damaged("a number beyond 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged("a number beyond 64 bits"))
    }

    fn small(&mut self) -> Result<u32, LayerError> {
        u32::try_from(self.number()?).map_err(|_| damaged("a number beyond 32 bits"))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, LayerError> {
        let length = self.number()?;
        if length > FIELD_MAX {
            return Err(damaged("a field that is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, LayerError>;

    fn next(&mut self) -> Option<Result<Record, LayerError>> {
        let record = self.record();
        if record.is_err() {
            self.ended = true;
        }
        record.transpose()
    }
}

fn damaged(what: &'static str) -> LayerError {
    LayerError::Sums { what }
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
