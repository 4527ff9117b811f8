//! AWS Signature Version 4, in headers. Pure: the time is an argument.
//!
//! In: a request and the keys. Out: the headers to add. Everything that is signed is sent exactly as it was signed.
//! Source of truth: "Signature Version 4 signing process" of the AWS General Reference, and its published test suite.
//!
//! Invariants: `published_vectors_pass`, `no_key_shows`.

use std::fmt::Write as _;
use std::time::SystemTime;

use aws_lc_rs::{digest, hmac};
use windlass_core::secret::Secret;
use zeroize::Zeroizing;

use super::keys::Keys;
use crate::cloud::form::push_encoded;
use crate::cloud::moment;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed.
#[derive(Clone, Debug)]
pub(crate) struct ToSign<'a> {
    /// The method.
    pub(crate) method: &'a str,
    /// The path as it goes on the wire.
    pub(crate) path: &'a str,
    /// The query as it goes on the wire, without its question mark.
    pub(crate) query: &'a str,
    /// `host` and whatever else is to be signed; names in any case. Date and session token come by themselves.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The whole body.
    pub(crate) body: &'a [u8],
}

/// For which service of which region a signature counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// The region.
    pub(crate) region: &'a str,
    /// The service, as signatures name it.
    pub(crate) service: &'a str,
}

/// What has to be added to the request.
#[derive(Debug)]
pub(crate) struct Signed {
    /// `X-Amz-Date`.
    pub(crate) date: String,
    /// `Authorization`.
    pub(crate) authorization: Secret<String>,
    /// What was hashed, for tests against the published texts; it may hold the session token.
    #[cfg(test)]
    canonical: String,
}

/// Signs. `X-Amz-Security-Token` has to be sent where the keys have a session token.
pub(crate) fn sign(what: &ToSign<'_>, keys: &Keys, scope: Scope<'_>, at: SystemTime) -> Signed {
    let date = moment::basic(at);
    let (canonical, names) = canonical(what, keys, &date);
    let day = &date[..8];
    let scope_text = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!(
        "{ALGORITHM}\n{date}\n{scope_text}\n{}",
        hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    );
    let secret = Zeroizing::new(format!("AWS4{}", keys.secret.expose()));
    let key = [day, scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), |key, part| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
        });
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope_text}, SignedHeaders={names}, Signature={signature}",
        keys.access_key_id
    );
    Signed {
        date,
        authorization: Secret::new(authorization),
        #[cfg(test)]
        canonical: canonical.to_string(),
    }
}

/// The canonical request, and the names of the signed headers.
fn canonical(what: &ToSign<'_>, keys: &Keys, date: &str) -> (Zeroizing<String>, String) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let token = keys.session_token.as_ref().map(|token| ("x-amz-security-token", token.expose().as_str()));
    for (name, value) in what.headers.iter().copied().chain([("x-amz-date", date)]).chain(token) {
        let (name, value) = (name.to_ascii_lowercase(), value.split_whitespace().collect::<Vec<_>>().join(" "));
        match headers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&value);
            }
            None => headers.push((name, value)),
        }
    }
    headers.sort();
    let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str(what.method);
    text.push('\n');
    push_path(&mut text, what.path);
    text.push('\n');
    push_query(&mut text, what.query);
    text.push('\n');
    for (name, value) in &headers {
        text.push_str(name);
        text.push(':');
        text.push_str(value);
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&names);
    text.push('\n');
    text.push_str(&hex(digest::digest(&digest::SHA256, what.body).as_ref()));
    (text, names)
}

/// Dots and empty segments go, every other segment is encoded once more than on the wire.
fn push_path(to: &mut String, path: &str) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        to.push('/');
        push_encoded(to, segment.as_bytes());
    }
    if segments.is_empty() || path.ends_with('/') {
        to.push('/');
    }
}

/// Names and values are encoded, once in all, and sorted.
fn push_query(to: &mut String, query: &str) {
    let encoded = |text: &str| {
        let mut once = String::new();
        push_encoded(&mut once, &decoded(text));
        once
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    to.push_str(&pairs.join("&"));
}

fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
