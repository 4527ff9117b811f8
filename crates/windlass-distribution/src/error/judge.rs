//! What an error means for the next step: try again, ask somebody else, leave the endpoint alone.

use std::time::Duration;

use super::FetchError;

impl FetchError {
    /// Whether the same request may succeed a moment later at the same endpoint.
    pub(crate) fn passes(&self) -> bool {
        match self {
            FetchError::Transport { source, .. } => source.retryable(),
            FetchError::RateLimited { .. } => true,
            FetchError::Status { status, .. } => {
                matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
            }
            _ => false,
        }
    }

    /// How long the registry asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            FetchError::RateLimited { retry_after, .. } | FetchError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same failure, told as a rate limit: the registry asked for a wait that is too long for a pull.
    pub(crate) fn rate_limited(self) -> FetchError {
        match self {
            FetchError::Status { host, retry_after, words, .. } => FetchError::RateLimited { host, retry_after, words },
            other => other,
        }
    }

    /// Whether the endpoint is to be left alone for a while. The registry itself only when it cannot be reached:
    /// one failing request says nothing about the next.
    pub(crate) fn shuts_out(&self, registry: bool) -> bool {
        match self {
            FetchError::Transport { source, .. } => source.unreachable(),
            FetchError::Status { status, .. } => !registry && *status >= 500,
            FetchError::RateLimited { .. } | FetchError::NoProgress { .. } => !registry,
            _ => false,
        }
    }

    /// Whether the endpoint served bytes it should not have.
    pub(crate) fn is_wrong_content(&self) -> bool {
        matches!(
            self,
            FetchError::DigestMismatch { .. } | FetchError::SizeMismatch { .. } | FetchError::ContentEncoding { .. }
        )
    }
}
