//! Makes one connection: resolve, check the address, connect, through a proxy if one is set, TLS, HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use windlass_core::httpurl::{UrlScheme, WebOrigin};
use windlass_core::mirror::Http2;

use super::greedy::Greedy;
use super::payload::PayloadBody;
use super::profile::{Guard, Profile, bare_name};
use super::proxy::{Proxies, Proxy};
use super::tls::TlsSettings;
use crate::config::{
    H2_CONNECTION_WINDOW, H2_FRAME, H2_STREAM_WINDOW, HEADER_BYTES, HEADER_FIELDS, READ_BUFFER, Timeouts,
};
use crate::error::TransportError;

/// How long the first address of a name may take before the second is tried beside it (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// How often an HTTP/2 connection with requests under way is asked whether it lives.
const H2_PING: Duration = Duration::from_secs(20);

/// Most bytes of a proxy's answer to `CONNECT`.
const PROXY_HEAD: usize = 8 * 1024;

/// The sending half of a fresh connection.
#[derive(Debug)]
pub(crate) enum Sender {
    H1(http1::SendRequest<PayloadBody>),
    H2(http2::SendRequest<PayloadBody>),
}

/// A fresh connection.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) sender: Sender,
    /// The peer's address; `None` behind a proxy, which resolves names itself.
    pub(crate) peer: Option<IpAddr>,
    /// Requests carry the whole URL because the peer is a plain-http proxy.
    pub(crate) absolute_form: bool,
}

/// What is needed to make connections.
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) tls: Arc<TlsSettings>,
    pub(crate) proxies: Proxies,
    pub(crate) timeouts: Timeouts,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialler {
    /// Connects to `site`. Dropping the future closes what was opened.
    pub(crate) async fn dial(
        &self,
        site: &WebOrigin,
        profile: &Profile,
        guard: &Guard,
    ) -> Result<Dialled, TransportError> {
        let proxy = self.proxies.choose(site);
        let (tcp, peer): (Box<dyn Stream>, Option<IpAddr>) = match proxy {
            None => {
                let tcp = self.connect(site, guard, profile).await?;
                let peer = tcp.peer_addr().ok().map(|a| a.ip());
                (Box::new(tcp), peer)
            }
            Some(proxy) => {
                // The proxy resolves the name; a literal address can still be judged here.
                if let Some(address) = literal(site).filter(|a| !guard.allows(*a)) {
                    return Err(TransportError::AddressForbidden { address });
                }
                (self.through(proxy, site).await?, None)
            }
        };
        match site.scheme {
            UrlScheme::Http => {
                let sender = handshake_h1(tcp).await?;
                Ok(Dialled { sender: Sender::H1(sender), peer, absolute_form: proxy.is_some() })
            }
            UrlScheme::Https => {
                let tls = self.start_tls(tcp, site, profile).await?;
                let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                let tls: Box<dyn Stream> = Box::new(Greedy::new(tls));
                let sender =
                    if h2 { Sender::H2(handshake_h2(tls).await?) } else { Sender::H1(handshake_h1(tls).await?) };
                Ok(Dialled { sender, peer, absolute_form: false })
            }
        }
    }

    async fn connect(&self, site: &WebOrigin, guard: &Guard, profile: &Profile) -> Result<TcpStream, TransportError> {
        let deadline = Instant::now() + profile.dial_timeout.unwrap_or(self.timeouts.connect);
        let name = profile.found_at.as_deref().unwrap_or_else(|| bare_name(site));
        let resolve = tokio::net::lookup_host((name, site.port));
        let addresses: Vec<SocketAddr> = match timeout_at(deadline, resolve).await {
            Err(_) => return Err(TransportError::ConnectTimeout),
            Ok(Err(source)) => return Err(TransportError::Resolve { source }),
            Ok(Ok(addresses)) => addresses.collect(),
        };
        let allowed: Vec<SocketAddr> = addresses.iter().copied().filter(|a| guard.allows(a.ip())).collect();
        if allowed.is_empty() {
            return Err(match addresses.first() {
                Some(address) => TransportError::AddressForbidden { address: address.ip() },
                None => TransportError::Resolve { source: io::ErrorKind::NotFound.into() },
            });
        }
        match timeout_at(deadline, first_to_answer(interleave(allowed))).await {
            Err(_) => Err(TransportError::ConnectTimeout),
            Ok(Err(source)) => Err(TransportError::Connect { source }),
            Ok(Ok(tcp)) => {
                // Without it the last piece of a request waits for an acknowledgement; not fatal.
                let _ = tcp.set_nodelay(true);
                Ok(tcp)
            }
        }
    }

    async fn start_tls(
        &self,
        tcp: Box<dyn Stream>,
        site: &WebOrigin,
        profile: &Profile,
    ) -> Result<tokio_rustls::client::TlsStream<Box<dyn Stream>>, TransportError> {
        let (settings, wanted) = (self.tls.clone(), profile.clone());
        let config = tokio::task::spawn_blocking(move || settings.get(&wanted))
            .await
            .map_err(|e| TransportError::Closed { source: Box::new(e) })??;
        let name = ServerName::try_from(bare_name(site).to_owned())
            .map_err(|e| TransportError::Tls { source: io::Error::other(e) })?;
        let deadline = Instant::now() + self.timeouts.tls;
        match timeout_at(deadline, TlsConnector::from(config).connect(name, tcp)).await {
            Err(_) => Err(TransportError::TlsTimeout),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) if speaks_no_tls(&source) => Err(TransportError::NotTls { source }),
            Ok(Err(source)) => Err(TransportError::Tls { source }),
        }
    }

    async fn through(&self, proxy: &Proxy, site: &WebOrigin) -> Result<Box<dyn Stream>, TransportError> {
        let tcp = self.connect(&proxy.origin, &Guard::Configured, &Profile::default()).await?;
        let mut stream: Box<dyn Stream> = match proxy.origin.scheme {
            UrlScheme::Http => Box::new(tcp),
            UrlScheme::Https => {
                let profile = Profile { http2: Http2::Off, ..Profile::default() };
                Box::new(self.start_tls(Box::new(tcp), &proxy.origin, &profile).await?)
            }
        };
        if site.scheme == UrlScheme::Http {
            return Ok(stream);
        }
        let deadline = Instant::now() + self.timeouts.header;
        match timeout_at(deadline, open_tunnel(&mut stream, proxy, site)).await {
            Err(_) => Err(TransportError::HeaderTimeout),
            Ok(Err(source)) => Err(TransportError::Proxy { source }),
            Ok(Ok(())) => Ok(stream),
        }
    }
}

