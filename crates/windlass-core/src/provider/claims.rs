//! What the token of a service account says about itself. The signature is not checked here: whoever accepts it does.
//!
//! Source of truth: kubernetes `pkg/serviceaccount/claims.go`. Invariant: `claims_are_read_from_the_middle_part`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The part of a token's claims that we look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// For whom it is.
    pub audiences: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// The UID of the account; empty where it is not told.
    pub uid: String,
}

/// The text is no token of a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the token of a service account")]
pub struct TokenClaimsError;

/// Reads the claims of a token.
///
/// # Errors
/// The text is no JWT, or lacks `aud`, `exp` or `sub`.
pub fn read_claims(token: &Secret<String>) -> Result<TokenClaims, TokenClaimsError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Default, Deserialize)]
    struct Account {
        #[serde(default)]
        uid: String,
    }
    #[derive(Default, Deserialize)]
    struct Kubernetes {
        #[serde(default)]
        serviceaccount: Account,
    }
    #[derive(Deserialize)]
    struct Claims {
        aud: Audience,
        exp: u64,
        sub: String,
        #[serde(default, rename = "kubernetes.io")]
        kubernetes: Kubernetes,
    }
    let mut parts = token.expose().split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(TokenClaimsError);
    };
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenClaimsError)?);
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|_| TokenClaimsError)?;
    let audiences = match claims.aud {
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    };
    let uid = claims.kubernetes.serviceaccount.uid;
    Ok(TokenClaims { audiences, expires: claims.exp, subject: claims.sub, uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(claims: &str) -> Result<TokenClaims, TokenClaimsError> {
        read_claims(&Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))))
    }

    #[test]
    fn claims_are_read_from_the_middle_part() {
        let claims = |audiences: &[&str], uid: &str| TokenClaims {
            audiences: audiences.iter().map(|text| (*text).to_owned()).collect(),
            expires: 7,
            subject: "s".to_owned(),
            uid: uid.to_owned(),
        };
        let full =
            r#"{"aud":["a","b"],"exp":7,"sub":"s","kubernetes.io":{"serviceaccount":{"name":"n","uid":"u"}},"x":1}"#;
        assert_eq!(read(full), Ok(claims(&["a", "b"], "u")));
        assert_eq!(read(r#"{"aud":"a","exp":7,"sub":"s"}"#), Ok(claims(&["a"], "")));
        for bad in ["", "{}", "[]", r#"{"aud":[],"exp":"7","sub":"s"}"#, r#"{"aud":1,"exp":7,"sub":"s"}"#] {
            assert_eq!(read(bad), Err(TokenClaimsError), "{bad}");
        }
        for bad in ["", "a.b", "a.e30.c.d", "a.*.c"] {
            assert_eq!(read_claims(&Secret::from(bad)), Err(TokenClaimsError), "{bad}");
        }
    }
}
