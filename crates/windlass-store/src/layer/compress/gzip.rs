//! gzip (RFC 1952): headers read here and bounded, bodies inflated raw, sums and lengths compared.

use flate2::Crc;

use super::deflate::Inflater;
use crate::layer::blob::Blob;
use crate::layer::error::{EntryName, LayerError};
use crate::layer::limits::LayerLimits;

const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

enum State {
    /// At the beginning of a member; the flag says whether it is the first.
    Header {
        first: bool,
    },
    Body,
    End,
}

pub(in crate::layer) struct Gzip {
    inflater: Inflater,
    crc: Crc,
    length: u32,
    state: State,
    zero_padding: bool,
    header_max: usize,
}

impl Gzip {
    pub(super) fn new(limits: &LayerLimits) -> Gzip {
        Gzip {
            inflater: Inflater::new(),
            crc: Crc::new(),
            length: 0,
            state: State::Header { first: true },
            zero_padding: false,
            header_max: limits.gzip_header_bytes,
        }
    }

    pub(super) fn has_zero_padding(&self) -> bool {
        self.zero_padding
    }

    pub(super) fn read(&mut self, blob: &mut Blob<'_>, out: &mut [u8]) -> Result<usize, LayerError> {
        let mut done = 0;
        while done < out.len() {
            match self.state {
                State::Header { first } => self.header(blob, first)?,
                State::Body => done += self.body(blob, &mut out[done..])?,
                State::End => break,
            }
        }
        Ok(done)
    }

    fn body(&mut self, blob: &mut Blob<'_>, out: &mut [u8]) -> Result<usize, LayerError> {
        let input = blob.fill()?;
        let at_end = input.is_empty();
        let step = self.inflater.inflate(input, out).map_err(|_| damaged("invalid compressed data"))?;
        blob.consume(step.used);
        self.crc.update(&out[..step.made]);
        self.length = self.length.wrapping_add(u32::try_from(step.made).unwrap_or(u32::MAX));
        if step.is_end {
            blob.unread(&self.inflater.ahead());
            self.trailer(blob)?;
        } else if at_end && step.made == 0 {
            return Err(damaged("it ends too early"));
        }
        Ok(step.made)
    }

    fn trailer(&mut self, blob: &mut Blob<'_>) -> Result<(), LayerError> {
        let mut trailer = [0; 8];
        if blob.read(&mut trailer)? < trailer.len() {
            return Err(damaged("its trailer is missing"));
        }
        let [a, b, c, d, e, f, g, h] = trailer;
        if u32::from_le_bytes([a, b, c, d]) != self.crc.sum() {
            return Err(damaged("its checksum does not fit"));
        }
        if u32::from_le_bytes([e, f, g, h]) != self.length {
            return Err(damaged("its length does not fit"));
        }
        self.state = State::Header { first: false };
        Ok(())
    }

    /// Reads the header of a member, or finds that there is none any more.
    fn header(&mut self, blob: &mut Blob<'_>, first: bool) -> Result<(), LayerError> {
        let mut sum = Crc::new();
        let Some(start) = blob.byte()? else {
            if first {
                return Err(damaged("it ends too early"));
            }
            self.state = State::End;
            return Ok(());
        };
        if start == 0 && !first {
            return self.zeros(blob);
        }
        let mut fixed = [start, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        if blob.read(&mut fixed[1..])? < fixed.len() - 1 {
            return Err(damaged(if first { "it ends too early" } else { "bytes follow its end" }));
        }
        if fixed[..2] != [0x1f, 0x8b] {
            return Err(damaged("bytes follow its end"));
        }
        let flags = fixed[3];
        if fixed[2] != 8 || flags & 0xe0 != 0 {
            return Err(damaged("its header is not known"));
        }
        sum.update(&fixed);
        let mut budget = self.header_max;
        if flags & EXTRA != 0 {
            let low = self.header_byte(blob, &mut sum, &mut budget)?;
            let high = self.header_byte(blob, &mut sum, &mut budget)?;
            for _ in 0..u16::from_le_bytes([low, high]) {
                self.header_byte(blob, &mut sum, &mut budget)?;
            }
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                while self.header_byte(blob, &mut sum, &mut budget)? != 0 {}
            }
        }
        if flags & HEADER_CRC != 0 {
            let want = sum.sum() & 0xffff;
            let low = self.header_byte(blob, &mut sum, &mut budget)?;
            let high = self.header_byte(blob, &mut sum, &mut budget)?;
            if u32::from(u16::from_le_bytes([low, high])) != want {
                return Err(damaged("the checksum of its header does not fit"));
            }
        }
        self.inflater.reset();
        self.crc.reset();
        self.length = 0;
        self.state = State::Body;
        Ok(())
    }

    fn header_byte(&self, blob: &mut Blob<'_>, sum: &mut Crc, budget: &mut usize) -> Result<u8, LayerError> {
        *budget = budget.checked_sub(1).ok_or(LayerError::Limit {
            entry: EntryName::default(),
            limit: "gzipHeaderBytes",
            max: self.header_max as u64,
        })?;
        let byte = blob.byte()?.ok_or(damaged("it ends too early"))?;
        sum.update(&[byte]);
        Ok(byte)
    }

    /// Tapes and some tools fill up with zeros; nothing else may follow.
    fn zeros(&mut self, blob: &mut Blob<'_>) -> Result<(), LayerError> {
        loop {
            let bytes = blob.fill()?;
            if bytes.iter().any(|&b| b != 0) {
                return Err(damaged("bytes follow its end"));
            }
            let count = bytes.len();
            if count == 0 {
                break;
            }
            blob.consume(count);
        }
        self.zero_padding = true;
        self.state = State::End;
        Ok(())
    }
}

fn damaged(what: &'static str) -> LayerError {
    LayerError::Compression { format: "gzip", what }
}
