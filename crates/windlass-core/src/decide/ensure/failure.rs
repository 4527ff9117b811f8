//! Why an image could not be ensured, in the kubelet's words and ours.

use std::borrow::Cow;
use std::time::Duration;

use crate::decide::message;
use crate::reason::Reason;

/// Prefix by which the kubelet recognises an unreachable registry, only at the very start of the text
/// (kubernetes `staging/src/k8s.io/cri-client/pkg/remote_image.go`).
const UNAVAILABLE: &str = "RegistryUnavailable";
/// The same for a missing or wrong signature.
const UNSIGNED: &str = "SignatureValidationFailed";

/// Why there is no image. `Display` is the message of the container's status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnsureError {
    /// The name does not parse.
    #[error("{message}")]
    InvalidName {
        /// The whole message.
        message: String,
    },
    /// The store could not say whether the image is here.
    #[error("{message}")]
    Inspect {
        /// The whole message.
        message: String,
    },
    /// Policy `Never`, and no image that this pod may use.
    #[error("{message}")]
    NeverPull {
        /// The whole message.
        message: String,
    },
    /// The pod's credentials cannot be read. The kubelet has no word for it: the text is the waiting reason.
    #[error("{text}")]
    Credentials {
        /// The error's text.
        text: String,
    },
    /// The intent could not be written. Here too the bare text is the waiting reason.
    #[error("{message}")]
    Intent {
        /// The whole message.
        message: String,
        /// The error's text.
        text: String,
    },
    /// An earlier pull failed, and it is too early for the next.
    #[error("{message}")]
    BackOff {
        /// The whole message, with the failure before.
        message: String,
        /// When the next attempt may be made, on the clock of the back-off.
        until: Duration,
    },
    /// The pull failed.
    #[error("{message}")]
    Pull {
        /// The kubelet's word: `ErrImagePull`, `RegistryUnavailable` or `SignatureValidationFailed`.
        waiting: &'static str,
        /// The whole message.
        message: String,
        /// Our own word.
        reason: Reason,
    },
}

impl EnsureError {
    /// The waiting reason that a kubelet would show; the raw text where it has no word.
    pub fn waiting_reason(&self) -> Cow<'_, str> {
        match self {
            EnsureError::Credentials { text } | EnsureError::Intent { text, .. } => text.into(),
            EnsureError::Pull { waiting, .. } => (*waiting).into(),
            EnsureError::InvalidName { .. }
            | EnsureError::Inspect { .. }
            | EnsureError::NeverPull { .. }
            | EnsureError::BackOff { .. } => self.reason().waiting().into(),
        }
    }

    /// The word for it in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            EnsureError::InvalidName { .. } => Reason::InvalidReference,
            EnsureError::Inspect { .. } => Reason::InspectFailed,
            EnsureError::NeverPull { .. } => Reason::NeverPull,
            EnsureError::Credentials { .. } => Reason::InvalidCredentials,
            EnsureError::Intent { .. } => Reason::IoError,
            EnsureError::BackOff { .. } => Reason::BackOff,
            EnsureError::Pull { reason, .. } => *reason,
        }
    }
}

/// How a pull failed: the text a kubelet would see, and our own word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailure {
    text: String,
    reason: Reason,
}

impl PullFailure {
    /// A text as a runtime answered it. The kubelet's reason comes from its start, ours is `reason`.
    pub fn from_text(text: impl Into<String>, reason: Reason) -> PullFailure {
        PullFailure { text: text.into(), reason }
    }

    /// One error of ours; the two special reasons become the prefix that a kubelet looks for.
    pub fn new(reason: Reason, detail: &str) -> PullFailure {
        let text = match reason.waiting() {
            prefix @ (UNAVAILABLE | UNSIGNED) => format!("{prefix}: {detail}"),
            _ => detail.to_owned(),
        };
        PullFailure { text, reason }
    }

    /// The failures of several credentials, in trying order: equal texts are named once, one text stands as it is,
    /// several become `[e1, e2]`, in which no special reason is recognised. Our reason is that of the last attempt.
    pub fn all(attempts: Vec<PullFailure>) -> Option<PullFailure> {
        let reason = attempts.last()?.reason;
        let mut texts: Vec<String> = Vec::new();
        for attempt in attempts {
            if !texts.contains(&attempt.text) {
                texts.push(attempt.text);
            }
        }
        let text = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
        Some(PullFailure { text, reason })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Our own word.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What it means for the container.
    pub(super) fn into_error(self, image: &str) -> EnsureError {
        let (waiting, message) = match (self.text.strip_prefix(UNAVAILABLE), self.text.strip_prefix(UNSIGNED)) {
            (Some(rest), _) => (UNAVAILABLE, message::unavailable(image, rest)),
            (None, Some(rest)) => (UNSIGNED, message::unsigned(image, rest)),
            (None, None) => ("ErrImagePull", self.text.clone()),
        };
        EnsureError::Pull { waiting, message, reason: self.reason }
    }
}
