//! Removing an image as the CRI means it: the whole image, whatever name was given, as often as it is asked for.
//!
//! Source of truth: kubernetes/cri-api `api.proto`, `RemoveImage`; critest "Image Manager".

use tonic::Status;
use windlass_core::digest::Digest;
use windlass_store::{Store, StoreError};

use crate::publisher::blocking;
use crate::server::Inner;
use crate::status;
use crate::view::Lookup;

/// Removes what `text` names, shows that it is gone, and leaves what became free to be collected.
pub(crate) async fn remove(inner: &Inner, text: &str) -> Result<(), Status> {
    inner.publisher.loaded().await?;
    let store = inner.engine.store().clone();
    let known = match inner.publisher.view().index().look_up(text) {
        Lookup::Found(image) => Some(image.id.clone()),
        Lookup::Ambiguous => return Err(ambiguous(text)),
        Lookup::Absent => None,
    };
    let named = text.to_owned();
    let removed = blocking(move || forget(&store, known, &named)).await;
    let removed = removed.map_err(|error| status::store("failed to remove image", &error))?;
    // Five removals at once all have to see it gone when they return, those that found nothing too.
    let refreshed = inner.publisher.refresh().await;
    refreshed.map_err(|error| status::store("the image store cannot be read", &error))?;
    if removed {
        inner.publisher.sweep_soon();
    }
    Ok(())
}

/// Forgets the image. One that is damaged, or came a moment ago, is not shown and found in the store.
fn forget(store: &Store, known: Option<Digest>, text: &str) -> Result<bool, StoreError> {
    let id = match known {
        Some(id) => id,
        None if text.len() > crate::view::NAME_MAX_BYTES => return Ok(false),
        None => match store.find(text) {
            Ok(Some(image)) => image.id,
            Ok(None) | Err(StoreError::BadName { .. }) => return Ok(false),
            Err(error) => return Err(error),
        },
    };
    store.forget_image(&id)
}

/// The status for the beginning of several IDs.
pub(crate) fn ambiguous(text: &str) -> Status {
    status::invalid(format!("image ID {:?} is ambiguous: several IDs begin like this", status::shown(text)))
}
