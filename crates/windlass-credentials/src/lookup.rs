//! What a lookup answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::keyring::{Candidate, KeyringError, Skipped};
use windlass_core::reason::Reason;

use crate::file::FileError;
use crate::plugin::PluginConfigError;

/// The credentials for one image, and what was found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// In trying order. Empty means one anonymous attempt.
    pub candidates: Vec<Candidate>,
    /// What was passed over, or used although a kubelet would not; to be reported.
    pub skipped: Vec<Skipped>,
    /// Every provider that is configured, in the order of asking, with what came of it.
    pub providers: Vec<ProviderNote>,
    /// Files with credentials that the group or everybody may read; to be warned about.
    pub exposed_files: Vec<PathBuf>,
}

/// Which kind of provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// A program that a configuration names.
    Plugin,
    /// A cloud that is built in.
    Cloud,
}

impl ProviderKind {
    /// `plugin` or `cloud`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProviderKind::Plugin => "plugin",
            ProviderKind::Cloud => "cloud",
        }
    }
}

/// Whether a provider is one for the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    /// This pattern of its `matchImages` covers the image.
    Pattern(String),
    /// The host is one of the cloud's.
    Cloud,
    /// None of its patterns does; each with the rule that does not fit.
    None(Vec<(String, String)>),
    /// The host is not one of the cloud's.
    ForeignHost,
}

/// What came of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is not one for this image.
    No,
    /// It was left alone, e.g. for lack of a service account.
    Skipped {
        /// Why.
        why: String,
    },
    /// It wants the service account's token, and there is none that it could be shown.
    NoToken {
        /// Why.
        why: String,
    },
    /// An answer from before was used.
    Cached,
    /// It answered now.
    Answered,
    /// It failed now.
    Failed {
        /// What happened, without any secret.
        error: String,
        /// The reason in the common vocabulary.
        reason: Reason,
        /// What to do, or empty.
        hint: String,
    },
    /// It failed before, and is asked again after a while.
    BackingOff {
        /// What happened then.
        error: String,
        /// How long yet.
        again_in: Duration,
    },
}

/// One provider, as it was met on the way to an answer. No secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderNote {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ProviderKind,
    /// Whether it is one for the image.
    pub matched: Matched,
    /// What came of it.
    pub asked: Asked,
    /// For what the answer is kept, e.g. `registry r.io`; empty where it is not.
    pub cache_key: String,
    /// How long the answer is used yet; `None` where it is not kept.
    pub expires_in: Option<Duration>,
    /// The `auths` keys of the answer.
    pub keys: Vec<String>,
    /// How its program ended the last time that it was run, e.g. `exit status: 0`; empty where it was not.
    pub exit_status: String,
    /// What its program wrote to standard error then, masked.
    pub stderr: String,
    /// Something that the person who configured it should know; usually empty.
    pub advice: String,
}

impl ProviderNote {
    /// Why an image that it is a provider for gets nothing from it.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.asked {
            Asked::No | Asked::Skipped { .. } | Asked::Cached | Asked::Answered => None,
            Asked::NoToken { why } => Some(why.clone()),
            Asked::Failed { error, hint, .. } if !hint.is_empty() => Some(format!("{error} ({hint})")),
            Asked::Failed { error, .. } => Some(error.clone()),
            Asked::BackingOff { error, again_in } => {
                Some(format!("it failed before and is asked again in {} s: {error}", again_in.as_secs() + 1))
            }
        }
    }

    /// As messages name it: `plugin NAME` or `cloud NAME`.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind.as_str(), self.name)
    }
}

/// Whether asking the sources again can help, after a registry refused a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedOutcome {
    /// The answer that it came from is forgotten; a new one may be better.
    AskAgain,
    /// It has only just been answered; asking again would give the same.
    Fresh,
    /// It comes from a place that does not change by asking.
    Fixed,
}

/// How a provider has fared so far. No secret in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderState {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ProviderKind,
    /// How often it was asked; answers that were kept do not count.
    pub calls: u64,
    /// How many of these failed.
    pub errors: u64,
    /// How long all of them took.
    pub total_seconds: f64,
    /// The answers that are kept.
    pub cached: Vec<CachedLogin>,
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CachedLogin {
    /// For what, e.g. `registry r.io`.
    pub key: String,
    /// How long yet.
    pub expires_in: Duration,
    /// How many logins it holds.
    pub logins: usize,
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
    /// The configuration of providers cannot be used, and there is none from before.
    #[error(transparent)]
    Plugins(Arc<PluginConfigError>),
    /// The task that reads files ended early; the runtime is shutting down.
    #[error("reading credentials was interrupted")]
    Interrupted,
}

impl CredentialsError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            CredentialsError::Keyring(error) => error.reason(),
            CredentialsError::AuthFile { source, .. } => source.reason(),
            CredentialsError::Plugins(error) => error.reason(),
            CredentialsError::Interrupted => Reason::Canceled,
        }
    }
}
