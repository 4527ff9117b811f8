//! Remembers which endpoints failed a moment ago, and which served wrong bytes.
//!
//! A dead mirror would otherwise cost every layer its connect time-out. A breaker shuts an endpoint out for
//! about 30 s; a penalty only moves it behind all others for 60 s, since wrong bytes are no reason to give up
//! the last source.
//!
//! Invariants: `a_breaker_opens_and_closes`, `the_number_of_entries_is_bounded`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use windlass_core::host::Host;

/// Most endpoints remembered.
const ENTRIES: usize = 1024;

/// State of all endpoints of a client.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    shut: Mutex<HashMap<Host, Instant>>,
    penalty: Mutex<HashMap<Host, Instant>>,
}

impl Breakers {
    /// How long `host` is still shut out; `None` when it may be asked.
    pub(crate) fn shut_for(&self, host: &Host, now: Instant) -> Option<Duration> {
        remaining(&lock(&self.shut), host, now)
    }

    /// Shuts `host` out for a while. `chance` spreads the probes of many clients by 20 %.
    pub(crate) fn failed(&self, host: &Host, now: Instant, wait: Duration, chance: f64) {
        put(&mut lock(&self.shut), host, now, wait.mul_f64(0.9 + 0.2 * chance));
    }

    /// `host` answered.
    pub(crate) fn answered(&self, host: &Host) {
        lock(&self.shut).remove(host);
    }

    /// `host` served wrong bytes.
    pub(crate) fn punish(&self, host: &Host, now: Instant, wait: Duration) {
        put(&mut lock(&self.penalty), host, now, wait);
    }

    /// Whether `host` served wrong bytes a moment ago.
    pub(crate) fn punished(&self, host: &Host, now: Instant) -> bool {
        remaining(&lock(&self.penalty), host, now).is_some()
    }
}

fn lock(map: &Mutex<HashMap<Host, Instant>>) -> MutexGuard<'_, HashMap<Host, Instant>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remaining(map: &HashMap<Host, Instant>, host: &Host, now: Instant) -> Option<Duration> {
    map.get(host)?.checked_duration_since(now).filter(|wait| !wait.is_zero())
}

fn put(map: &mut HashMap<Host, Instant>, host: &Host, now: Instant, wait: Duration) {
    if map.len() >= ENTRIES {
        map.retain(|_, until| *until > now);
    }
    if map.len() < ENTRIES {
        map.insert(host.clone(), now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_opens_and_closes() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        let (a, b) = (Host::new("a"), Host::new("b"));
        let second = Duration::from_secs(1);
        breakers.failed(&a, now, 30 * second, 0.5);
        assert_eq!(breakers.shut_for(&a, now + 10 * second), Some(20 * second));
        assert_eq!(breakers.shut_for(&b, now), None);
        assert_eq!(breakers.shut_for(&a, now + 30 * second), None);
        breakers.answered(&a);
        assert_eq!(breakers.shut_for(&a, now), None);
        breakers.punish(&a, now, 60 * second);
        assert!(breakers.punished(&a, now + 59 * second) && !breakers.punished(&a, now + 60 * second));
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for n in 0..ENTRIES + 10 {
            breakers.failed(&Host::new(n.to_string()), now, Duration::from_secs(9), 0.5);
        }
        assert_eq!(lock(&breakers.shut).len(), ENTRIES);
    }
}
