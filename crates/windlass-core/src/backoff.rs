//! When a failed pull may be tried again, per pod and image.
//!
//! In: failures, successes and questions, each with the time. Out: a [`Gate`].
//! Source of truth: client-go `util/flowcontrol/backoff.go` as the kubelet's image manager uses it (no jitter).
//!
//! Invariants: `delays_never_shrink_and_never_pass_the_cap`, `a_success_forgets_only_what_is_old`,
//! `the_table_is_bounded`.

use std::collections::HashMap;
use std::time::Duration;

/// Wait after the first failure. Kubelet: `ImagePullBackOff`, 10 s.
pub const BACKOFF_INITIAL: Duration = Duration::from_secs(10);
/// Longest wait between two attempts. Kubelet: `MaxContainerBackOff`, 300 s.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Most keys remembered; beyond it the one that failed longest ago is forgotten. A node has at most some hundred pods.
pub const BACKOFF_KEYS_MAX: usize = 10_000;

/// Whose attempts are counted together: one pod and the image exactly as written in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackoffKey(String);

impl BackoffKey {
    /// `pod` is the pod's UID, or `namespace/name` for a pod that came from a file and has none.
    pub fn new(pod: &str, image: &str) -> BackoffKey {
        BackoffKey(format!("{pod}_{image}"))
    }

    /// The key as the kubelet writes it, `uid_image`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether an attempt may be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not before `until`.
    ClosedUntil {
        /// On the clock of the caller.
        until: Duration,
        /// Reason and message of the failure that closed it, `ErrImagePull: manifest unknown`.
        previous: Option<String>,
    },
}

/// One key's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackoffEntry {
    /// The wait after the last failure.
    pub delay: Duration,
    /// When that was.
    pub failed_at: Duration,
    /// Reason and message of that failure.
    pub previous: Option<String>,
}

/// All keys' state; in memory only, as in the kubelet.
///
/// Times are durations since any fixed moment, the same for all calls.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: HashMap<BackoffKey, BackoffEntry>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX)
    }
}

impl Backoff {
    /// Delays that start at `initial` and double up to `max`.
    pub fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff { initial, max, entries: HashMap::new() }
    }

    /// Whether an attempt may be made at `now`; exactly when the delay ends it may.
    pub fn gate(&self, key: &BackoffKey, now: Duration) -> Gate {
        match self.entries.get(key) {
            Some(entry) if !self.is_old(entry, now) && now.saturating_sub(entry.failed_at) < entry.delay => {
                Gate::ClosedUntil { until: entry.failed_at + entry.delay, previous: entry.previous.clone() }
            }
            Some(_) | None => Gate::Open,
        }
    }

    /// Counts a failed attempt and says how long the next one has to wait.
    pub fn failed(&mut self, key: &BackoffKey, now: Duration, previous: Option<String>) -> Duration {
        let delay = match self.entries.get(key) {
            Some(entry) if !self.is_old(entry, now) => (entry.delay * 2).min(self.max),
            Some(_) | None => self.initial.min(self.max),
        };
        self.make_room(key, now);
        self.entries.insert(key.clone(), BackoffEntry { delay, failed_at: now, previous });
        delay
    }

    /// Notes that some pull succeeded. It resets nothing: it only drops what is older than twice the cap.
    pub fn succeeded(&mut self, now: Duration) {
        let keep = 2 * self.max;
        self.entries.retain(|_, entry| now.saturating_sub(entry.failed_at) <= keep);
    }

    /// Forgets a key's failures, because somebody has changed something and asks anew.
    pub fn forget(&mut self, key: &BackoffKey) {
        self.entries.remove(key);
    }

    /// What is remembered of one key.
    pub fn entry(&self, key: &BackoffKey) -> Option<&BackoffEntry> {
        self.entries.get(key)
    }

    /// Everything remembered, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (&BackoffKey, &BackoffEntry)> {
        self.entries.iter()
    }

    /// More than twice the cap without a failure: forgotten.
    fn is_old(&self, entry: &BackoffEntry, now: Duration) -> bool {
        now.saturating_sub(entry.failed_at) > 2 * self.max
    }

    fn make_room(&mut self, key: &BackoffKey, now: Duration) {
        if self.entries.len() < BACKOFF_KEYS_MAX || self.entries.contains_key(key) {
            return;
        }
        self.succeeded(now);
        if self.entries.len() >= BACKOFF_KEYS_MAX
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, e)| e.failed_at).map(|(key, _)| key.clone())
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_closed_gate_says_until_when_and_why() {
        let mut backoff = Backoff::default();
        let key = BackoffKey::new("uid", "app:1");
        assert_eq!(key.as_str(), "uid_app:1");
        assert_eq!(backoff.failed(&key, s(5), Some("ErrImagePull: x".to_owned())), s(10));
        let closed = Gate::ClosedUntil { until: s(15), previous: Some("ErrImagePull: x".to_owned()) };
        assert_eq!(backoff.gate(&key, s(14)), closed);
        assert_eq!(backoff.gate(&key, s(15)), Gate::Open);
    }

    #[test]
    fn a_success_forgets_only_what_is_old() {
        let mut backoff = Backoff::default();
        let (old, young) = (BackoffKey::new("a", "x"), BackoffKey::new("b", "x"));
        backoff.failed(&old, s(0), None);
        backoff.failed(&young, s(1), None);
        backoff.succeeded(s(601));
        assert_eq!((backoff.entry(&old), backoff.entry(&young).map(|e| e.delay)), (None, Some(s(10))));
    }

    #[test]
    fn what_is_forgotten_begins_anew() {
        let (mut backoff, key) = (Backoff::default(), BackoffKey::new("uid", "x"));
        backoff.failed(&key, s(0), None);
        backoff.failed(&key, s(10), None);
        backoff.forget(&key);
        assert_eq!(backoff.gate(&key, s(11)), Gate::Open);
        assert_eq!(backoff.failed(&key, s(11), None), BACKOFF_INITIAL);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut backoff = Backoff::default();
        for n in 0..BACKOFF_KEYS_MAX + 5 {
            backoff.failed(&BackoffKey::new(&n.to_string(), "x"), Duration::from_millis(n as u64), None);
        }
        assert_eq!(backoff.entries().count(), BACKOFF_KEYS_MAX);
        assert_eq!(backoff.entry(&BackoffKey::new("4", "x")), None);
        assert!(backoff.entry(&BackoffKey::new("5", "x")).is_some());
    }

    proptest! {
        #[test]
        fn delays_never_shrink_and_never_pass_the_cap(waits in proptest::collection::vec(0_u64..600, 1..30)) {
            let mut backoff = Backoff::default();
            let key = BackoffKey::new("uid", "x");
            let (mut now, mut last) = (s(0), s(0));
            for wait in waits {
                now += s(wait);
                let delay = backoff.failed(&key, now, None);
                prop_assert!(delay >= last && delay <= BACKOFF_MAX);
                last = delay;
            }
        }
    }
}
