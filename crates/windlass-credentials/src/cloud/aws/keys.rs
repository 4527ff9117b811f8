//! Keys that sign requests.

use std::time::SystemTime;

use windlass_core::secret::Secret;

/// Keys of one principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Names the keys; no secret, but of no use to anybody either.
    pub(crate) access_key_id: String,
    /// Signs.
    pub(crate) secret: Secret<String>,
    /// Sent along with short-lived keys.
    pub(crate) session_token: Option<Secret<String>>,
    /// When short-lived keys end.
    pub(crate) expires: Option<SystemTime>,
    /// Where they are from, for people.
    pub(crate) source: String,
}
