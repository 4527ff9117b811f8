//! What goes wrong, once for the caller of this crate ([`RegistryError`]) and once for clients ([`ApiError`]).
//!
//! Source of truth: distribution-spec `spec.md`, "Error Codes".

use std::io;
use std::net::SocketAddr;

use http::{HeaderName, HeaderValue, StatusCode};
use windlass_core::reason::Reason;

use crate::body::{self, Answer};
use crate::route::RouteError;
use crate::storage::StorageError;

/// Why the registry cannot start or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Certificate or key do not fit.
    #[error("the certificate or key of the listener is not usable")]
    Tls(#[source] rustls::Error),
    /// Certificate or key are not PEM.
    #[error("the certificate or key of the listener is not PEM")]
    Pem,
    /// The htpasswd file cannot be read, or holds something else than bcrypt.
    #[error("htpasswd line {line}: {what}")]
    Htpasswd {
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong with it; never the line's own text.
        what: &'static str,
    },
    /// The root directory failed.
    #[error("the registry's directory")]
    Storage(#[from] StorageError),
    /// No signing key could be made.
    #[error("cannot make a signing key")]
    Key,
}

impl RegistryError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            RegistryError::Listen { .. } => Reason::InvalidConfig,
            RegistryError::Tls(_) | RegistryError::Pem | RegistryError::Htpasswd { .. } => Reason::InvalidConfig,
            RegistryError::Storage(error) => error.reason(),
            RegistryError::Key => Reason::Internal,
        }
    }
}

/// The codes of the distribution specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The blob is not in this repository.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// No such upload session.
    BlobUploadUnknown,
    /// A digest is malformed, or content does not fit it.
    DigestInvalid,
    /// A manifest names something that is not here.
    ManifestBlobUnknown,
    /// The manifest breaks the rules.
    ManifestInvalid,
    /// No such manifest.
    ManifestUnknown,
    /// The repository name breaks the grammar.
    NameInvalid,
    /// No such repository, or none that the caller may see.
    NameUnknown,
    /// A length does not fit, or is too large.
    SizeInvalid,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The caller may not.
    Denied,
    /// Not offered.
    Unsupported,
    /// Too many requests.
    TooManyRequests,
    /// `n` or `last` cannot be read.
    PaginationNumberInvalid,
    /// Our own failure.
    Unknown,
}

impl ErrorCode {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlobUnknown => "BLOB_UNKNOWN",
            ErrorCode::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            ErrorCode::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            ErrorCode::DigestInvalid => "DIGEST_INVALID",
            ErrorCode::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            ErrorCode::ManifestInvalid => "MANIFEST_INVALID",
            ErrorCode::ManifestUnknown => "MANIFEST_UNKNOWN",
            ErrorCode::NameInvalid => "NAME_INVALID",
            ErrorCode::NameUnknown => "NAME_UNKNOWN",
            ErrorCode::SizeInvalid => "SIZE_INVALID",
            ErrorCode::Unauthorized => "UNAUTHORIZED",
            ErrorCode::Denied => "DENIED",
            ErrorCode::Unsupported => "UNSUPPORTED",
            ErrorCode::TooManyRequests => "TOOMANYREQUESTS",
            ErrorCode::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            ErrorCode::Unknown => "UNKNOWN",
        }
    }
}

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> ApiError {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn blob_unknown() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown, "blob unknown to registry")
    }

    pub(crate) fn manifest_unknown() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, "manifest unknown")
    }

    pub(crate) fn name_unknown() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, "repository name not known to registry")
    }

    pub(crate) fn manifest_invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, message)
    }

    pub(crate) fn upload_unknown() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown, "blob upload unknown to registry")
    }

    pub(crate) fn method_not_allowed() -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, "the operation is unsupported")
    }

    pub(crate) fn into_answer(self) -> Answer {
        let body = serde_json::json!({ "errors": [{ "code": self.code.as_str(), "message": self.message }] });
        let mut answer = body::json(self.status, &body);
        answer.headers_mut().extend(self.headers);
        answer
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> ApiError {
        let (status, code) = match &error {
            RouteError::Path => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            RouteError::Name => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
            RouteError::Tag => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
            RouteError::Digest(_) => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            RouteError::Upload => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        };
        ApiError::new(status, code, error.to_string())
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> ApiError {
        match error {
            StorageError::Digest { want, got } => ApiError::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::DigestInvalid,
                format!("content hashed to {got}, not to {want}"),
            ),
            StorageError::TooLarge { limit_bytes } => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorCode::SizeInvalid,
                format!("blob is larger than {limit_bytes} bytes"),
            ),
            StorageError::Busy => ApiError::new(
                StatusCode::CONFLICT,
                ErrorCode::BlobUploadInvalid,
                "another request is writing to this upload",
            ),
            StorageError::UploadUnknown => ApiError::upload_unknown(),
            StorageError::TooManyUploads => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, "too many uploads are open")
                    .with(http::header::RETRY_AFTER, HeaderValue::from_static("5"))
            }
            StorageError::Io { .. } | StorageError::Stopped => {
                // The client gets no paths; the operator finds them here.
                tracing::error!(error = &error as &dyn std::error::Error, "storage failed");
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "the registry's storage failed")
            }
        }
    }
}
