//! Image references: the string in a pod's `image` field, parsed once.
//!
//! In: the text as typed. Out: a [`Reference`] whose parts are valid, or the rule it breaks.
//! Source of truth: distribution/reference v0.6.0 (`normalize.go`, `regexp.go`), which Kubernetes uses since 1.29.
//! A first segment with a dot that is no host name (`my_host.example/app`) is refused here; upstream reads it as a
//! path without any host, which no registry could be asked for.
//!
//! Invariants: `print_then_parse_is_identity`, `hostile_text_never_panics`, `a_normalised_name_names_the_same_image`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};
use crate::host::Host;
use crate::reason::Reason;

/// The registry of names that name none.
pub const DEFAULT_HOST: &str = "docker.io";
/// What `docker login` once called [`DEFAULT_HOST`]; rewritten to it.
const LEGACY_DEFAULT_HOST: &str = "index.docker.io";
/// The namespace of one-component names at [`DEFAULT_HOST`].
const OFFICIAL_PREFIX: &str = "library/";
/// The tag of names that carry neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest path in bytes, an added `library/` included, the host not. distribution: `RepositoryNameTotalLengthMax`.
pub const PATH_MAX_BYTES: usize = 255;
/// Longest tag in bytes.
pub const TAG_MAX_BYTES: usize = 128;
/// Fewest hexadecimal digits of anything that looks like a digest. distribution: `DigestRegexp`.
const DIGEST_MIN_HEX: usize = 32;
/// How much of a refused name its error repeats.
const SHOWN_MAX_CHARS: usize = 300;

/// An image reference. `as typed` and `normalised` forms are both kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    typed: Box<str>,
    host: Host,
    path: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

/// The rule that a refused name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceFault {
    /// Not `[host[:port]/]path[:tag][@digest]`.
    Format,
    /// The path is longer than [`PATH_MAX_BYTES`].
    TooLong,
    /// The path holds a capital letter.
    Uppercase,
    /// The digest has the wrong length or a capital letter.
    DigestEncoded,
    /// The digest's algorithm is none of sha256, sha384, sha512.
    DigestAlgorithm,
    /// The whole name is 64 hexadecimal digits, which would be mistaken for an image ID.
    Identifier,
}

impl fmt::Display for ReferenceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReferenceFault::Format => "invalid reference format",
            ReferenceFault::TooLong => "repository name must not be more than 255 characters",
            ReferenceFault::Uppercase => "repository name must be lowercase",
            ReferenceFault::DigestEncoded => "invalid checksum digest length or format",
            ReferenceFault::DigestAlgorithm => "unsupported digest algorithm",
            ReferenceFault::Identifier => "cannot specify 64-byte hexadecimal strings",
        })
    }
}

/// A text that is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {shown:?}: {fault}")]
pub struct ReferenceError {
    /// The rule it breaks.
    pub fault: ReferenceFault,
    /// The text, shortened.
    shown: Box<str>,
}

impl ReferenceError {
    /// Always [`Reason::InvalidReference`].
    pub fn reason(&self) -> Reason {
        Reason::InvalidReference
    }
}

impl Reference {
    /// Parses and normalises an image name.
    ///
    /// # Errors
    /// [`ReferenceError`] names the rule and repeats at most 300 characters of the text.
    pub fn parse(typed: &str) -> Result<Reference, ReferenceError> {
        parse(typed).map_err(|fault| ReferenceError { fault, shown: typed.chars().take(SHOWN_MAX_CHARS).collect() })
    }

    /// The registry, normalised: `docker.io` for short names. Case is kept.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The repository's path below the host, with `library/` where it is implied.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host/path`: the key of credentials, pull records and allow-lists.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The tag as written, if one was.
    pub fn tag_explicit(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The tag, `latest` where neither tag nor digest was written; none with a digest alone.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some(DEFAULT_TAG),
            (None, Some(_)) => None,
        }
    }

    /// The digest as written. Its algorithm may be one that no content is addressed by, see
    /// [`Digest::parse_in_reference`].
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The text exactly as it was given.
    pub fn as_typed(&self) -> &str {
        &self.typed
    }

    /// What the kubelet sends over CRI: the text, `:latest` appended where neither tag nor digest is written.
    pub fn cri_image(&self) -> String {
        match (&self.tag, &self.digest) {
            (None, None) => format!("{}:{DEFAULT_TAG}", self.typed),
            _ => self.typed.to_string(),
        }
    }

    /// The canonical form a runtime stores; a digest drops the tag.
    pub fn runtime_ref(&self) -> String {
        match (&self.digest, self.tag()) {
            (Some(digest), _) => format!("{}@{digest}", self.repository()),
            (None, tag) => format!("{}:{}", self.repository(), tag.unwrap_or(DEFAULT_TAG)),
        }
    }

    /// The normalised name with every part that was written, nothing dropped or implied but host and `library/`.
    pub fn normalised(&self) -> String {
        self.with_parts(self.repository())
    }

    /// The short form people write: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let name = if self.host.as_str() == DEFAULT_HOST {
            match self.path.strip_prefix(OFFICIAL_PREFIX) {
                Some(rest) if !rest.contains('/') => rest.to_owned(),
                Some(_) | None => self.path.to_string(),
            }
        } else {
            self.repository()
        };
        self.with_parts(name)
    }

    fn with_parts(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }
}

