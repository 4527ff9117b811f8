//! Ensuring an image: the kubelet's whole routine for one container or image volume, without doing any of it.
//!
//! In: one [`Request`], then the answer to each question. Out: [`Turn`]s: what to do now (events, records, counting),
//! and the next question or the [`Outcome`].
//! Source of truth: kubelet `pkg/kubelet/images/image_manager.go`, `EnsureImageExists`, v1.35.
//!
//! ```text
//! begin ─ Inspect ─ Records ─ Credentials ─ Intent ─ AskGate ─ Pull ─ Done
//! ```
//! Each question is skipped where its answer cannot matter, so errors of a later one stay unseen until then.
//!
//! Invariants: the recorded cases of `ensure.json`, and `nothing_is_asked_that_cannot_matter`,
//! `every_intent_that_was_written_is_dropped`.

mod failure;
mod steps;

use std::time::Duration;

pub use failure::{EnsureError, PullFailure};
pub use steps::{AskGate, Inspect, LookUpCredentials, Pull, Pulled, ReadRecords, WriteIntent, begin};

use crate::access::{Grant, Grounds, VerificationPolicy};
use crate::keyring::Mode;
use crate::policy::PullPolicy;

/// What is to be ensured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The image exactly as the pod names it.
    pub image: String,
    /// The policy in force.
    pub policy: PullPolicy,
    /// Whether, and how, access to a present image is verified.
    pub verification: Verification,
    /// Whose rules apply where ours and the kubelet's differ.
    pub mode: Mode,
}

/// The kubelet's gate `KubeletEnsureSecretPulledImages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Off: whatever is present may be used, and nothing is recorded.
    Off,
    /// On, under this policy.
    On(VerificationPolicy),
}

/// What to do now, and what to ask next.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    /// To be carried out in this order before the question is asked.
    pub effects: Vec<Effect>,
    /// The next question, or the end.
    pub next: Next,
}

/// The next question. Each variant's content has one method that takes the answer.
#[derive(Debug)]
#[must_use]
pub enum Next {
    /// Is the image here?
    Inspect(Inspect),
    /// What is on record about it?
    ReadRecords(ReadRecords),
    /// Which credentials does the pod have for it?
    LookUpCredentials(LookUpCredentials),
    /// Write the intent; did that work?
    WriteIntent(WriteIntent),
    /// May a pull be tried now?
    AskGate(AskGate),
    /// Pull; how did it go?
    Pull(Pull),
    /// Nothing more to ask.
    Done(Outcome),
}

/// Something to be done. Failing to do it does not change the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the cluster, or the person.
    Emit(Event),
    /// Add to the record of `image_ref` what a pod has shown; best effort.
    RecordProof {
        /// The image ID.
        image_ref: String,
        /// The repository name.
        repository: String,
        /// What was shown.
        grant: Grant,
    },
    /// Write the record of a good pull and, only if that worked, drop the intent of `image`: an intent left behind
    /// still says that the image was pulled.
    RecordPulled {
        /// The image as written in the pod.
        image: String,
        /// The image ID.
        image_ref: String,
        /// The repository name.
        repository: String,
        /// What made it succeed.
        grant: Grant,
    },
    /// Drop the intent of `image`: nothing was pulled.
    DropIntent {
        /// The image as written in the pod.
        image: String,
    },
    /// Count a failure in the back-off of this pod and image.
    CountFailure {
        /// Reason and message, for the next back-off message.
        previous: String,
    },
    /// Tell the back-off that a pull succeeded.
    CountSuccess,
}

/// An event, as Kubernetes knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Normal or warning.
    pub severity: Severity,
    /// The machine's word, `Pulled`.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// Which step of the kubelet emits it.
    pub origin: Origin,
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Severity {
    /// The value of the event's `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

/// Which step of the kubelet emits an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Ensuring the image.
    ImageManager,
    /// Starting the container, which adds one event to every failure; image volumes have no such step.
    ContainerStart,
}

/// The end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The image to use, or why there is none.
    pub result: Result<Usable, EnsureError>,
    /// What the metrics count.
    pub metrics: Metrics,
}

/// An image that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usable {
    /// It was here; the image ID.
    Local(String),
    /// It was pulled; the image ID.
    Pulled(String),
}

impl Usable {
    /// The image ID.
    pub fn image_ref(&self) -> &str {
        match self {
            Usable::Local(image_ref) | Usable::Pulled(image_ref) => image_ref,
        }
    }
}

/// Labels of `ensure_image_requests_total` and `image_mustpull_checks_total`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The policy; its label is in lower case.
    pub pull_policy: PullPolicy,
    /// Whether the image was here; `None` is `unknown`.
    pub present_locally: Option<bool>,
    /// Whether a pull was needed; `None` is `unknown`.
    pub pull_required: Option<bool>,
    /// What the check of records found, if there was one.
    pub must_pull_check: Option<Grounds>,
}

impl Metrics {
    /// The label's value for one of the two questions.
    pub const fn label(known: Option<bool>) -> &'static str {
        match known {
            Some(true) => "true",
            Some(false) => "false",
            None => "unknown",
        }
    }
}

/// How long a pull took, and how large its image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullTimes {
    /// The pull alone.
    pub pull: Duration,
    /// With the time in the queue.
    pub with_waiting: Duration,
    /// Size of the image as the store reports it, 0 if unknown.
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests;
