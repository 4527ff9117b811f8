//! Bytes of an image, and a few pages of its metadata kept at hand.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::error::ReadError;

/// Something that is read at places.
pub trait ReadAt {
    /// Reads at most as many bytes as `buf` holds, from `offset` on; 0 only at the end.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(&self[..], buf, offset)
    }
}

impl<S: ReadAt + ?Sized> ReadAt for &S {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(*self, buf, offset)
    }
}

/// Fills the buffer.
pub(super) fn read_exact<S: ReadAt>(source: &S, mut buf: &mut [u8], mut offset: u64) -> Result<(), ReadError> {
    while !buf.is_empty() {
        match source.read_at(buf, offset) {
            Ok(0) => return Err(ReadError::Damaged { what: "it ends early", at: offset }),
            Ok(count) => {
                buf = &mut buf[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Size of a page that is kept.
const PAGE_BYTES: usize = 4096;

/// Pages that are kept: 256 KiB, the metadata of some 3,000 entries.
const PAGES: usize = 64;

/// Pieces in which all metadata is read.
const SUM_BYTES: usize = 256 << 10;

/// A page and its number; a number belongs into one place only.
type Page = Option<(u64, Box<[u8]>)>;

/// The part of the file that is metadata; places count from its beginning.
pub(super) struct Metadata<S> {
    source: S,
    start: u64,
    end: u64,
    pages: Mutex<Vec<Page>>,
}

impl<S: ReadAt> Metadata<S> {
    /// The metadata from `start` to `end` of the file.
    pub(super) fn new(source: S, start: u64, end: u64) -> Metadata<S> {
        Metadata { source, start, end, pages: Mutex::new(vec![None; PAGES]) }
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Fills the buffer from this place on.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > self.size_bytes()) {
            return Err(ReadError::Damaged { what: "it leads out of the metadata", at: self.start.saturating_add(at) });
        }
        // A panic while the pages are held leaves them as they were.
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let (number, skip) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
            let len = rest.len().min(PAGE_BYTES - skip);
            let page = self.page(&mut pages, number)?;
            let (part, behind) = rest.split_at_mut(len);
            part.copy_from_slice(&page[skip..skip + len]);
            rest = behind;
            at += len as u64;
        }
        Ok(())
    }

    fn page<'p>(&self, pages: &'p mut [Page], number: u64) -> Result<&'p [u8], ReadError> {
        let place = &mut pages[(number % PAGES as u64) as usize];
        let known = place.take().filter(|(known, _)| *known == number);
        let page = match known {
            Some((_, page)) => page,
            None => {
                let at = number * PAGE_BYTES as u64;
                let len = (self.size_bytes() - at).min(PAGE_BYTES as u64) as usize;
                let mut page = vec![0; len].into_boxed_slice();
                read_exact(&self.source, &mut page, self.start + at)?;
                page
            }
        };
        Ok(&place.insert((number, page)).1)
    }

    /// crc32c of all.
    pub(super) fn sum(&self) -> Result<u32, ReadError> {
        let mut buf = vec![0; SUM_BYTES];
        let (mut sum, mut at) = (0, self.start);
        while at < self.end {
            let len = (self.end - at).min(SUM_BYTES as u64) as usize;
            read_exact(&self.source, &mut buf[..len], at)?;
            sum = crc32c::crc32c_append(sum, &buf[..len]);
            at += len as u64;
        }
        Ok(sum)
    }
}
