//! An absolute `http` or `https` URL, read strictly: what is judged is what is connected to.
//!
//! In: texts that a registry or an administrator wrote (realms, redirects, mirrors).
//! Out: scheme, host and port in lower case, path with query. Host forms that resolvers read as numbers
//! (`127.1`, `0x7f000001`) are refused, so that no address hides behind a name.
//!
//! Invariants: `numbers_that_hide_addresses_are_refused`, `origins_compare_scheme_host_and_port`,
//! `nothing_makes_the_parser_panic`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::host::Host;
use crate::reason::Reason;

/// Longest text that is read; longer ones occur only in attacks (presigned URLs have about 2 KiB).
pub const MAX_URL_BYTES: usize = 16 * 1024;

/// The two schemes that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UrlScheme {
    /// TLS.
    Https,
    /// Plain text.
    Http,
}

impl UrlScheme {
    /// The text before `://`.
    pub const fn as_str(self) -> &'static str {
        match self {
            UrlScheme::Https => "https",
            UrlScheme::Http => "http",
        }
    }

    /// The port where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            UrlScheme::Https => 443,
            UrlScheme::Http => 80,
        }
    }
}

/// Why a text is no URL that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpUrlError {
    /// There is no `scheme://` in front.
    #[error("the URL is not absolute")]
    NotAbsolute,
    /// The scheme is neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// A user name before `@`; credentials do not belong into URLs.
    #[error("the URL holds a user name")]
    UserInfo,
    /// A `#fragment`.
    #[error("the URL holds a fragment")]
    Fragment,
    /// The host or port is malformed, or the text is too long.
    #[error("the host or port of the URL is malformed")]
    Malformed,
}

impl HttpUrlError {
    /// The reason in the common vocabulary, for a URL that an administrator wrote. Realms and redirects have errors
    /// of their own around this one.
    pub const fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

/// Scheme, host and port: what credentials bind to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebOrigin {
    /// The scheme.
    pub scheme: UrlScheme,
    /// Host in lower case, without a final dot, IPv6 in brackets.
    pub name: String,
    /// The port, the scheme's own where none was written.
    pub port: u16,
}

impl WebOrigin {
    /// The origin of a registry host reached by `scheme`.
    pub fn of_host(scheme: UrlScheme, host: &Host) -> WebOrigin {
        let name = host.name().trim_end_matches('.').to_ascii_lowercase();
        WebOrigin { scheme, name, port: host.port().unwrap_or(scheme.default_port()) }
    }

    /// The host without the port, e.g. to ask whether it is a loopback one.
    pub fn host(&self) -> Host {
        Host::new(self.name.as_str())
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.name)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// A URL that was read strictly. `Display` and `Debug` leave the query out: it may be a signature.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    origin: WebOrigin,
    path: String,
    query: Option<String>,
}

impl HttpUrl {
    /// Reads an absolute URL. Characters that may not stand in a path or query are percent-encoded.
    ///
    /// # Errors
    /// The first rule that the text breaks; the text is not repeated.
    pub fn parse(text: &str) -> Result<HttpUrl, HttpUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(HttpUrlError::NotAbsolute)?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err(HttpUrlError::NotAbsolute);
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => UrlScheme::Https,
            "http" => UrlScheme::Http,
            _ => return Err(HttpUrlError::Scheme),
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(HttpUrlError::UserInfo);
        }
        if text.contains('#') {
            return Err(HttpUrlError::Fragment);
        }
        if text.len() > MAX_URL_BYTES || tail.starts_with('\\') {
            return Err(HttpUrlError::Malformed);
        }
        let (name, port) = read_authority(authority).ok_or(HttpUrlError::Malformed)?;
        let origin = WebOrigin { scheme, name, port: port.unwrap_or(scheme.default_port()) };
        Ok(HttpUrl::with_tail(origin, tail))
    }

    /// Reads a `Location` value: absolute, `//host/path`, `/path`, `?query` or relative to this URL's directory.
    /// A fragment is dropped.
    ///
    /// # Errors
    /// As [`HttpUrl::parse`].
    pub fn join(&self, location: &str) -> Result<HttpUrl, HttpUrlError> {
        let location = location.trim().split('#').next().unwrap_or_default();
        if location.len() > MAX_URL_BYTES {
            return Err(HttpUrlError::Malformed);
        }
        if location.starts_with("//") {
            return HttpUrl::parse(&format!("{}:{location}", self.origin.scheme.as_str()));
        }
        let before_path = location.split(['/', '?']).next().unwrap_or_default();
        if before_path.contains(':') {
            return HttpUrl::parse(location);
        }
        let tail = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{}{location}", self.path),
            None => self.path_and_query(),
            Some(_) => {
                let directory = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
                format!("{directory}{location}")
            }
        };
        Ok(HttpUrl::with_tail(self.origin.clone(), &tail))
    }

    fn with_tail(origin: WebOrigin, tail: &str) -> HttpUrl {
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(encode(query))),
            None => (tail, None),
        };
        let path = if path.is_empty() { "/".to_owned() } else { encode(path) };
        HttpUrl { origin, path, query }
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &WebOrigin {
        &self.origin
    }

    /// The host to name in messages and in the `Host` header; a default port is left out.
    pub fn authority(&self) -> Host {
        if self.origin.port == self.origin.scheme.default_port() {
            self.origin.host()
        } else {
            Host::new(format!("{}:{}", self.origin.name, self.origin.port))
        }
    }

    /// The path, beginning with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its question mark. May hold signatures: never log it.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Path and query as they go into the request.
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// The whole URL with its query, for the HTTP client. Not for messages.
    pub fn to_request_uri(&self) -> String {
        format!("{}{}", self.origin, self.path_and_query())
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)?;
        if self.query.is_some() { f.write_str("?***") } else { Ok(()) }
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Host and port of an authority without user info; `None` if either is malformed.
fn read_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
        Some(_) => return None,
        None => None,
    };
    if let Some(address) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().ok()?;
        return Some((format!("[{address}]"), port));
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if name.len() > 253 || !name.split('.').all(label) {
        return None;
    }
    // A last label that is a number makes resolvers read the whole as an address, in several notations.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hex = last.strip_prefix("0x").is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || is_hex;
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some((name, port))
}

