//! A reader that copies what is consumed from it into a blob, for stores that keep compressed layers.
//!
//! Invariant: `the_copy_is_what_was_consumed`.

use std::io::{self, BufRead, Read};

use crate::blobs::Ingest;
use crate::error::StoreError;

/// Passes bytes on and writes them to an [`Ingest`]. A failed write ends the stream with an error at the next read.
pub(crate) struct Tee<'a> {
    input: &'a mut (dyn BufRead + Send),
    copy: Ingest,
    failed: Option<StoreError>,
}

impl<'a> Tee<'a> {
    pub(crate) fn new(input: &'a mut (dyn BufRead + Send), copy: Ingest) -> Tee<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Promise;
    use crate::layout::Layout;
    use windlass_core::digest::Digest;

    #[test]
    fn the_copy_is_what_was_consumed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.create().unwrap();
        let bytes = b"some bytes of a layer";
        let promise = Promise { digest: Digest::sha256(bytes), size_bytes: bytes.len() as u64 };
        let mut input: &[u8] = bytes;
        let mut tee = Tee::new(&mut input, Ingest::begin(&layout.ingest(), promise.clone()).unwrap());
        let mut first = [0; 4];
        tee.read_exact(&mut first).unwrap();
        // Looked at twice, consumed once.
        assert_eq!(tee.fill_buf().unwrap(), &bytes[4..]);
        assert_eq!(tee.fill_buf().unwrap(), &bytes[4..]);
        let mut rest = Vec::new();
        tee.read_to_end(&mut rest).unwrap();
        tee.end().unwrap().publish(&layout).unwrap();
        assert_eq!(std::fs::read(layout.blob(&promise.digest)).unwrap(), bytes);
    }

    #[test]
    fn a_copy_that_grows_too_long_ends_the_stream() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.create().unwrap();
        let promise = Promise { digest: Digest::sha256(b"short"), size_bytes: 5 };
        let mut input: &[u8] = b"much longer";
        let mut tee = Tee::new(&mut input, Ingest::begin(&layout.ingest(), promise).unwrap());
        let mut rest = Vec::new();
        tee.read_to_end(&mut rest).unwrap_err();
        assert!(matches!(tee.end(), Err(StoreError::SizeMismatch { .. })));
    }
}
