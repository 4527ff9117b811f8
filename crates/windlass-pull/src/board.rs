//! What is being pulled now and how the last pulls ended: for a status page, metrics and one line of log per pull.
//!
//! In: the events of every pull of an engine. Out: [`Board::state`], a copy to be shown, [`Board::changes`], which
//! wakes who shows it, and [`Board::endings`] for who counts. Rates are of the last seconds, not of the whole pull.
//!
//! Invariants: `a_pull_is_on_the_board_until_it_ends`, `rates_follow_the_last_seconds`, `only_the_last_pulls_are_kept`,
//! `a_dropped_pull_leaves_the_board`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use windlass_core::reason::Reason;

use crate::PullError;
use crate::events::{Event, LayerState, Outcome};
use crate::request::PullReport;

/// Pulls that have ended and are still told of.
const RECENT_MAX: usize = 100;
/// Pulls that may end before who counts them has taken them in: a hundred callers of one image, several times over.
const ENDINGS_MAX: usize = 1024;
/// Layers shown of one pull; an image may have thousands.
const LAYERS_MAX: usize = 512;
/// Over how long a rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(3);
/// Bytes of an error's text that are kept.
const MESSAGE_MAX: usize = 2048;

/// All there is to see.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BoardState {
    /// Pulls under way, the oldest first.
    pub pulls: Vec<PullState>,
    /// Pulls that have ended, the latest first.
    pub recent: Vec<PastPull>,
}

/// One pull under way.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullState {
    /// Number within this process.
    pub number: u64,
    /// The reference as typed.
    pub image: String,
    /// The platform chosen, once it is.
    pub platform: Option<String>,
    /// What the reference names, once it is known.
    pub digest: Option<String>,
    /// When it began.
    pub since: Timestamp,
    /// What it is doing.
    pub phase: Phase,
    /// The layers, lowest first, at most 512.
    pub layers: Vec<LayerRow>,
    /// Layers in all.
    pub layer_count: usize,
    /// Compressed bytes here, of those that this pull fetches.
    pub done_bytes: u64,
    /// Compressed bytes that this pull fetches.
    pub total_bytes: u64,
    /// Bytes a second in the last seconds.
    pub rate_bytes_per_second: u64,
    /// Seconds until all bytes are here at that rate; `None`: not known.
    pub eta_seconds: Option<u64>,
}

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asking the registry what the reference names.
    Resolving,
    /// Fetching and unpacking.
    Layers,
    /// Making the image durable and visible.
    Committing,
}

/// One layer of a pull under way.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRow {
    /// Digest of the compressed bytes.
    pub digest: String,
    /// Compressed bytes in all.
    pub size_bytes: u64,
    /// Compressed bytes here.
    pub done_bytes: u64,
    /// What it is doing.
    pub state: RowState,
    /// Bytes a second in the last seconds.
    pub rate_bytes_per_second: u64,
    /// Seconds until all bytes are here at that rate.
    pub eta_seconds: Option<u64>,
}

/// What a layer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowState {
    /// It was here before.
    AlreadyHere,
    /// It waits for a slot or for another pull.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// All bytes are here.
    Unpacking,
    /// It is in the store.
    Done,
}

/// One pull that has ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PastPull {
    /// Number within this process.
    pub number: u64,
    /// The reference as typed.
    pub image: String,
    /// When it ended.
    pub at: Timestamp,
    /// Time of each phase.
    pub times: PhaseTimes,
    /// How it ended.
    pub ending: Ending,
    /// The credential that was accepted or else the last one that was refused, by its source; `None`: anonymous.
    pub credential: Option<String>,
    /// Bytes of layers that were fetched.
    pub fetched_bytes: u64,
    /// Layers of an image that is now here, a layer used twice counted once.
    pub layers: usize,
    /// Of these, how many were here before.
    pub layers_already_here: usize,
}

