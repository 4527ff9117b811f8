//! What a pull says while it works.
//!
//! In: states of layers and images, from tasks and blocking threads. Out: calls of the caller's [`EventSink`],
//! byte counts at most every [`PROGRESS_INTERVAL`] per layer. [`Totals`] folds the events into what a progress
//! line shows. An event never blocks the pull: a sink must return at once and may drop what it cannot take.
//!
//! Invariants: `totals_count_each_layer_once`, `a_restart_takes_bytes_back`, `byte_counts_are_throttled`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::digest::Digest;

use crate::board::Tracked;

/// Shortest time between two byte counts of one layer: ten a second look smooth to a person.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Takes events. Called from several threads at once; must return quickly.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// A sink that drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn event(&self, _event: Event) {}
}

impl<F: Fn(Event) + Send + Sync> EventSink for F {
    fn event(&self, event: Event) {
        self(event);
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The tag or digest led to one manifest; layers are known.
    Resolved {
        /// The reference as typed.
        image: Arc<str>,
        /// The platform chosen, `linux/amd64`.
        platform: String,
        /// The digest the reference names (index or manifest).
        digest: Digest,
        /// Each distinct layer, lowest first.
        layers: Arc<[LayerInfo]>,
    },
    /// A layer changed its state.
    Layer {
        /// The reference as typed.
        image: Arc<str>,
        /// Which of `layers` in [`Event::Resolved`].
        layer: usize,
        /// Its new state.
        state: LayerState,
    },
    /// Every part is here; the image is being made durable and visible.
    Committing {
        /// The reference as typed.
        image: Arc<str>,
    },
    /// The image is there.
    Finished {
        /// The reference as typed.
        image: Arc<str>,
        /// The image ID.
        id: Digest,
        /// Whether anything was fetched.
        outcome: Outcome,
    },
    /// The image is not there; the error follows as the call's result.
    Failed {
        /// The reference as typed.
        image: Arc<str>,
    },
    /// Something a person should know and the pull went on without.
    Warning {
        /// The reference as typed.
        image: Arc<str>,
        /// One line.
        text: String,
    },
    /// `ensure --wait` will try this image again.
    Waiting {
        /// The reference as typed.
        image: Arc<str>,
        /// The pod it is for, `namespace/name`.
        pod: String,
        /// How long from now.
        delay: Duration,
        /// Why the last try failed, the kubelet's word.
        reason: String,
    },
}

/// A layer as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Number of compressed bytes.
    pub size_bytes: u64,
}

/// What a layer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// In the store before this pull.
    AlreadyHere,
    /// Waiting for a free place, or for another pull that fetches the same layer.
    Waiting,
    /// Bytes arrive and are unpacked as they do.
    Downloading {
        /// Compressed bytes so far. May fall when a download starts again.
        done_bytes: u64,
    },
    /// All bytes are here; the rest of the tree is being written.
    Unpacking,
    /// In the store.
    Done,
}

/// How an image came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Something was fetched.
    Pulled,
    /// The registry was asked and has nothing newer.
    UpToDate,
    /// It was here, and no registry was asked.
    AlreadyHere,
}

/// The sink and the image it speaks of, handed down into the tasks of one pull.
#[derive(Clone)]
pub(crate) struct Events {
    sink: Arc<dyn EventSink>,
    image: Arc<str>,
    /// The pull's row on the board.
    row: Option<Arc<Tracked>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({})", self.image)
    }
}

impl Events {
    pub(crate) fn new(sink: Arc<dyn EventSink>, image: &str) -> Events {
        Events { sink, image: image.into(), row: None }
    }

    /// The same, told to the board, too.
    pub(crate) fn on_board(&self, row: &Arc<Tracked>) -> Events {
        Events { row: Some(row.clone()), ..self.clone() }
    }

    /// Number of the pull within this process; 0 for what is not on the board.
    pub(crate) fn pull_number(&self) -> u64 {
        self.row.as_ref().map_or(0, |row| row.number())
    }

    fn tell(&self, event: Event) {
        if let Some(row) = &self.row {
            row.see(&event);
        }
        self.sink.event(event);
    }

    pub(crate) fn resolved(&self, platform: String, digest: Digest, layers: Arc<[LayerInfo]>) {
        self.tell(Event::Resolved { image: self.image.clone(), platform, digest, layers });
    }

    pub(crate) fn layer(&self, layer: usize, state: LayerState) {
        self.tell(Event::Layer { image: self.image.clone(), layer, state });
    }

    pub(crate) fn committing(&self) {
        self.tell(Event::Committing { image: self.image.clone() });
    }

    pub(crate) fn finished(&self, id: Digest, outcome: Outcome) {
        self.tell(Event::Finished { image: self.image.clone(), id, outcome });
    }

