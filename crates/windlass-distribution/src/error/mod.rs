//! What can go wrong, with the host, the step and the registry's own words; never a secret, never a query
//! string (signed URLs are secrets).
//!
//! Invariants: `foreign_words_are_bounded_and_escaped`, `no_error_and_no_debug_text_holds_a_secret`.

mod judge;
mod transport;

pub use transport::{ClientError, TransportError};

use std::io;
use std::time::Duration;

use windlass_core::digest::Digest;
use windlass_core::host::Host;
use windlass_core::manifest::ManifestError;
use windlass_core::realm::RedirectError;
use windlass_core::reason::Reason;

use crate::attempt::Attempt;
use crate::words::Words;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Asking which digest a tag has.
    Resolve,
    /// Fetching a manifest or index.
    Manifest,
    /// Fetching a blob.
    Blob,
    /// Asking for a token.
    Token,
    /// Uploading.
    Push,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Step::Resolve => "resolve",
            Step::Manifest => "manifest",
            Step::Blob => "blob",
            Step::Token => "token",
            Step::Push => "push",
        })
    }
}

/// A request to a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The registry does not have it, or does not admit to having it.
    #[error("{host} has no {what}{words}")]
    NotFound {
        /// The endpoint.
        host: Host,
        /// What was asked for: `manifest team/app:1.4`.
        what: String,
        /// The registry's own words.
        words: Words,
        /// Every credential that was tried.
        attempts: Vec<Attempt>,
    },
    /// No credential was accepted (401).
    #[error("{host} refused {what}{words}")]
    Unauthorized {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        words: Words,
        /// Every credential that was tried.
        attempts: Vec<Attempt>,
    },
    /// A credential is good but lacks the right (403).
    #[error("{host} denied {what}{words}")]
    Denied {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        words: Words,
        /// Every credential that was tried.
        attempts: Vec<Attempt>,
    },
    /// The registry asks to slow down, for longer than a pull waits.
    #[error("{host} limits the rate{}{words}", retry_after.map(|t| format!(", retry after {} s", t.as_secs())).unwrap_or_default())]
    RateLimited {
        /// The endpoint.
        host: Host,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
        /// The registry's own words.
        words: Words,
    },
    /// The endpoint answered with a failure of its own.
    #[error("{host} answered {status} to {step}{words}")]
    Status {
        /// The endpoint.
        host: Host,
        /// What the request was for.
        step: Step,
        /// HTTP status.
        status: u16,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
        /// The registry's own words.
        words: Words,
    },
    /// The endpoint could not be reached, or the connection broke.
    #[error("{host}: {step} failed")]
    Transport {
        /// The endpoint, or the host it redirected to.
        host: Host,
        /// What the request was for.
        step: Step,
        /// What happened.
        #[source]
        source: TransportError,
    },
    /// The endpoint failed a moment ago and is left alone for now.
    #[error("{host} failed a moment ago and is left alone for {} s", wait.as_secs())]
    BreakerOpen {
        /// The endpoint.
        host: Host,
        /// Until it is tried again.
        wait: Duration,
    },
    /// No endpoint may serve this request at all.
    #[error("no endpoint of {host} is configured for {step}")]
    NoEndpoint {
        /// The registry.
        host: Host,
        /// What the request was for.
        step: Step,
    },
    /// Too little came for too long.
    #[error("{host} sent less than 64 KiB of {what} in {} s", limit.as_secs_f32())]
    NoProgress {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// `progress-timeout`.
        limit: Duration,
    },
    /// The token endpoint is on a host that must not get credentials, and anonymous was not enough.
    #[error("the token endpoint {realm} of {host} must not get its credentials ({why})")]
    RealmNotTrusted {
        /// The registry.
        host: Host,
        /// The realm's host, or what stands in its place.
        realm: String,
        /// The rule that decided.
        why: &'static str,
    },
    /// The registry asks for an authentication that is not known.
    #[error("{host} wants an authentication that is not supported ({schemes})")]
    Challenge {
        /// The registry.
        host: Host,
        /// The schemes it offered.
        schemes: String,
    },
    /// A token reply that cannot be used.
    #[error("the token endpoint of {host} gave no usable answer: {problem}")]
    Token {
        /// The realm's host.
        host: Host,
        /// What is wrong.
        problem: String,
    },
    /// A redirect that is not followed.
    #[error("{host} sent a redirect that is not followed")]
    Redirect {
        /// The endpoint.
        host: Host,
        /// Why it is not followed.
        #[source]
        source: RedirectError,
    },
    /// Content with an encoding nobody asked for; its digest would be that of other bytes.
    #[error("{host} sent {what} with content encoding {encoding}")]
    ContentEncoding {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// The encoding, escaped.
        encoding: String,
    },
    /// A manifest or index that breaks the rules.
    #[error("{what} from {host} cannot be used")]
    Manifest {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// Content did not hash to what it should.
    #[error("{what} from {host} hashed to {got} instead of {want}")]
    DigestMismatch {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// What it should be.
        want: Digest,
        /// What came.
        got: Digest,
    },
    /// Content is longer or shorter than it should be.
    #[error("{what} from {host} has {got} bytes instead of {want}")]
    SizeMismatch {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// Bytes it should have.
        want: u64,
        /// Bytes it has, or claims to have; when it never ended, one more than wanted.
        got: u64,
    },
    /// A body is larger than its limit.
    #[error("{what} from {host} is larger than {limit} bytes ({key})")]
    TooLarge {
        /// The endpoint.
        host: Host,
        /// What was asked for.
        what: String,
        /// The limit's value.
        limit: u64,
        /// The limit's name.
        key: &'static str,
    },
    /// An image name's digest is of a kind that no content is addressed by.
    #[error("no content is addressed by {algorithm}; sha256 and sha512 are supported")]
    UnverifiableDigest {
        /// The algorithm.
        algorithm: &'static str,
    },
    /// The descriptor's own data does not fit its size or digest.
    #[error("the data inside the descriptor of {digest} does not fit it")]
    InlineData {
        /// The digest the data should have.
        digest: Digest,
    },
    /// A response that breaks the distribution protocol.
    #[error("{host} broke the protocol: {problem}")]
    Protocol {
        /// The endpoint.
        host: Host,
        /// What is wrong.
        problem: &'static str,
    },
    /// The bytes to upload could not be read.
    #[error("cannot read {what} to upload it")]
    Source {
        /// What was to be uploaded.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Several endpoints were asked and each failed in its way; the last one is the registry itself.
    #[error("no endpoint served {what}: {}", join(errors))]
    AllEndpoints {
        /// What was asked for.
        what: String,
        /// One error per endpoint, in the order they were asked.
        errors: Vec<FetchError>,
    },
}

fn join(errors: &[FetchError]) -> String {
    let texts: Vec<String> = errors.iter().map(|e| windlass_core::reason::chain(e)).collect();
    texts.join("; ")
}

impl FetchError {
    /// The word of the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            FetchError::NotFound { what, .. } if what.starts_with("blob") => Reason::BlobMissing,
            FetchError::NotFound { .. } => Reason::NotFound,
            FetchError::Unauthorized { .. } => Reason::Unauthorized,
            FetchError::Denied { .. } => Reason::Denied,
            FetchError::RateLimited { .. } => Reason::RateLimited,
            FetchError::Status { status: 413, .. } => Reason::LimitExceeded,
            FetchError::Status { status: 400 | 422, step: Step::Push, .. } => Reason::BadManifest,
            FetchError::Status { status: 405 | 409 | 412, step: Step::Push, .. } => Reason::Denied,
            FetchError::Status { status: 410, .. } => Reason::NotFound,
            FetchError::Status { status: 507, step: Step::Push, .. } => Reason::NoSpace,
            FetchError::Status { .. } => Reason::RegistryUnavailable,
            FetchError::Transport { source, .. } => source.reason(),
            FetchError::BreakerOpen { .. } => Reason::RegistryUnavailable,
            FetchError::NoEndpoint { .. } => Reason::InvalidConfig,
            FetchError::NoProgress { .. } => Reason::Timeout,
            FetchError::RealmNotTrusted { .. } => Reason::RealmNotTrusted,
            FetchError::Challenge { .. } | FetchError::Token { .. } => Reason::Unauthorized,
            FetchError::Redirect { source, .. } => source.reason(),
            FetchError::Protocol { .. } => Reason::RegistryUnavailable,
            FetchError::ContentEncoding { .. } => Reason::DigestMismatch,
            FetchError::Manifest { source, .. } => source.reason(),
            FetchError::DigestMismatch { .. } | FetchError::InlineData { .. } => Reason::DigestMismatch,
            FetchError::SizeMismatch { .. } => Reason::SizeMismatch,
            FetchError::TooLarge { .. } => Reason::LimitExceeded,
            FetchError::UnverifiableDigest { .. } => Reason::InvalidReference,
            FetchError::Source { .. } => Reason::IoError,
            FetchError::AllEndpoints { errors, .. } => errors.last().map_or(Reason::RegistryUnavailable, Self::reason),
        }
    }

    /// The credentials that were tried, as far as the error is about them.
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            FetchError::NotFound { attempts, .. }
            | FetchError::Unauthorized { attempts, .. }
            | FetchError::Denied { attempts, .. } => attempts,
            FetchError::AllEndpoints { errors, .. } => errors.last().map_or(&[], Self::attempts),
            _ => &[],
        }
    }
}
