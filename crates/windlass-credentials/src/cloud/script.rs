//! A scripted server for the tests of this crate: each request is kept, each answer is what the test says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use windlass_distribution::web::{Web, WebConfig};

use super::asking::Service;
use super::retry::{Deadline, Retries};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: String,
    body: String,
    wait: Duration,
    cut: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, headers: String::new(), body: body.into(), wait: Duration::ZERO, cut: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Comes late.
    pub(crate) fn after(self, wait: Duration) -> Reply {
        Reply { wait, ..self }
    }

    /// Ends in the middle of the body.
    pub(crate) fn cut(self) -> Reply {
        Reply { cut: true, ..self }
    }
}

type Rule = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

/// Listens on a free loopback port until it is dropped.
#[derive(Debug)]
pub(crate) struct Script {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Script {
    /// `rule` gets the number of the request, from 0 on, and the request.
    pub(crate) async fn start(rule: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Script {
        Script::on(None, Arc::new(rule)).await
    }

    /// The same, with TLS.
    pub(crate) async fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        rule: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Script {
        Script::on(Some(tls.into()), Arc::new(rule)).await
    }

    async fn on(tls: Option<TlsAcceptor>, rule: Arc<Rule>) -> Script {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (rule, kept) = (Arc::clone(&rule), Arc::clone(&kept));
                match &tls {
                    None => drop(tokio::spawn(serve(stream, rule, kept))),
                    Some(tls) => {
                        let handshake = tls.accept(stream);
                        drop(tokio::spawn(async move {
                            if let Ok(stream) = handshake.await {
                                serve(stream, rule, kept).await;
                            }
                        }));
                    }
                }
            }
        });
        Script { address, seen, task }
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, rule: Arc<Rule>, kept: Arc<Mutex<Vec<Seen>>>) {
    let mut bytes = Vec::new();
    while let Some(seen) = read(&mut stream, &mut bytes).await {
        let number = {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(seen.clone());
            kept.len() - 1
        };
        let reply = rule(number, &seen);
        tokio::time::sleep(reply.wait).await;
        let Reply { status, headers, body, cut, .. } = reply;
        let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        let body = if cut { &body.as_bytes()[..body.len() / 2] } else { body.as_bytes() };
        let sent = stream.write_all(&[head.as_bytes(), body].concat()).await;
        if cut || sent.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ');
            let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
            let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned()));
            let mut seen = Seen { method, target, headers: headers.collect(), body: String::new() };
            let length: usize = seen.header("content-length").parse().unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                seen.body = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
                bytes.drain(..end + 4 + length);
                return Some(seen);
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A certificate for one name, of an authority whose certificate is written to a file.
pub(crate) fn certified(name: &str, ca_file: &Path) -> Arc<rustls::ServerConfig> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca_file, ca.pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key.into()).unwrap().into()
}

/// A transport without proxies.
pub(crate) fn web() -> Web {
    Web::new(&WebConfig::default()).unwrap()
}

/// A service that is asked three times, quickly.
pub(crate) fn service<'a>(web: &'a Web, name: &str) -> Service<'a> {
    let quick = Retries { tries: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_secs(1) };
    let deadline = Deadline::after(Duration::from_secs(20), Instant::now());
    Service { web, name: name.to_owned(), retries: quick, deadline, hint: String::new() }
}
