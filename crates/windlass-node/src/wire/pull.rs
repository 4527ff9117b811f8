//! A pull that the daemon is asked for, and its report.
//!
//! Invariant: `a_report_survives_the_wire`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;
use windlass_pull::{Accepted, Attempt, Attempts, PullReport};

use super::credentials::GivenCandidate;
use super::events::OutcomeWire;
use super::reason;

/// An image to be made present.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullAsk {
    /// The reference as typed.
    pub image: String,
    /// The platform; `None`: the machine's.
    pub platform: Option<String>,
    /// What may be shown to the registry, in this order, and nothing else.
    pub candidates: Vec<GivenCandidate>,
}

/// What `windlass_pull::PullReport` says, without the accepted credential.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullLine {
    image: String,
    id: Digest,
    digest: Digest,
    manifest: Digest,
    platform: String,
    outcome: OutcomeWire,
    layers: usize,
    layers_already_here: usize,
    size_bytes: u64,
    fetched_bytes: u64,
    source: Option<String>,
    attempts: Vec<AttemptLine>,
    requests: u64,
    took_us: u64,
    warnings: Vec<String>,
    notes: Vec<String>,
}

/// A credential that was tried, and the answer it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptLine {
    source: Option<String>,
    key: String,
    user: Option<String>,
    answer: String,
    class: Option<String>,
}

impl From<&Attempt> for AttemptLine {
    fn from(attempt: &Attempt) -> AttemptLine {
        AttemptLine {
            source: attempt.source.clone(),
            key: attempt.key.clone(),
            user: attempt.user.clone(),
            answer: attempt.answer.clone(),
            class: attempt.reason.map(|reason| reason.class().to_owned()),
        }
    }
}

impl From<AttemptLine> for Attempt {
    fn from(line: AttemptLine) -> Attempt {
        Attempt {
            source: line.source,
            key: line.key,
            user: line.user,
            answer: line.answer,
            reason: line.class.as_deref().map(|class| reason(class).unwrap_or(windlass_core::reason::Reason::Internal)),
        }
    }
}

/// A duration in the unit of this wire.
pub(super) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl From<&PullReport> for PullLine {
    fn from(report: &PullReport) -> PullLine {
        PullLine {
            image: report.image.clone(),
            id: report.id.clone(),
            digest: report.digest.clone(),
            manifest: report.manifest.clone(),
            platform: report.platform.clone(),
            outcome: report.outcome.into(),
            layers: report.layers,
            layers_already_here: report.layers_already_here,
            size_bytes: report.size_bytes,
            fetched_bytes: report.fetched_bytes,
            source: report.source.clone(),
            attempts: report.attempts.0.iter().map(AttemptLine::from).collect(),
            requests: report.requests,
            took_us: micros(report.took),
            warnings: report.warnings.clone(),
            notes: report.notes.clone(),
        }
    }
}

impl From<PullLine> for PullReport {
    fn from(line: PullLine) -> PullReport {
        PullReport {
            image: line.image,
            id: line.id,
            digest: line.digest,
            manifest: line.manifest,
            platform: line.platform,
            outcome: line.outcome.into(),
            layers: line.layers,
            layers_already_here: line.layers_already_here,
            size_bytes: line.size_bytes,
            fetched_bytes: line.fetched_bytes,
            source: line.source,
            attempts: Attempts(line.attempts.into_iter().map(Attempt::from).collect()),
            // The credential itself stays with the daemon.
            accepted: Accepted::Nobody,
            requests: line.requests,
            took: Duration::from_micros(line.took_us),
            warnings: line.warnings,
            notes: line.notes,
        }
    }
}
