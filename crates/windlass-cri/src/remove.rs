//! Removing an image as the CRI means it: the whole image, whatever name was given, as often as it is asked for.
//!
//! Source of truth: kubernetes/cri-api `api.proto`, `RemoveImage`; critest "Image Manager".

use tonic::Status;
use windlass_core::digest::Digest;
use windlass_store::{Store, StoreError};

use crate::publisher::blocking;
use crate::server::Inner;
use crate::status;
use crate::view::{Lookup, NAME_MAX_BYTES};

/// Removes what `text` names: in containerd first, which may still use it, then here. Shows that it is gone, and leaves
/// what became free to be collected.
pub(crate) async fn remove(inner: &Inner, text: &str) -> Result<(), Status> {
    inner.publisher.loaded().await?;
    let known = match inner.publisher.view().index().look_up(text) {
        Lookup::Found(image) => Some(image.id.clone()),
        Lookup::Ambiguous => return Err(ambiguous(text)),
        Lookup::Absent => None,
    };
    let failed = |error| status::store("failed to remove image", &error);
    let (store, named) = (inner.engine.store().clone(), text.to_owned());
    let id = blocking(move || removable(&store, known, &named)).await.map_err(failed)?;
    let mut removed = false;
    if let Some(id) = id {
        let alone = inner.publisher.take_back(&id).await?;
        let store = inner.engine.store().clone();
        removed = blocking(move || store.forget_image(&id)).await.map_err(failed)?;
        drop(alone);
    }
    // Five removals at once all have to see it gone when they return, those that found nothing too.
    inner.publisher.refresh().await?;
    if removed {
        inner.publisher.sweep_soon();
    }
    Ok(())
}

/// The image that is meant, if it is here. One that is damaged, or came a moment ago, is not shown and found in the store.
fn removable(store: &Store, known: Option<Digest>, text: &str) -> Result<Option<Digest>, StoreError> {
    let id = match known {
        Some(id) => id,
        None if text.len() > NAME_MAX_BYTES => return Ok(None),
        None => match store.find(text) {
            Ok(Some(image)) => image.id,
            Ok(None) | Err(StoreError::BadName { .. }) => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    match store.mounted_at(&id)?.first() {
        Some(target) => Err(StoreError::InUse { image: id, by: format!("the mount at {}", target.display()) }),
        None => Ok(Some(id)),
    }
}

/// The status for the beginning of several IDs.
pub(crate) fn ambiguous(text: &str) -> Status {
    status::invalid(format!("image ID {:?} is ambiguous: several IDs begin like this", status::shown(text)))
}
