//! One `syncfs` for all pulls that end at the same time.
//!
//! A sync serves every request that came before it started. A request that meets a running sync waits for the
//! next; the first of those waiting leads it, after a short window in which others may join, if there are others.
//! A sync that failed fails all it served: the kernel reports a write-back error once, so asking again would lie.
//!
//! Invariants: `a_sync_never_serves_who_came_after_it_began`, `a_failed_sync_fails_all_it_served`.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a sync waits for other pulls that are about to end.
pub const SYNC_WINDOW: Duration = Duration::from_millis(20);

/// Joins requests to sync one file system.
#[derive(Debug, Default)]
pub(crate) struct SyncGroup {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the last sync that began.
    begun: u64,
    /// Number of the last sync that ended.
    ended: u64,
    leading: bool,
    /// Requests for the next sync.
    waiting: usize,
    /// Numbers of syncs that failed and whom they still have to tell, with the error.
    failed: Vec<(u64, usize, String)>,
}

impl SyncGroup {
    /// Returns after a sync that began after this call. `others` is how many pulls may still join.
    ///
    /// # Errors
    /// The text of the error of the sync that served this request.
    pub(crate) fn run(&self, others: usize, sync: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let mut state = self.lock();
        let mine = state.begun + 1;
        state.waiting += 1;
        while state.leading {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            if state.ended >= mine {
                return state.verdict(mine);
            }
        }
        // Nobody leads: this request does, for all that wait.
        state.leading = true;
        if others >= state.waiting {
            drop(state);
            std::thread::sleep(SYNC_WINDOW);
            state = self.lock();
        }
        state.begun = mine;
        let served = std::mem::take(&mut state.waiting);
        drop(state);
        let result = sync();
        let mut state = self.lock();
        state.leading = false;
        state.ended = mine;
        if let Err(error) = &result {
            state.failed.push((mine, served - 1, error.clone()));
        }
        drop(state);
        self.changed.notify_all();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn verdict(&mut self, number: u64) -> Result<(), String> {
        let Some(at) = self.failed.iter().position(|(failed, _, _)| *failed == number) else { return Ok(()) };
        let (_, to_tell, error) = &mut self.failed[at];
        let error = error.clone();
        *to_tell -= 1;
        if *to_tell == 0 {
            self.failed.remove(at);
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, mpsc};

    #[test]
    fn a_sync_never_serves_who_came_after_it_began() {
        let group = Arc::new(SyncGroup::default());
        let count = Arc::new(AtomicUsize::new(0));
        let (began, begun) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let first = std::thread::spawn({
            let (group, count) = (group.clone(), count.clone());
            move || {
                group.run(0, || {
                    count.fetch_add(1, Ordering::SeqCst);
                    began.send(()).unwrap();
                    wait.recv().unwrap();
                    Ok(())
                })
            }
        });
        begun.recv().unwrap();
        let late: Vec<_> = (0..4)
            .map(|_| {
                let (group, count) = (group.clone(), count.clone());
                std::thread::spawn(move || {
                    group.run(0, || {
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    })
                })
            })
            .collect();
        while group.lock().waiting < 4 {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        first.join().unwrap().unwrap();
        for thread in late {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(count.load(Ordering::SeqCst), 2, "four late requests share one sync of their own");
    }

    #[test]
    fn a_failed_sync_fails_all_it_served() {
        let group = Arc::new(SyncGroup::default());
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (group, barrier) = (group.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    group.run(3, || Err("disk gone".to_owned()))
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Err("disk gone".to_owned()));
        }
        assert!(group.lock().failed.is_empty(), "every served request was told");
        group.run(0, || Ok(())).unwrap();
    }
}
