//! Which credentials were tried and what the registry said to each; never a secret.

use std::fmt;

use windlass_core::keyring::{Candidate, Credential, Origin};

/// One credential that was tried with one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Where the credential came from; `None` for the anonymous attempt.
    pub origin: Option<Origin>,
    /// Its user name.
    pub username: Option<String>,
    /// The key of the configuration that matched.
    pub key: String,
    /// What came of it, `403 denied: ...`.
    pub answer: String,
}

impl Attempt {
    pub(crate) fn new(candidate: Option<&Candidate>, answer: String) -> Attempt {
        let shown = candidate.filter(|c| c.credential != Credential::Anonymous);
        Attempt {
            origin: shown.map(|c| c.origin.clone()),
            username: shown.and_then(|c| c.credential.username()).map(|u| crate::words::escape(u, 256)),
            key: shown.map(|c| c.key.clone()).unwrap_or_default(),
            answer,
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            None => f.write_str("anonymous")?,
            Some(origin) => {
                write!(f, "{origin}")?;
                if !self.key.is_empty() {
                    write!(f, " key {}", self.key)?;
                }
                if let Some(user) = &self.username {
                    write!(f, " (user {user})")?;
                }
            }
        }
        write!(f, ": {}", self.answer)
    }
}
