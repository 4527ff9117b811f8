//! From the bytes of a blob to the bytes of its tar, into large buffers of the caller.
//!
//! What a stream is compressed with is seen by its first bytes, as containerd does; the media type only says whether
//! it may be compressed at all, and a disagreement is a warning. Inflating goes straight from the reader's buffer into
//! the caller's, through the raw interfaces of the libraries.
//!
//! Source of truth: OCI image-spec `layer.md`; RFC 1952 (gzip), RFC 8878 (zstd).
//!
//! Invariants: `members_and_frames_are_joined`, `a_cut_stream_is_an_error`, `junk_after_the_last_member_is_an_error`.

mod deflate;
mod gzip;
mod zstd;

use super::blob::Blob;
use windlass_core::digest::Digest;

use super::error::{EntryName, LayerError};
use super::limits::LayerLimits;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one member or several.
    Gzip,
    /// zstd, one frame or several.
    Zstd,
}

impl Compression {
    /// What the first bytes of a stream say; four are enough.
    pub fn of_bytes(bytes: &[u8]) -> Compression {
        match bytes {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The word used in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// Turns blob bytes into tar bytes.
pub(super) enum Decoder {
    Plain,
    Gzip(Box<gzip::Gzip>),
    Zstd(Box<zstd::Zstd>),
}

impl Decoder {
    /// Chooses by the first bytes of the blob, if its media type allows a compression.
    pub(super) fn new(
        blob: &mut Blob<'_>,
        expected: Compression,
        limits: &LayerLimits,
    ) -> Result<(Decoder, Compression), LayerError> {
        let found = match expected {
            Compression::None => Compression::None,
            Compression::Gzip | Compression::Zstd => Compression::of_bytes(&blob.start()?),
        };
        let decoder = match found {
            Compression::None => Decoder::Plain,
            Compression::Gzip => Decoder::Gzip(Box::new(gzip::Gzip::new(limits))),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd::Zstd::new(limits)?)),
        };
        Ok((decoder, found))
    }

    /// Fills `out` as far as the stream goes; zero is its end.
    pub(super) fn read(&mut self, blob: &mut Blob<'_>, out: &mut [u8]) -> Result<usize, LayerError> {
        match self {
            Decoder::Plain => blob.read(out),
            Decoder::Gzip(gzip) => gzip.read(blob, out),
            Decoder::Zstd(zstd) => zstd.read(blob, out),
        }
    }

    /// Zero bytes that were found, and ignored, behind the last gzip member.
    pub(super) fn has_zero_padding(&self) -> bool {
        match self {
            Decoder::Gzip(gzip) => gzip.has_zero_padding(),
            Decoder::Plain | Decoder::Zstd(_) => false,
        }
    }
}

/// Bytes inflated at once by [`inflate`].
const INFLATE_STEP: usize = 64 << 10;

/// The plain bytes of a compressed stream at hand, by the rules for layers, and whether zeros behind its end were
/// ignored. At most [`LayerLimits::unpacked_bytes`] of them.
///
/// # Errors
/// [`LayerError::Compression`] for a stream that is damaged or cut off, [`LayerError::Limit`] for one that is too much.
pub fn inflate(bytes: &[u8], stated: Compression, limits: &LayerLimits) -> Result<(Vec<u8>, bool), LayerError> {
    let digest = Digest::sha256(bytes);
    let mut input = bytes;
    let mut blob = Blob::new(&mut input, &digest, bytes.len() as u64, &());
    let (mut decoder, _) = Decoder::new(&mut blob, stated, limits)?;
    let mut plain = Vec::new();
    loop {
        let start = plain.len();
        plain.resize(start + INFLATE_STEP, 0);
        let count = decoder.read(&mut blob, &mut plain[start..])?;
        plain.truncate(start + count);
        if plain.len() as u64 > limits.unpacked_bytes {
            let max = limits.unpacked_bytes;
            return Err(LayerError::Limit { entry: EntryName::default(), limit: "layerUnpackedBytes", max });
        }
        if count == 0 {
            return Ok((plain, decoder.has_zero_padding()));
        }
    }
}

#[cfg(test)]
mod tests;
