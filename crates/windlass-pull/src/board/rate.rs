//! How fast bytes come, over the last seconds rather than the whole pull.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Over how long a rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// Bytes at moments of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    pub(super) fn see(&mut self, now: Instant, bytes: u64) {
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

    pub(super) fn bytes_per_second(&self, now: Instant) -> u64 {
        let (Some((from, before)), Some((_, after))) = (self.seen.front(), self.seen.back()) else { return 0 };
        let millis = now.duration_since(*from).as_millis();
        u64::try_from(u128::from(after - before) * 1000 / millis.max(1)).unwrap_or(u64::MAX)
    }
}

/// Seconds until the rest is here; `None`: nothing comes.
pub(super) fn eta(left_bytes: u64, rate: u64) -> Option<u64> {
    (rate > 0).then(|| left_bytes.div_ceil(rate))
}
