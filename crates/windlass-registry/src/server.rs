//! The listener: accepts, speaks TLS where asked to, serves HTTP/1.1 and HTTP/2, drains when told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::api::{self, State};
use crate::auth::Gate;
use crate::config::{Limits, RegistryConfig, TlsConfig};
use crate::error::RegistryError;
use crate::storage::{Storage, blocking};

/// Flow-control window of one HTTP/2 stream: an upload must not wait for a round trip each 64 KiB.
const H2_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow-control window of one HTTP/2 connection.
const H2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams of one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 100;
/// Bytes of a request's head.
const HEAD_MAX_BYTES: u32 = 64 << 10;
/// Read and write buffer of an HTTP/1.1 connection; also the largest piece an upload arrives in.
const H1_BUFFER_BYTES: usize = 256 << 10;
/// Pause after `accept` failed, for example because all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts registries.
#[derive(Debug)]
pub struct RegistryServer;

impl RegistryServer {
    /// Opens the storage, listens and serves in the background of the current tokio runtime.
    ///
    /// # Errors
    /// [`RegistryError`] when the address, the root, the certificate or the users file cannot be used.
    pub async fn start(config: RegistryConfig) -> Result<RunningRegistry, RegistryError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let gate = Gate::new(&config)?;
        let opened = {
            let (root, durability, limits) = (config.root.clone(), config.durability, config.limits);
            blocking(move || Storage::open(&root, durability, &limits)).await
        };
        let storage = Arc::new(opened?);
        let listen = |source| RegistryError::Listen { addr: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let state = Arc::new(State { gate, storage: storage.clone(), listening: addr.to_string(), config });
        let (stop, stopped) = watch::channel(());
        let accepting = tokio::spawn(accept_loop(listener, tls, state, stopped));
        Ok(RunningRegistry { addr, storage, stop, accepting })
    }
}

/// A registry that serves until [`RunningRegistry::shutdown`]. Dropping it stops it without draining.
#[derive(Debug)]
pub struct RunningRegistry {
    addr: SocketAddr,
    storage: Arc<Storage>,
    stop: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl RunningRegistry {
    /// The address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its files, to place content without HTTP. Blocks; use it from blocking threads.
    pub fn storage(&self) -> Arc<Storage> {
        self.storage.clone()
    }

    /// Stops listening, lets requests in work finish up to `Limits::drain`, and returns.
    pub async fn shutdown(mut self) {
        // The loop holds the receiver until it ends; if it has ended there is nothing to stop.
        let _ended = self.stop.send(());
        if let Err(error) = (&mut self.accepting).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the accept loop failed");
        }
    }
}

impl Drop for RunningRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, RegistryError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&config.certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(|_| RegistryError::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(config.key_pem.expose()).map_err(|_| RegistryError::Pem)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(RegistryError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(RegistryError::Tls)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

async fn accept_loop(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
    mut stopped: watch::Receiver<()>,
) {
    let limits = state.config.limits;
    let room = Arc::new(Semaphore::new(limits.connections));
    let http = Arc::new(http_server(&limits));
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            _ = stopped.changed() => break,
        };
        let (tls, state, http, watcher) = (tls.clone(), state.clone(), http.clone(), graceful.watcher());
        connections.spawn(async move {
            let _place = place;
            serve_connection(stream, tls, state, &http, watcher).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off because they did not end in time");
    }
    connections.shutdown().await;
}

fn http_server(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(H1_BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEAD_MAX_BYTES);
    http
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
    http: &auto::Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY; answers may take longer");
    }
    match tls {
        None => speak_http(stream, state, http, watcher).await,
        Some(tls) => match tokio::time::timeout(state.config.limits.idle, tls.accept(stream)).await {
            Ok(Ok(stream)) => speak_http(stream, state, http, watcher).await,
            Ok(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<State>,
    http: &auto::Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(api::answer(state, request).await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        // Clients cut connections all the time; the request's own outcome was logged.
        tracing::debug!(error = %error, "connection ended");
    }
}
