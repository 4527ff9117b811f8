//! The steps: each takes the answer to its question and leads to the next.

use super::{
    Effect, EnsureError, Event, Metrics, Next, Origin, Outcome, PullFailure, PullTimes, Request, Severity, Turn,
    Usable, Verification,
};
use crate::access::{Check, Grant, Grounds, PodCheck, PodProofs, RecordLookup, RepositoryAccess, check, check_pod};
use crate::backoff::Gate;
use crate::decide::{Decision, Presence, decide, message};
use crate::policy::PullPolicy;
use crate::reference::Reference;

/// What all steps carry along.
#[derive(Debug)]
struct Story {
    request: Request,
    reference: Reference,
    metrics: Metrics,
    /// What the pod can show, once it was asked.
    proofs: Option<PodProofs>,
}

/// Starts the routine.
pub fn begin(request: Request) -> Turn {
    let metrics =
        Metrics { pull_policy: request.policy, present_locally: None, pull_required: None, must_pull_check: None };
    let reference = match Reference::parse(&request.image) {
        Ok(reference) => reference,
        Err(error) => {
            let message = message::invalid_name(&request.image, &error.to_string());
            let event = warning("InspectFailed", message.clone());
            return failed(vec![event], EnsureError::InvalidName { message }, metrics);
        }
    };
    let story = Story { request, reference, metrics, proofs: None };
    match story.request.policy {
        PullPolicy::Always => story.settle(Presence::Unseen, Vec::new()),
        PullPolicy::IfNotPresent | PullPolicy::Never => ask(Next::Inspect(Inspect(story))),
    }
}

/// Is the image here?
#[derive(Debug)]
pub struct Inspect(Story);

impl Inspect {
    /// The name to look up in the store.
    pub fn reference(&self) -> &Reference {
        &self.0.reference
    }

    /// The store's answer: the image ID, `None` if it is not here, or why the store cannot say.
    pub fn answer(self, found: Result<Option<String>, String>) -> Turn {
        let Inspect(mut story) = self;
        match found {
            Err(error) => {
                let message = message::inspect_failed(&story.request.image, &error);
                let event = warning("InspectFailed", message.clone());
                failed(vec![event], EnsureError::Inspect { message }, story.metrics)
            }
            Ok(None) => {
                story.metrics.present_locally = Some(false);
                story.settle(Presence::Absent, Vec::new())
            }
            Ok(Some(image_ref)) => {
                story.metrics.present_locally = Some(true);
                match &story.request.verification {
                    Verification::Off => story.settle(Presence::Usable(image_ref), Vec::new()),
                    Verification::On(_) => ask(Next::ReadRecords(ReadRecords { story, image_ref })),
                }
            }
        }
    }
}

/// What is on record about the image?
#[derive(Debug)]
pub struct ReadRecords {
    story: Story,
    image_ref: String,
}

impl ReadRecords {
    /// The image ID to look up among the pull records.
    pub fn image_ref(&self) -> &str {
        &self.image_ref
    }

    /// The image string to look up among the intents.
    pub fn image(&self) -> &str {
        &self.story.request.image
    }

    /// The record, and whether an intent for exactly this image string exists.
    pub fn answer(self, record: &RecordLookup, intent: bool) -> Turn {
        let ReadRecords { story, image_ref } = self;
        let Verification::On(policy) = &story.request.verification else {
            return story.settle(Presence::Usable(image_ref), Vec::new());
        };
        match check(&story.reference, policy, record, intent) {
            Check::Allowed(grounds) => story.checked(grounds, Presence::Usable(image_ref), Vec::new()),
            Check::Denied(grounds) => story.checked(grounds, Presence::Denied, Vec::new()),
            Check::AskPod(access) => {
                let purpose = Purpose::Verify { image_ref, access };
                ask(Next::LookUpCredentials(LookUpCredentials { story, purpose }))
            }
        }
    }
}

/// Which credentials does the pod have for the image?
#[derive(Debug)]
pub struct LookUpCredentials {
    story: Story,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// To compare them with what is on record.
    Verify { image_ref: String, access: RepositoryAccess },
    /// To pull with them.
    Pull,
}

