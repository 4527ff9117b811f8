//! As much of Go's `net/url` as decides how the kubelet reads `https://` + key.
//!
//! Source of truth: Go 1.27 `net/url/url.go`, `Parse`. Kept apart from real URL parsers on purpose: here the
//! quirks are the specification.

/// Why a text is no URL to Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GoUrlError {
    /// A control character.
    #[error("it holds a control character")]
    Control,
    /// A `%` that two hexadecimal digits do not follow, or that may not stand in a host.
    #[error("it holds a bad percent escape")]
    Escape,
    /// A character that cannot stand in a host, e.g. a space.
    #[error("its host holds a character that hosts cannot hold")]
    HostCharacter,
    /// The user info before `@` holds a character that it may not.
    #[error("its user info is malformed")]
    UserInfo,
    /// The text after the colon is not a number; globs are not possible in ports.
    #[error("its port is not a number")]
    Port,
    /// Brackets that are not around one IPv6 address in front; character classes are not possible.
    #[error("brackets may only hold an IPv6 address")]
    Bracket,
}

impl GoUrlError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> crate::reason::Reason {
        crate::reason::Reason::InvalidConfig
    }
}

/// Host (with port) and path of a URL, percent escapes undone; bytes, since escapes may stand for any byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoUrl {
    /// The authority without user info.
    pub host: Vec<u8>,
    /// The path, empty or with its leading slash.
    pub path: Vec<u8>,
}

impl GoUrl {
    /// Parses a text that begins with `https://` or `http://`.
    ///
    /// # Errors
    /// Where Go's parser refuses the text. It is not repeated in the error.
    pub fn parse(text: &str) -> Result<GoUrl, GoUrlError> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(GoUrlError::Control);
        }
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        let (authority, path) = rest.find('/').map_or((rest, ""), |i| rest.split_at(i));
        let host = authority_host(authority)?;
        let path = unescape(path.as_bytes(), Part::Other)?;
        unescape(fragment.as_bytes(), Part::Other)?;
        Ok(GoUrl { host, path })
    }

    /// Host and port as Go's `net.SplitHostPort` sees them; no port is an empty one.
    pub fn split_port(&self) -> (&[u8], &[u8]) {
        split_host_port(&self.host).unwrap_or((&self.host, b""))
    }
}

fn split_host_port(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = text.iter().rposition(|b| *b == b':')?;
    let (host, after_host, before_port);
    if text[0] == b'[' {
        let end = text.iter().position(|b| *b == b']')?;
        if end + 1 != colon {
            return None;
        }
        (host, after_host, before_port) = (&text[1..end], 1, end + 1);
    } else {
        (host, after_host, before_port) = (&text[..colon], 0, 0);
        if host.contains(&b':') {
            return None;
        }
    }
    if text[after_host..].contains(&b'[') || text[before_port..].contains(&b']') {
        return None;
    }
    Some((host, &text[colon + 1..]))
}

