//! What a pull says while it works, from the daemon to who watches it.
//!
//! Invariant: `an_event_survives_the_wire`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;
use windlass_pull::events::{Event, LayerInfo, LayerState, Outcome};

/// One event. Digests are checked when it is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "as in windlass_pull::events::Event")]
pub enum EventWire {
    Resolved { image: String, platform: String, digest: Digest, layers: Vec<(Digest, u64)> },
    Layer { image: String, layer: usize, state: StateWire },
    Committing { image: String },
    Finished { image: String, id: Digest, outcome: OutcomeWire },
    Failed { image: String },
    Warning { image: String, text: String },
    Waiting { image: String, pod: String, delay_ms: u64, reason: String },
}

/// What a layer is doing.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StateWire {
    AlreadyHere,
    Waiting,
    Downloading(u64),
    Unpacking,
    Done,
}

/// How an image came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeWire {
    Pulled,
    UpToDate,
    AlreadyHere,
}

impl From<Outcome> for OutcomeWire {
    fn from(outcome: Outcome) -> OutcomeWire {
        match outcome {
            Outcome::Pulled => OutcomeWire::Pulled,
            Outcome::UpToDate => OutcomeWire::UpToDate,
            Outcome::AlreadyHere => OutcomeWire::AlreadyHere,
        }
    }
}

impl From<OutcomeWire> for Outcome {
    fn from(wire: OutcomeWire) -> Outcome {
        match wire {
            OutcomeWire::Pulled => Outcome::Pulled,
            OutcomeWire::UpToDate => Outcome::UpToDate,
            OutcomeWire::AlreadyHere => Outcome::AlreadyHere,
        }
    }
}

impl EventWire {
    /// The event; `None` for one of a kind that this version does not send.
    pub fn of(event: Event) -> Option<EventWire> {
        Some(match event {
            Event::Resolved { image, platform, digest, layers } => {
                let layers = layers.iter().map(|layer| (layer.digest.clone(), layer.size_bytes)).collect();
                EventWire::Resolved { image: image.to_string(), platform, digest, layers }
            }
            Event::Layer { image, layer, state } => {
                EventWire::Layer { image: image.to_string(), layer, state: state.into() }
            }
            Event::Committing { image } => EventWire::Committing { image: image.to_string() },
            Event::Finished { image, id, outcome } => {
                EventWire::Finished { image: image.to_string(), id, outcome: outcome.into() }
            }
            Event::Failed { image } => EventWire::Failed { image: image.to_string() },
            Event::Warning { image, text } => EventWire::Warning { image: image.to_string(), text },
            Event::Waiting { image, pod, delay, reason } => {
                let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                EventWire::Waiting { image: image.to_string(), pod, delay_ms, reason }
            }
            _ => return None,
        })
    }
}

impl From<EventWire> for Event {
    fn from(wire: EventWire) -> Event {
        match wire {
            EventWire::Resolved { image, platform, digest, layers } => {
                let layers = layers.into_iter().map(|(digest, size_bytes)| LayerInfo { digest, size_bytes });
                Event::Resolved { image: image.into(), platform, digest, layers: layers.collect() }
            }
            EventWire::Layer { image, layer, state } => {
                Event::Layer { image: image.into(), layer, state: state.into() }
            }
            EventWire::Committing { image } => Event::Committing { image: image.into() },
            EventWire::Finished { image, id, outcome } => {
                Event::Finished { image: image.into(), id, outcome: outcome.into() }
            }
            EventWire::Failed { image } => Event::Failed { image: image.into() },
            EventWire::Warning { image, text } => Event::Warning { image: image.into(), text },
            EventWire::Waiting { image, pod, delay_ms, reason } => {
                Event::Waiting { image: image.into(), pod, delay: Duration::from_millis(delay_ms), reason }
            }
        }
    }
}

impl From<LayerState> for StateWire {
    fn from(state: LayerState) -> StateWire {
        match state {
            LayerState::AlreadyHere => StateWire::AlreadyHere,
            LayerState::Waiting => StateWire::Waiting,
            LayerState::Downloading { done_bytes } => StateWire::Downloading(done_bytes),
            LayerState::Unpacking => StateWire::Unpacking,
            LayerState::Done => StateWire::Done,
        }
    }
}

impl From<StateWire> for LayerState {
    fn from(wire: StateWire) -> LayerState {
        match wire {
            StateWire::AlreadyHere => LayerState::AlreadyHere,
            StateWire::Waiting => LayerState::Waiting,
            StateWire::Downloading(done_bytes) => LayerState::Downloading { done_bytes },
            StateWire::Unpacking => LayerState::Unpacking,
            StateWire::Done => LayerState::Done,
        }
    }
}
