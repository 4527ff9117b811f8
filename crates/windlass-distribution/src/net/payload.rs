//! What a request carries. It can be sent again: streams are opened anew.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::push::UploadSource;

/// The body type of every request.
pub(crate) type PayloadBody = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes read at once from a source.
const PIECE: usize = 256 * 1024;
/// Pieces read ahead.
const AHEAD: usize = 4;

/// The body of a request, if it has one.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// No body.
    Empty,
    /// A body in memory, and its media type.
    Bytes(Bytes, HeaderValue),
    /// A body that is read while it is sent.
    Stream(Stream),
}

/// A streamed body and how far it is.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    source: UploadSource,
    length: u64,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    sent: AtomicU64,
    failed: Mutex<Option<io::Error>>,
}

impl Payload {
    /// A body that is read from `source` while it is sent.
    pub(crate) fn stream(source: UploadSource, length: u64) -> Payload {
        Payload::Stream(Stream { source, length, state: Arc::default() })
    }

    pub(crate) fn content_type(&self) -> Option<HeaderValue> {
        match self {
            Payload::Empty => None,
            Payload::Bytes(_, media_type) => Some(media_type.clone()),
            Payload::Stream(_) => Some(HeaderValue::from_static("application/octet-stream")),
        }
    }

    /// Bytes to send.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Payload::Empty => 0,
            Payload::Bytes(bytes, _) => bytes.len() as u64,
            Payload::Stream(stream) => stream.length,
        }
    }

    /// Bytes handed to the connection so far, where that is known.
    pub(crate) fn sent(&self) -> Option<u64> {
        match self {
            Payload::Empty | Payload::Bytes(..) => None,
            Payload::Stream(stream) => Some(stream.state.sent.load(Ordering::Relaxed)),
        }
    }

    /// Why the source could not be read, if that is what stopped the request.
    pub(crate) fn source_error(&self) -> Option<io::Error> {
        match self {
            Payload::Empty | Payload::Bytes(..) => None,
            Payload::Stream(stream) => stream.state.failed.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }

    pub(crate) fn body(&self) -> PayloadBody {
        let never = |never: Infallible| match never {};
        match self {
            Payload::Empty => Empty::new().map_err(never).boxed_unsync(),
            Payload::Bytes(bytes, _) => Full::new(bytes.clone()).map_err(never).boxed_unsync(),
            Payload::Stream(stream) => stream.body().boxed_unsync(),
        }
    }
}

impl Stream {
    /// Reads on a blocking thread that ends when the body is dropped.
    fn body(&self) -> ReaderBody {
        let (pieces, coming) = mpsc::channel(AHEAD);
        let (source, length) = (self.source.clone(), self.length);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_pieces(&source, length, &pieces) {
                // Nobody listens any more when the request is over.
                let _ = pieces.blocking_send(Err(error));
            }
        });
        ReaderBody { coming, left: length, state: self.state.clone() }
    }
}

fn read_pieces(source: &UploadSource, length: u64, pieces: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut reader = source.open(0)?.take(length);
    let mut left = length;
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= piece.len() as u64;
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

struct ReaderBody {
    coming: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    state: Arc<State>,
}

impl hyper::body::Body for ReaderBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let error = match ready!(self.coming.poll_recv(cx)) {
            Some(Ok(piece)) => {
                self.left -= piece.len() as u64;
                self.state.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Some(Err(error)) => error,
            None => io::ErrorKind::BrokenPipe.into(),
        };
        let told = io::Error::from(error.kind());
        *self.state.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Poll::Ready(Some(Err(told)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