/// Percent-encodes what RFC 3986 does not allow in a path or query; existing escapes stay.
fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_that_hide_addresses_are_refused() {
        for host in ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.4.5", "a.0x10", "256.1.1.1", "1.2.3.08"]
        {
            assert_eq!(HttpUrl::parse(&format!("https://{host}/")), Err(HttpUrlError::Malformed), "{host}");
        }
        for host in ["127.0.0.1", "a.b1", "1a", "0xg.de", "[::1]"] {
            assert!(HttpUrl::parse(&format!("https://{host}/")).is_ok(), "{host}");
        }
    }

    #[test]
    fn odd_texts_are_refused_by_the_first_rule_they_break() {
        let table = [
            ("/token", HttpUrlError::NotAbsolute),
            ("", HttpUrlError::NotAbsolute),
            ("//h/x", HttpUrlError::NotAbsolute),
            ("ftp://h/", HttpUrlError::Scheme),
            ("https://u@h/", HttpUrlError::UserInfo),
            ("https://h/#f", HttpUrlError::Fragment),
            ("https://h\\@evil/", HttpUrlError::Malformed),
            ("https:///x", HttpUrlError::Malformed),
            ("https://h:0/", HttpUrlError::Malformed),
            ("https://h:/", HttpUrlError::Malformed),
            ("https://h:+1/", HttpUrlError::Malformed),
            ("https://a..b/", HttpUrlError::Malformed),
            ("https://a b/", HttpUrlError::Malformed),
            ("https://a%2eb/", HttpUrlError::Malformed),
            ("https://[::1/", HttpUrlError::Malformed),
            ("https://[fe80::1%25en0]/", HttpUrlError::Malformed),
        ];
        for (text, want) in table {
            assert_eq!(HttpUrl::parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn origins_compare_scheme_host_and_port() {
        let origin = |text: &str| HttpUrl::parse(text).map(|u| u.origin().clone());
        assert_eq!(origin("https://A.example./x"), origin("HTTPS://a.example:443"));
        for other in ["http://a.example", "https://a.example:8443", "https://b.example"] {
            assert_ne!(origin("https://a.example"), origin(other), "{other}");
        }
    }

    #[test]
    fn locations_are_joined() {
        let base = HttpUrl::parse("https://r.io:5000/v2/a/blobs/x?old=1").expect("a plain URL");
        let table = [
            ("https://cdn.io/b?sig=1#f", "https://cdn.io/b?sig=1"),
            ("//cdn.io/b", "https://cdn.io/b"),
            ("/b c", "https://r.io:5000/b%20c"),
            ("?n=2", "https://r.io:5000/v2/a/blobs/x?n=2"),
            ("y", "https://r.io:5000/v2/a/blobs/y"),
            ("/x?u=https://e/", "https://r.io:5000/x?u=https://e/"),
        ];
        for (location, want) in table {
            assert_eq!(base.join(location).map(|u| u.to_request_uri()), Ok(want.to_owned()), "{location}");
        }
        assert_eq!(base.join("file:///etc/passwd"), Err(HttpUrlError::Scheme));
    }

    #[test]
    fn a_query_never_shows() {
        let url = HttpUrl::parse("https://s3.example/b?X-Amz-Signature=canary").expect("a plain URL");
        assert_eq!(format!("{url} {url:?}"), "https://s3.example/b?*** https://s3.example/b?***");
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(text in ".{0,60}", location in ".{0,60}") {
            let _ = HttpUrl::parse(&text);
            let _ = HttpUrl::parse(&format!("https://{text}"));
            let base = HttpUrl::parse("https://r.io/v2/").expect("a plain URL");
            if let Ok(url) = base.join(&location) {
                prop_assert_eq!(HttpUrl::parse(&url.to_request_uri()), Ok(url));
            }
        }
    }
}
