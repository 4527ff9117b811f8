//! A look at everything: images of ours that containerd lacks, in part or whole, are handed over again, and records that
//! its CRI plugin does not show are touched.
//!
//! containerd goes on listing an image whose content was collected, and drops images from its list when it starts while
//! we are down; it notices neither. Nothing but such a look finds these ghosts.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use windlass_core::digest::Digest;
use windlass_proto::containerd::services::images::v1::Image as Record;
use windlass_store::Image;

use super::plan::{self, Plan};
use super::{Handover, HandoverError, adopt, blocking, content, records, runtime};

/// Images healed at once.
const AT_ONCE: usize = 4;

/// What a look at everything found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Images of the store that are whole.
    pub images: usize,
    /// Those of them that containerd lacked and has now.
    pub healed: usize,
    /// Records of others that its CRI plugin did not show.
    pub touched: usize,
    /// Images that could not be handed over.
    pub failed: usize,
}

/// What containerd has, listed once for all images.
struct There {
    records: BTreeMap<String, Record>,
    /// Labels of all blobs, by digest.
    blobs: BTreeMap<String, BTreeMap<String, String>>,
    snapshots: BTreeSet<String>,
    /// IDs; `None` without a CRI plugin.
    shown: Option<BTreeSet<String>>,
}

impl Handover {
    /// Looks at everything once, and heals what is ill.
    ///
    /// # Errors
    /// What containerd or the store refused to list; what could not be healed is counted and logged.
    pub async fn check(&self) -> Result<Checked, HandoverError> {
        let left = self.inner.leases.sweep(&self.inner.client).await?;
        if left > 0 {
            tracing::info!(leases = left, "handovers that were never finished are forgotten");
        }
        // The store first: an image that goes meanwhile is looked for once more, under its lock, before it is healed.
        let store = self.inner.store.clone();
        let images = blocking(move || Ok(store.images()?)).await?;
        let there = self.there().await?;
        let whole: Vec<Image> = images.into_iter().filter(|image| image.damage.is_none()).collect();
        let mut checked = Checked { images: whole.len(), ..Checked::default() };
        let ours: BTreeSet<String> = whole.iter().map(|image| image.id.to_string()).collect();
        let mut healing = stream::iter(whole).map(|image| self.heal(image, &there)).buffer_unordered(AT_ONCE);
        while let Some((image, healed)) = healing.next().await {
            match healed {
                Ok(false) => {}
                Ok(true) => checked.healed += 1,
                Err(error) => {
                    checked.failed += 1;
                    tracing::warn!(%image, %error, "the image could not be handed to containerd");
                }
            }
        }
        for name in there.unseen(&ours) {
            records::touch(&self.inner.client, name).await?;
            checked.touched += 1;
        }
        if checked.healed + checked.touched + checked.failed > 0 {
            let Checked { images, healed, touched, failed } = checked;
            tracing::info!(images, healed, touched, failed, "containerd checked");
        }
        Ok(checked)
    }

    async fn there(&self) -> Result<There, HandoverError> {
        let client = &self.inner.client;
        let records = records::list(client).await?;
        let blobs = content::list(client).await?;
        let snapshots = adopt::known(client, &self.inner.snapshotter).await?;
        Ok(There {
            records: records.into_iter().map(|record| (record.name.clone(), record)).collect(),
            blobs: blobs.into_iter().map(|blob| (blob.digest, blob.labels.into_iter().collect())).collect(),
            snapshots: snapshots.into_iter().collect(),
            shown: runtime::shown(client).await?,
        })
    }

    /// Hands an image over if anything of it is missing; whether it was.
    async fn heal(&self, image: Image, there: &There) -> (Digest, Result<bool, HandoverError>) {
        let id = image.id;
        let plan = match self.plan(&id).await {
            Ok(Some(plan)) => plan,
            // Gone, or going.
            Ok(None) => return (id, Ok(false)),
            Err(error) => return (id, Err(error)),
        };
        let Some(missing) = there.missing(&plan, &self.inner.snapshotter) else { return (id, Ok(false)) };
        tracing::info!(image = %id, missing, "containerd lacks a part of the image");
        let healed = match self.after_pull(&id).await {
            Err(HandoverError::Store(windlass_store::StoreError::UnknownImage { .. })) => Ok(false),
            healed => healed.map(|_| true),
        };
        (id, healed)
    }
}

impl There {
    /// The first thing that an image lacks.
    fn missing(&self, plan: &Plan, snapshotter: &str) -> Option<&'static str> {
        let has_blob = |blob: &plan::Blob| {
            let labels = self.blobs.get(blob.digest.as_str());
            labels.is_some_and(|labels| blob.labels.iter().all(|(key, value)| labels.get(key) == Some(value)))
        };
        let has_record = |record: &plan::Record| {
            let found = self.records.get(&record.name);
            found.is_some_and(|found| {
                let target = found.target.as_ref().map(|target| target.digest.as_str());
                target == Some(record.target.digest.as_str()) && records::is_labelled(found, plan.pinned)
            })
        };
        debug_assert!(plan.chains.is_empty() || plan.config.labels.contains_key(&plan::snapshot_label(snapshotter)));
        if !plan.records.iter().all(has_record) {
            Some("a record")
        } else if !has_blob(&plan.config) {
            Some("the config")
        } else if !plan.documents.iter().all(has_blob) {
            Some("a manifest")
        } else if plan.chains.last().is_some_and(|top| !self.snapshots.contains(top.as_str())) {
            Some("a layer")
        } else if self.shown.as_ref().is_some_and(|shown| !shown.contains(plan.id.as_str())) {
            Some("its place in the list")
        } else {
            None
        }
    }

    /// Records of images that are not ours and that the CRI plugin does not show.
    fn unseen<'a>(&'a self, ours: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
        let is_unseen = |id: &str| self.shown.as_ref().is_some_and(|shown| !shown.contains(id)) && !ours.contains(id);
        let ids = self.records.values().filter(|record| Digest::parse(&record.name).is_ok());
        let unseen: BTreeSet<&str> = ids
            .filter(|record| is_unseen(&record.name))
            .filter_map(|record| Some(record.target.as_ref()?.digest.as_str()))
            .collect();
        let leads_there = move |record: &&Record| {
            record.target.as_ref().is_some_and(|target| unseen.contains(target.digest.as_str()))
        };
        self.records.values().filter(leads_there).map(|record| record.name.as_str())
    }
}
