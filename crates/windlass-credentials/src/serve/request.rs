//! Reads a request.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use windlass_core::provider::{EXEC_GROUP, ExecVersion};
use windlass_core::reason::Reason;
use windlass_core::reference::{Reference, ReferenceError};
use windlass_core::secret::Secret;

use crate::provider::{ProviderRequest, ServiceAccountToken};

/// Most bytes of a request; a token of a service account has about one KiB.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;

const KIND: &str = "CredentialProviderRequest";

/// What a kubelet asks, and in which version it wants to be answered.
#[derive(Clone, Debug)]
pub struct Question {
    /// The version.
    pub version: ExecVersion,
    /// The question itself.
    pub request: ProviderRequest,
    /// What the service account is annotated with, though it has no token. Whoever wants to act for such an account cannot.
    pub annotations_alone: BTreeMap<String, String>,
}

/// A request that cannot be answered. No value of it is repeated but the image's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Standard input broke.
    #[error("the request cannot be read")]
    Read(#[source] io::Error),
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("the request has more than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// Nothing was sent.
    #[error("there is no request on standard input")]
    Empty,
    /// Not JSON, or a field is of the wrong type.
    #[error("the request is not a {KIND} in JSON: the fault is in line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Another kind of object.
    #[error("the request is not of kind {KIND}")]
    Kind,
    /// Another group, or a version that is not known.
    #[error("the version of the request is none of {EXEC_GROUP}/v1, v1beta1 and v1alpha1")]
    Version,
    /// No image is named.
    #[error("the request names no image")]
    NoImage,
    /// The image's name breaks a rule.
    #[error(transparent)]
    Image(#[from] ReferenceError),
}

impl ServeError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            ServeError::Read(_) => Reason::IoError,
            ServeError::TooLong => Reason::LimitExceeded,
            ServeError::Empty
            | ServeError::Json { .. }
            | ServeError::Kind
            | ServeError::Version
            | ServeError::NoImage => Reason::InvalidConfig,
            ServeError::Image(error) => error.reason(),
        }
    }
}

/// The fields that are looked at; others are ignored. Absent and `null` are the same, as in Go.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    kind: Option<String>,
    api_version: Option<String>,
    image: Option<String>,
    service_account_token: Option<String>,
    service_account_annotations: Option<BTreeMap<String, String>>,
}

/// Reads a request to its end. Blocks until whoever asks closes its side.
///
/// # Errors
/// [`ServeError`] says which rule the request breaks.
pub fn read(input: &mut dyn Read) -> Result<Question, ServeError> {
    let mut bytes = Vec::new();
    let limit = REQUEST_BYTES_MAX as u64 + 1;
    let outcome = input.take(limit).read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    outcome.map_err(ServeError::Read)?;
    parse(bytes.expose())
}

fn parse(bytes: &[u8]) -> Result<Question, ServeError> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(ServeError::TooLong);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ServeError::Empty);
    }
    // The parser's own words could repeat a value.
    let wire: Wire = serde_json::from_slice(bytes)
        .map_err(|error| ServeError::Json { line: error.line(), column: error.column() })?;
    let token = wire.service_account_token.map(Secret::new);
    if wire.kind.as_deref() != Some(KIND) {
        return Err(ServeError::Kind);
    }
    let version = wire.api_version.as_deref().and_then(ExecVersion::parse).ok_or(ServeError::Version)?;
    let image = wire.image.filter(|image| !image.is_empty()).ok_or(ServeError::NoImage)?;
    // The older versions have no such fields, and unknown ones are ignored.
    let known = version == ExecVersion::V1;
    let annotations = wire.service_account_annotations.filter(|_| known).unwrap_or_default();
    let (service_account, annotations_alone) = match token.filter(|token| known && !token.expose().is_empty()) {
        Some(token) => (Some(ServiceAccountToken { token, annotations }), BTreeMap::new()),
        None => (None, annotations),
    };
    let request = ProviderRequest { image: Reference::parse(&image)?, service_account };
    Ok(Question { version, request, annotations_alone })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(version: &str, rest: &str) -> Result<Question, ServeError> {
        let text = format!(r#"{{"kind":"{KIND}","apiVersion":"{EXEC_GROUP}/{version}"{rest}}}"#);
        read(&mut text.as_bytes())
    }

    #[test]
    fn an_older_version_knows_no_service_account() {
        let rest = r#","image":"reg.example/app","serviceAccountToken":"JWT","serviceAccountAnnotations":{"k":"v"}"#;
        let table = [("v1alpha1", false), ("v1beta1", false), ("v1", true)];
        for (version, has) in table {
            let question = question(version, rest).unwrap();
            assert_eq!(question.version.as_str(), format!("{EXEC_GROUP}/{version}"));
            assert_eq!(question.request.image.as_typed(), "reg.example/app");
            assert_eq!(question.request.service_account.is_some(), has, "{version}");
            assert!(question.annotations_alone.is_empty(), "{version}");
        }
        let alone = question("v1", r#","image":"reg.example/app","serviceAccountAnnotations":{"k":"v"}"#).unwrap();
        assert!(alone.request.service_account.is_none() && alone.annotations_alone.contains_key("k"));
    }

    #[test]
    fn what_is_unknown_is_ignored_and_what_is_wrong_is_named() {
        assert!(question("v1", r#","image":"a/b","new":{"x":[1]},"serviceAccountToken":null"#).is_ok());
        let table = [
            ("v2", r#","image":"a""#, "the version of the request"),
            ("v1", "", "the request names no image"),
            ("v1", r#","image":"""#, "the request names no image"),
            ("v1", r#","image":7"#, "the request is not a"),
            ("v1", r#","image":"a","image":"b""#, "the request is not a"),
            ("v1", r#","image":"A_B/../c""#, "couldn't parse image name"),
            ("v1", r#","image":"user@evil.example/app""#, "couldn't parse image name"),
            ("v1", r#"} {"#, "the request is not a"),
        ];
        for (version, rest, want) in table {
            let error = question(version, rest).unwrap_err().to_string();
            assert!(error.starts_with(want), "{rest}: {error}");
        }
        assert!(matches!(read(&mut " \n".as_bytes()), Err(ServeError::Empty)));
        let other = r#"{"kind":"CredentialProviderResponse","apiVersion":"x","image":"a"}"#;
        assert!(matches!(read(&mut other.as_bytes()), Err(ServeError::Kind)));
    }

    #[test]
    fn a_request_that_is_too_long_is_refused() {
        let long = format!(r#","image":"a/b","pad":"{}""#, "x".repeat(REQUEST_BYTES_MAX));
        assert!(matches!(question("v1", &long), Err(ServeError::TooLong)));
        let fits = format!(r#","image":"a/b","pad":"{}""#, "x".repeat(REQUEST_BYTES_MAX - 300));
        assert!(question("v1", &fits).is_ok());
        let mut endless = io::repeat(b' ');
        assert!(matches!(read(&mut endless), Err(ServeError::TooLong)));
    }

    #[test]
    fn no_value_of_a_request_shows() {
        let good = question("v1", r#","image":"a/b","serviceAccountToken":"canary-7""#).unwrap();
        assert!(!format!("{good:?}").contains("canary"));
        for rest in
            [r#","image":"a","serviceAccountToken":{"canary-7":1}"#, r#","image":"a","serviceAccountToken":"canary-7"#]
        {
            let error = question("v1", rest).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), rest in ".{0,60}") {
            let _ = read(&mut bytes.as_slice());
            let _ = question("v1", &rest);
        }
    }
}
