//! The tar of a stored image file, for those who send it on.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use windlass_erofs::DATA_START;

use super::{LayerError, opened};

/// The tar that an image file was made of, byte for byte, as its head says; nothing is hashed while it is read.
#[derive(Debug)]
pub struct StoredTar {
    image: File,
    at: u64,
    end: u64,
    digest: String,
}

impl StoredTar {
    /// Looks at the head of an image file.
    ///
    /// # Errors
    /// [`LayerError::Sums`] for a file that is none of ours.
    pub(in crate::layer) fn of(image: File) -> Result<StoredTar, LayerError> {
        let opened = opened(&image)?;
        let (end, digest) = (DATA_START + opened.head().tar_bytes, opened.head().tar_digest.clone());
        Ok(StoredTar { image, at: DATA_START, end, digest })
    }

    /// Bytes from here to the end.
    pub fn left_bytes(&self) -> u64 {
        self.end - self.at
    }

    /// What the tar hashes to, as the file says.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Leaves out bytes, at most all that are left.
    pub fn skip(&mut self, bytes: u64) {
        self.at += bytes.min(self.left_bytes());
    }
}

impl Read for StoredTar {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let step = out.len().min(usize::try_from(self.left_bytes()).unwrap_or(usize::MAX));
        if step == 0 {
            return Ok(0);
        }
        match self.image.read_at(&mut out[..step], self.at)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.at += count as u64;
                Ok(count)
            }
        }
    }
}