impl LookUpCredentials {
    /// The repository to look up in the keyring.
    pub fn reference(&self) -> &Reference {
        &self.story.reference
    }

    /// What the pod can show, or why its credentials cannot be read.
    pub fn answer(self, found: Result<PodProofs, String>) -> Turn {
        let LookUpCredentials { mut story, purpose } = self;
        match (found, purpose) {
            (Err(text), purpose) => {
                if let Purpose::Verify { .. } = purpose {
                    story.metrics.must_pull_check = Some(Grounds::Error);
                }
                failed(Vec::new(), EnsureError::Credentials { text }, story.metrics)
            }
            (Ok(proofs), Purpose::Pull) => {
                story.proofs = Some(proofs);
                story.go_on_to_pull(Vec::new())
            }
            (Ok(proofs), Purpose::Verify { image_ref, access }) => {
                let checked = check_pod(&access, &proofs, story.request.mode);
                story.proofs = Some(proofs);
                match checked {
                    PodCheck::Denied => story.checked(Grounds::MustAuthenticate, Presence::Denied, Vec::new()),
                    PodCheck::Allowed { also } => {
                        let repository = story.reference.repository();
                        let record = |grant| Effect::RecordProof { image_ref: image_ref.clone(), repository, grant };
                        let effects = also.map(record).into_iter().collect();
                        story.checked(Grounds::RecordFound, Presence::Usable(image_ref), effects)
                    }
                }
            }
        }
    }
}

impl Story {
    /// Notes what the check of the records found.
    fn checked(mut self, grounds: Grounds, presence: Presence, effects: Vec<Effect>) -> Turn {
        self.metrics.must_pull_check = Some(grounds);
        self.settle(presence, effects)
    }

    /// Uses, refuses, or goes on to pull. The gate is asked later, so that credentials come first.
    fn settle(mut self, presence: Presence, mut effects: Vec<Effect>) -> Turn {
        let was_denied = presence == Presence::Denied;
        match decide(self.request.policy, presence, Gate::Open) {
            Decision::Use(image_ref) => {
                self.metrics.pull_required = Some(false);
                let message = match self.request.verification {
                    Verification::Off => message::present(&self.request.image),
                    Verification::On(_) => message::present_and_allowed(&self.request.image),
                };
                effects.push(normal("Pulled", message));
                done(effects, Ok(Usable::Local(image_ref)), self.metrics)
            }
            Decision::Refuse => {
                // The kubelet's metric alone tells the two apart; nothing that a pod can see does.
                self.metrics.pull_required = was_denied.then_some(true);
                let message = message::never(&self.request.image);
                effects.push(warning("ErrImageNeverPull", message.clone()));
                failed(effects, EnsureError::NeverPull { message }, self.metrics)
            }
            Decision::Pull | Decision::Wait { .. } => {
                self.metrics.pull_required = Some(true);
                match self.proofs {
                    Some(_) => self.go_on_to_pull(effects),
                    None => {
                        let question = LookUpCredentials { story: self, purpose: Purpose::Pull };
                        Turn { effects, next: Next::LookUpCredentials(question) }
                    }
                }
            }
        }
    }

    fn go_on_to_pull(self, effects: Vec<Effect>) -> Turn {
        let next = match self.request.verification {
            Verification::Off => Next::AskGate(AskGate(self)),
            Verification::On(_) => Next::WriteIntent(WriteIntent(self)),
        };
        Turn { effects, next }
    }

    fn drop_intent(&self) -> Option<Effect> {
        match self.request.verification {
            Verification::Off => None,
            Verification::On(_) => Some(Effect::DropIntent { image: self.request.image.clone() }),
        }
    }
}

/// Write the intent; did that work?
#[derive(Debug)]
pub struct WriteIntent(Story);

impl WriteIntent {
    /// The image string to write down.
    pub fn image(&self) -> &str {
        &self.0.request.image
    }

