//! The bytes of the tar as the reader wants them: inflated, counted, hashed, in large buffers that are used again.
//!
//! Either all on one thread ([`Inline`]), or inflated on one and read on another ([`Piped`]) with a handful of
//! buffers going round between them.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use windlass_core::digest::{Digest, Hasher};

use super::blob::Blob;
use super::compress::{Compression, Decoder};
use super::erofs::TarCopy;
use super::error::{EntryName, LayerError};
use super::limits::LayerLimits;
use super::tar::Source;
use super::{Progress, Step};

/// Bytes inflated at once: large against the 32 KiB that zlib copies for each call, small against a core's cache.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Buffers on the way between two threads.
pub(super) const BUFFERS: usize = 4;

/// Counts and hashes what comes out of the decoder.
pub(super) struct Meter<'a> {
    hasher: Hasher,
    want: Digest,
    unpacked: u64,
    max: u64,
    ratio_max: u64,
    limits: &'a LayerLimits,
    progress: &'a dyn Progress,
    /// Where the stream is kept, if it is.
    copy: Option<TarCopy>,
    stream_bytes: u64,
}

/// How much came out of a stream whose digest fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unpacked {
    /// Bytes of the tar, holes of sparse files included.
    pub(super) bytes: u64,
    /// Bytes of the tar.
    pub(super) stream_bytes: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(
        diff_id: &Digest,
        blob_bytes: u64,
        limits: &'a LayerLimits,
        progress: &'a dyn Progress,
        copy: Option<TarCopy>,
    ) -> Meter<'a> {
        Meter {
            hasher: diff_id.algorithm().hasher(),
            want: diff_id.clone(),
            unpacked: 0,
            max: limits.unpacked_bytes,
            ratio_max: blob_bytes.saturating_mul(limits.ratio).max(limits.ratio_from_bytes),
            limits,
            progress,
            copy,
            stream_bytes: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.charge(bytes.len() as u64)?;
        self.stream_bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        if let Some(copy) = &mut self.copy {
            copy.write(bytes)?;
        }
        match self.progress.advance(Step { tar_bytes: bytes.len() as u64, ..Step::default() }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(LayerError::Canceled),
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        let entry = EntryName::default();
        if self.unpacked > self.max {
            return Err(LayerError::Limit { entry, limit: "layerUnpackedBytes", max: self.max });
        }
        if self.unpacked > self.ratio_max {
            return Err(LayerError::Limit { entry, limit: "layerRatio", max: self.limits.ratio });
        }
        Ok(())
    }

    /// Compares the diff ID and says how many bytes there were.
    pub(super) fn finish(self) -> Result<Unpacked, LayerError> {
        if let Some(copy) = self.copy {
            copy.finish()?;
        }
        let got = self.hasher.finish();
        if got == self.want {
            return Ok(Unpacked { bytes: self.unpacked, stream_bytes: self.stream_bytes });
        }
        Err(LayerError::DiffId { want: self.want, got })
    }
}

/// Refuses a tar that is compressed once more inside.
pub(super) fn refuse_double(outer: Compression, first: &[u8]) -> Result<(), LayerError> {
    let what = "what it holds is compressed again";
    match (outer, Compression::of_bytes(first)) {
        (Compression::None, _) | (_, Compression::None) => Ok(()),
        (outer, Compression::Gzip | Compression::Zstd) => Err(LayerError::Compression { format: outer.as_str(), what }),
    }
}

/// Everything on the calling thread.
pub(super) struct Inline<'a, 'b> {
    pub(super) blob: &'a mut Blob<'b>,
    pub(super) decoder: Decoder,
    pub(super) outer: Compression,
    pub(super) meter: Meter<'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    first: bool,
}

impl<'a, 'b> Inline<'a, 'b> {
    pub(super) fn new(
        blob: &'a mut Blob<'b>,
        decoder: Decoder,
        outer: Compression,
        meter: Meter<'a>,
    ) -> Inline<'a, 'b> {
        Inline { blob, decoder, outer, meter, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, first: true }
    }
}

impl Source for Inline<'_, '_> {
    fn fill(&mut self) -> Result<&[u8], LayerError> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = self.decoder.read(self.blob, &mut self.buffer)?;
            if std::mem::take(&mut self.first) {
                refuse_double(self.outer, &self.buffer[..self.end])?;
            }
            self.meter.take(&self.buffer[..self.end])?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    fn charge(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.meter.charge(bytes)
    }
}

/// A buffer and how much of it is used. None: the sender has failed and says so itself.
pub(super) type Batch = Option<(Vec<u8>, usize)>;

/// The reading side of two threads.
pub(super) struct Piped<'a> {
    pub(super) meter: Meter<'a>,
    full: Receiver<Batch>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Piped<'a> {
    pub(super) fn new(meter: Meter<'a>, full: Receiver<Batch>, empty: SyncSender<Vec<u8>>) -> Piped<'a> {
        Piped { meter, full, empty, buffer: Vec::new(), start: 0, end: 0 }
    }
}

impl Source for Piped<'_> {
    fn fill(&mut self) -> Result<&[u8], LayerError> {
        if self.start == self.end {
            let used = std::mem::take(&mut self.buffer);
            if !used.is_empty() {
                // The other side may be done already.
                let _ = self.empty.try_send(used);
            }
            (self.start, self.end) = (0, 0);
            match self.full.recv() {
                Ok(Some((buffer, end))) => (self.buffer, self.end) = (buffer, end),
                // The inflating side has the error that matters.
                Ok(None) => return Err(LayerError::Canceled),
                Err(_) => return Ok(&[]),
            }
            self.meter.take(&self.buffer[..self.end])?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    fn charge(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.meter.charge(bytes)
    }
}

/// The inflating side of two threads: sends until the stream ends, or until nobody listens any more.
pub(super) fn inflate(
    blob: &mut Blob<'_>,
    decoder: &mut Decoder,
    outer: Compression,
    full: &SyncSender<Batch>,
    empty: &Receiver<Vec<u8>>,
) -> Result<(), LayerError> {
    let (mut made, mut first) = (0, true);
    loop {
        let mut buffer = match empty.try_recv() {
            Ok(buffer) => buffer,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) if made < BUFFERS => {
                made += 1;
                vec![0; BUFFER_BYTES]
            }
            Err(TryRecvError::Empty) => match empty.recv() {
                Ok(buffer) => buffer,
                Err(_) => return Ok(()),
            },
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        let count = decoder.read(blob, &mut buffer)?;
        if std::mem::take(&mut first) {
            refuse_double(outer, &buffer[..count])?;
        }
        if count == 0 || full.send(Some((buffer, count))).is_err() {
            return Ok(());
        }
    }
}
