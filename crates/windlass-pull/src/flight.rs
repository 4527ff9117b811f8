//! One at a time per digest: who comes second waits, then finds the thing done.
//!
//! Only small things go through here (configs); layers have their own claims in the store.
//!
//! Invariant: `the_second_waits_for_the_first`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use windlass_core::digest::Digest;

type Turn = tokio::sync::Mutex<()>;

/// Turns, by digest.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    turns: Mutex<HashMap<Digest, Weak<Turn>>>,
}

impl Flights {
    /// Waits for the turn of a digest. Dropping the guard lets the next one in.
    pub(crate) async fn turn(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(digest).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(Turn::default());
                    turns.insert(digest.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let flights = Arc::new(Flights::default());
        let (one, other) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let first = flights.turn(&one).await;
        let _elsewhere = flights.turn(&other).await;
        let second = tokio::spawn({
            let (flights, one) = (flights.clone(), one.clone());
            async move { drop(flights.turn(&one).await) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap();
        drop(flights.turn(&one).await);
        assert!(flights.turns.lock().unwrap().len() <= 2);
    }
}
