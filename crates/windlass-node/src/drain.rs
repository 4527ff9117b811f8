//! The end of a daemon: no new pulls, those under way get their time, then they are cancelled.
//!
//! In: pulls that begin. Out: a [`Place`] for each until it ends, or none once the daemon drains.
//!
//! Invariants: `a_draining_daemon_takes_no_pull`, `what_is_under_way_is_waited_for`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What pulls and the one who ends them share.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    draining: CancellationToken,
    cut: CancellationToken,
    under_way: Arc<watch::Sender<usize>>,
}

/// One pull under way. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Place(Arc<watch::Sender<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Drain {
    pub(crate) fn new() -> Drain {
        Drain {
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            under_way: Arc::new(watch::Sender::new(0)),
        }
    }

    /// A place for a pull; `None`: the daemon is ending.
    pub(crate) fn enter(&self) -> Option<Place> {
        if self.draining.is_cancelled() {
            return None;
        }
        self.under_way.send_modify(|count| *count += 1);
        Some(Place(self.under_way.clone()))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Fires when pulls under way are to end at once.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Takes no pull any more, waits for those under way, and cancels what is left after the time. Says how many.
    pub(crate) async fn run(&self, timeout: Duration) -> usize {
        self.draining.cancel();
        let mut under_way = self.under_way.subscribe();
        let none = under_way.wait_for(|count| *count == 0);
        let in_time = tokio::time::timeout(timeout, none).await.is_ok();
        let left = if in_time { 0 } else { *self.under_way.borrow() };
        self.cut.cancel();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_draining_daemon_takes_no_pull() {
        let drain = Drain::new();
        drop(drain.enter());
        assert_eq!(drain.run(Duration::from_secs(20)).await, 0);
        assert!(drain.enter().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_waited_for() {
        let drain = Drain::new();
        let (quick, slow) = (drain.enter(), drain.enter());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(quick);
        });
        let began = tokio::time::Instant::now();
        assert_eq!(drain.run(Duration::from_secs(20)).await, 1, "the slow one is cut off");
        assert_eq!(began.elapsed(), Duration::from_secs(20));
        assert!(drain.cut().is_cancelled());
        drop(slow);
    }
}