/// The address, where the host is a literal one.
fn literal(site: &WebOrigin) -> Option<IpAddr> {
    bare_name(site).parse().ok()
}

/// Puts IPv6 and IPv4 addresses alternately, in the resolver's order otherwise.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair.iter().all(Option::is_none) {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    running.extend(waiting.next().map(TcpStream::connect));
    loop {
        tokio::select! {
            done = running.next() => match done {
                Some(Ok(tcp)) => return Ok(tcp),
                Some(Err(error)) => {
                    last = error;
                    running.extend(waiting.next().map(TcpStream::connect));
                }
                None => return Err(last),
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {
                running.extend(waiting.next().map(TcpStream::connect));
            }
        }
    }
}

/// Whether the peer answered a TLS greeting with something that is no TLS at all.
fn speaks_no_tls(error: &io::Error) -> bool {
    let invalid = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidMessage(_)));
    let hung_up = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    invalid || hung_up
}

async fn open_tunnel(stream: &mut Box<dyn Stream>, proxy: &Proxy, site: &WebOrigin) -> io::Result<()> {
    let target = format!("{}:{}", site.name, site.port);
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        head.push_str("Proxy-Authorization: ");
        head.push_str(authorization.expose());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // One byte at a time: what follows the head belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_HEAD {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    let status = answer.get(9..12).and_then(|s| std::str::from_utf8(s).ok()).unwrap_or("no status").to_owned();
    match (answer.starts_with(b"HTTP/1."), status.starts_with('2')) {
        (true, true) => Ok(()),
        (true, false) | (false, _) => Err(io::Error::other(format!("the proxy answered {}", status.escape_default()))),
    }
}

async fn handshake_h1(io: Box<dyn Stream>) -> Result<http1::SendRequest<PayloadBody>, TransportError> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(READ_BUFFER)
        .max_headers(HEADER_FIELDS)
        .max_header_size(HEADER_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(TransportError::from_hyper)?;
    spawn_connection(Box::pin(connection));
    Ok(sender)
}

async fn handshake_h2(io: Box<dyn Stream>) -> Result<http2::SendRequest<PayloadBody>, TransportError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_frame_size(H2_FRAME)
        .max_header_list_size(HEADER_BYTES as u32)
        .keep_alive_interval(H2_PING)
        .handshake(TokioIo::new(io))
        .await
        .map_err(TransportError::from_hyper)?;
    spawn_connection(Box::pin(connection));
    Ok(sender)
}

/// Drives a connection until its sender is dropped or the peer closes it. Its error reaches the request that
/// is under way; without one nobody needs it.
fn spawn_connection(connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection ended");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_address_families_get_their_turn() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let mixed = interleave(parse(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1"]));
        assert_eq!(mixed, parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
    }
}
