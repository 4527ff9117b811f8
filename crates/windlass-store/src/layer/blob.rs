//! The bytes of a blob as they arrive: counted, hashed, and never more than announced.

use std::io::{self, BufRead};
use std::ops::ControlFlow;

use windlass_core::digest::{Digest, Hasher};

use super::error::LayerError;
use super::{Progress, Step};

/// Reads a blob of known size and digest.
pub(super) struct Blob<'a> {
    input: &'a mut (dyn BufRead + Send),
    progress: &'a dyn Progress,
    hasher: Hasher,
    want: Digest,
    size: u64,
    seen: u64,
    reported: u64,
    /// Bytes that are hashed and counted, and come next all the same: the first, looked at early, or those that a
    /// decoder took too many.
    again: Vec<u8>,
}

/// After how many bytes the caller hears of progress, and may cancel.
const REPORT_BYTES: u64 = 64 << 10;

impl<'a> Blob<'a> {
    pub(super) fn new(
        input: &'a mut (dyn BufRead + Send),
        want: &Digest,
        size: u64,
        progress: &'a dyn Progress,
    ) -> Blob<'a> {
        let hasher = want.algorithm().hasher();
        Blob { input, progress, hasher, want: want.clone(), size, seen: 0, reported: 0, again: Vec::new() }
    }

    /// Bytes announced.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes that come next; none at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8], LayerError> {
        if !self.again.is_empty() {
            return Ok(&self.again);
        }
        if self.seen - self.reported >= REPORT_BYTES {
            self.report()?;
        }
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LayerError::Input { source }),
            }
        }
        let bytes = self.input.fill_buf().map_err(|source| LayerError::Input { source })?;
        if bytes.is_empty() && self.seen < self.size {
            return Err(LayerError::Size { want: self.size, longer: false });
        }
        if bytes.len() as u64 > self.size - self.seen {
            return Err(LayerError::Size { want: self.size, longer: true });
        }
        Ok(bytes)
    }

    /// Takes `count` bytes of the last [`Blob::fill`] into the hash.
    pub(super) fn consume(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if !self.again.is_empty() {
            self.again.drain(..count);
            return;
        }
        // A reader repeats its bytes until they are consumed, so this cannot fail nor come up short.
        if let Ok(bytes) = self.input.fill_buf() {
            self.hasher.update(&bytes[..count]);
        }
        self.input.consume(count);
        self.seen += count as u64;
    }

    /// Puts back the last bytes that were consumed.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.again.splice(..0, bytes.iter().copied());
    }

    /// Fills `out` as far as there are bytes.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        let mut done = 0;
        while done < out.len() {
            let bytes = self.fill()?;
            let count = bytes.len().min(out.len() - done);
            if count == 0 {
                break;
            }
            out[done..done + count].copy_from_slice(&bytes[..count]);
            self.consume(count);
            done += count;
        }
        Ok(done)
    }

    /// The next byte; none at the end.
    pub(super) fn byte(&mut self) -> Result<Option<u8>, LayerError> {
        let byte = self.fill()?.first().copied();
        self.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    /// The first bytes, up to four; to be asked before anything is read.
    pub(super) fn start(&mut self) -> Result<Vec<u8>, LayerError> {
        let mut head = vec![0; usize::try_from(self.size.min(4)).unwrap_or(4)];
        let count = self.read(&mut head)?;
        head.truncate(count);
        self.unread(&head);
        Ok(head)
    }

    /// Reads what is left and compares size and digest.
    pub(super) fn finish(&mut self) -> Result<(), LayerError> {
        loop {
            let count = self.fill()?.len();
            if count == 0 {
                break;
            }
            self.consume(count);
        }
        self.report()?;
        let got = self.hasher.clone().finish();
        if got == self.want {
            return Ok(());
        }
        Err(LayerError::Digest { want: self.want.clone(), got })
    }

    fn report(&mut self) -> Result<(), LayerError> {
        let step = Step { blob_bytes: self.seen - self.reported, ..Step::default() };
        self.reported = self.seen;
        match self.progress.advance(step) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(LayerError::Canceled),
        }
    }
}
