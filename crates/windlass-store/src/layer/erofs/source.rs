//! The tar of an image file, read again.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use windlass_erofs::DATA_START;

use crate::layer::error::LayerError;
use crate::layer::tar::Source;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The bytes of an archive that was verified when it was written.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    image: &'a File,
    /// Where in the image file the next bytes are, and where the archive ends.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
}

impl<'a> Archive<'a> {
    pub(super) fn new(image: &'a File, tar_bytes: u64) -> Archive<'a> {
        let end = DATA_START + tar_bytes;
        Archive { image, next: DATA_START, end, buffer: vec![0; BUFFER_BYTES], used: 0, filled: 0 }
    }
}

impl Source for Archive<'_> {
    fn fill(&mut self) -> Result<&[u8], LayerError> {
        if self.used == self.filled {
            let step = self.buffer.len().min(usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
            self.image
                .read_exact_at(&mut self.buffer[..step], self.next)
                .map_err(|source| LayerError::Stage { action: "read", source })?;
            (self.used, self.filled) = (0, step);
            self.next += step as u64;
        }
        Ok(&self.buffer[self.used..self.filled])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }

    fn charge(&mut self, _: u64) -> Result<(), LayerError> {
        // What it unpacks to was counted when it came.
        Ok(())
    }
}
