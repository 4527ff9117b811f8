//! A clock that moves when it is told to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A clock shared by its clones. It starts at a fixed wall time, so that printed times are the same on every run.
#[derive(Clone, Debug)]
pub struct FakeClock {
    passed: Arc<Mutex<Duration>>,
    origin: Instant,
}

/// 2024-01-02T03:04:05Z in seconds since 1970.
const START_SECONDS: u64 = 1_704_164_645;

impl FakeClock {
    /// A clock at 2024-01-02T03:04:05Z.
    pub fn new() -> FakeClock {
        FakeClock { passed: Arc::default(), origin: Instant::now() }
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Time since the clock was made.
    pub fn elapsed(&self) -> Duration {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wall time.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(START_SECONDS) + self.elapsed()
    }

    /// Monotonic time.
    pub fn instant(&self) -> Instant {
        self.origin + self.elapsed()
    }
}

impl Default for FakeClock {
    fn default() -> FakeClock {
        FakeClock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_for_all_its_clones() {
        let clock = FakeClock::new();
        let (other, before) = (clock.clone(), clock.now());
        clock.advance(Duration::from_secs(3));
        assert_eq!(other.now().duration_since(before).ok(), Some(Duration::from_secs(3)));
    }
}
