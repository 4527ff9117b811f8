//! zstd (RFC 8878): frames and skippable frames one after the other, checksums verified by the library, no dictionary.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::layer::blob::Blob;
use crate::layer::error::{EntryName, LayerError};
use crate::layer::limits::LayerLimits;

pub(in crate::layer) struct Zstd {
    decoder: Decoder<'static>,
    window_log: u32,
    /// Whether the last call ended exactly at the end of a frame.
    between_frames: bool,
    ended: bool,
}

impl Zstd {
    pub(super) fn new(limits: &LayerLimits) -> Result<Zstd, LayerError> {
        let set_up = || -> std::io::Result<Decoder<'static>> {
            let mut decoder = Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(limits.zstd_window_log))?;
            Ok(decoder)
        };
        let decoder = set_up().map_err(|source| LayerError::Stage { action: "set up zstd for", source })?;
        Ok(Zstd { decoder, window_log: limits.zstd_window_log, between_frames: true, ended: false })
    }

    pub(super) fn read(&mut self, blob: &mut Blob<'_>, out: &mut [u8]) -> Result<usize, LayerError> {
        let mut done = 0;
        while done < out.len() && !self.ended {
            let bytes = blob.fill()?;
            let at_end = bytes.is_empty();
            if at_end && self.between_frames {
                self.ended = true;
                break;
            }
            let mut input = InBuffer::around(bytes);
            let mut output = OutBuffer::around(&mut out[done..]);
            let hint = self.decoder.run(&mut input, &mut output).map_err(|error| self.explain(&error))?;
            let (used, made) = (input.pos(), output.pos());
            blob.consume(used);
            done += made;
            self.between_frames = hint == 0;
            if at_end && made == 0 && !self.between_frames {
                return Err(damaged("it ends too early"));
            }
        }
        Ok(done)
    }

    /// The library's errors are texts; the two that have an outcome of their own are told apart.
    fn explain(&self, error: &std::io::Error) -> LayerError {
        let text = error.to_string();
        if text.contains("too much memory") {
            let max = u64::from(self.window_log);
            return LayerError::Limit { entry: EntryName::default(), limit: "zstdWindowLog", max };
        }
        if text.contains("ictionary") {
            return damaged("it needs a dictionary");
        }
        if text.contains("checksum") {
            return damaged("its checksum does not fit");
        }
        if text.contains("Unknown frame") {
            return damaged("bytes follow its end");
        }
        damaged("invalid compressed data")
    }
}

fn damaged(what: &'static str) -> LayerError {
    LayerError::Compression { format: "zstd", what }
}
