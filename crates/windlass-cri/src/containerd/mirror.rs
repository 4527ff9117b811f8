//! What others changed in containerd, repeated in the store.
//!
//! An event says only that something happened to a name, and when. What is there now is asked for, and the store leaves
//! alone what was written there after the event: our own pulls and removals come back to us as events too.

use jiff::Timestamp;
use windlass_core::digest::Digest;
use windlass_core::reference::Reference;
use windlass_store::{Mirrored, Name, StoreError};

use super::{Handover, HandoverError, blocking, records};

impl Handover {
    /// Makes the store agree about a name that was changed at `at`.
    pub(super) async fn repeat(&self, name: &str, at: Timestamp) -> Result<Mirrored, HandoverError> {
        let record = records::get(&self.inner.client, name).await?;
        let target = record.and_then(|record| Digest::parse(&record.target?.digest).ok());
        match (Digest::parse(name), kept_name(name), target) {
            // The CRI plugin gives every image such a record.
            (Ok(_), _, Some(_)) => Ok(Mirrored::Same),
            (Ok(image), _, None) => self.repeat_removal(&image, at).await,
            (Err(_), Some((_, name)), Some(target)) => {
                // Before it is in the store: whoever sees it there must know whose it is.
                self.inner.heard().insert(name.to_string(), target.clone());
                let store = self.inner.store.clone();
                blocking(move || Ok(store.mirror_name(&name, &target, at)?)).await
            }
            (Err(_), Some((reference, name)), None) => {
                self.inner.heard().remove(&name.to_string());
                let store = self.inner.store.clone();
                let (image, done) = blocking(move || {
                    let image = store.find_reference(&reference)?.map(|image| image.id);
                    Ok((image, store.mirror_removed_name(&name, at)?))
                })
                .await?;
                let gone = match image {
                    Some(image) => self.repeat_removal(&image, at).await?,
                    None => Mirrored::Same,
                };
                Ok(if gone == Mirrored::Changed { gone } else { done })
            }
            // Names that no reference has lead to images of others.
            (Err(_), None, _) => Ok(Mirrored::Same),
        }
    }

    /// Forgets an image that no record leads to any more. One that we hand over or remove just now is in good hands.
    async fn repeat_removal(&self, image: &Digest, at: Timestamp) -> Result<Mirrored, HandoverError> {
        let Some(_alone) = self.inner.locks.try_lock(image) else { return Ok(Mirrored::Same) };
        let store = self.inner.store.clone();
        let wanted = image.clone();
        if blocking(move || Ok(store.find_id(&wanted)?)).await?.is_none() {
            return Ok(Mirrored::Same);
        }
        let left = self.inner.records_of(image, records::list(&self.inner.client).await?).await?;
        if !left.is_empty() {
            return Ok(Mirrored::Same);
        }
        let (store, wanted) = (self.inner.store.clone(), image.clone());
        let done = blocking(move || Ok(store.mirror_removed_image(&wanted, at)?)).await;
        match done {
            Err(HandoverError::Store(StoreError::InUse { image, by })) => {
                tracing::info!(%image, by, "removed in containerd, kept here");
                Ok(Mirrored::Same)
            }
            Ok(Mirrored::Changed) => {
                tracing::info!(%image, "removed in containerd by another hand");
                Ok(Mirrored::Changed)
            }
            other => other,
        }
    }
}

/// A name as the store keeps it, if it is written as such.
fn kept_name(name: &str) -> Option<(Reference, Name)> {
    let reference = Reference::parse(name).ok()?;
    let kept = Name::of(&reference);
    (kept.to_string() == name).then_some((reference, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_repeated_as_they_are_written() {
        let digest = Digest::sha256(b"x");
        for name in ["docker.io/library/busybox:1".to_owned(), format!("localhost:5000/a/b@{digest}")] {
            assert_eq!(kept_name(&name).unwrap().1.to_string(), name);
        }
        let both = format!("localhost:5000/a/b:1@{digest}");
        for name in ["busybox", "busybox:1", "docker.io/library/busybox", "import-2024-01-01@x", "", both.as_str()] {
            assert!(kept_name(name).is_none(), "{name}");
        }
    }
}
