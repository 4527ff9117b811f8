//! The body of a response, frame by frame.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::pool::Returned;
use crate::error::TransportError;

/// Longest time spent on reading a body that nobody wants.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The body of a response. Pull by [`Body::next`]; nothing is read ahead beyond one frame and the window of
/// the protocol. Dropping it early closes an HTTP/1.1 connection and resets an HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct Body {
    incoming: Incoming,
    idle: Duration,
    returned: Option<Returned>,
    /// Only the connection's end tells the body's end, so a cut cannot be told from the end.
    pub(crate) ends_by_close: bool,
}

impl Body {
    pub(crate) fn new(incoming: Incoming, idle: Duration, returned: Returned, ends_by_close: bool) -> Body {
        let mut body = Body { incoming, idle, returned: Some(returned), ends_by_close };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// [`TransportError::IdleTimeout`] when nothing came, [`TransportError::Closed`] when the body was cut.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            let frame = match timeout(self.idle, self.incoming.frame()).await {
                Err(_) => return Err(TransportError::IdleTimeout),
                Ok(None) => {
                    self.finish();
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(TransportError::from_hyper(error)),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                return Ok(Some(bytes));
            }
        }
    }

    /// Reads the whole body if it has at most `cap` bytes; `None` when it is longer.
    pub(crate) async fn collect(mut self, cap: u64) -> Result<Option<Bytes>, TransportError> {
        let Some(first) = self.next().await? else { return Ok(Some(Bytes::new())) };
        if first.len() as u64 > cap {
            return Ok(None);
        }
        let Some(second) = self.next().await? else { return Ok(Some(first)) };
        let mut all = Vec::from(first);
        all.extend_from_slice(&second);
        loop {
            if all.len() as u64 > cap {
                return Ok(None);
            }
            match self.next().await? {
                Some(bytes) => all.extend_from_slice(&bytes),
                None => return Ok(Some(all.into())),
            }
        }
    }

    /// Reads and forgets what is left if it is small, so that the connection can be used again.
    pub(crate) async fn drain(mut self, cap: u64) {
        let mut read = 0;
        let all = async {
            while read < cap {
                match self.next().await {
                    Ok(Some(bytes)) => read += bytes.len() as u64,
                    Ok(None) | Err(_) => return,
                }
            }
        };
        // A connection that is so slow is not worth keeping.
        let _ = timeout(DRAIN_TIME, all).await;
    }

    fn finish(&mut self) {
        if let Some(returned) = self.returned.take() {
            returned.reuse();
        }
    }
}
