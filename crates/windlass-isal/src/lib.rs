//! Raw deflate streams (RFC 1951) inflated by Intel's ISA-L, in the way of a streaming decoder: some input, some room,
//! and an answer that says how much of both was used.
//!
//! The only crate with `unsafe` in it: ISA-L is C and assembly. Its state holds pointers only while a call lasts, and
//! every count it gives back is compared with what it was given.
//!
//! Empty unless the feature `isal` is on.
//!
//! Invariants: `streams_come_out_as_zlib_reads_them`, `bytes_behind_the_end_are_given_back`,
//! `a_broken_stream_is_an_error_or_ends_early`.

#![cfg(feature = "isal")]

use std::fmt;
use std::ptr;

use isal_sys::igzip_lib::{self as isal, inflate_state};

/// Most bytes that are read ahead of the end of a stream.
pub const AHEAD_MAX: usize = 8;

/// One stream on its way through the decoder.
pub struct Inflater {
    /// Some 100 kB: tables and the window.
    state: Box<inflate_state>,
}

// SAFETY: the state is plain memory but for `next_in` and `next_out`, which are null between calls; ISA-L keeps nothing
// of its own per thread.
unsafe impl Send for Inflater {}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("block_state", &self.state.block_state).finish_non_exhaustive()
    }
}

/// What one call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub used: usize,
    /// Bytes put into the output.
    pub made: usize,
    /// Whether the stream has ended; then [`Inflater::ahead`] tells what was taken from behind its end.
    pub is_end: bool,
}

/// The bytes are no deflate stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a deflate stream")
    }
}

impl std::error::Error for Invalid {}

impl Inflater {
    /// Ready for the first byte of a stream.
    pub fn new() -> Inflater {
        // SAFETY: integers, arrays of integers, null pointers and a union of integers; all may be zero.
        let mut state: Box<inflate_state> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: a valid state that nobody else sees.
        unsafe { isal::isal_inflate_init(&raw mut *state) };
        Inflater { state }
    }

    /// Ready for another stream.
    pub fn reset(&mut self) {
        // SAFETY: the state was made by `isal_inflate_init`.
        unsafe { isal::isal_inflate_reset(&raw mut *self.state) };
    }

    /// Inflates until the input is used up, `out` is full or the stream ends.
    ///
    /// # Errors
    /// [`Invalid`] when no stream goes on like this; the decoder is of no use then until [`Inflater::reset`].
    pub fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Invalid> {
        // The counts of ISA-L have 32 bits; a caller with more comes again.
        let (room_in, room_out) =
            (u32::try_from(input.len()).unwrap_or(u32::MAX), u32::try_from(out.len()).unwrap_or(u32::MAX));
        self.state.next_in = input.as_ptr().cast_mut();
        self.state.avail_in = room_in;
        self.state.next_out = out.as_mut_ptr();
        self.state.avail_out = room_out;
        // SAFETY: `next_in` is good for reading `avail_in` bytes and ISA-L does not write there; `next_out` is good for
        // writing `avail_out` bytes; both outlive the call.
        let code = unsafe { isal::isal_inflate(&raw mut *self.state) };
        self.state.next_in = ptr::null_mut();
        self.state.next_out = ptr::null_mut();
        let used = room_in.checked_sub(self.state.avail_in).ok_or(Invalid)?;
        let made = room_out.checked_sub(self.state.avail_out).ok_or(Invalid)?;
        if code != 0 {
            return Err(Invalid);
        }
        let is_end = self.state.block_state == isal::isal_block_state_ISAL_BLOCK_FINISH;
        Ok(Step { used: used as usize, made: made as usize, is_end })
    }

    /// After the end of a stream: the bytes that were taken from the input and lie behind the end, first to last. At
    /// most [`AHEAD_MAX`]; they may have come with an earlier input than the last.
    pub fn ahead(&self) -> Vec<u8> {
        let bits = u32::try_from(self.state.read_in_length).unwrap_or(0).min(64);
        // What is left of the last byte of the stream is filling.
        let whole = self.state.read_in.checked_shr(bits % 8).unwrap_or(0).to_le_bytes();
        whole[..(bits / 8) as usize].to_vec()
    }
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

#[cfg(test)]
mod tests;
