//! Bodies of answers: bytes at hand, or a part of a file read in large pieces on blocking threads.
//!
//! While one piece of a file is on its way to the socket the next is read; never more than two are in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// Bytes of a blob read at a time: large enough that waking a thread is cheap beside copying them.
const PIECE_BYTES: u64 = 512 << 10;

/// An answer.
pub(crate) type Answer = Response<AnswerBody>;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// These bytes.
    Bytes(Bytes),
    /// No bytes, but a length to announce: the answer to HEAD.
    Head(u64),
    /// A part of a file.
    File(FilePart),
}

impl AnswerBody {
    /// The length that is announced.
    pub(crate) fn len(&self) -> u64 {
        match self {
            AnswerBody::Bytes(bytes) => bytes.len() as u64,
            AnswerBody::Head(len) => *len,
            AnswerBody::File(part) => part.unsent_bytes,
        }
    }

    /// The same without content.
    pub(crate) fn head(self) -> AnswerBody {
        AnswerBody::Head(self.len())
    }
}

/// A part of a file that is being sent.
#[derive(Debug)]
pub(crate) struct FilePart {
    next: Option<JoinHandle<io::Result<(File, Bytes)>>>,
    unread_bytes: u64,
    unsent_bytes: u64,
}

impl FilePart {
    /// Starts to read `len` bytes from `first`.
    pub(crate) fn new(mut file: File, first: u64, len: u64) -> FilePart {
        let piece = len.min(PIECE_BYTES);
        let next = (len > 0).then(|| {
            tokio::task::spawn_blocking(move || {
                if first > 0 {
                    file.seek(SeekFrom::Start(first))?;
                }
                read_piece(file, piece)
            })
        });
        FilePart { next, unread_bytes: len - piece, unsent_bytes: len }
    }
}

fn read_piece(file: File, len: u64) -> io::Result<(File, Bytes)> {
    let mut piece = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    let mut limited = file.take(len);
    limited.read_to_end(&mut piece)?;
    if (piece.len() as u64) < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((limited.into_inner(), piece.into()))
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            AnswerBody::Head(_) => Poll::Ready(None),
            AnswerBody::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            AnswerBody::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            AnswerBody::File(part) => {
                let Some(next) = part.next.as_mut() else { return Poll::Ready(None) };
                let read = ready!(Pin::new(next).poll(cx)).map_err(io::Error::other).and_then(|read| read);
                part.next = None;
                let (file, piece) = match read {
                    Ok(read) => read,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                let ahead = part.unread_bytes.min(PIECE_BYTES);
                if ahead > 0 {
                    part.next = Some(tokio::task::spawn_blocking(move || read_piece(file, ahead)));
                    part.unread_bytes -= ahead;
                }
                part.unsent_bytes -= piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Head(_) => true,
            AnswerBody::Bytes(bytes) => bytes.is_empty(),
            AnswerBody::File(part) => part.next.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Head(_) => SizeHint::default(),
            AnswerBody::Bytes(_) | AnswerBody::File(_) => SizeHint::with_exact(self.len()),
        }
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::Bytes(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(AnswerBody::Bytes(value.to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
