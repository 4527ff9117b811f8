//! Raw deflate streams (RFC 1951): by zlib-rs, or by ISA-L where the feature `isal` asks for it.

#[cfg(feature = "isal")]
pub(super) use windlass_isal::Inflater;

#[cfg(not(feature = "isal"))]
pub(super) use zlib::Inflater;

#[cfg(not(feature = "isal"))]
mod zlib {
    use flate2::{Decompress, FlushDecompress, Status};

    /// One stream on its way through the decoder.
    pub(in crate::layer::compress) struct Inflater {
        zlib: Decompress,
    }

    /// The bytes are no deflate stream.
    pub(in crate::layer::compress) struct Invalid;

    /// What one call did.
    pub(in crate::layer::compress) struct Step {
        /// Bytes taken from the input.
        pub(in crate::layer::compress) used: usize,
        /// Bytes put into the output.
        pub(in crate::layer::compress) made: usize,
        /// Whether the stream has ended.
        pub(in crate::layer::compress) is_end: bool,
    }

    impl Inflater {
        pub(in crate::layer::compress) fn new() -> Inflater {
            Inflater { zlib: Decompress::new(false) }
        }

        pub(in crate::layer::compress) fn reset(&mut self) {
            self.zlib.reset(false);
        }

        /// Inflates until the input is used up, `out` is full or the stream ends.
        pub(in crate::layer::compress) fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Invalid> {
            let (before_in, before_out) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self.zlib.decompress(input, out, FlushDecompress::None).map_err(|_| Invalid)?;
            Ok(Step {
                used: usize::try_from(self.zlib.total_in() - before_in).unwrap_or(input.len()),
                made: usize::try_from(self.zlib.total_out() - before_out).unwrap_or(out.len()),
                is_end: status == Status::StreamEnd,
            })
        }

        /// What was taken from behind the end of the stream: zlib takes nothing.
        pub(in crate::layer::compress) fn ahead(&self) -> Vec<u8> {
            Vec::new()
        }
    }
}
