//! Answers to 401: tokens, their cache, and what may be sent where.
//!
//! The rules (challenge, scope, realm trust) are `windlass_core`'s; here they meet the network.
//!
//! Invariants: `a_token_is_fetched_once_by_many`, `the_password_of_one_host_never_reaches_another_realm`,
//! `two_rounds_are_all_there_are`.

mod cache;
mod endpoint;

pub(crate) use cache::{Freshness, Known, Token, TokenKey, Tokens};
pub(crate) use endpoint::{Reach, Refusal, fetch};

use base64::Engine as _;
use http::HeaderValue;
use windlass_core::keyring::Credential;
use windlass_core::secret::Secret;

/// `Authorization` of a bearer token; `None` if the token cannot stand in a header.
pub(crate) fn bearer(token: &Secret<String>) -> Option<HeaderValue> {
    sensitive(Secret::new(format!("Bearer {}", token.expose())))
}

/// `Authorization` of user name and password.
pub(crate) fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Basic { username, password } = credential else { return None };
    let pair = Secret::new(format!("{username}:{}", password.expose()));
    let encoded = Secret::new(base64::engine::general_purpose::STANDARD.encode(pair.expose()));
    sensitive(Secret::new(format!("Basic {}", encoded.expose())))
}

fn sensitive(text: Secret<String>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
