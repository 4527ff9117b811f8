//! The registry's own words, cut and made harmless before anybody prints them (CVE-2021-25743 class).
//!
//! Invariants: `foreign_words_are_bounded_and_escaped`, `warnings_are_bounded`.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};
use serde::Deserialize;

/// Most bytes of foreign text that are shown in one place.
pub(crate) const SHOWN_BYTES: usize = 1024;
/// Most bytes of all warnings of one session (distribution-spec, "Warnings").
const WARNING_BYTES: usize = 4096;
/// Most entries of an error document that are looked at.
const ERRORS: usize = 8;

/// What a registry said about an error: at most 1 KiB, control characters escaped, possibly empty.
///
/// Prints itself with a leading colon, or as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    text: String,
    codes: Vec<String>,
}

#[derive(Deserialize)]
struct ErrorDocument {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: serde_json::Value,
    #[serde(default)]
    detail: serde_json::Value,
}

impl Words {
    /// Reads the error document of the distribution specification, or plain text.
    pub(crate) fn from_body(content_type: Option<&str>, body: &[u8]) -> Words {
        if let Ok(document) = serde_json::from_slice::<ErrorDocument>(body)
            && !document.errors.is_empty()
        {
            let entries = &document.errors[..document.errors.len().min(ERRORS)];
            let texts: Vec<String> = entries.iter().map(one_error).filter(|t| !t.is_empty()).collect();
            let codes = entries.iter().filter_map(|e| e.code.as_str()).map(|c| escape(c, 64)).collect();
            return Words { text: escape(&texts.join("; "), SHOWN_BYTES), codes };
        }
        if let Ok(other) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body) {
            let known = ["error_description", "message", "details", "error"];
            let text = known.iter().find_map(|k| other.get(*k)?.as_str()).unwrap_or_default();
            return Words { text: escape(text, SHOWN_BYTES), codes: Vec::new() };
        }
        let plain = content_type.is_some_and(|t| t.starts_with("text/plain"));
        let text = if plain { String::from_utf8_lossy(body).trim().to_owned() } else { String::new() };
        Words { text: escape(&text, SHOWN_BYTES), codes: Vec::new() }
    }

    /// The text alone; empty when the registry said nothing.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the document has this error code, e.g. `TOOMANYREQUESTS`.
    pub fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|c| c.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

fn one_error(entry: &ErrorEntry) -> String {
    let code = entry.code.as_str().unwrap_or_default();
    let message = entry.message.as_str().unwrap_or_default();
    let detail = entry.detail.as_str().unwrap_or_default();
    [code, message, detail].iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

/// Foreign text for people: control, direction and invisible characters escaped, cut at `most` bytes.
pub fn escape(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        let hostile = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        let piece: String = if hostile { c.escape_default().collect() } else { c.to_string() };
        if shown.len() + piece.len() > most {
            shown.push_str("...");
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

/// What a registry told about its rate limit. Numbers are only ever read from the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in the window.
    pub limit: Option<u64>,
    /// Requests left in the window.
    pub remaining: Option<u64>,
    /// The window.
    pub window: Option<Duration>,
    /// What is counted: an address or a user, as the registry names it.
    pub source: Option<String>,
}

impl RateLimit {
    /// Reads `RateLimit-Limit`, `RateLimit-Remaining` and Docker Hub's source header; `None` when none is there.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<RateLimit> {
        let text = |name: &'static str| headers.get(HeaderName::from_static(name))?.to_str().ok();
        let number = |text: &str| text.split([';', ',']).next()?.trim().parse().ok();
        let window = |text: &str| {
            let seconds = text.split(';').find_map(|p| p.trim().strip_prefix("w="))?.parse().ok()?;
            Some(Duration::from_secs(seconds))
        };
        let limit = text("ratelimit-limit");
        let rate = RateLimit {
            limit: limit.and_then(number),
            remaining: text("ratelimit-remaining").and_then(number),
            window: limit.and_then(window),
            source: text("docker-ratelimit-source").map(|s| escape(s, 128)),
        };
        (rate != RateLimit::default()).then_some(rate)
    }
}

/// Warnings that registries attached to their answers; shown once, never acted on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings {
    texts: Vec<String>,
    bytes: usize,
}

