//! When a failed request is repeated, and how long before: pure, chance and time are arguments.
//!
//! Five tries without progress, waits of half a second doubling to 30 s, 20 % jitter either way; what
//! `Retry-After` asks for is obeyed as long as all of it together stays within its budget.

use std::time::Duration;

use crate::config::{PROGRESS_BYTES, RetryConfig};

/// Share of the wait that chance adds or takes.
const JITTER: f64 = 0.2;

/// The tries of one request or one blob.
#[derive(Clone, Debug)]
pub(crate) struct Tries {
    config: RetryConfig,
    /// Tries that failed since the last progress.
    failed: u32,
    /// Bytes that came since the last fresh start.
    came: u64,
}

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Try again after this wait.
    Wait(Duration),
    /// Every try was used.
    GiveUp,
}

impl Tries {
    pub(crate) fn new(config: RetryConfig) -> Tries {
        Tries { config, failed: 0, came: 0 }
    }

    /// Takes note of a failed try. `chance` is uniform in 0..1; `asked` is what `Retry-After` said.
    pub(crate) fn failed(&mut self, asked: Option<Duration>, chance: f64) -> Next {
        self.failed += 1;
        if self.failed >= self.config.tries {
            return Next::GiveUp;
        }
        let doubled = self.config.first_wait.saturating_mul(1 << (self.failed - 1).min(16));
        let wait = doubled.min(self.config.longest_wait).mul_f64(1.0 + JITTER * (2.0 * chance - 1.0));
        Next::Wait(asked.unwrap_or_default().max(wait))
    }

    /// Takes note of bytes received; enough of them give all tries back.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.came += bytes;
        if self.came >= PROGRESS_BYTES {
            self.came = 0;
            self.failed = 0;
        }
    }
}

/// A number in 0..1 that is good enough for jitter.
pub fn chance() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    // A fresh `RandomState` has fresh keys, so the hash of nothing is random enough.
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_and_end() {
        let mut tries = Tries::new(RetryConfig::default());
        let wait = |n: Next| match n {
            Next::Wait(wait) => wait.as_millis(),
            Next::GiveUp => 0,
        };
        let waits: Vec<u128> = [0.0, 0.5, 1.0, 0.5, 0.5].iter().map(|c| wait(tries.failed(None, *c))).collect();
        assert_eq!(waits, [400, 1000, 2400, 4000, 0]);
    }

    #[test]
    fn progress_gives_the_tries_back_and_trickle_does_not() {
        let mut tries = Tries::new(RetryConfig { tries: 2, ..RetryConfig::default() });
        for _ in 0..9 {
            assert_ne!(tries.failed(None, 0.5), Next::GiveUp);
            tries.progressed(PROGRESS_BYTES);
        }
        assert_ne!(tries.failed(None, 0.5), Next::GiveUp);
        tries.progressed(PROGRESS_BYTES - 1);
        assert_eq!(tries.failed(None, 0.5), Next::GiveUp);
    }

    #[test]
    fn retry_after_lengthens_the_wait() {
        let mut tries = Tries::new(RetryConfig::default());
        assert_eq!(tries.failed(Some(Duration::from_secs(7)), 0.5), Next::Wait(Duration::from_secs(7)));
        assert_eq!(tries.failed(Some(Duration::ZERO), 0.5), Next::Wait(Duration::from_secs(1)));
    }

    #[test]
    fn chance_stays_in_its_range() {
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&chance()));
        }
    }
}
