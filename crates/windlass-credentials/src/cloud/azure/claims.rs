//! What a token says about itself. Nothing is verified: the token's maker is asked with it, and it only shortens what we do.
//!
//! Invariant: `claims_of_odd_tokens_are_empty`.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use windlass_core::secret::Secret;

use crate::cloud::{json, moment};

/// Longest token that is looked into.
const TOKEN_BYTES: usize = 64 * 1024;

/// The claims that count here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// When it ends.
    pub(super) expires: Option<SystemTime>,
    /// The tenant of whoever it speaks for.
    pub(super) tenant: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default, deserialize_with = "json::number")]
    exp: Option<f64>,
    #[serde(default)]
    tid: Option<String>,
}

/// The claims of a JWT; none of another token.
pub(super) fn read(token: &Secret<String>) -> Claims {
    let claims = || {
        let middle = token.expose().split('.').nth(1).filter(|part| part.len() <= TOKEN_BYTES)?;
        let bytes = URL_SAFE_NO_PAD.decode(middle.trim_end_matches('=')).ok()?;
        let wire: Wire = serde_json::from_slice(&bytes).ok()?;
        let tenant = wire.tid.filter(|tid| super::entra::is_name(tid));
        Some(Claims { expires: wire.exp.and_then(moment::unix), tenant })
    };
    claims().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn jwt(claims: &str) -> Secret<String> {
        Secret::new(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn claims_of_odd_tokens_are_empty() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let good = read(&jwt(r#"{"exp":1700000000,"tid":"72f9-x","aud":["a"]}"#));
        assert_eq!(good, Claims { expires: Some(at), tenant: Some("72f9-x".to_owned()) });
        for odd in ["", "opaque", "a.b.c", "a..c", "..", "e30.e30.x"] {
            assert_eq!(read(&Secret::from(odd)), Claims::default(), "{odd}");
        }
        for odd in [r#"{"exp":"soon"}"#, r#"{"exp":-1,"tid":"../x"}"#, "[]", "null"] {
            assert_eq!(read(&jwt(odd)), Claims::default(), "{odd}");
        }
    }
}
