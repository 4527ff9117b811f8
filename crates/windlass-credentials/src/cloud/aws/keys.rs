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

impl Keys {
    /// What must not show, wherever a service repeats it.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let token = self.session_token.as_ref().map(|token| token.expose().as_str());
        std::iter::once(self.secret.expose().as_str()).chain(token).collect()
    }

    /// What to do when a service refuses the keys themselves; empty for other refusals.
    pub(super) fn hint(&self, code: &str) -> String {
        let source = &self.source;
        match code {
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => format!(
                "the keys of {source} are not known here: they were deleted, or belong to another partition than this region"
            ),
            "ExpiredTokenException" | "ExpiredToken" => {
                let when = match self.expires {
                    Some(at) => format!(" (at {})", super::super::moment::basic(at)),
                    None => String::new(),
                };
                format!("the keys of {source} have expired{when}: whoever writes them has to renew them")
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" | "AuthFailure" => {
                format!("check this machine's clock, and that the secret key of {source} is whole")
            }
            _ => String::new(),
        }
    }
}
