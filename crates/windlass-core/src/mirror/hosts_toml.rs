//! containerd's `hosts.toml`, read from its text.
//!
//! Source of truth: containerd `core/remotes/docker/config/hosts.go`. Two differences: unknown keys are reported
//! instead of passed over in silence, and an invalid file is an error instead of "no file".
//!
//! Invariants: `hosts_keep_the_order_of_the_file`, `no_header_value_shows`, `nothing_makes_the_parser_panic`.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::endpoints::TlsAsked;
use super::{ClientCertificate, EndpointUrl, Operation, Settings, Verify};
use crate::httpurl::HttpUrlError;
use crate::reason::Reason;
use crate::secret::Secret;

/// Largest file that is read.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Most `[host]` tables of one file.
pub const MAX_HOSTS: usize = 64;

/// Why a `hosts.toml` cannot be used. Values are not repeated, they may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The text is no TOML.
    #[error("line {line}: not valid TOML: {message}")]
    Toml {
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key has a value of the wrong type.
    #[error("line {line}: {key} must be {want}")]
    Type {
        /// Line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What it may be.
        want: &'static str,
    },
    /// A word in `capabilities` that is not known.
    #[error("line {line}: capabilities are pull, resolve, push and referrers, not {word:?}")]
    Capability {
        /// Line, from 1.
        line: usize,
        /// The word.
        word: String,
    },
    /// `server` or the name of a `[host]` table is no URL that can be used.
    #[error("line {line}: {key}: {source}")]
    Url {
        /// Line, from 1.
        line: usize,
        /// `server` or `host`.
        key: &'static str,
        /// What is wrong with it.
        source: HttpUrlError,
    },
    /// The file is larger than [`MAX_FILE_BYTES`] or has more than [`MAX_HOSTS`] tables.
    #[error("{what} is limited to {limit}")]
    Limit {
        /// What was too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl MirrorError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

/// A key that containerd passes over; most often a typo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Line, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
}

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Manifests and blobs by digest.
    pub pull: bool,
    /// Tags.
    pub resolve: bool,
    /// Uploads.
    pub push: bool,
    /// The referrers API.
    pub referrers: bool,
}

impl Capabilities {
    /// What a host without a list may do.
    pub const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true, referrers: true };

    /// Whether the host takes part in an operation; a tag is resolved only where it can be pulled too.
    pub const fn allow(&self, operation: Operation) -> bool {
        match operation {
            Operation::Resolve => self.resolve && self.pull,
            Operation::Pull => self.pull,
            Operation::Push => self.push,
        }
    }
}

/// One `[host]` table, or the top level, which describes `server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Where it is; `None` only for a top level without `server`.
    pub url: Option<EndpointUrl>,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// How to talk to it.
    pub settings: Settings,
    tls: TlsAsked,
}

impl HostEntry {
    pub(super) fn tls_asked(&self) -> TlsAsked {
        self.tls
    }
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsFile {
    /// The `[host]` tables in the order of the file.
    pub hosts: Vec<HostEntry>,
    /// The registry itself.
    pub server: HostEntry,
    /// Keys that mean nothing.
    pub unknown: Vec<UnknownKey>,
}

impl HostsFile {
    /// Reads the text of a file that lies in `directory`; relative paths are joined to it.
    ///
    /// # Errors
    /// [`MirrorError`] names the line.
    pub fn parse(text: &str, directory: &Path) -> Result<HostsFile, MirrorError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(MirrorError::Limit { what: "the size of hosts.toml in bytes", limit: MAX_FILE_BYTES });
        }
        let mut reader = Reader { text, directory, unknown: Vec::new() };
        let malformed = |error: toml::de::Error| MirrorError::Toml {
            line: reader.line(error.span().map_or(0, |span| span.start)),
            message: error.message().lines().next().unwrap_or_default().to_owned(),
        };
        let root = DeTable::parse(text).map_err(malformed)?;
        // The parser leaves numbers as text; containerd's refuses a file with a malformed one, whatever its key.
        toml::from_str::<toml::Table>(text).map_err(malformed)?;
        let root = root.get_ref();
        let server = reader.entry(root, Place::Top)?;
        let mut hosts = Vec::new();
        if let Some((key, value)) = root.iter().find(|(key, _)| key.get_ref() == "host") {
            let tables = value.get_ref().as_table().ok_or_else(|| reader.wrong(key, "a table of hosts"))?;
            if tables.len() > MAX_HOSTS {
                return Err(MirrorError::Limit { what: "the number of [host] tables", limit: MAX_HOSTS });
            }
            let mut tables: Vec<_> = tables.iter().collect();
            tables.sort_by_key(|(name, _)| name.span().start);
            for (name, value) in tables {
                let table = value.get_ref().as_table().ok_or_else(|| reader.wrong(name, "a table"))?;
                hosts.push(reader.entry(table, Place::Host(name))?);
            }
        }
        reader.unknown.sort_by_key(|key| key.line);
        Ok(HostsFile { hosts, server, unknown: reader.unknown })
    }
}

