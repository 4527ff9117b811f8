//! Taking an image back: all records that lead to it go, and containerd collects what they kept before the last call
//! returns. Layers under a container stay, and go with it.

use tokio::sync::OwnedMutexGuard;
use windlass_core::digest::Digest;
use windlass_proto::containerd::services::images::v1::Image as Record;

use super::records::{self, Collect};
use super::{Handover, HandoverError, Inner, blocking};

/// An image that containerd has no more. While this lives, nobody hands it over again: hold it until the store has
/// forgotten the image too.
#[derive(Debug)]
#[must_use = "until it is dropped the image is not handed over again"]
pub struct Removal {
    /// How many records went.
    pub records: usize,
    _alone: OwnedMutexGuard<()>,
}

impl Handover {
    /// Removes every record that leads to an image, whoever made it. Call it before the store forgets the image. What is
    /// not there is removed.
    ///
    /// # Errors
    /// Whatever containerd refuses; then some records may be gone already, and the call may be repeated.
    pub async fn remove(&self, image: &Digest) -> Result<Removal, HandoverError> {
        let alone = self.inner.locks.lock(image).await;
        self.remove_records(image, alone).await
    }

    /// The same for an image that the store has forgotten already; `None` if it is there again.
    ///
    /// # Errors
    /// As [`Handover::remove`]; the store cannot be read.
    pub async fn remove_forgotten(&self, image: &Digest) -> Result<Option<Removal>, HandoverError> {
        let alone = self.inner.locks.lock(image).await;
        let (store, wanted) = (self.inner.store.clone(), image.clone());
        match blocking(move || Ok(store.find_id(&wanted)?)).await? {
            Some(_) => Ok(None),
            None => self.remove_records(image, alone).await.map(Some),
        }
    }

    async fn remove_records(&self, image: &Digest, alone: OwnedMutexGuard<()>) -> Result<Removal, HandoverError> {
        let client = &self.inner.client;
        let mut names = self.inner.records_of(image, records::list(client).await?).await?;
        // The record by ID goes last: until then the image is one, for others too.
        names.sort_by_key(|name| name == image.as_str());
        let last = names.len().saturating_sub(1);
        for (at, name) in names.iter().enumerate() {
            let collect = if at == last { Collect::Now } else { Collect::Later };
            records::delete(client, name, collect).await?;
        }
        Ok(Removal { records: names.len(), _alone: alone })
    }
}

impl Inner {
    /// Names of those records that lead to an image.
    pub(super) async fn records_of(&self, image: &Digest, all: Vec<Record>) -> Result<Vec<String>, HandoverError> {
        let mut names = Vec::new();
        for record in all {
            if record.name == image.as_str() || self.leads_to(&record, image).await? {
                names.push(record.name);
            }
        }
        Ok(names)
    }

    async fn leads_to(&self, record: &Record, image: &Digest) -> Result<bool, HandoverError> {
        let target = record.target.as_ref().and_then(|target| Digest::parse(&target.digest).ok());
        match target {
            Some(target) => Ok(self.targets.configs(&self.client, &target).await?.contains(image)),
            None => Ok(false),
        }
    }
}
