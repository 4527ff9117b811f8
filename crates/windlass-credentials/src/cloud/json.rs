//! Answers in JSON: one object, no name twice, unknown names skipped; what is wrong is said without repeating it.
//!
//! Invariants: `what_is_wrong_is_said_without_the_words`, `numbers_come_in_every_notation`.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use windlass_core::secret::Secret;

use super::CloudError;

/// Reads the body of an answer. Its length was bounded when it came; serde bounds its depth.
///
/// # Errors
/// [`CloudError::Malformed`], without a word of the body.
pub(crate) fn read<T: DeserializeOwned>(service: &str, body: &[u8]) -> Result<T, CloudError> {
    serde_json::from_slice(body).map_err(|error| {
        let problem = match error.classify() {
            serde_json::error::Category::Data => {
                format!("has another form than expected (line {}, column {})", error.line(), error.column())
            }
            serde_json::error::Category::Eof => "is cut".to_owned(),
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "is no JSON".to_owned(),
        };
        malformed(service, problem)
    })
}

/// What an answer must have.
///
/// # Errors
/// [`CloudError::Malformed`] names what is missing.
pub(crate) fn need<T>(service: &str, name: &str, value: Option<T>) -> Result<T, CloudError> {
    value.ok_or_else(|| malformed(service, format!("has no {name}")))
}

/// An answer that is not what the protocol says.
pub(crate) fn malformed(service: &str, problem: impl Into<String>) -> CloudError {
    CloudError::Malformed { service: service.to_owned(), problem: problem.into() }
}

/// A text that is secret. An empty one counts as absent: use with `default`.
pub(crate) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret<String>>, D::Error> {
    let text = Option::<String>::deserialize(from)?.filter(|text| !text.is_empty());
    Ok(text.map(Secret::new))
}

/// A number, or a text that is one: `3599`, `3599.5`, `"3599"`. Use with `default`.
pub(crate) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    from.deserialize_any(Number)
}

struct Number;

impl Visitor<'_> for Number {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, or a text that is one")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number as f64))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text.trim() {
            "" => Ok(None),
            text => text.parse().ok().filter(|n: &f64| n.is_finite()).map(Some).ok_or_else(|| E::custom("no number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Answer {
        #[serde(default, deserialize_with = "secret")]
        token: Option<Secret<String>>,
        #[serde(default, deserialize_with = "number")]
        expires_in: Option<f64>,
    }

    #[test]
    fn numbers_come_in_every_notation() {
        let table = [
            (r#"{"expires_in":3599}"#, Some(3599.0)),
            (r#"{"expires_in":"3599"}"#, Some(3599.0)),
            (r#"{"expires_in":1700000000.123}"#, Some(1_700_000_000.123)),
            (r#"{"expires_in":-5}"#, Some(-5.0)),
            (r#"{"expires_in":null}"#, None),
            (r#"{"expires_in":""}"#, None),
            (r#"{"other":[1,{"x":2}]}"#, None),
        ];
        for (text, want) in table {
            assert_eq!(read::<Answer>("it", text.as_bytes()).unwrap().expires_in, want, "{text}");
        }
        for text in [r#"{"expires_in":"NaN"}"#, r#"{"expires_in":"x"}"#, r#"{"expires_in":[]}"#] {
            read::<Answer>("it", text.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_words() {
        let table = [
            (r#"{"token":"canary""#, "the answer of it is cut"),
            (r#"<token>canary</token>"#, "the answer of it is no JSON"),
            (r#"{"token":"a"} canary"#, "the answer of it is no JSON"),
            (r#"{"token":"a","token":"canary"}"#, "has another form"),
            (r#"{"token":["canary"]}"#, "has another form"),
            (r#""canary""#, "has another form"),
        ];
        for (text, want) in table {
            let error = read::<Answer>("it", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want) && !error.contains("canary"), "{text}: {error}");
        }
        let answer: Answer = read("it", br#"{"token":""}"#).unwrap();
        assert_eq!(need("it", "token", answer.token).unwrap_err().to_string(), "the answer of it has no token");
    }
}
