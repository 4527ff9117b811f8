//! Why a document was refused.

use std::fmt;

use super::media_type::describe;
use crate::reason::Reason;

/// Longest foreign text that an error repeats, in characters.
const SHOWN_MAX_CHARS: usize = 120;

/// What said which kind a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The `Content-Type` of the answer.
    ContentType,
    /// The descriptor in the index that led here.
    Descriptor,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expected::ContentType => "Content-Type",
            Expected::Descriptor => "the descriptor",
        })
    }
}

/// Why a manifest, index or config was refused. Foreign text in it is shortened and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A limit was passed.
    #[error("{what} is {value}, the limit limits.{what} is {limit}")]
    Limit {
        /// The limit's key.
        what: &'static str,
        /// What was found.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The bytes are not one JSON value.
    #[error("not valid JSON: {problem}")]
    Json {
        /// Where and why.
        problem: String,
    },
    /// A field breaks a rule of the format.
    #[error("{at}: {problem}")]
    Field {
        /// The field's path, `layers[3].digest`.
        at: String,
        /// The rule.
        problem: String,
    },
    /// The document could be read as an index and as a manifest (CVE-2021-41190).
    #[error("the document has manifests and also {other}: it could be read two ways")]
    Ambiguous {
        /// The second field.
        other: &'static str,
    },
    /// Transport, parent and body disagree about what the document is.
    #[error("{by} says {said:?}, the document says {found:?}")]
    TypeMismatch {
        /// Who disagrees with the body.
        by: Expected,
        /// What it said.
        said: String,
        /// What the body, or failing that the transport, says.
        found: String,
    },
    /// A web page answered.
    #[error("the answer is a web page, not from a registry (captive portal or proxy?)")]
    Html,
    /// An answer of no known type.
    #[error("the answer is neither manifest nor index (its type: {content_type})")]
    NotADocument {
        /// The content type, or `none`.
        content_type: String,
    },
    /// A manifest of something that cannot run.
    #[error("not a container image but {} ({media_type})", describe(media_type))]
    Artifact {
        /// Its artifact type, or the type of its config.
        media_type: String,
    },
    /// Docker's first image format.
    #[error("schema 1 is no longer supported; rebuild or push the image again with a current tool")]
    SchemaOne,
    /// An encrypted layer.
    #[error("layer {at} is encrypted ({media_type})")]
    Encrypted {
        /// Its number, from 0.
        at: usize,
        /// Its type.
        media_type: String,
    },
    /// A layer of unknown type.
    #[error("layer {at} has the unsupported type {media_type}")]
    Layer {
        /// Its number, from 0.
        at: usize,
        /// Its type.
        media_type: String,
    },
    /// Config and manifest do not belong together.
    #[error("the config lists {diff_ids} layers, the manifest {layers}")]
    LayerCount {
        /// `rootfs.diff_ids` of the config.
        diff_ids: usize,
        /// `layers` of the manifest.
        layers: usize,
    },
}

impl ManifestError {
    /// The word for it in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            ManifestError::Limit { .. } => Reason::LimitExceeded,
            ManifestError::Json { .. }
            | ManifestError::Field { .. }
            | ManifestError::Ambiguous { .. }
            | ManifestError::TypeMismatch { .. }
            | ManifestError::LayerCount { .. } => Reason::BadManifest,
            ManifestError::Html | ManifestError::NotADocument { .. } | ManifestError::Artifact { .. } => {
                Reason::NotAnImage
            }
            ManifestError::SchemaOne | ManifestError::Encrypted { .. } | ManifestError::Layer { .. } => {
                Reason::UnsupportedMediaType
            }
        }
    }

    pub(super) fn field(at: impl Into<String>, problem: impl Into<String>) -> ManifestError {
        ManifestError::Field { at: shown(&at.into()), problem: problem.into() }
    }

    pub(super) fn check_limit(what: &'static str, value: u64, limit: u64) -> Result<(), ManifestError> {
        if value > limit { Err(ManifestError::Limit { what, value, limit }) } else { Ok(()) }
    }
}

/// Foreign text, fit to be printed: short, and without what would move a cursor or turn the direction of writing.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SHOWN_MAX_CHARS) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}