    pub(crate) fn failed(&self) {
        self.tell(Event::Failed { image: self.image.clone() });
    }

    pub(crate) fn warning(&self, text: impl Into<String>) {
        self.tell(Event::Warning { image: self.image.clone(), text: text.into() });
    }

    pub(crate) fn waiting(&self, pod: String, delay: Duration, reason: String) {
        self.tell(Event::Waiting { image: self.image.clone(), pod, delay, reason });
    }
}

/// Byte counts of one layer, let through at most every [`PROGRESS_INTERVAL`].
#[derive(Debug)]
pub(crate) struct Throttle {
    last: Option<tokio::time::Instant>,
}

impl Throttle {
    pub(crate) fn new() -> Throttle {
        Throttle { last: None }
    }

    /// Whether a count may be shown now.
    pub(crate) fn admits(&mut self, now: tokio::time::Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= PROGRESS_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Where all images of a call stand, folded from its events.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    images: HashMap<Arc<str>, Vec<(u64, LayerState)>>,
}

/// What a progress line shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TotalsLine {
    /// Layers known so far.
    pub layers: usize,
    /// Of these, in the store before.
    pub already_here: usize,
    /// Of these, finished by this call.
    pub done: usize,
    /// Of these, all bytes here and being written.
    pub unpacking: usize,
    /// Compressed bytes fetched.
    pub done_bytes: u64,
    /// Compressed bytes to fetch in all.
    pub total_bytes: u64,
}

impl Totals {
    /// Takes one event in.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Resolved { image, layers, .. } => {
                let rows = layers.iter().map(|layer| (layer.size_bytes, LayerState::Waiting)).collect();
                self.images.insert(image.clone(), rows);
            }
            Event::Layer { image, layer, state } => {
                if let Some(row) = self.images.get_mut(image).and_then(|rows| rows.get_mut(*layer)) {
                    row.1 = *state;
                }
            }
            Event::Committing { .. }
            | Event::Finished { .. }
            | Event::Failed { .. }
            | Event::Warning { .. }
            | Event::Waiting { .. } => {}
        }
    }

    /// The sums.
    pub fn line(&self) -> TotalsLine {
        let mut line = TotalsLine::default();
        for (size_bytes, state) in self.images.values().flatten() {
            line.layers += 1;
            let fetched = match state {
                LayerState::AlreadyHere => {
                    line.already_here += 1;
                    continue;
                }
                LayerState::Waiting => 0,
                LayerState::Downloading { done_bytes } => *done_bytes,
                LayerState::Unpacking => {
                    line.unpacking += 1;
                    *size_bytes
                }
                LayerState::Done => {
                    line.done += 1;
                    *size_bytes
                }
            };
            line.done_bytes += fetched.min(*size_bytes);
            line.total_bytes += size_bytes;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(sizes: &[u64]) -> Event {
        let layers =
            sizes.iter().map(|size| LayerInfo { digest: Digest::sha256(&size.to_le_bytes()), size_bytes: *size });
        Event::Resolved {
            image: "a".into(),
            platform: "linux/amd64".into(),
            digest: Digest::sha256(b"m"),
            layers: layers.collect(),
        }
    }

    fn layer(layer: usize, state: LayerState) -> Event {
        Event::Layer { image: "a".into(), layer, state }
    }

    #[test]
    fn totals_count_each_layer_once() {
        let mut totals = Totals::default();
        totals.add(&resolved(&[10, 20, 30, 40]));
        totals.add(&layer(0, LayerState::AlreadyHere));
        totals.add(&layer(1, LayerState::Downloading { done_bytes: 5 }));
        totals.add(&layer(1, LayerState::Downloading { done_bytes: 15 }));
        totals.add(&layer(2, LayerState::Unpacking));
        totals.add(&layer(3, LayerState::Done));
        totals.add(&layer(9, LayerState::Done));
        let want = TotalsLine { layers: 4, already_here: 1, done: 1, unpacking: 1, done_bytes: 85, total_bytes: 90 };
        assert_eq!(totals.line(), want);
    }

    #[test]
    fn a_restart_takes_bytes_back() {
        let mut totals = Totals::default();
        totals.add(&resolved(&[10]));
        totals.add(&layer(0, LayerState::Downloading { done_bytes: 8 }));
        totals.add(&layer(0, LayerState::Downloading { done_bytes: 0 }));
        assert_eq!(totals.line().done_bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn byte_counts_are_throttled() {
        let mut throttle = Throttle::new();
        assert!(throttle.admits(tokio::time::Instant::now()));
        assert!(!throttle.admits(tokio::time::Instant::now()));
        tokio::time::advance(PROGRESS_INTERVAL).await;
        assert!(throttle.admits(tokio::time::Instant::now()));
    }
}
