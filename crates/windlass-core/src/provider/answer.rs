//! What a program answered: one JSON object on its standard output, read as strictly as a kubelet does.
//!
//! Source of truth: kubernetes `pkg/credentialprovider/plugin/plugin.go` (`ExecPlugin`, `decodeResponse`, `Provide`).
//! Errors never repeat a value of the answer, other than its version and kind of key.

use std::time::Duration;

use serde::Deserialize;

use super::config::ConfigProblem;
use super::fields::Fields;
use super::{CacheKeyType, ExecVersion, GoDuration, ProviderAnswer, Raw};
use crate::keyring::Credential;
use crate::reason::Reason;
use crate::secret::Secret;

/// Longest answer. A kubelet has no limit; the answers of the clouds have a few KiB.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most entries of `auth`.
const LOGINS_MAX: usize = 1_000;

/// Why an answer is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It printed nothing.
    #[error("it printed no answer")]
    Empty,
    /// It printed more than [`ANSWER_BYTES_MAX`].
    #[error("its answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// What it printed is no JSON object.
    #[error("its answer is not a JSON object")]
    NotJson,
    /// The answer is of another version than the configuration says.
    #[error("its answer has apiVersion {got:?}, and the configuration says {want}", want = want.as_str())]
    Version {
        /// What the configuration says.
        want: ExecVersion,
        /// What the answer says, where that may be shown.
        got: String,
    },
    /// Another kind of object.
    #[error("its answer is not a CredentialProviderResponse")]
    Kind,
    /// A field is unknown, repeated or of the wrong type; the answer is withheld.
    #[error("its answer cannot be read: {problem}")]
    Malformed {
        /// The rule that it breaks.
        problem: &'static str,
    },
    /// It does not say for what the answer may be used again.
    #[error("its answer has cacheKeyType {got:?}, and not Image, Registry or Global")]
    CacheKeyType {
        /// What it says, where that may be shown.
        got: String,
    },
    /// It gave the service account's token back as a password that would be used for other pods.
    #[error("it answered with the service account's token, which is for cacheType Token only")]
    EchoedToken,
}

impl AnswerError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            AnswerError::Version { .. } => Reason::InvalidConfig,
            AnswerError::Empty
            | AnswerError::TooLong
            | AnswerError::NotJson
            | AnswerError::Kind
            | AnswerError::Malformed { .. }
            | AnswerError::CacheKeyType { .. }
            | AnswerError::EchoedToken => Reason::InvalidCredentials,
        }
    }
}

/// Reads an answer to a request of version `want`.
///
/// # Errors
/// [`AnswerError`]; the whole answer is of no use then.
pub fn read_answer(bytes: &[u8], want: ExecVersion) -> Result<ProviderAnswer, AnswerError> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        kind: String,
        #[serde(default, rename = "apiVersion")]
        api_version: String,
    }
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(AnswerError::TooLong);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(AnswerError::Empty);
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|_| AnswerError::NotJson)?;
    if head.api_version != want.as_str() {
        return Err(AnswerError::Version { want, got: harmless(&head.api_version) });
    }
    if head.kind != "CredentialProviderResponse" {
        return Err(AnswerError::Kind);
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|_| malformed("a field stands twice"))?;
    read(&raw)
}

/// Refuses an answer whose password is the token of the request: bound to the account it would serve other pods.
///
/// # Errors
/// [`AnswerError::EchoedToken`].
pub fn refuse_echoed_token(answer: &ProviderAnswer, token: &Secret<String>) -> Result<(), AnswerError> {
    let echoes = answer.auth.iter().any(|(_, credential)| match credential {
        Credential::Basic { password, .. } => password == token,
        Credential::IdentityToken { token: found, .. } | Credential::RegistryToken { token: found } => found == token,
        Credential::Anonymous => false,
    });
    if echoes { Err(AnswerError::EchoedToken) } else { Ok(()) }
}

fn malformed(problem: &'static str) -> AnswerError {
    AnswerError::Malformed { problem }
}

