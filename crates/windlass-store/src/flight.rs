//! Wakes those who wait for a layer that another pull of this process has in work.
//!
//! The claims themselves are locks on files and work between processes; waiting for another process means looking
//! again now and then. Within the process a waiter is woken as soon as any claim is given up.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often a claim held by another process is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The bell.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    given_up: Mutex<u64>,
    bell: Condvar,
}

impl Flights {
    /// How many claims were given up so far: taken before a try, given to [`Flights::wait`] after it failed.
    pub(crate) fn seen(&self) -> u64 {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a claim was given up.
    pub(crate) fn ring(&self) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.bell.notify_all();
    }

    /// Returns when a claim was given up since `seen`, or when it is time to look at other processes.
    pub(crate) fn wait(&self, seen: u64) {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if *given_up == seen {
            drop(self.bell.wait_timeout(given_up, LOOK_AGAIN));
        }
    }
}
