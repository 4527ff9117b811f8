//! What the client is told before it starts. Every bound and every wait has its name here.
//!
//! Defaults follow the distribution specification's practice and are all configurable, so that tests run in
//! milliseconds and operators can adapt to odd networks.

use std::path::PathBuf;
use std::time::Duration;

use windlass_core::host::Host;
use windlass_core::manifest::DocumentLimits;
use windlass_core::mirror::RegistryOverride;
use windlass_core::secret::Secret;

/// Everything a [`crate::Client`] needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// Registries (host and port as written in references) that speak plain http.
    pub plain_http: Vec<Host>,
    /// Every registry is asked by plain http (a command's `--plain-http`).
    pub plain_http_everywhere: bool,
    /// PEM files whose certificates are trusted beside the system's; read again when they change.
    pub ca_files: Vec<PathBuf>,
    /// Directories of `hosts.toml` files, first hit wins; read again when they change.
    pub hosts_dirs: Vec<PathBuf>,
    /// What `registries:` of the configuration says, by registry as written in references (`docker.io`).
    pub registries: Vec<(Host, RegistryOverride)>,
    /// Proxy settings, usually from the environment.
    pub proxy: ProxyConfig,
    /// Waits.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: RetryConfig,
    /// Bounds on what is read.
    pub limits: Limits,
    /// Whether an anonymous attempt follows when every credential was refused (`--no-anonymous-fallback`).
    pub anonymous_fallback: AnonymousFallback,
    /// Whether `urls` of foreign layers are fetched. Off by default (CVE-2020-15157).
    pub foreign_urls: ForeignUrls,
    /// Uploads blobs in chunks of this size; `None` in one request, and in chunks only where that is too large.
    pub upload_chunk_bytes: Option<usize>,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            user_agent: concat!("windlass/", env!("CARGO_PKG_VERSION")).to_owned(),
            plain_http: Vec::new(),
            plain_http_everywhere: false,
            ca_files: Vec::new(),
            hosts_dirs: Vec::new(),
            registries: Vec::new(),
            proxy: ProxyConfig::default(),
            timeouts: Timeouts::default(),
            retry: RetryConfig::default(),
            limits: Limits::default(),
            anonymous_fallback: AnonymousFallback::Allowed,
            foreign_urls: ForeignUrls::Refused,
            upload_chunk_bytes: None,
        }
    }
}

/// Whether public images are still tried when every credential was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonymousFallback {
    /// One anonymous attempt at the end.
    Allowed,
    /// None.
    Disabled,
}

/// Whether `urls` of foreign layers may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignUrls {
    /// Never.
    Refused,
    /// After the registry said it has no such blob; https only, without credentials.
    Allowed,
}

/// Proxies as the environment names them. The addresses are secrets because they may hold a password.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// Value of `HTTP_PROXY`.
    pub http: Option<Secret<String>>,
    /// Value of `HTTPS_PROXY`.
    pub https: Option<Secret<String>>,
    /// Value of `NO_PROXY`.
    pub no_proxy: Option<String>,
}

/// How long each kind of wait may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Name resolution and TCP connection.
    pub connect: Duration,
    /// TLS handshake.
    pub tls: Duration,
    /// From the request to the head of the response.
    pub header: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// A blob that moves less than [`PROGRESS_BYTES`] in this time, retries included, fails.
    pub progress: Duration,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
    /// How long a failed endpoint is left alone.
    pub breaker: Duration,
    /// How long an endpoint that served wrong bytes is left alone.
    pub penalty: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            tls: Duration::from_secs(10),
            header: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            progress: Duration::from_secs(60),
            keep_alive: Duration::from_secs(60),
            breaker: Duration::from_secs(30),
            penalty: Duration::from_secs(60),
        }
    }
}

/// What counts as progress of a blob: so many bytes give the retries and the progress clock a fresh start.
pub const PROGRESS_BYTES: u64 = 64 * 1024;

/// How failed requests are repeated.
#[derive(Clone, Copy, Debug)]
pub struct RetryConfig {
    /// Tries in all without progress.
    pub tries: u32,
    /// Wait before the second try; doubles each time.
    pub first_wait: Duration,
    /// The wait never grows beyond this.
    pub longest_wait: Duration,
    /// Sum of the waits that `Retry-After` may ask for within one pull.
    pub retry_after_total: Duration,
}

impl Default for RetryConfig {
    fn default() -> RetryConfig {
        RetryConfig {
            tries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            retry_after_total: Duration::from_secs(60),
        }
    }
}

/// Bounds on what is read from the network.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections (HTTP/1.1) or requests (HTTP/2) per host.
    pub connections_per_host: usize,
    /// Bounds on manifests, indexes and configs.
    pub documents: DocumentLimits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections_per_host: 16, documents: DocumentLimits::default() }
    }
}

/// Chunk of an upload where the configuration names none: held in memory, so that it can be sent again.
pub(crate) const UPLOAD_CHUNK: usize = 16 * 1024 * 1024;
/// Most bytes of a response's head; the registry could otherwise fill memory with headers.
pub(crate) const HEADER_BYTES: usize = 64 * 1024;
/// Most header fields of a response.
pub(crate) const HEADER_FIELDS: usize = 256;
/// Most bytes read of an error's body or a token reply.
pub(crate) const ERROR_BYTES: usize = 64 * 1024;
/// Authentication rounds per request.
pub(crate) const AUTH_ROUNDS: u32 = 2;
/// Read buffer of an HTTP/1.1 connection: frames of a body are as large as this at best.
pub(crate) const READ_BUFFER: usize = 512 * 1024;
/// HTTP/2 flow-control windows. The default of 64 KiB caps a stream at window per round trip.
pub(crate) const H2_STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// For all streams of one connection.
pub(crate) const H2_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Largest HTTP/2 frame accepted.
pub(crate) const H2_FRAME: u32 = 256 * 1024;