fn read(raw: &Raw) -> Result<ProviderAnswer, AnswerError> {
    let mut problems: Vec<ConfigProblem> = Vec::new();
    let mut fields = Fields::of("", raw, &mut problems).ok_or(AnswerError::NotJson)?;
    fields.take("kind");
    fields.take("apiVersion");
    let key_type = match fields.take("cacheKeyType") {
        None => "",
        Some(Raw::Text(text)) => text.as_str(),
        Some(_) => return Err(malformed("cacheKeyType is not a text")),
    };
    let cache_duration = match fields.take("cacheDuration") {
        None => None,
        Some(Raw::Text(text)) => {
            // A negative one is over before it begins.
            let duration = GoDuration::parse(text).map_err(|_| malformed("cacheDuration is not a duration"))?;
            Some(duration.or_zero())
        }
        Some(_) => return Err(malformed("cacheDuration is not a text")),
    };
    let auth = logins(fields.take("auth"))?;
    fields.end(&mut problems);
    if !problems.is_empty() {
        return Err(malformed("it has a field that the protocol does not know"));
    }
    Ok(ProviderAnswer { cache_key_type: cache_key_type(key_type)?, cache_duration, auth })
}

fn cache_key_type(text: &str) -> Result<CacheKeyType, AnswerError> {
    match text {
        "Image" => Ok(CacheKeyType::Image),
        "Registry" => Ok(CacheKeyType::Registry),
        "Global" => Ok(CacheKeyType::Global),
        other => Err(AnswerError::CacheKeyType { got: harmless(other) }),
    }
}

fn logins(auth: Option<&Raw>) -> Result<Vec<(String, Credential)>, AnswerError> {
    let entries = match auth {
        None => return Ok(Vec::new()),
        Some(Raw::Map(entries)) => entries,
        Some(_) => return Err(malformed("auth is not a map")),
    };
    if entries.len() > LOGINS_MAX {
        return Err(malformed("auth has more than 1000 entries"));
    }
    entries.iter().map(|(key, login)| Ok((key.clone(), self::login(login)?))).collect()
}

fn login(raw: &Raw) -> Result<Credential, AnswerError> {
    let fields = match raw {
        Raw::Null => return Ok(Credential::Anonymous),
        Raw::Map(fields) => fields,
        Raw::Bool(_) | Raw::Number | Raw::Text(_) | Raw::List(_) => {
            return Err(malformed("an entry of auth is not a map"));
        }
    };
    let (mut username, mut password) = ("", "");
    for (name, value) in fields {
        let text = match value {
            Raw::Null => "",
            Raw::Text(text) => text.as_str(),
            Raw::Bool(_) | Raw::Number | Raw::List(_) | Raw::Map(_) => {
                return Err(malformed("username or password is not a text"));
            }
        };
        match name.as_str() {
            "username" => username = text,
            "password" => password = text,
            _ => return Err(malformed("an entry of auth has another field than username and password")),
        }
    }
    Ok(Credential::basic(username, password))
}

/// A text that may be shown: a short word such as a version; anything else is withheld.
fn harmless(text: &str) -> String {
    let fits = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"./-".contains(&b));
    if fits { text.to_owned() } else { "(withheld)".to_owned() }
}

