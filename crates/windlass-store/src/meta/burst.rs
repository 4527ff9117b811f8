//! A database that stays open between writes that follow each other.
//!
//! Opening and closing cost five of the six flushes that a single transaction takes. So the first write opens it, and it
//! is closed once nobody has written for [`LINGER`]; after [`BURST_MAX`] it is closed in any case, and stays so for
//! [`GAP`], so that other processes get their turn. Transactions are as durable as ever; a process that is killed in
//! between leaves a database that the next one repairs, as after any kill.
//!
//! Invariants: `others_write_between_the_writes_of_a_burst`, `a_burst_ends_by_itself`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Held;
use crate::error::StoreError;

/// How long it stays open after a write. containerd takes some 5 ms between two calls of one handover.
const LINGER: Duration = Duration::from_millis(25);
/// How long it stays open while writes go on.
const BURST_MAX: Duration = Duration::from_millis(500);
/// How long it then stays closed: longer than others pause between two tries to lock it.
const GAP: Duration = Duration::from_millis(25);

/// The database of a store whose writes come in bursts.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    /// Who writes: one at a time, without asking the lock file again and again.
    writer: Mutex<()>,
    open: Arc<Open>,
}

#[derive(Debug, Default)]
struct Open {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Arc<Held>>,
    /// When it was opened, and last written.
    since: Option<Instant>,
    written: Option<Instant>,
    /// Not before this is it opened again.
    closed_until: Option<Instant>,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Changed in single steps, so a thread that panicked left it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bursts {
    /// The database, if it is open just now.
    pub(super) fn opened(&self) -> Option<Arc<Held>> {
        self.open.lock().held.clone()
    }

    /// Closes it, and keeps others of this process from opening it for as long as the answer lives.
    pub(super) fn closed(&self) -> MutexGuard<'_, ()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.close(None);
        writer
    }

    /// Writes, opening the database if need be. `work` says whether it may stay open.
    pub(super) fn write<T, E: From<StoreError>>(
        &self,
        open: impl FnOnce() -> Result<Held, StoreError>,
        work: impl FnOnce(&Held) -> Result<T, E>,
    ) -> Result<T, E> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let held = match self.opened() {
            Some(held) => held,
            None => self.begin(open()?),
        };
        // Closed again unless all goes well: after an error, or a panic, of the database it is of no use.
        let mut ended = Ended { bursts: self, stays: false };
        let value = work(&held)?;
        drop(held);
        ended.stays = true;
        Ok(value)
    }

    fn begin(&self, held: Held) -> Arc<Held> {
        let held = Arc::new(held);
        let mut state = self.open.lock();
        *state = State { held: Some(held.clone()), since: Some(Instant::now()), ..State::default() };
        held
    }

    /// How long until it may be opened again.
    pub(super) fn pause(&self) -> Duration {
        let until = self.open.lock().closed_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn close(&self, closed_until: Option<Instant>) {
        let held = std::mem::replace(&mut *self.open.lock(), State { closed_until, ..State::default() }).held;
        self.open.changed.notify_all();
        drop(held);
    }

    /// Notes a write, and sees to it that somebody closes the database.
    fn linger(&self) {
        let now = Instant::now();
        let mut state = self.open.lock();
        if state.since.is_some_and(|since| now - since >= BURST_MAX) {
            drop(state);
            return self.close(Some(now + GAP));
        }
        let is_watched = state.written.replace(now).is_some();
        drop(state);
        if !is_watched {
            let open = self.open.clone();
            let closer = std::thread::Builder::new().name("store-closer".to_owned());
            if closer.spawn(move || close_when_idle(&open)).is_err() {
                // No thread to be had: every write by itself then.
                self.close(None);
            }
        }
    }
}

/// What follows a write, however it ends.
struct Ended<'a> {
    bursts: &'a Bursts,
    stays: bool,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        match self.stays {
            true => self.bursts.linger(),
            false => self.bursts.close(None),
        }
    }
}

impl Drop for Bursts {
    fn drop(&mut self) {
        self.close(None);
    }
}

/// Closes the database once nobody has written for a while and nobody reads; ends when it is closed.
fn close_when_idle(open: &Open) {
    let mut state = open.lock();
    let idle = loop {
        let (Some(held), Some(written)) = (&state.held, state.written) else { return };
        let left = LINGER.saturating_sub(written.elapsed());
        let wait = match (left.is_zero(), Arc::strong_count(held)) {
            (true, 1) => break std::mem::take(&mut *state).held,
            (true, _) => LINGER,
            (false, _) => left,
        };
        state = open.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
    };
    drop(state);
    drop(idle);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{RootLock, Share};
    use crate::meta::record::UseRecord;
    use crate::meta::{Hold, Meta};
    use jiff::Timestamp;
    use std::path::Path;

    fn meta(root: &Path, hold: Hold) -> Meta {
        let lock = || RootLock::new(root, root.join("lock"), Duration::from_secs(30));
        let mut meta = Meta::new(root, root.join("store.redb"), lock(), hold);
        drop(meta.prepare(lock().take(Share::Alone).unwrap(), hold).unwrap());
        meta
    }

    fn put(meta: &Meta, key: &str) {
        let record = UseRecord { last_used: Timestamp::UNIX_EPOCH };
        meta.write(|tx| tx.put(key, &record)).unwrap();
    }

    fn keys(meta: &Meta) -> Vec<String> {
        let all: Result<_, StoreError> = meta.read(|tx| tx.all::<UseRecord>());
        all.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn others_write_between_the_writes_of_a_burst() {
        let dir = tempfile::tempdir().unwrap();
        let burst = meta(dir.path(), Hold::Burst);
        put(&burst, "first");
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let other = meta(dir.path(), Hold::Transaction);
                put(&other, "other");
                begun.elapsed()
            });
            // A burst without end, but for the turn of others.
            while !other.is_finished() {
                put(&burst, "again");
                assert!(begun.elapsed() < Duration::from_secs(20), "others never came to write");
            }
            other.join().unwrap();
        });
        assert_eq!(keys(&burst), ["again", "first", "other"]);
    }

    #[test]
    fn a_burst_ends_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let burst = meta(dir.path(), Hold::Burst);
        let bursts = burst.bursts.as_ref().unwrap();
        put(&burst, "one");
        put(&burst, "two");
        assert!(burst.write(|_| Err::<(), StoreError>(StoreError::Canceled)).is_err());
        assert!(bursts.opened().is_none(), "an error ends it");
        put(&burst, "three");
        assert_eq!(keys(&burst), ["one", "three", "two"]);
        let lock = RootLock::new(dir.path(), dir.path().join("lock"), Duration::from_secs(20));
        drop(lock.take(Share::Alone).unwrap());
        assert!(bursts.opened().is_none(), "whoever has the lock finds it closed");
        assert_eq!(keys(&burst), ["one", "three", "two"]);
        put(&burst, "four");
        drop(bursts.closed());
        burst.compact().unwrap();
        drop(burst);
        assert_eq!(keys(&meta(dir.path(), Hold::Transaction)), ["four", "one", "three", "two"]);
    }

    #[test]
    fn a_database_left_open_by_a_burst_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let burst = meta(dir.path(), Hold::Burst);
        put(&burst, "one");
        // What a kill would leave: the file as it is while it is open.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("store.redb"), copy.path().join("store.redb")).unwrap();
        assert_eq!(keys(&meta(copy.path(), Hold::Transaction)), ["one"]);
    }
}
