//! The tar on its way into the image file: whole pages at page boundaries, sent to the disk while more is coming.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::Advice;
use windlass_erofs::DATA_START;

use crate::layer::error::LayerError;

/// Writes are whole pages: a page that is written in two pieces is looked up and marked twice.
const PAGE_BYTES: usize = 4096;

/// After how many bytes their write-back is started, so that the sync at the end finds little to do.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// From how many bytes on a tar is waited for as soon as it is whole. A small one is on its way by then, and waiting
/// would cost a flush of the disk for each.
const WAIT_FROM_BYTES: u64 = 16 << 20;

/// Takes the bytes of the tar as they come out of the decoder.
#[derive(Debug)]
pub(crate) struct TarCopy {
    file: File,
    /// Where the next byte belongs, `rest` included.
    end: u64,
    /// What does not fill a page yet.
    rest: Vec<u8>,
    /// Up to where write-back was started.
    sent: u64,
}

impl TarCopy {
    pub(super) fn new(file: File) -> TarCopy {
        TarCopy { file, end: DATA_START, rest: Vec::with_capacity(PAGE_BYTES), sent: DATA_START }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let fill = bytes.len().min(PAGE_BYTES - self.rest.len());
            self.rest.extend_from_slice(&bytes[..fill]);
            self.end += fill as u64;
            bytes = &bytes[fill..];
            if self.rest.len() < PAGE_BYTES {
                return Ok(());
            }
            self.write_rest()?;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % PAGE_BYTES);
        self.file.write_all_at(whole, self.end).map_err(written)?;
        self.rest.extend_from_slice(rest);
        self.end += bytes.len() as u64;
        self.start_write_back(WRITE_BACK_BYTES);
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn finish(mut self) -> Result<(), LayerError> {
        if self.end - DATA_START < WAIT_FROM_BYTES {
            // The metadata goes on in the last page, which is not to be written twice.
            self.start_write_back(1);
            return self.write_rest();
        }
        self.write_rest()?;
        // The disk works on this layer while other threads work on others; at the end of the pull all would wait.
        self.file.sync_data().map_err(|source| LayerError::Stage { action: "sync", source })
    }

    fn write_rest(&mut self) -> Result<(), LayerError> {
        self.file.write_all_at(&self.rest, self.end - self.rest.len() as u64).map_err(written)?;
        self.rest.clear();
        Ok(())
    }

    fn start_write_back(&mut self, from_bytes: u64) {
        let whole = self.end - self.rest.len() as u64;
        if whole - self.sent >= from_bytes {
            start_write_back(&self.file, self.sent, whole);
            self.sent = whole;
        }
    }
}

/// Sends dirty pages on their way to the disk, without waiting, so that the sync at the end of the pull finds little to
/// do. Each page is named once: one that is clean already would be dropped. A refusal costs time, not correctness.
pub(super) fn start_write_back(file: &File, from: u64, to: u64) {
    let length = std::num::NonZeroU64::new(to.saturating_sub(from));
    let _ = rustix::fs::fadvise(file, from, length, Advice::DontNeed);
}

pub(super) fn written(source: std::io::Error) -> LayerError {
    LayerError::Stage { action: "write", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tar_stands_in_the_file_however_it_comes() {
        let bytes: Vec<u8> = (0..100_000u32).map(|at| u8::try_from(at * 7 % 251).expect("small")).collect();
        for steps in [vec![1, 4095, 4096, 10_000], vec![100_000], vec![3, 5, 8191, 2, 50_001], vec![]] {
            let file = tempfile::tempfile().expect("a file");
            let mut copy = TarCopy::new(file.try_clone().expect("a second descriptor"));
            let mut rest = &bytes[..];
            for step in steps {
                copy.write(&rest[..step]).expect("written");
                rest = &rest[step..];
            }
            copy.write(rest).expect("written");
            copy.finish().expect("written");
            let mut found = vec![0; bytes.len()];
            file.read_exact_at(&mut found, DATA_START).expect("read");
            assert_eq!(found, bytes);
            assert_eq!(file.metadata().expect("there").len(), DATA_START + bytes.len() as u64);
        }
    }
}