/// How long an answer is kept: as it says, else as the configuration says.
pub(super) fn lifetime(answer: &ProviderAnswer, default: Duration) -> Duration {
    answer.cache_duration.unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V1: ExecVersion = ExecVersion::V1;

    fn answer(fields: &str) -> String {
        format!(r#"{{"kind":"CredentialProviderResponse","apiVersion":"{}",{fields}}}"#, V1.as_str())
    }

    fn key(got: &str) -> AnswerError {
        AnswerError::CacheKeyType { got: got.to_owned() }
    }

    #[test]
    fn answers_are_read() {
        let of = |cache_key_type, seconds: Option<u64>, auth: &[(&str, Credential)]| {
            let auth = auth.iter().map(|(key, login)| ((*key).to_owned(), login.clone())).collect();
            Ok(ProviderAnswer { cache_key_type, cache_duration: seconds.map(Duration::from_secs), auth })
        };
        let login = ("r.io", Credential::basic("u", "canary"));
        let table = [
            (
                r#""cacheKeyType":"Registry","cacheDuration":"6h0m0s","auth":{"r.io":{"username":"u","password":"canary"}}"#,
                of(CacheKeyType::Registry, Some(21_600), &[login]),
            ),
            (r#""cacheKeyType":"Image""#, of(CacheKeyType::Image, None, &[])),
            (r#""cacheKeyType":"Global","cacheDuration":null,"auth":null"#, of(CacheKeyType::Global, None, &[])),
            (r#""cacheKeyType":"Image","cacheDuration":"-1s""#, of(CacheKeyType::Image, Some(0), &[])),
            (
                r#""cacheKeyType":"Image","auth":{"*":null,"b":{"username":null}}"#,
                of(CacheKeyType::Image, None, &[("*", Credential::Anonymous), ("b", Credential::Anonymous)]),
            ),
            (r#""auth":{}"#, Err(key(""))),
            (r#""cacheKeyType":"""#, Err(key(""))),
            (r#""cacheKeyType":"registry""#, Err(key("registry"))),
            (r#""cacheKeyType":"ca nary!""#, Err(key("(withheld)"))),
        ];
        for (fields, want) in table {
            assert_eq!(read_answer(answer(fields).as_bytes(), V1), want, "{fields}");
        }
    }

    #[test]
    fn unknown_fields_of_an_answer_are_errors() {
        let image = r#""cacheKeyType":"Image""#;
        let table = [
            (format!(r#"{image},"canary":1"#), malformed("it has a field that the protocol does not know")),
            (format!(r#"{image},"Auth":{{}}"#), malformed("it has a field that the protocol does not know")),
            (format!("{image},{image}"), malformed("a field stands twice")),
            (
                format!(r#"{image},"auth":{{"r":{{"username":"u","canary":"p"}}}}"#),
                malformed("an entry of auth has another field than username and password"),
            ),
            (format!(r#"{image},"auth":{{"r":{{"username":1}}}}"#), malformed("username or password is not a text")),
            (format!(r#"{image},"auth":{{"r":1}}"#), malformed("an entry of auth is not a map")),
            (format!(r#"{image},"auth":[]"#), malformed("auth is not a map")),
            (format!(r#"{image},"cacheDuration":5"#), malformed("cacheDuration is not a text")),
            (format!(r#"{image},"cacheDuration":"canary""#), malformed("cacheDuration is not a duration")),
        ];
        for (fields, want) in table {
            let error = read_answer(answer(&fields).as_bytes(), V1).expect_err("a bad answer");
            assert_eq!(error, want, "{fields}");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }

    #[test]
    fn an_answer_of_another_version_is_refused_before_it_is_read() {
        let version = |got: &str| AnswerError::Version { want: V1, got: got.to_owned() };
        let table = [
            ("", AnswerError::Empty),
            (" \n", AnswerError::Empty),
            ("canary", AnswerError::NotJson),
            ("kind: CredentialProviderResponse", AnswerError::NotJson),
            (r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1"} canary"#, AnswerError::NotJson),
            ("{}", version("")),
            (
                r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","canary":1}"#,
                version(ExecVersion::V1Beta1.as_str()),
            ),
            (r#"{"apiVersion":"pass word"}"#, version("(withheld)")),
            (r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"Secret"}"#, AnswerError::Kind),
        ];
        for (text, want) in table {
            assert_eq!(read_answer(text.as_bytes(), V1), Err(want), "{text}");
        }
        assert_eq!(read_answer(&vec![b' '; ANSWER_BYTES_MAX + 1], V1), Err(AnswerError::TooLong));
    }

    #[test]
    fn the_token_of_the_request_is_no_password() {
        let text = answer(r#""cacheKeyType":"Image","auth":{"r":{"username":"u","password":"JWT"}}"#);
        let answer = read_answer(text.as_bytes(), V1).expect("an answer");
        assert_eq!(refuse_echoed_token(&answer, &Secret::from("JWT")), Err(AnswerError::EchoedToken));
        assert_eq!(refuse_echoed_token(&answer, &Secret::from("other")), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(text in ".{0,80}", fields in "[\"{}:,a-zA-Z0-9\\[\\] ]{0,80}") {
            let _ = read_answer(text.as_bytes(), V1);
            let _ = read_answer(answer(&fields).as_bytes(), V1);
        }
    }
}
