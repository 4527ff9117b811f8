//! One handover or removal of an image at a time. Different images never wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use windlass_core::digest::Digest;

/// A lock for each image that somebody works on.
#[derive(Debug, Default)]
pub(super) struct ImageLocks {
    locks: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl ImageLocks {
    /// Waits until nobody else works on the image.
    pub(super) async fn lock(&self, image: &Digest) -> OwnedMutexGuard<()> {
        self.of(image).lock_owned().await
    }

    /// Only if nobody works on the image.
    pub(super) fn try_lock(&self, image: &Digest) -> Option<OwnedMutexGuard<()>> {
        self.of(image).try_lock_owned().ok()
    }

    fn of(&self, image: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(image).and_then(Weak::upgrade) {
            return lock;
        }
        // What nobody holds goes, so that there are never more than are in use.
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(image.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_works_on_an_image_and_others_on_other_images() {
        let locks = ImageLocks::default();
        let (first, second) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let held = locks.lock(&first).await;
        let other = locks.lock(&second).await;
        let mut waiting = tokio::task::spawn_blocking(|| ()).await.map(|()| Box::pin(locks.lock(&first))).unwrap();
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(locks.try_lock(&first).is_none());
        drop(held);
        let held = waiting.await;
        drop((held, other));
        drop(locks.lock(&Digest::sha256(b"3")).await);
        assert_eq!(locks.locks.lock().unwrap().len(), 1);
    }
}