    /// Whether it is written, or why not. Several pulls of one string share one intent, which the last one drops.
    pub fn answer(self, written: Result<(), String>) -> Turn {
        let WriteIntent(story) = self;
        match written {
            Ok(()) => ask(Next::AskGate(AskGate(story))),
            Err(text) => {
                let message = message::intent_failed(&story.request.image, &text);
                failed(Vec::new(), EnsureError::Intent { message, text }, story.metrics)
            }
        }
    }
}

/// May a pull be tried now?
#[derive(Debug)]
pub struct AskGate(Story);

impl AskGate {
    /// The image string that is half of the back-off's key.
    pub fn image(&self) -> &str {
        &self.0.request.image
    }

    /// What the back-off says for this pod and image.
    pub fn answer(self, gate: Gate) -> Turn {
        let AskGate(story) = self;
        let Decision::Wait { until, previous } = decide(PullPolicy::Always, Presence::Unseen, gate) else {
            let effects = vec![normal("Pulling", message::pulling(&story.request.image))];
            return Turn { effects, next: Next::Pull(Pull(story)) };
        };
        let text = message::back_off(&story.request.image);
        let mut effects: Vec<Effect> = story.drop_intent().into_iter().collect();
        effects.push(normal("BackOff", text.clone()));
        let message = match previous {
            Some(previous) => format!("{text}: {previous}"),
            None => text,
        };
        failed(effects, EnsureError::BackOff { message, until }, story.metrics)
    }
}

/// Pull; how did it go?
#[derive(Debug)]
pub struct Pull(Story);

/// A good pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image ID.
    pub image_ref: String,
    /// What made it succeed.
    pub grant: Grant,
    /// How long it took.
    pub times: PullTimes,
}

impl Pull {
    /// What to pull.
    pub fn reference(&self) -> &Reference {
        &self.0.reference
    }

    /// How it went.
    pub fn answer(self, result: Result<Pulled, PullFailure>) -> Turn {
        let Pull(story) = self;
        let image = story.request.image.clone();
        match result {
            Ok(Pulled { image_ref, grant, times }) => {
                let text = message::pulled(&image, times.pull, times.with_waiting, times.size_bytes);
                let mut effects = vec![normal("Pulled", text), Effect::CountSuccess];
                if let Verification::On(_) = story.request.verification {
                    let (image_ref, repository) = (image_ref.clone(), story.reference.repository());
                    effects.push(Effect::RecordPulled { image, image_ref, repository, grant });
                }
                done(effects, Ok(Usable::Pulled(image_ref)), story.metrics)
            }
            Err(failure) => {
                let event = warning("Failed", message::pull_failed(&image, failure.text()));
                let error = failure.into_error(&image);
                let previous = format!("{}: {error}", error.waiting_reason());
                let mut effects = vec![event, Effect::CountFailure { previous }];
                effects.extend(story.drop_intent());
                failed(effects, error, story.metrics)
            }
        }
    }
}

fn ask(next: Next) -> Turn {
    Turn { effects: Vec::new(), next }
}

fn done(effects: Vec<Effect>, result: Result<Usable, EnsureError>, metrics: Metrics) -> Turn {
    Turn { effects, next: Next::Done(Outcome { result, metrics }) }
}

/// The container-start step adds an event of its own to every failure.
fn failed(mut effects: Vec<Effect>, error: EnsureError, metrics: Metrics) -> Turn {
    let message = format!("Error: {}", error.waiting_reason());
    let (severity, reason, origin) = (Severity::Warning, "Failed", Origin::ContainerStart);
    effects.push(Effect::Emit(Event { severity, reason, message, origin }));
    done(effects, Err(error), metrics)
}

fn normal(reason: &'static str, message: String) -> Effect {
    Effect::Emit(Event { severity: Severity::Normal, reason, message, origin: Origin::ImageManager })
}

fn warning(reason: &'static str, message: String) -> Effect {
    Effect::Emit(Event { severity: Severity::Warning, reason, message, origin: Origin::ImageManager })
}
