//! One request, one response: no redirects, no credentials, no retries (but for a kept connection that the
//! peer had closed already).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::timeout;
use windlass_core::httpurl::{HttpUrl, UrlScheme, WebOrigin};

use super::body::Body;
use super::dial::Dialler;
use super::payload::Payload;
use super::pool::Pool;
use super::profile::{Guard, Profile};
use crate::config::{HEADER_FIELDS, Timeouts};
use crate::error::TransportError;

/// Pools kept at most; the longest unused go first. Redirect targets make the number grow.
const POOLS: usize = 256;

/// The head of a response and its body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The address that answered; `None` behind a proxy.
    pub(crate) peer: Option<IpAddr>,
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Network {
    dialler: Dialler,
    timeouts: Timeouts,
    connections: usize,
    pools: Mutex<HashMap<(WebOrigin, Profile), Arc<Pool>>>,
    /// Loopback hosts of which it is known whether they speak TLS.
    probed: Mutex<HashMap<(String, u16), UrlScheme>>,
}

impl Network {
    pub(crate) fn new(dialler: Dialler, connections: usize) -> Network {
        Network { timeouts: dialler.timeouts, dialler, connections, pools: Mutex::default(), probed: Mutex::default() }
    }

    /// Sends one request and returns the head of the response, whatever its status.
    pub(crate) async fn send(
        &self,
        method: &Method,
        url: &HttpUrl,
        headers: &HeaderMap,
        payload: &Payload,
        profile: &Profile,
        guard: &Guard,
    ) -> Result<Response, TransportError> {
        let pool = self.pool(url.origin(), profile);
        let mut stale = 0;
        loop {
            let lent = pool.lend(&self.dialler, guard).await?;
            let (reused, peer) = (lent.reused, lent.peer());
            let request = build(method, url, headers, payload, lent.absolute_form(), lent.is_h2())?;
            match self.in_time(payload, lent.send(request)).await {
                // The peer may close a kept connection at any moment; a fresh one tells whether it is well. What
                // has a body may have been carried out: its sender decides.
                Err(TransportError::Closed { .. }) if reused && payload.len() == 0 && stale < self.connections => {
                    stale += 1;
                }
                Err(error) => {
                    self.forget_guess(url.origin());
                    return Err(error);
                }
                Ok((response, returned)) => {
                    let (head, incoming) = response.into_parts();
                    let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
                    let ends_by_close = head.version < http::Version::HTTP_2
                        && !framed.iter().any(|name| head.headers.contains_key(name));
                    if head.headers.len() > HEADER_FIELDS {
                        return Err(TransportError::HeadersTooLarge);
                    }
                    let body = Body::new(incoming, self.timeouts.idle, returned, ends_by_close);
                    return Ok(Response { status: head.status, headers: head.headers, body, peer });
                }
            }
        }
    }

    /// Finds out whether a loopback host speaks TLS, once. A certificate that fails is an error, not a reason
    /// for plain http.
    pub(crate) async fn probe(&self, name: &str, port: u16, profile: &Profile) -> Result<UrlScheme, TransportError> {
        let key = (name.to_owned(), port);
        if let Some(known) = self.probed.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*known);
        }
        let site = WebOrigin { scheme: UrlScheme::Https, name: name.to_owned(), port };
        let scheme = match self.pool(&site, profile).warm(&self.dialler, &Guard::Configured).await {
            Ok(()) => UrlScheme::Https,
            Err(TransportError::NotTls { .. }) => UrlScheme::Http,
            Err(error) => return Err(error),
        };
        self.probed.lock().unwrap_or_else(PoisonError::into_inner).insert(key, scheme);
        Ok(scheme)
    }

    /// A loopback host that hung up at a TLS greeting may have been starting: it is asked again whether it speaks
    /// TLS once plain http fails too.
    fn forget_guess(&self, origin: &WebOrigin) {
        if origin.scheme == UrlScheme::Http {
            let key = (origin.name.clone(), origin.port);
            self.probed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
    }

    /// Waits for the head of a response. Sending takes time too: a stream must only move on within the limit, a
    /// body in memory has a second more for each 64 KiB.
    async fn in_time<T>(
        &self,
        payload: &Payload,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let mut work = std::pin::pin!(work);
        let mut sent = payload.sent();
        let more = if sent.is_some() { 0 } else { payload.len() / (64 * 1024) };
        loop {
            match timeout(self.timeouts.header + Duration::from_secs(more), work.as_mut()).await {
                Ok(outcome) => return outcome,
                Err(_) if sent == payload.sent() => return Err(TransportError::HeaderTimeout),
                Err(_) => sent = payload.sent(),
            }
        }
    }

    fn pool(&self, site: &WebOrigin, profile: &Profile) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&(site.clone(), profile.clone())) {
            return pool.clone();
        }
        if pools.len() >= POOLS {
            pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        }
        let pool = Arc::new(Pool::new(site.clone(), profile.clone(), self.connections, self.timeouts.keep_alive));
        pools.insert((site.clone(), profile.clone()), pool.clone());
        pool
    }
}

fn build(
    method: &Method,
    url: &HttpUrl,
    headers: &HeaderMap,
    payload: &Payload,
    absolute_form: bool,
    h2: bool,
) -> Result<http::Request<super::payload::PayloadBody>, TransportError> {
    let uri = if absolute_form || h2 { url.to_request_uri() } else { url.path_and_query() };
    let authority = url.authority();
    let mut request =
        http::Request::builder().method(method).uri(uri).body(payload.body()).map_err(|_| TransportError::Scheme)?;
    let fields = request.headers_mut();
    *fields = headers.clone();
    if !h2 {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| TransportError::Scheme)?;
        fields.insert(header::HOST, host);
    }
    if let Some(content_type) = payload.content_type() {
        fields.insert(header::CONTENT_TYPE, content_type);
    }
    if payload.len() == 0 && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(request)
}
