//! HTTP/1.1 by hand, on threads: only as much as a registry needs, and nothing between us and the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::guard::SeenAuthorization;
use super::reply::{End, Reply};
use super::{Shared, guard};
use crate::registry::TestTls;

/// Longest head of a request that is read.
const HEAD_MAX_BYTES: u64 = 256 << 10;
/// Longest body of a request that is read.
const BODY_MAX_BYTES: u64 = 16 << 20;

/// A request as it arrived. Secrets are not kept: only whether they were there and good.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path without its query, as sent.
    pub path: String,
    /// Query, as sent.
    pub query: String,
    /// Headers with lower-case names, without `authorization` and `cookie`.
    pub headers: Vec<(String, String)>,
    /// What the `Authorization` header held.
    pub authorization: SeenAuthorization,
    /// Whether there was a `Cookie` header.
    pub has_cookie: bool,
    /// Names of the fields of a form in the body.
    pub form_keys: Vec<String>,
    /// Number of the connection, from 1.
    pub connection: u64,
}

impl Seen {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether it brought anything that proves an identity.
    pub fn carries_credentials(&self) -> bool {
        let by_form = self.form_keys.iter().any(|key| key == "password" || key == "refresh_token");
        self.authorization != SeenAuthorization::None || self.has_cookie || by_form
    }

    /// Every value of a query parameter, decoded.
    pub fn query_values(&self, key: &str) -> Vec<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(k, _)| k == key).map(|(_, v)| v.into_owned()).collect()
    }
}

/// A request with what must not be recorded.
pub(super) struct Request {
    pub(super) seen: Seen,
    pub(super) authorization: Option<String>,
    pub(super) form: Vec<(String, String)>,
    pub(super) keeps_alive: bool,
}

pub(super) fn tls_server(tls: &TestTls) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(tls.certificate_pem.as_bytes()).map(|c| c.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Accepts until the registry stops; one thread per connection.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<rustls::ServerConfig>>) {
    for stream in listener.incoming() {
        let number = {
            let mut state = shared.state();
            if state.stopped {
                return;
            }
            state.connections += 1;
            if state.refusing > 0 {
                state.refusing -= 1;
                continue;
            }
            state.connections
        };
        let Ok(stream) = stream else { continue };
        let (shared, tls) = (shared.clone(), tls.cloned());
        let serving = std::thread::Builder::new().name(format!("faulty-{number}"));
        // A thread that cannot be had closes the connection, which the test will see.
        let _running = serving.spawn(move || serve(stream, number, &shared, tls));
    }
}

fn serve(stream: TcpStream, number: u64, shared: &Shared, tls: Option<Arc<rustls::ServerConfig>>) {
    let (Ok(raw), Ok(live), Ok(())) = (stream.try_clone(), stream.try_clone(), stream.set_nodelay(true)) else {
        return;
    };
    shared.state().live.insert(number, live);
    let ended = match tls {
        None => converse(stream, &raw, number, shared),
        Some(config) => match rustls::ServerConnection::new(config) {
            Ok(session) => converse(rustls::StreamOwned::new(session, stream), &raw, number, shared),
            Err(_) => Ok(()),
        },
    };
    shared.state().live.remove(&number);
    // The client went away, which is its right; what it asked for is on record.
    drop(ended);
}

/// Requests and answers until one side has had enough.
fn converse(stream: impl Read + Write, raw: &TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream, number, shared)? {
        let reply = answer(&request, shared);
        let end = reply.send(&request.seen.method, stream.get_mut(), shared)?;
        match end {
            End::KeepAlive if request.keeps_alive => {}
            End::KeepAlive | End::Close => break,
            End::Reset => {
                // Closing with a linger time of zero sends RST instead of FIN.
                rustix::net::sockopt::set_socket_linger(raw, Some(std::time::Duration::ZERO))?;
                break;
            }
        }
    }
    Ok(())
}

fn answer(request: &Request, shared: &Shared) -> Reply {
    let mut state = shared.state();
    state.seen.push(request.seen.clone());
    let state = &mut *state;
    let mut reply = match state.shelves.at(&request.seen.path) {
        Some(reply) => reply,
        None => match guard::admit(shared, &mut state.tokens, request) {
            Ok(()) => state.shelves.answer(&request.seen),
            Err(refusal) => *refusal,
        },
    };
    for injected in &mut state.faults {
        if injected.strikes(&request.seen) {
            injected.spoil(&mut reply, &request.seen, &mut state.shelves);
        }
    }
    reply
}

fn read_request(
    stream: &mut BufReader<impl Read + Write>,
    connection: u64,
    shared: &Shared,
) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut limited = stream.by_ref().take(HEAD_MAX_BYTES);
    loop {
        let start = head.len();
        if limited.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
        if matches!(&head[start..], b"\r\n" | b"\n") && start > 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let authorization = find("authorization");
    let has_cookie = find("cookie").is_some();
    let keeps_alive = !find("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    let len: u64 = find("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    stream.by_ref().take(len.min(BODY_MAX_BYTES)).read_to_end(&mut body)?;
    let is_form = find("content-type").is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
    let form: Vec<(String, String)> =
        if is_form { url::form_urlencoded::parse(&body).into_owned().collect() } else { Vec::new() };
    headers.retain(|(name, _)| name != "authorization" && name != "cookie");
    let authorization_seen = guard::look(shared, &shared.state().tokens, authorization.as_deref());
    let seen = Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        authorization: authorization_seen,
        has_cookie,
        form_keys: form.iter().map(|(key, _)| key.clone()).collect(),
        connection,
    };
    Ok(Some(Request { seen, authorization, form, keeps_alive }))
}
