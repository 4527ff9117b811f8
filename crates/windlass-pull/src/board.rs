//! What is being pulled now and how the last pulls ended: for a status page, metrics and one line of log per pull.
//!
//! In: the events of every pull of an engine. Out: [`Board::state`], a copy to be shown, [`Board::changes`], which
//! wakes who shows it, and [`Board::endings`] for who counts. Rates are of the last seconds, not of the whole pull.
//!
//! Invariants: `a_pull_is_on_the_board_until_it_ends`, `rates_follow_the_last_seconds`, `only_the_last_pulls_are_kept`,
//! `a_dropped_pull_leaves_the_board`.

mod entry;
mod rate;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use windlass_core::reason::Reason;

use crate::PullError;
use crate::attempt::{Attempt, Attempts};
use crate::events::{Event, LayerState, Outcome};
use crate::request::PullReport;

pub use state::{BoardState, Ending, LayerRow, PastPull, Phase, PhaseTimes, PullState, RowState};

use entry::{Entry, Layer};
use rate::Rate;

/// Pulls that have ended and are still told of.
const RECENT_MAX: usize = 100;
/// Pulls that may end before who counts them has taken them in: a hundred callers of one image, several times over.
const ENDINGS_MAX: usize = 1024;
/// Bytes of an error's text that are kept.
const MESSAGE_MAX: usize = 2048;
/// Tries that are told of one pull.
const TRIED_MAX: usize = 16;
/// Bytes of each of them: the registry's words are its own.
const TRIED_BYTES_MAX: usize = 512;

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
        let number = {
            let mut rows = self.inner.lock();
            let number = rows.next;
            rows.next += 1;
            rows.pulls.insert(number, Entry::new(image));
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
                    tried: lines(&report.attempts),
                    credential: report.attempts.accepted().and_then(|attempt| attempt.source.clone()),
                    fetched_bytes: report.fetched_bytes,
                    layers: report.layers,
                    layers_already_here: report.layers_already_here,
                };
                ending
            }
            Err(error) if error.reason() == Reason::Canceled => Ending::Canceled,
            Err(error) => {
                told.tried = lines(error.attempts());
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

/// What was tried, a line each.
fn lines(attempts: &Attempts) -> Vec<String> {
    let line = |attempt: &Attempt| {
        let mut line = attempt.to_string();
        line.truncate(line.floor_char_boundary(TRIED_BYTES_MAX));
        line
    };
    attempts.0.iter().take(TRIED_MAX).map(line).collect()
}

/// What a report tells of a pull that has ended.
#[derive(Debug, Default)]
struct Told {
    credential: Option<String>,
    tried: Vec<String>,
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
            let Told { credential, tried, fetched_bytes, layers, layers_already_here } = told;
            let past = PastPull {
                number,
                image,
                at: Timestamp::now(),
                times,
                ending,
                credential,
                tried,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
