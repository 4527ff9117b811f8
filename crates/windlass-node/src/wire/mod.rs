//! What the command line and the daemon say to each other: JSON, requests in one piece, answers line by line.
//!
//! Both ends are the same program on the same machine; fields only get more. Secrets are on this wire because a person's
//! credentials are used by the daemon: the socket is for root and its group, and nothing here prints them.
//!
//! Invariants: `a_report_survives_the_wire`, `secrets_are_on_the_wire_and_nowhere_else`, and those of its parts.

mod credentials;
mod ensure;
mod events;
mod pull;

use serde::{Deserialize, Serialize};
use windlass_core::reason::Reason;

pub use credentials::{GivenCandidate, GivenLookup};
pub use ensure::{ContainerLine, EnsureAsk, EnsureLine, EventLine, FailureLine, ManifestFile};
pub use events::EventWire;
pub use pull::{AttemptLine, PullAsk, PullLine};

/// Where this is served, below the socket's root.
pub const PREFIX: &str = "/windlass/v1";

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Line {
    /// Something happened on the way.
    Event {
        /// What.
        event: EventWire,
    },
    /// The image is there. The last line.
    Pulled {
        /// How it came.
        report: Box<PullLine>,
    },
    /// What became of every container. The last line.
    Ensured {
        /// The report.
        report: Box<EnsureLine>,
    },
    /// It did not work. The last line.
    Failed {
        /// Why.
        failure: Refusal,
    },
    /// Nothing happened, and the daemon is still there.
    Alive,
}

/// Why the daemon did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The class of the reason.
    pub class: String,
    /// What happened.
    pub message: String,
    /// Credentials that were tried and what came of each.
    pub tried: Vec<String>,
    /// What to do next.
    pub hint: String,
}

impl Refusal {
    /// With the reason's own hint.
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal {
            class: reason.class().to_owned(),
            message: message.into(),
            tried: Vec::new(),
            hint: reason.hint().to_owned(),
        }
    }

    /// What an error of the engine tells.
    pub fn of(error: &windlass_pull::PullError) -> Refusal {
        Refusal {
            class: error.reason().class().to_owned(),
            message: error.chain(),
            tried: error.attempts().0.iter().map(ToString::to_string).collect(),
            hint: error.hint(),
        }
    }

    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        reason(&self.class).unwrap_or(Reason::Internal)
    }
}

/// The reason of a class.
fn reason(class: &str) -> Option<Reason> {
    Reason::ALL.iter().find(|reason| reason.class() == class).copied()
}

#[cfg(test)]
mod tests;
