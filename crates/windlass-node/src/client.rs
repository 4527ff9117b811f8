//! The command line's end of the socket.
//!
//! In: the path of a daemon's socket. Out: its status, or the lines of a work that it does for the caller. Dropping an
//! answer gives the work up.
//!
//! Invariants: `no_daemon_is_told_as_that`, `an_answer_that_ends_early_is_told_as_that`; and with the whole daemon (in the
//! command's tests) `a_daemon_that_goes_away_is_told_as_that`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use windlass_core::reason::Reason;

use crate::status::NodeStatus;
use crate::wire::{EnsureAsk, Line, PREFIX, PullAsk};

/// Longest line: a report of many containers, or the status of a node with many images.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Longest silence: a living daemon says every ten seconds that it works.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the beginning of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a daemon did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon answers on {}", .socket.display())]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The daemon ended before its answer did.
    #[error("the daemon on {} went away before it was done", .socket.display())]
    GoneAway {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon does not know what was asked: it is another version, or no daemon of ours.
    #[error("the daemon on {} does not understand: {what}", .socket.display())]
    Stranger {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        what: String,
    },
}

impl ClientError {
    /// The word for it in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            ClientError::NoDaemon { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Reason::NotPermitted
            }
            ClientError::NoDaemon { .. } | ClientError::GoneAway { .. } => Reason::DaemonUnavailable,
            ClientError::Stranger { .. } => Reason::InvalidConfig,
        }
    }
}

/// A daemon to be asked.
#[derive(Debug, Clone)]
pub struct NodeClient {
    socket: PathBuf,
}

impl NodeClient {
    /// The daemon that listens on a socket. Nothing is connected yet.
    pub fn new(socket: &Path) -> NodeClient {
        NodeClient { socket: socket.to_owned() }
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        let mut answer = self.ask("GET", "status", Bytes::new()).await?;
        answer.next().await
    }

    /// What the daemon says of itself, again after each change; without its images.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn watch(&self) -> Result<Answer, ClientError> {
        self.ask("GET", "status?watch&images=none", Bytes::new()).await
    }

    /// Asks for an image. [`Answer::next`] gives a [`Line`] at a time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pull(&self, ask: &PullAsk) -> Result<Answer, ClientError> {
        self.post("pull", ask).await
    }

    /// Asks for the images of pods. [`Answer::next`] gives a [`Line`] at a time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ensure(&self, ask: &EnsureAsk) -> Result<Answer, ClientError> {
        self.post("ensure", ask).await
    }

    async fn post(&self, path: &str, ask: &impl Serialize) -> Result<Answer, ClientError> {
        // Of plain data: it can always be written.
        let body = serde_json::to_vec(ask).map_err(|error| self.stranger(error.to_string()))?;
        self.ask("POST", path, Bytes::from(body)).await
    }

    async fn ask(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let no_daemon = |source| ClientError::NoDaemon { socket: self.socket.clone(), source };
        let gone = || ClientError::GoneAway { socket: self.socket.clone() };
        let stream = UnixStream::connect(&self.socket).await.map_err(no_daemon)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| gone())?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the daemon ended");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}/{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.stranger(error.to_string()))?;
        let asked = tokio::time::timeout(HEAD_TIMEOUT, sender.send_request(request)).await;
        let response = asked.map_err(|_| gone())?.map_err(|_| gone())?;
        let status = response.status();
        // A request that is refused is answered by a line, too.
        let is_answer =
            status.is_success() || [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE].contains(&status);
        if !is_answer {
            return Err(self.stranger(format!("it answers {status}")));
        }
        Ok(Answer {
            client: self.clone(),
            body: response.into_body(),
            buffer: BytesMut::new(),
            _connection: Ends(connection),
        })
    }

    fn stranger(&self, what: String) -> ClientError {
        ClientError::Stranger { socket: self.socket.clone(), what }
    }
}

/// A connection that ends with its answer.
#[derive(Debug)]
struct Ends(JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer, one JSON value a line.
#[derive(Debug)]
pub struct Answer {
    client: NodeClient,
    body: Incoming,
    buffer: BytesMut,
    _connection: Ends,
}

impl Answer {
    /// The next value: of what was asked for a status, a [`NodeStatus`], else a [`Line`].
    ///
    /// # Errors
    /// [`ClientError::GoneAway`] when the answer ends here.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let gone = || ClientError::GoneAway { socket: self.client.socket.clone() };
        let mut looked = 0;
        let end = loop {
            if let Some(at) = self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                break looked + at;
            }
            looked = self.buffer.len();
            if looked > LINE_BYTES_MAX {
                return Err(self.client.stranger("its answer is too long".to_owned()));
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            match frame.map_err(|_| gone())? {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.buffer.extend_from_slice(&bytes);
                    }
                }
                Some(Err(_)) | None => return Err(gone()),
            }
        };
        let line = self.buffer.split_to(end + 1);
        serde_json::from_slice(&line)
            .map_err(|error| self.client.stranger(format!("its answer cannot be read: {error}")))
    }

    /// The last line of a work; `each` hears what happens until then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn last(mut self, mut each: impl FnMut(crate::wire::EventWire)) -> Result<Line, ClientError> {
        loop {
            match self.next().await? {
                Line::Event { event } => each(event),
                Line::Alive => {}
                last @ (Line::Pulled { .. } | Line::Ensured { .. } | Line::Failed { .. }) => return Ok(last),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn no_daemon_is_told_as_that() {
        let dir = tempfile::tempdir().unwrap();
        let error = NodeClient::new(&dir.path().join("s")).status().await.unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
        assert_eq!(error.reason(), Reason::DaemonUnavailable);
    }

    #[tokio::test]
    async fn an_answer_that_ends_early_is_told_as_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let table = [
            (format!("{head}f\r\n{{\"type\":\"alive\""), Reason::DaemonUnavailable),
            (format!("{head}11\r\n{{\"type\":\"alive\"}}\n\r\n0\r\n\r\n"), Reason::DaemonUnavailable),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), Reason::InvalidConfig),
            (format!("{head}2\r\n{{\n\r\n0\r\n\r\n"), Reason::InvalidConfig),
        ];
        for (answer, want) in table {
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert_ne!(stream.read(&mut request).await.unwrap(), 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let asking = async {
                let ask = PullAsk { image: "a".to_owned(), platform: None, candidates: Vec::new() };
                NodeClient::new(&path).pull(&ask).await?.last(|_| {}).await
            };
            let (asked, ()) = tokio::join!(asking, serving);
            assert_eq!(asked.unwrap_err().reason(), want, "{answer}");
        }
    }
}
