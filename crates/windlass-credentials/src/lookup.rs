//! What a lookup answers.

use std::path::PathBuf;

use windlass_core::keyring::{Candidate, KeyringError, Skipped};
use windlass_core::reason::Reason;

use crate::file::FileError;

/// The credentials for one image, and what was found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// In trying order. Empty means one anonymous attempt.
    pub candidates: Vec<Candidate>,
    /// What was passed over, or used although a kubelet would not; to be reported.
    pub skipped: Vec<Skipped>,
    /// Files with credentials that the group or everybody may read; to be warned about.
    pub exposed_files: Vec<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// By the kubelet's rules a malformed pull secret fails the pull.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A file that was named on purpose cannot be used.
    #[error("the credentials file {path} cannot be used", path = path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FileError,
    },
    /// The task that reads files ended early; the runtime is shutting down.
    #[error("reading credentials was interrupted")]
    Interrupted,
}

impl CredentialsError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            CredentialsError::Keyring(error) => error.reason(),
            CredentialsError::AuthFile { source, .. } => source.reason(),
            CredentialsError::Interrupted => Reason::Canceled,
        }
    }
}
