//! Lines that are drawn over: one per layer on its way, one for the sums. The cursor is never hidden, so that an
//! interrupted run leaves the terminal as it was.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use windlass_pull::events::{Event, EventSink, LayerInfo, LayerState, Outcome, Totals};

use super::words;
use crate::failure::shown;

/// Redraws per second: smooth to the eye, nothing to the processor.
const FRAMES_PER_SECOND: u8 = 10;
/// Layers shown at a time; more only scroll.
const LAYERS_SHOWN: usize = 8;
/// The rate is that of the last seconds, so that it follows what happens.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// The lines of a run.
pub(super) struct Bars {
    screen: MultiProgress,
    sums: ProgressBar,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    totals: Totals,
    layers: HashMap<Arc<str>, Arc<[LayerInfo]>>,
    shown: HashMap<(Arc<str>, usize), ProgressBar>,
    rate: Rate,
}

impl Bars {
    pub(super) fn new() -> Bars {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND));
        let state = Arc::new(Mutex::new(State::default()));
        let sums = screen.add(ProgressBar::new_spinner());
        let of = state.clone();
        let line = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let mut state = of.lock().unwrap_or_else(PoisonError::into_inner);
            let totals = state.totals.line();
            let rate = state.rate.at(Instant::now(), totals.done_bytes);
            if totals.layers > 0 {
                // A line that could not be drawn is drawn at the next tick.
                let _ = out.write_str(&words::totals(totals, rate));
            }
        };
        sums.set_style(style("  {sums}").with_key("sums", line));
        sums.enable_steady_tick(Duration::from_secs(1) / u32::from(FRAMES_PER_SECOND));
        Bars { screen, sums, state }
    }

    fn say(&self, text: &str) {
        // A terminal that is gone takes nothing; the pull goes on.
        drop(self.screen.println(text));
    }

    /// Bars draw under a lock of their own, from which the line of sums asks for the state: nothing is drawn while
    /// the state is locked.
    fn layer(&self, image: &Arc<str>, layer: usize, state: LayerState) {
        match state {
            LayerState::Downloading { done_bytes } => {
                if let Some(bar) = self.bar(image, layer) {
                    bar.set_position(done_bytes);
                }
            }
            LayerState::Unpacking => {
                let bar = self.locked().shown.get(&(image.clone(), layer)).cloned();
                if let Some(bar) = bar {
                    bar.set_style(style("  {prefix}  unpacking"));
                }
            }
            LayerState::Done | LayerState::AlreadyHere | LayerState::Waiting => {
                let bar = self.locked().shown.remove(&(image.clone(), layer));
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                }
            }
        }
    }

    /// The bar of a layer, made when there is room for one more.
    fn bar(&self, image: &Arc<str>, layer: usize) -> Option<ProgressBar> {
        let key = (image.clone(), layer);
        let bar = {
            let mut state = self.locked();
            if let Some(bar) = state.shown.get(&key) {
                return Some(bar.clone());
            }
            if state.shown.len() >= LAYERS_SHOWN {
                return None;
            }
            let info = state.layers.get(image)?.get(layer)?.clone();
            let bar = ProgressBar::with_draw_target(Some(info.size_bytes), ProgressDrawTarget::hidden());
            let bar = bar.with_prefix(words::short(info.digest.as_str()));
            state.shown.insert(key, bar.clone());
            bar
        };
        let bar = self.screen.insert_before(&self.sums, bar);
        bar.set_style(style("  {prefix}  {bar:30}  {bytes}/{total_bytes}"));
        Some(bar)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Bars {
    fn event(&self, event: Event) {
        {
            let mut state = self.locked();
            state.totals.add(&event);
            if let Event::Resolved { image, layers, .. } = &event {
                state.layers.insert(image.clone(), layers.clone());
            }
        }
        match &event {
            Event::Layer { image, layer, state } => self.layer(image, *layer, *state),
            Event::Finished { image, outcome: outcome @ (Outcome::UpToDate | Outcome::AlreadyHere), .. } => {
                self.say(&format!("{}: {}", shown(image), words::outcome(*outcome)));
            }
            _ => {
                if let Some(line) = words::line(&event) {
                    self.say(&line);
                }
            }
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.sums.finish_and_clear();
        // The terminal may be gone; then there is nothing to clear.
        drop(self.screen.clear());
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates here are constants and valid").progress_chars("=> ")
}

/// Bytes per second over the last seconds.
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn at(&mut self, now: Instant, done_bytes: u64) -> u64 {
        self.samples.push_back((now, done_bytes));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now - *at > RATE_WINDOW) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front().copied() else { return 0 };
        let millis = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX);
        done_bytes.saturating_sub(before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let mut rate = Rate::default();
        let start = Instant::now();
        assert_eq!(rate.at(start, 0), 0);
        assert_eq!(rate.at(start + Duration::from_secs(1), 1_000), 1_000);
        for second in 2..10 {
            rate.at(start + Duration::from_secs(second), 1_000);
        }
        assert_eq!(rate.at(start + Duration::from_secs(10), 1_000), 0, "a stall shows");
    }
}
