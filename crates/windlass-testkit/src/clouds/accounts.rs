//! Service accounts and their tokens, as an API server issues them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::desk::random_word;

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// The account of this name.
    pub fn new(namespace: &str, name: &str) -> Account {
        Account { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// As tokens name it.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// Tokens issued.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<String, Claims>);

#[derive(Clone, Debug)]
struct Claims {
    subject: String,
    audience: String,
    until: Timestamp,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAccepted {
    Unknown,
    Expired,
    Audience,
}

impl Accounts {
    pub(super) fn issue(&mut self, account: &Account, audience: &str, now: Timestamp, life_seconds: i64) -> String {
        let until = now + SignedDuration::from_secs(life_seconds);
        let issued = until.min(now) - SignedDuration::from_secs(60);
        let claims = json!({
            "iss": "https://kubernetes.default.svc",
            "sub": account.subject(),
            "aud": [audience],
            "iat": issued.as_second(),
            "nbf": issued.as_second(),
            "exp": until.as_second(),
            "kubernetes.io": { "namespace": account.namespace, "serviceaccount": { "name": account.name } },
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = json!({ "alg": "RS256", "kid": "test", "typ": "JWT" });
        let token = format!("{}.{}.{}", part(&head), part(&claims), random_word(86));
        let subject = account.subject();
        self.0.insert(token.clone(), Claims { subject, audience: audience.to_owned(), until });
        token
    }

    /// Whose token it is, if it holds for this audience now.
    pub(super) fn check(&self, token: &str, audience: &str, now: Timestamp) -> Result<String, NotAccepted> {
        let claims = self.0.get(token).ok_or(NotAccepted::Unknown)?;
        if claims.until <= now {
            return Err(NotAccepted::Expired);
        }
        if claims.audience != audience {
            return Err(NotAccepted::Audience);
        }
        Ok(claims.subject.clone())
    }
}
