//! A reader that copies what is consumed from it into a blob, for stores that keep compressed layers.
//!
//! Invariant: `the_copy_is_what_was_consumed`.

use std::io::{self, BufRead, Read};

use crate::blobs::Ingest;
use crate::error::StoreError;

/// Passes bytes on and writes them to an [`Ingest`]. A failed write ends the stream with an error at the next read.
pub(crate) struct Tee<'a> {
    input: &'a mut dyn BufRead,
    copy: Ingest,
    failed: Option<StoreError>,
}

impl<'a> Tee<'a> {
    pub(crate) fn new(input: &'a mut dyn BufRead, copy: Ingest) -> Tee<'a> {
        Tee { input, copy, failed: None }
    }

    /// The copy, or why it could not be written.
    pub(crate) fn end(self) -> Result<Ingest, StoreError> {
        match self.failed {
            None => Ok(self.copy),
            Some(error) => Err(error),
        }
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Tee<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.failed.is_some() {
            return Err(io::Error::other("the copy of the layer cannot be written"));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // A buffered reader gives the same bytes again until they are consumed.
        if self.failed.is_none() {
            match self.input.fill_buf() {
                Ok(available) => self.failed = self.copy.write(&available[..count.min(available.len())]).err(),
                Err(source) => {
                    self.failed = Some(StoreError::Input { digest: self.copy.digest().clone(), source });
                }
            }
        }
        self.input.consume(count);
    }
}