fn authority_host(authority: &str) -> Result<Vec<u8>, GoUrlError> {
    let Some((userinfo, host)) = authority.rsplit_once('@') else {
        return parse_host(authority.as_bytes());
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    let host = parse_host(host.as_bytes())?;
    if !userinfo.bytes().all(allowed) {
        return Err(GoUrlError::UserInfo);
    }
    unescape(userinfo.as_bytes(), Part::Other)?;
    Ok(host)
}

fn parse_host(host: &[u8]) -> Result<Vec<u8>, GoUrlError> {
    match host.iter().rposition(|b| *b == b'[') {
        Some(0) => parse_ip_literal(host),
        Some(_) => Err(GoUrlError::Bracket),
        None => {
            if let Some(colon) = host.iter().position(|b| *b == b':') {
                check_port(&host[colon..])?;
            }
            unescape(host, Part::Host)
        }
    }
}

fn parse_ip_literal(host: &[u8]) -> Result<Vec<u8>, GoUrlError> {
    let end = host.iter().rposition(|b| *b == b']').ok_or(GoUrlError::Bracket)?;
    let (inside, port) = (&host[1..end], &host[end + 1..]);
    check_port(port)?;
    let (address, zone) = match inside.windows(3).position(|w| w == b"%25") {
        Some(at) => (unescape(&inside[..at], Part::Host)?, unescape(&inside[at..], Part::Zone)?),
        None => (unescape(inside, Part::Host)?, Vec::new()),
    };
    let text = std::str::from_utf8(&address).map_err(|_| GoUrlError::Bracket)?;
    text.parse::<std::net::Ipv6Addr>().map_err(|_| GoUrlError::Bracket)?;
    if zone == b"%" {
        return Err(GoUrlError::Bracket);
    }
    Ok([b"[", &address[..], &zone, b"]", port].concat())
}

/// Empty, or a colon and digits.
fn check_port(port: &[u8]) -> Result<(), GoUrlError> {
    match port.split_first() {
        None => Ok(()),
        Some((b':', digits)) if digits.iter().all(u8::is_ascii_digit) => Ok(()),
        Some(_) => Err(GoUrlError::Port),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Zone,
    Other,
}

fn unescape(text: &[u8], part: Part) -> Result<Vec<u8>, GoUrlError> {
    let plain_in_host = |b: u8| b.is_ascii_alphanumeric() || b"!$&'()*+,;=:[]<>\"-_.~".contains(&b);
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        let b = text[i];
        if b != b'%' {
            if part != Part::Other && b < 0x80 && !plain_in_host(b) {
                return Err(GoUrlError::HostCharacter);
            }
            out.push(b);
            i += 1;
            continue;
        }
        let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
        let (Some(high), Some(low)) = (digit(i + 1), digit(i + 2)) else { return Err(GoUrlError::Escape) };
        let value = high << 4 | low;
        let percent = &text[i..i + 3] == b"%25";
        match part {
            // Hosts hold escapes only for bytes that are not ASCII.
            Part::Host if high < 8 && !percent => return Err(GoUrlError::Escape),
            Part::Zone if !percent && value != b' ' && !plain_in_host(value) => return Err(GoUrlError::Escape),
            Part::Host | Part::Zone | Part::Other => {}
        }
        out.push(value);
        i += 3;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text, and the host and path that Go finds in it.
    type Row = (&'static str, Result<(&'static str, &'static str), GoUrlError>);

    #[test]
    fn hosts_and_paths_are_read_as_go_reads_them() {
        let table: [Row; 16] = [
            ("https://a.b/c", Ok(("a.b", "/c"))),
            ("https://a.b:/c", Ok(("a.b:", "/c"))),
            ("https://https://a", Ok(("https:", "//a"))),
            ("https://u:p@a.b?q#f", Ok(("a.b", ""))),
            ("https://a/b%20c", Ok(("a", "/b c"))),
            ("https://[::1]:5", Ok(("[::1]:5", ""))),
            ("https://[fe80::1%25en0]", Ok(("[fe80::1%en0]", ""))),
            ("https://[1.2.3.4]", Err(GoUrlError::Bracket)),
            ("https://x[::1]", Err(GoUrlError::Bracket)),
            ("https://[::1", Err(GoUrlError::Bracket)),
            ("https://a:*", Err(GoUrlError::Port)),
            ("https://a:1:2", Err(GoUrlError::Port)),
            ("https://a b", Err(GoUrlError::HostCharacter)),
            ("https://a%41", Err(GoUrlError::Escape)),
            ("https://a/%4", Err(GoUrlError::Escape)),
            ("https://a\n", Err(GoUrlError::Control)),
        ];
        for (text, want) in table {
            let want = want.map(|(host, path)| GoUrl { host: host.into(), path: path.into() });
            assert_eq!(GoUrl::parse(text), want, "{text}");
        }
    }
}
