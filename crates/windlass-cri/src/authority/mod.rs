//! A connection whose requests may name any authority.
//!
//! A gRPC client in Go before 1.29 (kubelet 1.20 has 1.27) sends the path of the socket as `:authority`, which is none:
//! the HTTP/2 server below us resets such a request with PROTOCOL_ERROR before anybody sees it. On a unix socket the
//! authority says nothing, so it is replaced on its way in.
//!
//! In: a stream. Out: the same stream, except that in a connection of HTTP/2 every authority that is written out in a
//! frame of type HEADERS is another, valid one. HTTP/1.1, frames that do not fit into memory we would give them, and
//! blocks that go on in other frames pass as they are.
//!
//! Source of truth: RFC 9113 sections 3.4, 4.1 and 6.2, RFC 7541.
//!
//! Invariants: `a_request_with_a_path_as_authority_is_served`, `every_way_of_cutting_the_stream_gives_the_same`,
//! `what_is_not_http2_passes_as_it_is`.

mod hpack;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream of a frame.
const FRAME_HEAD_BYTES: usize = 9;
/// Longest frame that a client may send unless it is told otherwise, which it is not here.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Read at once.
const READ_BYTES: usize = 16 << 10;
/// The type of frames that we look into, and their flags.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The stream.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    filter: Filter,
}

impl<S> AnyAuthority<S> {
    /// Around a connection that was just accepted.
    pub fn new(stream: S) -> AnyAuthority<S> {
        AnyAuthority { stream, filter: Filter::default() }
    }
}

/// Where in the stream we are.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    /// Before the preface.
    #[default]
    Start,
    /// At the head of a frame.
    Frame,
    /// Within a frame that is of no interest, with this many bytes to come.
    Within(usize),
    /// In something else than HTTP/2.
    Other,
}

#[derive(Debug, Default)]
struct Filter {
    place: Place,
    /// Arrived and not yet understood; never more than a frame and what is read at once.
    arrived: BytesMut,
    /// To be read by the server.
    passed: BytesMut,
}

impl Filter {
    /// Passes on as much as can be.
    fn advance(&mut self) {
        while self.step() {}
    }

    /// Whether it went on.
    fn step(&mut self) -> bool {
        match self.place {
            Place::Start => {
                let common = PREFACE.len().min(self.arrived.len());
                if self.arrived[..common] != PREFACE[..common] {
                    self.place = Place::Other;
                } else if common == PREFACE.len() {
                    self.pass(common);
                    self.place = Place::Frame;
                } else {
                    return false;
                }
            }
            Place::Frame => {
                let Some(head) = self.arrived.first_chunk::<FRAME_HEAD_BYTES>().copied() else { return false };
                let [l2, l1, l0, kind, flags, ..] = head;
                let length = usize::from(l2) << 16 | usize::from(l1) << 8 | usize::from(l0);
                let is_looked_into = kind == HEADERS && flags & END_HEADERS != 0 && length <= FRAME_BYTES_MAX;
                if !is_looked_into {
                    self.pass(FRAME_HEAD_BYTES);
                    self.place = Place::Within(length);
                } else if self.arrived.len() >= FRAME_HEAD_BYTES + length {
                    let frame = self.arrived.split_to(FRAME_HEAD_BYTES + length);
                    match rewritten(&head, flags, &frame[FRAME_HEAD_BYTES..]) {
                        Some(other) => self.passed.extend_from_slice(&other),
                        None => self.passed.extend_from_slice(&frame),
                    }
                } else {
                    return false;
                }
            }
            Place::Within(0) => self.place = Place::Frame,
            Place::Within(left) => {
                let here = left.min(self.arrived.len());
                self.pass(here);
                self.place = Place::Within(left - here);
                return here > 0;
            }
            Place::Other => {
                let all = self.arrived.len();
                self.pass(all);
                return false;
            }
        }
        true
    }

    fn pass(&mut self, bytes: usize) {
        self.passed.extend_from_slice(&self.arrived[..bytes]);
        self.arrived.advance(bytes);
    }

    /// What was not understood when the stream ended is the server's to judge.
    fn end(&mut self) {
        self.place = Place::Other;
        self.advance();
    }
}

/// The frame with another authority, if it writes one out.
fn rewritten(head: &[u8; FRAME_HEAD_BYTES], flags: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let has = |flag: u8| flags & flag != 0;
    let padding = if has(PADDED) { usize::from(*payload.first()?) } else { 0 };
    let before = usize::from(has(PADDED)) + if has(PRIORITY) { 5 } else { 0 };
    let end = payload.len().checked_sub(padding).filter(|end| *end >= before)?;
    let block = hpack::with_any_authority(&payload[before..end])?;
    let length = before + block.len() + padding;
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + length);
    frame.extend_from_slice(&u32::try_from(length).ok()?.to_be_bytes()[1..]);
    for part in [&head[3..], &payload[..before], &block, &payload[end..]] {
        frame.extend_from_slice(part);
    }
    Some(frame)
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let AnyAuthority { stream, filter } = self.get_mut();
        loop {
            if !filter.passed.is_empty() {
                let bytes = filter.passed.len().min(into.remaining());
                into.put_slice(&filter.passed[..bytes]);
                filter.passed.advance(bytes);
                return Poll::Ready(Ok(()));
            }
            if matches!(filter.place, Place::Other) && filter.arrived.is_empty() {
                return Pin::new(stream).poll_read(context, into);
            }
            let mut space = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                filter.end();
                if filter.passed.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                filter.arrived.extend_from_slice(read.filled());
                filter.advance();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
