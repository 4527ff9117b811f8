//! An answer before it is sent, and the sending of it with all its faults.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;

use super::Halt;

/// Bytes written at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Pause between two pieces of a body that trickles.
const TRICKLE_PAUSE: Duration = Duration::from_millis(50);
/// An endless body ends here, so that a client without a limit does not fill the machine.
const ENDLESS_MAX_BYTES: u64 = 1 << 30;

/// How the length of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// `Content-Length`, true.
    True,
    /// `Content-Length`, this.
    Says(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Not at all: the body ends with the connection.
    UntilClose,
}

/// What happens after the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The next request may come.
    KeepAlive,
    /// FIN.
    Close,
    /// RST.
    Reset,
}

/// An answer being prepared.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) length: Length,
    pub(crate) end: End,
    /// Nothing more is sent after this many bytes of the body.
    pub(crate) cut_at: Option<u64>,
    /// Before this byte of the body, wait so long; `None` as time: for ever.
    pub(crate) stall: Option<(u64, Option<Duration>)>,
    /// Wait so long before the first byte of the head; `None` as time: for ever.
    pub(crate) head_stall: Option<Option<Duration>>,
    /// Bytes of the body per second.
    pub(crate) rate: Option<u64>,
    /// After the body, more, without end.
    pub(crate) is_endless: bool,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
        Reply {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
            length: Length::True,
            end: End::KeepAlive,
            cut_at: None,
            stall: None,
            head_stall: None,
            rate: None,
            is_endless: false,
        }
    }

    /// An error in the registry's form.
    pub fn error(status: u16, code: &str, message: &str) -> Reply {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Reply::new(status, "application/json", body.to_string())
    }

    /// Adds a header, or replaces those of its name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.unset(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Removes every header of this name.
    pub fn unset(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// With this header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.set(name, value);
        self
    }

    /// Sends it all; says how the connection goes on.
    pub(crate) fn send(mut self, method: &str, to: &mut impl Write, halt: &Halt) -> io::Result<End> {
        if let Some(how_long) = self.head_stall {
            halt.pause(how_long);
        }
        self.send_head(to)?;
        if method == "HEAD" || self.status == 304 || self.status == 204 {
            return Ok(self.end);
        }
        let body = std::mem::take(&mut self.body);
        let mut sent = 0u64;
        let mut pieces = body.chunks(self.piece());
        let mut tail = self.is_endless.then_some(ENDLESS_MAX_BYTES);
        let filler = vec![0u8; PIECE_BYTES];
        loop {
            let piece = match (pieces.next(), tail.as_mut()) {
                (Some(piece), _) => piece,
                (None, Some(left)) if *left > 0 => {
                    *left = left.saturating_sub(filler.len() as u64);
                    &filler[..]
                }
                (None, _) => break,
            };
            let room = self.cut_at.map_or(u64::MAX, |at| at.saturating_sub(sent));
            let piece = &piece[..piece.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            self.send_piece(to, piece, sent, halt)?;
            sent += piece.len() as u64;
            if self.cut_at.is_some_and(|at| sent >= at) {
                to.flush()?;
                return Ok(if self.end == End::KeepAlive { End::Close } else { self.end });
            }
            if halt.is_ended() {
                return Ok(End::Close);
            }
        }
        // A stall behind the last byte keeps the answer from ending.
        if let Some((_, how_long)) = self.stall.take_if(|(at, _)| *at >= sent) {
            halt.pause(how_long);
        }
        if self.length == Length::Chunked {
            to.write_all(b"0\r\n\r\n")?;
        }
        to.flush()?;
        Ok(if self.length == Length::UntilClose { End::Close } else { self.end })
    }

    fn piece(&self) -> usize {
        match self.rate {
            None => PIECE_BYTES,
            Some(rate) => {
                let per_pause = u128::from(rate) * TRICKLE_PAUSE.as_millis() / 1000;
                usize::try_from(per_pause).unwrap_or(PIECE_BYTES).clamp(1, PIECE_BYTES)
            }
        }
    }

    fn send_head(&self, to: &mut impl Write) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, words(self.status)).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match self.length {
            Length::True => head.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes()),
            Length::Says(len) => head.extend_from_slice(format!("Content-Length: {len}\r\n").as_bytes()),
            Length::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Length::UntilClose => head.extend_from_slice(b"Connection: close\r\n"),
        }
        head.extend_from_slice(b"\r\n");
        to.write_all(&head)?;
        to.flush()
    }

    fn send_piece(&mut self, to: &mut impl Write, piece: &[u8], sent: u64, halt: &Halt) -> io::Result<()> {
        let end = sent + piece.len() as u64;
        if let Some((at, how_long)) = self.stall.take_if(|(at, _)| (sent..end).contains(at)) {
            let (before, after) = piece.split_at(usize::try_from(at - sent).unwrap_or(0));
            self.write_body(to, before)?;
            to.flush()?;
            halt.pause(how_long);
            return self.write_body(to, after);
        }
        self.write_body(to, piece)?;
        if self.rate.is_some() {
            to.flush()?;
            halt.pause(Some(TRICKLE_PAUSE));
        }
        Ok(())
    }

    fn write_body(&self, to: &mut impl Write, piece: &[u8]) -> io::Result<()> {
        if self.length == Length::Chunked {
            if piece.is_empty() {
                return Ok(());
            }
            to.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            to.write_all(piece)?;
            return to.write_all(b"\r\n");
        }
        to.write_all(piece)
    }
}

fn words(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Odd")
}
