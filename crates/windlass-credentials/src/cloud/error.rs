//! Why a cloud gave no login.

use std::error::Error as StdError;

use windlass_core::reason::Reason;
use windlass_distribution::TransportError;

/// Why a cloud gave no login. No secret in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// No identity is to be had here; `looked` says where it was looked for, `hint` what to do.
    #[error("no identity: {looked}")]
    NoIdentity {
        /// Every place, with what came of it.
        looked: String,
        /// What to do.
        hint: String,
    },
    /// A variable, a flag or a file is wrong.
    #[error("{what} {problem}")]
    Settings {
        /// Its name.
        what: String,
        /// What is wrong with it, without its value.
        problem: String,
    },
    /// A service did not answer.
    #[error("{service} cannot be asked")]
    Unreachable {
        /// The service, as an operator knows it.
        service: String,
        /// What to do, where that is known.
        hint: String,
        /// What the transport says.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A service refused; the words are its own, shortened.
    #[error("{service} refused: {words}")]
    Refused {
        /// The service.
        service: String,
        /// Its words.
        words: String,
        /// What to do, where that is known.
        hint: String,
    },
    /// A service wants to be left alone for a while.
    #[error("{service} is busy: {words}")]
    Busy {
        /// The service.
        service: String,
        /// Its words.
        words: String,
    },
    /// A service has a fault of its own; the words are its own, shortened.
    #[error("{service} fails: {words}")]
    Failing {
        /// The service.
        service: String,
        /// Its words.
        words: String,
    },
    /// An answer is not what the protocol says; it is withheld.
    #[error("the answer of {service} {problem}")]
    Malformed {
        /// The service.
        service: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A registry named a place for the token exchange that must not see the identity's token.
    #[error("{registry} names {realm} for the exchange: {why}")]
    Realm {
        /// The login server.
        registry: String,
        /// The place.
        realm: String,
        /// The rule.
        why: &'static str,
    },
    /// All of it took too long.
    #[error("no login within {limit_seconds} s")]
    Timeout {
        /// The limit.
        limit_seconds: u64,
    },
}

impl CloudError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            CloudError::NoIdentity { .. } | CloudError::Settings { .. } => Reason::InvalidConfig,
            CloudError::Unreachable { source, .. } => {
                // A certificate that is not trusted has another remedy than a network that is down.
                let transport = source.downcast_ref::<TransportError>().map(TransportError::reason);
                transport.unwrap_or(Reason::RegistryUnavailable)
            }
            CloudError::Failing { .. } => Reason::RegistryUnavailable,
            CloudError::Refused { .. } | CloudError::Malformed { .. } => Reason::InvalidCredentials,
            CloudError::Busy { .. } => Reason::RateLimited,
            CloudError::Realm { .. } => Reason::RealmNotTrusted,
            CloudError::Timeout { .. } => Reason::Timeout,
        }
    }

    /// What to do; empty where nothing is known.
    pub fn hint(&self) -> &str {
        match self {
            CloudError::NoIdentity { hint, .. }
            | CloudError::Unreachable { hint, .. }
            | CloudError::Refused { hint, .. } => hint,
            CloudError::Settings { .. }
            | CloudError::Busy { .. }
            | CloudError::Failing { .. }
            | CloudError::Malformed { .. }
            | CloudError::Realm { .. }
            | CloudError::Timeout { .. } => "",
        }
    }
}
