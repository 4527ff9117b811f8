//! Small requests to places that an operator named: identity services, metadata servers, token exchanges.
//!
//! In: one request, its deadline and the most bytes its answer may have. Out: status, headers and the whole body, whatever
//! the status. The transport is the registry client's own: TLS, proxies, limits. Redirects are not followed, since what is
//! asked here carries secrets; nothing is sent twice, since only the caller knows what may be repeated.
//!
//! Invariants: `a_redirect_is_an_answer`, `an_answer_that_is_too_long_is_refused`, `metadata_servers_are_asked_past_proxies`,
//! `a_named_place_is_no_metadata_server`, `a_host_is_found_where_its_peer_says`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;
use windlass_core::httpurl::HttpUrl;
use windlass_core::realm::{AddressClass, address_class};
use windlass_core::secret::Secret;

use crate::config::{ProxyConfig, Timeouts};
use crate::error::{ClientError, TransportError};
use crate::net::dial::Dialler;
use crate::net::proxy::Proxies;
use crate::net::tls::TlsSettings;
use crate::net::{Guard, Network, Payload, Profile};

/// Open connections per host: a few questions at a time.
const CONNECTIONS: usize = 4;

/// Whether a proxy may see a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebRoute {
    /// Over the proxy that is configured for the host, if one is.
    Usual,
    /// Never over a proxy: metadata servers, which answer for whoever asks.
    Direct,
    /// As usual, but never to a link-local or metadata address: a place that somebody else than the operator named.
    Named,
}

impl WebRoute {
    fn guard(self) -> Guard {
        match self {
            WebRoute::Usual | WebRoute::Direct => Guard::Configured,
            WebRoute::Named => Guard::Named(Arc::new(|address| address_class(address) != AddressClass::Forbidden)),
        }
    }
}

/// One question.
#[derive(Clone, Debug)]
pub struct WebRequest {
    /// `GET`, `PUT` or `POST`.
    pub method: Method,
    /// Where to.
    pub url: HttpUrl,
    /// All headers but `Host` and the body's length; values that are secret are marked as sensitive.
    pub headers: HeaderMap,
    /// The body; its media type stands in `headers`.
    pub body: Secret<Vec<u8>>,
    /// Whether a proxy may see it.
    pub route: WebRoute,
    /// From the first byte sent to the last one read, the connection included.
    pub limit: Duration,
    /// Most bytes of the answer.
    pub bytes_max: usize,
}

/// A host that is found elsewhere than where its name says, and vouched for by authorities of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebPeer {
    /// The address or name to connect to; the port is the URL's.
    pub host: String,
    /// PEM files whose certificates are trusted for it beside the usual ones.
    pub ca_files: Vec<PathBuf>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct WebAnswer {
    /// The status, redirects among them.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; it may hold secrets.
    pub body: Secret<Vec<u8>>,
}

/// What the questions need to know.
#[derive(Clone, Debug, Default)]
pub struct WebConfig {
    /// PEM files whose certificates are trusted beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Proxy settings.
    pub proxy: ProxyConfig,
    /// Waits of the transport; each request has a limit of its own beside them.
    pub timeouts: Timeouts,
}

/// Asks. Clones share connections.
#[derive(Clone, Debug)]
pub struct Web {
    inner: Arc<Networks>,
}

#[derive(Debug)]
struct Networks {
    usual: Network,
    direct: Network,
}

impl Web {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// [`ClientError`] names the setting that cannot be used.
    pub fn new(config: &WebConfig) -> Result<Web, ClientError> {
        let tls = Arc::new(TlsSettings::new(config.ca_files.clone()));
        let network = |proxy: &ProxyConfig| -> Result<Network, ClientError> {
            let dialler = Dialler { tls: tls.clone(), proxies: Proxies::new(proxy)?, timeouts: config.timeouts };
            Ok(Network::new(dialler, CONNECTIONS))
        };
        let (usual, direct) = (network(&config.proxy)?, network(&ProxyConfig::default())?);
        Ok(Web { inner: Arc::new(Networks { usual, direct }) })
    }

    /// Asks once. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`TransportError`] when there is no whole answer in time.
    pub async fn ask(&self, request: &WebRequest) -> Result<WebAnswer, TransportError> {
        self.ask_by(request, &Profile::default()).await
    }

    /// As [`Web::ask`], at a host that is found elsewhere. The certificate must be for the name in the URL.
    ///
    /// # Errors
    /// As [`Web::ask`].
    pub async fn ask_at(&self, peer: &WebPeer, request: &WebRequest) -> Result<WebAnswer, TransportError> {
        let found_at = Some(peer.host.as_str().into());
        let profile = Profile { ca: peer.ca_files.clone(), found_at, ..Profile::default() };
        self.ask_by(request, &profile).await
    }

    async fn ask_by(&self, request: &WebRequest, profile: &Profile) -> Result<WebAnswer, TransportError> {
        let network = match request.route {
            WebRoute::Usual | WebRoute::Named => &self.inner.usual,
            WebRoute::Direct => &self.inner.direct,
        };
        timeout(request.limit, ask(network, request, profile)).await.unwrap_or(Err(TransportError::HeaderTimeout))
    }
}

async fn ask(network: &Network, request: &WebRequest, profile: &Profile) -> Result<WebAnswer, TransportError> {
    let payload = match (request.body.expose(), request.headers.get(http::header::CONTENT_TYPE)) {
        (body, Some(media_type)) if !body.is_empty() => Payload::Bytes(body.clone().into(), media_type.clone()),
        _ => Payload::Empty,
    };
    let WebRequest { method, url, headers, .. } = request;
    let response = network.send(method, url, headers, &payload, profile, &request.route.guard()).await?;
    let too_long = TransportError::BodyTooLarge { limit_bytes: request.bytes_max as u64 };
    let body = response.body.collect(request.bytes_max as u64).await?.ok_or(too_long)?;
    Ok(WebAnswer { status: response.status, headers: response.headers, body: Secret::new(body.to_vec()) })
}