/// How long each phase took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTimes {
    /// Until the reference had led to a manifest.
    pub resolve_ms: u64,
    /// Fetching and unpacking.
    pub layers_ms: u64,
    /// Making it durable and visible.
    pub commit_ms: u64,
    /// In all.
    pub total_ms: u64,
}

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "ending")]
pub enum Ending {
    /// Something was fetched.
    Pulled,
    /// Nothing newer at the registry.
    UpToDate,
    /// It failed.
    Failed {
        /// Our stable word.
        reason: &'static str,
        /// What happened, without secrets.
        message: String,
    },
    /// The caller gave up.
    Canceled,
}

/// The board of one engine. Clones share it.
#[derive(Debug, Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rows: Mutex<Rows>,
    changes: watch::Sender<u64>,
    endings: broadcast::Sender<PastPull>,
}

#[derive(Debug, Default)]
struct Rows {
    pulls: BTreeMap<u64, Entry>,
    recent: VecDeque<PastPull>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    image: String,
    platform: Option<String>,
    digest: Option<String>,
    since: Timestamp,
    began: Instant,
    resolved: Option<Instant>,
    committing: Option<Instant>,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    digest: String,
    size_bytes: u64,
    state: LayerState,
    rate: Rate,
}

/// Bytes at moments of the last seconds.
#[derive(Debug, Default)]
struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn see(&mut self, now: Instant, bytes: u64) {
        if self.seen.back().is_some_and(|(_, last)| *last > bytes) {
            // The download began again.
            self.seen.clear();
        }
        self.seen.push_back((now, bytes));
        // One from before the window stays, so that there is always one to compare with.
        while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW) {
            self.seen.pop_front();
        }
    }

    fn bytes_per_second(&self, now: Instant) -> u64 {
        let (Some((from, before)), Some((_, after))) = (self.seen.front(), self.seen.back()) else { return 0 };
        let millis = now.duration_since(*from).as_millis();
        u64::try_from(u128::from(after - before) * 1000 / millis.max(1)).unwrap_or(u64::MAX)
    }
}

fn eta(left_bytes: u64, rate: u64) -> Option<u64> {
    (rate > 0).then(|| left_bytes.div_ceil(rate))
}

impl Board {
    pub(crate) fn new() -> Board {
        Board {
            inner: Arc::new(Inner {
                rows: Mutex::default(),
                changes: watch::Sender::new(0),
                endings: broadcast::Sender::new(ENDINGS_MAX),
            }),
        }
    }

    /// All there is to see now.
    pub fn state(&self) -> BoardState {
        let now = Instant::now();
        let rows = self.inner.lock();
        BoardState {
            pulls: rows.pulls.iter().map(|(number, entry)| entry.state(*number, now)).collect(),
            recent: rows.recent.iter().cloned().collect(),
        }
    }

    /// Wakes after every change; the value says nothing. Byte counts come at most every 100 ms for each layer.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Each pull that ends from now on. Who takes more than a thousand of them too late misses the oldest.
    pub fn endings(&self) -> broadcast::Receiver<PastPull> {
        self.inner.endings.subscribe()
    }

