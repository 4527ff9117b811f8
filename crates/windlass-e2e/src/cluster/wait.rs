//! Waiting for something to be so: looked at again and again, never longer than a limit.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Looks until there is an answer; `None` when there was none within the limit.
pub fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}
