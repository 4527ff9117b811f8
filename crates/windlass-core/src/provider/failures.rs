//! When a provider that failed is asked again: after a second, then twice as long each time.
//!
//! Invariants: `waits_double_up_to_the_longest`, `the_table_of_failures_is_bounded`.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Wait after the first failure.
pub const FAILURE_DELAY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait; a pod's own back-off is longer, so that nobody waits for us alone.
pub const FAILURE_DELAY_MAX: Duration = Duration::from_secs(30);
/// Most keys that are remembered for one provider.
pub const FAILURES_MAX: usize = 1024;

#[derive(Clone, Debug)]
struct Failed<E> {
    until: Duration,
    delay: Duration,
    error: E,
}

/// What went wrong lately, by what was asked for. Times are on the caller's clock.
#[derive(Clone, Debug)]
pub struct Failures<K, E> {
    known: HashMap<K, Failed<E>>,
}

impl<K: Clone + Eq + Hash, E: Clone> Default for Failures<K, E> {
    fn default() -> Failures<K, E> {
        Failures { known: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, E: Clone> Failures<K, E> {
    /// Notes a failure; returns how long to wait.
    pub fn failed(&mut self, key: &K, error: E, now: Duration) -> Duration {
        let before = self.known.get(key).filter(|failed| now < failed.until + FAILURE_DELAY_MAX);
        let delay = before.map_or(FAILURE_DELAY_FIRST, |failed| (failed.delay * 2).min(FAILURE_DELAY_MAX));
        if self.known.len() >= FAILURES_MAX && !self.known.contains_key(key) {
            let first = self.known.iter().min_by_key(|(_, failed)| failed.until).map(|(key, _)| key.clone());
            first.map(|first| self.known.remove(&first));
        }
        self.known.insert(key.clone(), Failed { until: now + delay, delay, error });
        delay
    }

    /// Notes a success.
    pub fn succeeded(&mut self, key: &K) {
        self.known.remove(key);
    }

    /// How long to wait yet, and what the failure was; `None`: it may be asked.
    pub fn waiting(&self, key: &K, now: Duration) -> Option<(Duration, E)> {
        let failed = self.known.get(key)?;
        let left = failed.until.checked_sub(now).filter(|left| !left.is_zero())?;
        Some((left, failed.error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut failures = Failures::default();
        let mut now = Duration::from_secs(100);
        for want in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(failures.waiting(&"k", now), None);
            let delay = failures.failed(&"k", "e", now);
            assert_eq!(delay, Duration::from_secs(want));
            assert_eq!(failures.waiting(&"k", now), Some((delay, "e")));
            assert_eq!(failures.waiting(&"other", now), None);
            now += delay;
        }
        // Long after the last failure it begins anew; so it does after a success.
        assert_eq!(failures.failed(&"k", "e", now + FAILURE_DELAY_MAX * 2), FAILURE_DELAY_FIRST);
        failures.succeeded(&"k");
        assert_eq!(failures.waiting(&"k", now), None);
    }

    #[test]
    fn the_table_of_failures_is_bounded() {
        let mut failures = Failures::default();
        for key in 0..2 * FAILURES_MAX {
            failures.failed(&key, (), Duration::from_secs(key as u64));
        }
        assert_eq!(failures.known.len(), FAILURES_MAX);
        assert!(failures.known.contains_key(&(2 * FAILURES_MAX - 1)));
    }
}