type Key<'t, 'i> = &'t Spanned<std::borrow::Cow<'i, str>>;
type Value<'t, 'i> = &'t Spanned<DeValue<'i>>;

enum Place<'t, 'i> {
    Top,
    Host(Key<'t, 'i>),
}

struct Reader<'a> {
    text: &'a str,
    directory: &'a Path,
    unknown: Vec<UnknownKey>,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }

    fn wrong(&self, key: Key<'_, '_>, want: &'static str) -> MirrorError {
        MirrorError::Type { line: self.line(key.span().start), key: key.get_ref().to_string(), want }
    }

    fn entry(&mut self, table: &DeTable<'_>, place: Place<'_, '_>) -> Result<HostEntry, MirrorError> {
        let mut settings = Settings::default();
        let mut capabilities = Capabilities::ALL;
        let (mut override_path, mut tls, mut server) = (false, TlsAsked::No, None);
        for (key, value) in table {
            match (key.get_ref().as_ref(), &place) {
                ("capabilities", _) => capabilities = self.capabilities(key, value)?,
                ("ca", _) => {
                    settings.ca = self.strings(key, value)?.iter().map(|p| self.directory.join(p)).collect();
                    tls = TlsAsked::Yes;
                }
                ("client", _) => {
                    settings.client = self.client(key, value)?;
                    tls = TlsAsked::Yes;
                }
                ("skip_verify", _) => {
                    settings.verify = if self.boolean(key, value)? { Verify::Skip } else { Verify::Yes };
                    tls = TlsAsked::Yes;
                }
                ("header", _) => settings.headers = self.headers(key, value)?,
                ("override_path", _) => override_path = self.boolean(key, value)?,
                ("dial_timeout", _) => settings.dial_timeout = self.duration(key, value)?,
                ("server", Place::Top) => {
                    let text = value.get_ref().as_str().ok_or_else(|| self.wrong(key, "a URL"))?;
                    server = Some((text, key));
                }
                ("host", Place::Top) => {}
                (other, _) => {
                    let line = self.line(key.span().start);
                    self.unknown.push(UnknownKey { line, key: other.to_owned() });
                }
            }
        }
        let (named, what) = match place {
            Place::Top => (server.filter(|(text, _)| !text.is_empty()), "server"),
            Place::Host(name) => (Some((name.get_ref().as_ref(), name)), "host"),
        };
        let url = match named {
            Some((text, key)) => {
                let line = self.line(key.span().start);
                let read = EndpointUrl::parse(text, override_path);
                Some(read.map_err(|source| MirrorError::Url { line, key: what, source })?)
            }
            None => None,
        };
        // Without `server` the top level's list means nothing to containerd: the registry itself can do everything.
        let capabilities = if url.is_some() { capabilities } else { Capabilities::ALL };
        Ok(HostEntry { url, capabilities, settings, tls })
    }

    fn boolean(&self, key: Key<'_, '_>, value: Value<'_, '_>) -> Result<bool, MirrorError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// One string, or an array of strings.
    fn strings(&self, key: Key<'_, '_>, value: Value<'_, '_>) -> Result<Vec<String>, MirrorError> {
        const WANT: &str = "a string or an array of strings";
        if let Some(text) = value.get_ref().as_str() {
            return Ok(vec![text.to_owned()]);
        }
        let array = value.get_ref().as_array().ok_or_else(|| self.wrong(key, WANT))?;
        let text = |item: Value<'_, '_>| item.get_ref().as_str().map(str::to_owned);
        array.iter().map(text).collect::<Option<_>>().ok_or_else(|| self.wrong(key, WANT))
    }

    fn capabilities(&self, key: Key<'_, '_>, value: Value<'_, '_>) -> Result<Capabilities, MirrorError> {
        if !value.get_ref().is_array() {
            return Err(self.wrong(key, "an array of strings"));
        }
        let words = self.strings(key, value)?;
        if words.is_empty() {
            return Ok(Capabilities::ALL);
        }
        let mut all = Capabilities { pull: false, resolve: false, push: false, referrers: false };
        for word in words {
            match word.to_lowercase().as_str() {
                "pull" => all.pull = true,
                "resolve" => all.resolve = true,
                "push" => all.push = true,
                "referrers" => all.referrers = true,
                _ => return Err(MirrorError::Capability { line: self.line(key.span().start), word }),
            }
        }
        Ok(all)
    }

    /// A file with both parts, several such files, or pairs of certificate and key.
    fn client(&self, key: Key<'_, '_>, value: Value<'_, '_>) -> Result<Vec<ClientCertificate>, MirrorError> {
        const WANT: &str = "a string, an array of strings, or an array of [certificate, key] pairs";
        let whole = |p: &str| ClientCertificate { certificate: self.directory.join(p), key: None };
        if let Some(text) = value.get_ref().as_str() {
            return Ok(vec![whole(text)]);
        }
        let array = value.get_ref().as_array().ok_or_else(|| self.wrong(key, WANT))?;
        let mut found = Vec::new();
        for item in array.iter() {
            if let Some(text) = item.get_ref().as_str() {
                found.push(whole(text));
                continue;
            }
            let pair = item.get_ref().as_array().ok_or_else(|| self.wrong(key, WANT))?;
            let parts: Option<Vec<&str>> = pair.iter().map(|part| part.get_ref().as_str()).collect();
            match parts.as_deref() {
                Some([certificate, secret]) => found.push(ClientCertificate {
                    certificate: self.directory.join(certificate),
                    key: (!secret.is_empty()).then(|| self.directory.join(secret)),
                }),
                Some(_) | None => return Err(self.wrong(key, WANT)),
            }
        }
        Ok(found)
    }

    fn headers(&self, key: Key<'_, '_>, value: Value<'_, '_>) -> Result<Vec<(String, Secret<String>)>, MirrorError> {
        let table = value.get_ref().as_table().ok_or_else(|| self.wrong(key, "a table of headers"))?;
        let mut found = Vec::new();
        for (name, value) in table {
            for text in self.strings(name, value)? {
                if !is_header(name.get_ref(), &text) {
                    return Err(self.wrong(name, "a header name and value"));
                }
                found.push((name.get_ref().to_string(), Secret::new(text)));
            }
        }
        Ok(found)
    }

    fn duration(&self, key: Key<'_, '_>, value: Value<'_, '_>) -> Result<Option<Duration>, MirrorError> {
        const WANT: &str = "a duration such as \"5s\"";
        match value.get_ref().as_str() {
            Some("") => Ok(None),
            Some(text) => parse_go_duration(text).map(Some).ok_or_else(|| self.wrong(key, WANT)),
            None => Err(self.wrong(key, WANT)),
        }
    }
}

/// RFC 9110 field names and values; anything else could smuggle a second header in.
fn is_header(name: &str, value: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token) && value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

/// Go's `time.ParseDuration` without negative values: `1h30m`, `1.5s`, `250ms`, `0`.
pub(crate) fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = if number == "." { return None } else { number.parse().ok()? };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit_seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty() && text != "+").then_some(total)
}
