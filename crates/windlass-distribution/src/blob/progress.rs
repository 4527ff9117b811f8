//! The progress clock of one blob: 64 KiB within the limit, or it is over.
//!
//! Only time spent waiting for the network counts: a consumer may take as long as it likes between two events.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::PROGRESS_BYTES;

#[derive(Debug)]
pub(crate) struct Progress {
    limit: Duration,
    /// Waiting time since the last mark, without the current call.
    spent: Duration,
    entered: Option<Instant>,
    came: u64,
}

impl Progress {
    pub(crate) fn new(limit: Duration) -> Progress {
        Progress { limit, spent: Duration::ZERO, entered: None, came: 0 }
    }

    /// The consumer starts to wait.
    pub(crate) fn enter(&mut self) {
        self.entered = Some(Instant::now());
    }

    /// The consumer has its answer.
    pub(crate) fn leave(&mut self) {
        if let Some(entered) = self.entered.take() {
            self.spent += entered.elapsed();
        }
    }

    /// Takes note of bytes; enough of them start the clock anew.
    pub(crate) fn came(&mut self, bytes: u64) {
        self.came += bytes;
        if self.came >= PROGRESS_BYTES {
            self.reset();
        }
    }

    /// Starts the clock anew.
    pub(crate) fn reset(&mut self) {
        self.came = 0;
        self.spent = Duration::ZERO;
        if self.entered.is_some() {
            self.entered = Some(Instant::now());
        }
    }

    /// When it is over if nothing more comes.
    pub(crate) fn deadline(&self) -> Instant {
        self.entered.unwrap_or_else(Instant::now) + self.limit.saturating_sub(self.spent)
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts_and_enough_bytes_start_anew() {
        let second = Duration::from_secs(1);
        let mut progress = Progress::new(60 * second);
        progress.enter();
        tokio::time::advance(20 * second).await;
        progress.came(10);
        progress.leave();
        tokio::time::advance(500 * second).await;
        progress.enter();
        assert_eq!(progress.deadline() - Instant::now(), 40 * second);
        progress.came(PROGRESS_BYTES);
        assert_eq!(progress.deadline() - Instant::now(), 60 * second);
    }
}
