//! The end of a server, for which everything that waits in it waits too.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether a server has ended, and a place to wait until it does.
#[derive(Debug, Default)]
pub(crate) struct Halt {
    ended: Mutex<bool>,
    told: Condvar,
}

impl Halt {
    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but not longer than the server lives. `None`: as long as it lives.
    pub(crate) fn pause(&self, how_long: Option<Duration>) {
        let ended = self.ended();
        match how_long {
            Some(how_long) => drop(self.told.wait_timeout_while(ended, how_long, |ended| !*ended)),
            None => drop(self.told.wait_while(ended, |ended| !*ended)),
        }
    }

    /// Whether the server has ended.
    pub(crate) fn is_ended(&self) -> bool {
        *self.ended()
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        *self.ended() = true;
        self.told.notify_all();
    }
}