fn parse(typed: &str) -> Result<Reference, ReferenceFault> {
    if typed.len() == 64 && typed.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(ReferenceFault::Identifier);
    }
    let (host, rest) = split_host(typed);
    // Upstream looks at everything before the first colon, so `repo@SHA256:...` is a matter of case too.
    if rest.split(':').next().is_some_and(|name| name.chars().any(char::is_uppercase)) {
        return Err(ReferenceFault::Uppercase);
    }
    let (name, digest) = split_optional(rest, '@');
    let (name, tag) = split_optional(name, ':');
    let official = host == DEFAULT_HOST && !name.contains('/');
    let path = if official { format!("{OFFICIAL_PREFIX}{name}") } else { name.to_owned() };
    if !is_host(host) || !is_path(name) || !tag.is_none_or(is_tag) || !digest.is_none_or(looks_like_digest) {
        return Err(ReferenceFault::Format);
    }
    if path.len() > PATH_MAX_BYTES {
        return Err(ReferenceFault::TooLong);
    }
    let digest = digest.map(Digest::parse_in_reference).transpose().map_err(|e| match e {
        DigestError::Encoded { .. } => ReferenceFault::DigestEncoded,
        DigestError::Algorithm | DigestError::Format => ReferenceFault::DigestAlgorithm,
    })?;
    Ok(Reference { typed: typed.into(), host: Host::new(host), path: path.into(), tag: tag.map(Into::into), digest })
}

/// distribution `splitDockerDomain`: the first segment is a host if it cannot be part of a path.
fn split_host(typed: &str) -> (&str, &str) {
    let (host, rest) = match typed.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (first, rest),
        Some(_) | None => (DEFAULT_HOST, typed),
    };
    (if host == LEGACY_DEFAULT_HOST { DEFAULT_HOST } else { host }, rest)
}

fn is_host_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// `( label { "." label } | "[" hex-and-colons "]" ) [ ":" digits ]`
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            match port.strip_prefix(':') {
                Some(port) => return is_port(port),
                None => return port.is_empty(),
            }
        }
        None => split_optional(text, ':'),
    };
    let is_label = |label: &str| {
        let ends_well = !label.starts_with('-') && !label.ends_with('-');
        !label.is_empty() && ends_well && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Components joined by `/`.
fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Runs of `[a-z0-9]` joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let is_run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(is_run) || !bytes.last().copied().is_some_and(is_run) {
        return false;
    }
    bytes.split(|b| is_run(*b)).all(|separator| match separator {
        b"" | b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|b| *b == b'-'),
    })
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_MAX_BYTES
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

/// What the reference grammar takes for a digest; whether it is one is decided afterwards.
fn looks_like_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && hex.len() >= DIGEST_MIN_HEX
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.typed)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_name_the_text_and_stay_short() {
        let error = Reference::parse("http://a/b").expect_err("a scheme is not part of a name");
        assert_eq!(error.to_string(), "couldn't parse image name \"http://a/b\": invalid reference format");
        let long = Reference::parse(&"a:".repeat(100_000)).expect_err("two colons");
        assert!(long.to_string().len() < 500);
        assert!(!Reference::parse("\u{1b}[31m").expect_err("escape").to_string().contains('\u{1b}'));
        assert_eq!(error.reason().waiting(), "InvalidImageName");
    }

    #[test]
    fn a_first_segment_that_is_no_host_name_is_refused() {
        for text in ["my_host.example/app", "my_host:5000/app", "a.b-/c", "[::1/x", "[]/x", "[::1]x/y", "a.b:/c"] {
            assert_eq!(Reference::parse(text).expect_err(text).fault, ReferenceFault::Format, "{text}");
        }
    }

    fn image() -> impl Strategy<Value = String> {
        let host = "((localhost|[a-z]{1,5}\\.[a-z]{2,3}|[A-Z][a-z]{1,4}|\\[::1\\])(:[0-9]{1,5})?/)?";
        // No dot in the first component: without a host it would be taken for one.
        let path = "[a-z0-9]{1,6}((_|-|__|--)[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}(\\.[a-z0-9]{1,3})?){0,2}";
        let rest = "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?(@sha256:[0-9a-f]{64})?";
        (host, path, rest).prop_map(|(host, path, rest)| format!("{host}{path}{rest}"))
    }

    proptest! {
        #[test]
        fn print_then_parse_is_identity(text in image()) {
            let reference = Reference::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(reference.to_string(), text);
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
        }

        #[test]
        fn a_normalised_name_names_the_same_image(text in image()) {
            let reference = Reference::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            for form in [reference.normalised(), reference.familiar(), reference.cri_image()] {
                let again = Reference::parse(&form).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(again.repository(), reference.repository());
                prop_assert_eq!(again.tag(), reference.tag());
                prop_assert_eq!(again.digest(), reference.digest());
                prop_assert_eq!(again.runtime_ref(), reference.runtime_ref());
            }
        }

        #[test]
        fn hostile_text_never_panics(text in "\\PC*|[a-zA-Z:/@\\[\\]._-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert!(!reference.host().as_str().is_empty() && reference.path().len() <= PATH_MAX_BYTES);
            }
        }
    }
}
