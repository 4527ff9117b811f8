//! Work that many ask for and that need not be done for each: who asks while it is done shares the next time.
//!
//! In: callers, each with what was true when it called. Out: the outcome of work that began after the call. A caller that
//! goes away in the middle of the work leaves it to the next one.
//!
//! Invariants: `callers_share_work_that_began_after_they_called`, `a_caller_that_goes_away_is_replaced`.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// One piece of work, over and over.
#[derive(Debug)]
pub(crate) struct Rounds<T> {
    begun: AtomicU64,
    last: Mutex<(u64, Option<T>)>,
}

impl<T> Default for Rounds<T> {
    fn default() -> Rounds<T> {
        Rounds { begun: AtomicU64::new(0), last: Mutex::new((0, None)) }
    }
}

impl<T: Clone> Rounds<T> {
    /// The outcome of `work`, or of somebody else's that began after this was called.
    pub(crate) async fn share(&self, work: impl Future<Output = T>) -> T {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let (number, Some(outcome)) = &*last
            && *number > before
        {
            return outcome.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work.await;
        *last = (number, Some(outcome.clone()));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_share_work_that_began_after_they_called() {
        let rounds = Arc::new(Rounds::default());
        let done = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (rounds, done) = (rounds.clone(), done.clone());
                tokio::spawn(async move {
                    let called = done.load(Ordering::SeqCst);
                    let outcome = rounds.share(async {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        done.fetch_add(1, Ordering::SeqCst) + 1
                    });
                    (called, outcome.await)
                })
            })
            .collect();
        for caller in callers {
            let (called, outcome) = caller.await.unwrap();
            assert!(outcome > called, "an outcome from before the call");
        }
        assert_eq!(done.load(Ordering::SeqCst), 2, "the first one's, and one for all others");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_is_replaced() {
        let rounds = Arc::new(Rounds::default());
        let gone = tokio::time::timeout(Duration::from_millis(1), rounds.share(std::future::pending::<u8>()));
        let second = {
            let rounds = rounds.clone();
            tokio::spawn(async move { rounds.share(async { 2 }).await })
        };
        assert!(gone.await.is_err());
        assert_eq!(second.await.unwrap(), 2);
    }
}
