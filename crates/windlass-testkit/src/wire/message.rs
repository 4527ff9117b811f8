//! A request as it arrived, all of it.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::registry::TestTls;

/// Longest head of a request that is read.
const HEAD_MAX_BYTES: u64 = 256 << 10;
/// Longest body of a request that is read.
const BODY_MAX_BYTES: u64 = 16 << 20;

/// A request with everything in it.
pub(crate) struct Message {
    pub(crate) method: String,
    /// Path without its query, as sent.
    pub(crate) path: String,
    /// Query, as sent.
    pub(crate) query: String,
    /// Headers with lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads the next one; `None` when the client has closed the connection.
    pub(crate) fn read(stream: &mut BufReader<impl Read>) -> io::Result<Option<Message>> {
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
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        let mut message = Message { method, path, query, headers, body: Vec::new() };
        let len: u64 = message.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        stream.by_ref().take(len.min(BODY_MAX_BYTES)).read_to_end(&mut message.body)?;
        Ok(Some(message))
    }

    /// The first header of this name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether the client wants the connection kept.
    pub(crate) fn keeps_alive(&self) -> bool {
        !self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }

    /// The fields of a form; empty when the body is none.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let is_form = self.header("content-type").is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        if is_form { url::form_urlencoded::parse(&self.body).into_owned().collect() } else { Vec::new() }
    }
}

/// How a server with this certificate speaks TLS.
pub(crate) fn tls_server(tls: &TestTls) -> Arc<rustls::ServerConfig> {
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
