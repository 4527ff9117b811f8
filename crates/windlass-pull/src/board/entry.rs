//! One pull under way, and what of it is shown.

use jiff::Timestamp;
use tokio::time::Instant;

use super::rate::{Rate, eta};
use super::state::{LayerRow, Phase, PhaseTimes, PullState, RowState};
use crate::events::LayerState;

/// Layers shown of one pull; an image may have thousands.
const LAYERS_MAX: usize = 512;

/// One pull under way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) image: String,
    pub(super) platform: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) since: Timestamp,
    pub(super) began: Instant,
    pub(super) resolved: Option<Instant>,
    pub(super) committing: Option<Instant>,
    pub(super) layers: Vec<Layer>,
}

/// One of its layers.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) digest: String,
    pub(super) size_bytes: u64,
    pub(super) state: LayerState,
    pub(super) rate: Rate,
}

impl Entry {
    /// One that begins now.
    pub(super) fn new(image: &str) -> Entry {
        Entry {
            image: image.to_owned(),
            platform: None,
            digest: None,
            since: Timestamp::now(),
            began: Instant::now(),
            resolved: None,
            committing: None,
            layers: Vec::new(),
        }
    }

    /// How long each phase took, up to now.
    pub(super) fn times(&self, now: Instant) -> PhaseTimes {
        let millis = |from: Instant, to: Instant| u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX);
        let resolved = self.resolved.unwrap_or(now);
        let committing = self.committing.unwrap_or(now);
        PhaseTimes {
            resolve_ms: millis(self.began, resolved),
            layers_ms: millis(resolved, committing),
            commit_ms: millis(committing, now),
            total_ms: millis(self.began, now),
        }
    }

    /// As it is shown.
    pub(super) fn state(&self, number: u64, now: Instant) -> PullState {
        let phase = match (self.resolved, self.committing) {
            (_, Some(_)) => Phase::Committing,
            (Some(_), None) => Phase::Layers,
            (None, None) => Phase::Resolving,
        };
        let fetched = || self.layers.iter().filter(|layer| layer.state != LayerState::AlreadyHere);
        let done_bytes = fetched().map(Layer::done_bytes).sum();
        let total_bytes: u64 = fetched().map(|layer| layer.size_bytes).sum();
        let rate = fetched().map(|layer| layer.rate_now(now)).sum();
        PullState {
            number,
            image: self.image.clone(),
            platform: self.platform.clone(),
            digest: self.digest.clone(),
            since: self.since,
            phase,
            layers: self.layers.iter().take(LAYERS_MAX).map(|layer| layer.row(now)).collect(),
            layer_count: self.layers.len(),
            done_bytes,
            total_bytes,
            rate_bytes_per_second: rate,
            eta_seconds: eta(total_bytes.saturating_sub(done_bytes), rate),
        }
    }
}

impl Layer {
    fn done_bytes(&self) -> u64 {
        match self.state {
            LayerState::Waiting => 0,
            LayerState::Downloading { done_bytes } => done_bytes.min(self.size_bytes),
            LayerState::AlreadyHere | LayerState::Unpacking | LayerState::Done => self.size_bytes,
        }
    }

    fn rate_now(&self, now: Instant) -> u64 {
        match self.state {
            LayerState::Downloading { .. } => self.rate.bytes_per_second(now),
            LayerState::AlreadyHere | LayerState::Waiting | LayerState::Unpacking | LayerState::Done => 0,
        }
    }

    fn row(&self, now: Instant) -> LayerRow {
        let (done_bytes, rate) = (self.done_bytes(), self.rate_now(now));
        LayerRow {
            digest: self.digest.clone(),
            size_bytes: self.size_bytes,
            done_bytes,
            state: match self.state {
                LayerState::AlreadyHere => RowState::AlreadyHere,
                LayerState::Waiting => RowState::Waiting,
                LayerState::Downloading { .. } => RowState::Downloading,
                LayerState::Unpacking => RowState::Unpacking,
                LayerState::Done => RowState::Done,
            },
            rate_bytes_per_second: rate,
            eta_seconds: eta(self.size_bytes - done_bytes, rate),
        }
    }
}
