//! Large writes out of small pieces, with their sum.

use std::io::Write;

use crate::DATA_START;
use crate::error::WriteError;

/// Bytes that go to the sink at once.
const WRITE_BYTES: usize = 1 << 20;

/// Collects bytes for large writes and sums them up.
pub(crate) struct Sink<'o> {
    out: &'o mut dyn Write,
    pub(crate) buffer: Vec<u8>,
    /// Where the metadata begins in the file.
    pub(crate) start: u64,
    /// Bytes of metadata so far, those in the buffer included.
    pub(crate) at: u64,
    written: u64,
    crc32c: u32,
}

impl<'o> Sink<'o> {
    pub(crate) fn new(start: u64, out: &'o mut dyn Write) -> Sink<'o> {
        Sink { out, buffer: Vec::with_capacity(WRITE_BYTES + (8 << 10)), start, at: 0, written: 0, crc32c: 0 }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.buffer.extend_from_slice(bytes);
        self.buffered()
    }

    pub(crate) fn pad_to(&mut self, at: u64) -> Result<(), WriteError> {
        let more = at.saturating_sub(self.at) as usize;
        self.buffer.resize(self.buffer.len() + more, 0);
        self.buffered()
    }

    /// Counts what was put into the buffer, and writes what is to be written.
    pub(crate) fn buffered(&mut self) -> Result<(), WriteError> {
        self.at = self.written + self.buffer.len() as u64;
        if self.buffer.len() >= WRITE_BYTES {
            // What is left over begins a page of the file.
            let end = self.start + self.at;
            let whole = self.buffer.len() - (end % DATA_START) as usize;
            self.flush(whole)?;
        }
        Ok(())
    }

    fn flush(&mut self, len: usize) -> Result<(), WriteError> {
        let bytes = &self.buffer[..len];
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.out.write_all(bytes)?;
        self.buffer.drain(..len);
        self.written += len as u64;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<u32, WriteError> {
        self.flush(self.buffer.len())?;
        Ok(self.crc32c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers where each write ended.
    #[derive(Default)]
    struct Recorder {
        bytes: Vec<u8>,
        ends: Vec<usize>,
    }

    impl Write for Recorder {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.bytes.extend_from_slice(buf);
            self.ends.push(self.bytes.len());
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_are_large_end_with_a_page_and_are_summed_up() {
        let start = 4096 + 1536;
        let mut out = Recorder::default();
        let mut sink = Sink::new(start, &mut out);
        let mut want = Vec::new();
        for round in 0..40_000_u64 {
            let piece = [round as u8; 100];
            sink.put(&piece).unwrap();
            want.extend_from_slice(&piece);
            if round % 1000 == 0 {
                want.resize(want.len().next_multiple_of(512), 0);
                sink.pad_to(want.len() as u64).unwrap();
            }
        }
        let sum = sink.finish().unwrap();
        assert_eq!(out.bytes, want);
        assert_eq!(sum, crc32c::crc32c(&want));
        let (last, full) = out.ends.split_last().unwrap();
        assert_eq!((*last, full.len()), (want.len(), 3));
        assert!(full.iter().all(|end| (start as usize + end).is_multiple_of(4096)), "{full:?}");
    }
}