impl Warnings {
    /// Takes up the `Warning: 299 - "..."` fields.
    pub(crate) fn add(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(header::WARNING) {
            let Some(text) = value.to_str().ok().and_then(warning_text) else { continue };
            let text = escape(&text, SHOWN_BYTES);
            let seen = self.texts.contains(&text);
            if !seen && self.bytes + text.len() <= WARNING_BYTES {
                self.bytes += text.len();
                self.texts.push(text);
            }
        }
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }
}

fn warning_text(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 ")?.trim_start();
    let quoted = quoted.split_once(' ')?.1.trim().strip_prefix('"')?;
    let mut text = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

/// `Retry-After` as a wait from `now`: seconds or an HTTP date; a date in the past is no wait.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn foreign_words_are_bounded_and_escaped() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2Jway","detail":{"x":1}},{"code":"X"}]}"#;
        let words = Words::from_body(None, body);
        assert_eq!(words.as_str(), "DENIED no\\u{1b}[2Jway; X");
        assert!(words.has_code("denied") && !words.has_code("DETAIL"));
        assert_eq!(words.to_string(), ": DENIED no\\u{1b}[2Jway; X");
        let long = format!(r#"{{"errors":[{{"code":"A","message":"{}"}}]}}"#, "x".repeat(9000));
        assert!(Words::from_body(None, long.as_bytes()).as_str().len() <= SHOWN_BYTES + 3);
        assert_eq!(Words::from_body(Some("text/html"), b"<html>hello</html>").to_string(), "");
        assert_eq!(Words::from_body(Some("text/plain; charset=utf-8"), b"gone\n").to_string(), ": gone");
        assert_eq!(Words::from_body(None, br#"{"details":"incorrect username"}"#).as_str(), "incorrect username");
        assert_eq!(escape("a\u{202e}b", 99), "a\\u{202e}b");
    }

    #[test]
    fn rate_limits_are_read_not_guessed() {
        let mut headers = HeaderMap::new();
        assert_eq!(RateLimit::from_headers(&headers), None);
        headers.insert("ratelimit-limit", HeaderValue::from_static("100;w=21600"));
        headers.insert("ratelimit-remaining", HeaderValue::from_static("42;w=21600"));
        headers.insert("docker-ratelimit-source", HeaderValue::from_static("192.0.2.1"));
        let want = RateLimit {
            limit: Some(100),
            remaining: Some(42),
            window: Some(Duration::from_secs(21600)),
            source: Some("192.0.2.1".into()),
        };
        assert_eq!(RateLimit::from_headers(&headers), Some(want));
    }

    #[test]
    fn warnings_are_bounded() {
        let mut warnings = Warnings::default();
        let mut headers = HeaderMap::new();
        headers.append(header::WARNING, HeaderValue::from_static(r#"299 - "soon \"gone\"""#));
        headers.append(header::WARNING, HeaderValue::from_static(r#"199 - "other code""#));
        headers.append(header::WARNING, HeaderValue::from_static("299 nonsense"));
        warnings.add(&headers);
        warnings.add(&headers);
        assert_eq!(warnings.texts(), ["soon \"gone\""]);
        for n in 0..100 {
            let text = format!(r#"299 - "{n}{}""#, "x".repeat(500));
            headers.insert(header::WARNING, HeaderValue::from_str(&text).unwrap());
            warnings.add(&headers);
        }
        assert!(warnings.texts().iter().map(String::len).sum::<usize>() <= WARNING_BYTES);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let table = [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (value, want) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            assert_eq!(retry_after(&headers, now), want.map(Duration::from_secs), "{value}");
        }
    }
}