    /// Puts a pull on the board.
    pub(crate) fn begin(&self, image: &str) -> Tracked {
        let entry = Entry {
            image: image.to_owned(),
            platform: None,
            digest: None,
            since: Timestamp::now(),
            began: Instant::now(),
            resolved: None,
            committing: None,
            layers: Vec::new(),
        };
        let number = {
            let mut rows = self.inner.lock();
            let number = rows.next;
            rows.next += 1;
            rows.pulls.insert(number, entry);
            number
        };
        self.inner.changed();
        Tracked { inner: self.inner.clone(), number }
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// One pull on the board. Dropped without an end it counts as given up.
#[derive(Debug)]
pub(crate) struct Tracked {
    inner: Arc<Inner>,
    number: u64,
}

impl Tracked {
    /// Its number within this process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Takes an event in.
    pub(crate) fn see(&self, event: &Event) {
        let now = Instant::now();
        {
            let mut rows = self.inner.lock();
            let Some(entry) = rows.pulls.get_mut(&self.number) else { return };
            match event {
                Event::Resolved { platform, digest, layers, .. } => {
                    entry.platform = Some(platform.clone()).filter(|platform| !platform.is_empty());
                    entry.digest = Some(digest.to_string());
                    entry.resolved = Some(now);
                    let layer = |layer: &crate::events::LayerInfo| Layer {
                        digest: layer.digest.to_string(),
                        size_bytes: layer.size_bytes,
                        state: LayerState::Waiting,
                        rate: Rate::default(),
                    };
                    entry.layers = layers.iter().map(layer).collect();
                }
                Event::Layer { layer, state, .. } => {
                    let Some(layer) = entry.layers.get_mut(*layer) else { return };
                    layer.state = *state;
                    if let LayerState::Downloading { done_bytes } = state {
                        layer.rate.see(now, *done_bytes);
                    }
                }
                Event::Committing { .. } => entry.committing = Some(now),
                Event::Finished { .. } | Event::Failed { .. } | Event::Warning { .. } | Event::Waiting { .. } => return,
            }
        }
        self.inner.changed();
    }

    /// Takes it off the board, and says in the log how it went.
    pub(crate) fn end(&self, result: &Result<PullReport, PullError>) {
        let mut told = Told::default();
        let ending = match result {
            Ok(report) => {
                let ending = match report.outcome {
                    Outcome::Pulled => Ending::Pulled,
                    Outcome::UpToDate | Outcome::AlreadyHere => Ending::UpToDate,
                };
                told = Told {
                    credential: report.attempts.accepted().and_then(|attempt| attempt.source.clone()),
                    fetched_bytes: report.fetched_bytes,
                    layers: report.layers,
                    layers_already_here: report.layers_already_here,
                };
                ending
            }
            Err(error) if error.reason() == Reason::Canceled => Ending::Canceled,
            Err(error) => {
                // After a refused credential everybody's right is tried, which names nobody.
                told.credential = error.attempts().0.iter().rev().find_map(|attempt| attempt.source.clone());
                let mut message = error.chain();
                message.truncate(message.floor_char_boundary(MESSAGE_MAX));
                Ending::Failed { reason: error.reason().class(), message }
            }
        };
        self.inner.end(self.number, ending, told);
    }
}

/// What a report tells of a pull that has ended.
#[derive(Debug, Default)]
struct Told {
    credential: Option<String>,
    fetched_bytes: u64,
    layers: usize,
    layers_already_here: usize,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // One that was ended is not on the board any more.
        self.inner.end(self.number, Ending::Canceled, Told::default());
    }
}

impl Inner {
    fn end(&self, number: u64, ending: Ending, told: Told) {
        let past = {
            let mut rows = self.lock();
            let Some(entry) = rows.pulls.remove(&number) else { return };
            let times = entry.times(Instant::now());
            let image = entry.image;
            let Told { credential, fetched_bytes, layers, layers_already_here } = told;
            let past = PastPull {
                number,
                image,
                at: Timestamp::now(),
                times,
                ending,
                credential,
                fetched_bytes,
                layers,
                layers_already_here,
            };
            rows.recent.push_front(past.clone());
            rows.recent.truncate(RECENT_MAX);
            past
        };
        log(&past);
        // Nobody may be counting.
        drop(self.endings.send(past));
        self.changed();
    }
}

/// One event per pull, with the time of each phase.
fn log(past: &PastPull) {
    let PhaseTimes { resolve_ms, layers_ms, commit_ms, total_ms } = past.times;
    let (image, credential) = (past.image.as_str(), past.credential.as_deref().unwrap_or("anonymous"));
    let fetched_bytes = past.fetched_bytes;
    let outcome = match &past.ending {
        Ending::Pulled => "pulled",
        Ending::UpToDate => "up-to-date",
        Ending::Canceled => "canceled",
        Ending::Failed { reason, message } => {
            tracing::info!(
                image,
                outcome = "failed",
                reason,
                error = message.as_str(),
                credential,
                resolve_ms,
                layers_ms,
                commit_ms,
                total_ms,
                "pull ended"
            );
            return;
        }
    };
    tracing::info!(image, outcome, credential, fetched_bytes, resolve_ms, layers_ms, commit_ms, total_ms, "pull ended");
}

impl Entry {
    fn times(&self, now: Instant) -> PhaseTimes {
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

    fn state(&self, number: u64, now: Instant) -> PullState {
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

#[cfg(test)]
mod tests {
    use windlass_core::digest::Digest;

    use super::*;
    use crate::events::LayerInfo;

    fn resolved(sizes: &[u64]) -> Event {
        let layer = |size: &u64| LayerInfo { digest: Digest::sha256(&size.to_le_bytes()), size_bytes: *size };
        Event::Resolved {
            image: "a".into(),
            platform: "linux/amd64".into(),
            digest: Digest::sha256(b"m"),
            layers: sizes.iter().map(layer).collect(),
        }
    }

    fn layer(layer: usize, state: LayerState) -> Event {
        Event::Layer { image: "a".into(), layer, state }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_is_on_the_board_until_it_ends() {
        let board = Board::new();
        let mut changes = board.changes();
        let pull = board.begin("a");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(board.state().pulls[0].phase, Phase::Resolving);
        tokio::time::advance(Duration::from_millis(30)).await;
        pull.see(&resolved(&[100, 50, 7]));
        pull.see(&layer(1, LayerState::AlreadyHere));
        pull.see(&layer(0, LayerState::Downloading { done_bytes: 40 }));
        pull.see(&layer(9, LayerState::Done));
        assert!(changes.has_changed().unwrap());
        let state = board.state().pulls.remove(0);
        assert_eq!((state.phase, state.done_bytes, state.total_bytes), (Phase::Layers, 40, 107));
        assert_eq!(state.platform.as_deref(), Some("linux/amd64"));
        tokio::time::advance(Duration::from_millis(200)).await;
        pull.see(&Event::Committing { image: "a".into() });
        tokio::time::advance(Duration::from_millis(5)).await;
        pull.end(&Err(PullError::Internal("a test")));
        let state = board.state();
        assert!(state.pulls.is_empty());
        let times = PhaseTimes { resolve_ms: 30, layers_ms: 200, commit_ms: 5, total_ms: 235 };
        assert_eq!(state.recent[0].times, times);
        assert!(matches!(&state.recent[0].ending, Ending::Failed { message, .. } if message.contains("a test")));
    }

    #[tokio::test(start_paused = true)]
    async fn rates_follow_the_last_seconds() {
        let board = Board::new();
        let pull = board.begin("a");
        pull.see(&resolved(&[10_000]));
        // A slow beginning, then a thousand bytes a second.
        pull.see(&layer(0, LayerState::Downloading { done_bytes: 0 }));
        tokio::time::advance(Duration::from_secs(60)).await;
        for done_bytes in (1..=6).map(|second| second * 1000) {
            pull.see(&layer(0, LayerState::Downloading { done_bytes }));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let row = board.state().pulls[0].layers[0].clone();
        assert!((700..=1000).contains(&row.rate_bytes_per_second), "{row:?}");
        assert_eq!(row.eta_seconds, Some(4000_u64.div_ceil(row.rate_bytes_per_second)));
        // It begins again: what was there does not count.
        pull.see(&layer(0, LayerState::Downloading { done_bytes: 0 }));
        let row = board.state().pulls[0].layers[0].clone();
        assert_eq!((row.rate_bytes_per_second, row.eta_seconds), (0, None));
    }

    #[tokio::test]
    async fn only_the_last_pulls_are_kept() {
        let board = Board::new();
        for number in 0..RECENT_MAX + 20 {
            board.begin(&number.to_string()).end(&Err(PullError::Canceled));
        }
        let recent = board.state().recent;
        assert_eq!(recent.len(), RECENT_MAX);
        assert_eq!(recent[0].image, (RECENT_MAX + 19).to_string());
        assert_eq!(recent[0].ending, Ending::Canceled);
    }

    #[tokio::test]
    async fn a_dropped_pull_leaves_the_board() {
        let board = Board::new();
        drop(board.begin("a"));
        let state = board.state();
        assert!(state.pulls.is_empty());
        assert_eq!((state.recent.len(), &state.recent[0].ending), (1, &Ending::Canceled));
    }
}
