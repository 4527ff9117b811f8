//! Serves one router on a listener: HTTP/1.1 and HTTP/2, drained when told to.
//!
//! In: a listener, a router, a token. Out: the future ends once the token fired and every connection has ended, or after
//! [`LINGER`]. The gRPC of the kubelet and containerd is HTTP/2 from its first byte, so both are told apart by that.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use windlass_cri::authority::AnyAuthority;

/// How long connections may take to end after the last answer.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after `accept` failed, for example because all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for the head of a request of HTTP/1.1.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// The same of HTTP/1.1, which counts it in its buffer.
const HEAD_BYTES_MAX_H1: usize = 64 << 10;
/// Streams of one HTTP/2 connection: a kubelet that pulls in parallel has all its calls on one.
const H2_STREAMS_MAX: u32 = 1000;
/// Flow-control window of HTTP/2; answers are small.
const H2_WINDOW_BYTES: u32 = 1 << 20;

/// Where connections come from.
pub(crate) trait Accept: Send + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Answers are small and wanted at once; where that cannot be set they come a little later.
        drop(stream.set_nodelay(true));
        Ok(stream)
    }
}

impl Accept for UnixListener {
    /// Clients of unix sockets may send their path as the authority, which HTTP/2 servers refuse.
    type Stream = AnyAuthority<tokio::net::UnixStream>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        Ok(AnyAuthority::new(UnixListener::accept(self).await?.0))
    }
}

/// Serves until `stop` fires and the connections have ended. `connections_max` are served at once, more wait in the
/// kernel's queue.
pub(crate) async fn serve(mut listener: impl Accept, router: Router, connections_max: usize, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX_H1);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_WINDOW_BYTES)
        .initial_connection_window_size(H2_WINDOW_BYTES);
    let graceful = GracefulShutdown::new();
    // Fires when this ends, however it ends: no connection outlives it.
    let cut = CancellationToken::new();
    let _cut = cut.clone().drop_guard();
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = next(&mut listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        let cut = cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                }
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(LINGER, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections that did not end are cut off");
    }
}

async fn next<L: Accept>(
    listener: &mut L,
    places: &std::sync::Arc<tokio::sync::Semaphore>,
) -> io::Result<(L::Stream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?, place))
}
