//! When a cloud's service is asked again, and how long before: pure, time and chance are arguments.
//!
//! Invariants: `waits_double_and_keep_within_bounds`, `passing_answers`.

use std::time::{Duration, Instant};

use http::StatusCode;

/// Share of the wait that chance takes away.
const JITTER: f64 = 0.5;

/// How often and how patiently one service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retries {
    /// Tries in all, the first one included.
    pub(crate) tries: u32,
    /// Longest wait after the first try; it doubles from try to try.
    pub(crate) first_wait: Duration,
    /// Longest wait there is; a service that asks for a longer one is not asked again.
    pub(crate) longest_wait: Duration,
}

impl Retries {
    /// What the clouds' own libraries do: three tries, half a second, then one.
    pub(crate) const USUAL: Retries =
        Retries { tries: 3, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(20) };

    /// The wait after `failed` tries failed; `None`: that was the last one. `asked` is what `Retry-After` said, `chance`
    /// is uniform in 0..1.
    pub(crate) fn wait(&self, failed: u32, asked: Option<Duration>, chance: f64) -> Option<Duration> {
        if failed >= self.tries {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.longest_wait);
        let wait = doubled.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
        let wait = asked.map_or(wait, |asked| asked.max(wait));
        (wait <= self.longest_wait).then_some(wait)
    }
}

/// By when a login must be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from `now` on.
    pub(crate) fn after(limit: Duration, now: Instant) -> Deadline {
        Deadline { end: now + limit, limit }
    }

    /// What is left.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.end.saturating_duration_since(now)
    }

    /// The whole of it, in seconds.
    pub(crate) fn limit_seconds(&self) -> u64 {
        self.limit.as_secs()
    }
}

/// Whether an answer may be another one a moment later, at most services.
pub(crate) fn passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn waits_double_and_keep_within_bounds() {
        let azure = Retries { tries: 6, first_wait: MS(2000), longest_wait: MS(10_000) };
        let waits: Vec<_> = (1..=6).map(|failed| azure.wait(failed, None, 0.0)).collect();
        let want = [2000, 4000, 8000, 10_000, 10_000].map(|ms| Some(MS(ms)));
        assert_eq!((&waits[..5], waits[5]), (&want[..], None));
        assert_eq!(azure.wait(1, None, 1.0), Some(MS(1000)));
        assert_eq!(azure.wait(1, Some(MS(7000)), 1.0), Some(MS(7000)));
        assert_eq!(azure.wait(1, Some(MS(10_001)), 0.5), None);
        assert_eq!(Retries::USUAL.wait(2, Some(MS(0)), 0.0), Some(MS(1000)));
        assert_eq!(Retries::USUAL.wait(3, None, 0.0), None);
    }

    #[test]
    fn passing_answers() {
        let table = [(500, true), (503, true), (429, true), (408, true), (400, false), (401, false), (200, false)];
        for (status, want) in table {
            assert_eq!(passing(StatusCode::from_u16(status).unwrap()), want, "{status}");
        }
    }
}
