//! What the store holds, looked at once for all who ask.
//!
//! In: a store. Out: an [`Inventory`] no older than the asker allows; looking takes a read of the database and some
//! system calls for each image, so several askers share one look.
//!
//! Invariant: `shared_bytes_are_those_of_layers_that_others_have`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_core::digest::Digest;
use windlass_core::gc::Disk;
use windlass_core::reason::chain;
use windlass_store::{Image, Store, StoreError};

use crate::status::{DiskStatus, IMAGES_MAX, ImageRow, NAMES_MAX};

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    /// The images, the largest first, at most [`IMAGES_MAX`].
    pub(crate) images: Vec<ImageRow>,
    /// How many there are.
    pub(crate) image_count: usize,
    pub(crate) disk: Option<DiskStatus>,
    /// Why the store could not be read.
    pub(crate) problem: Option<String>,
}

/// The last look.
#[derive(Debug)]
pub(crate) struct Inventories {
    store: Store,
    last: Mutex<Option<(Instant, Arc<Inventory>)>>,
}

impl Inventories {
    pub(crate) fn new(store: Store) -> Inventories {
        Inventories { store, last: Mutex::new(None) }
    }

    /// One that is no older than this.
    pub(crate) async fn within(&self, age: Duration) -> Arc<Inventory> {
        let mut last = self.last.lock().await;
        if let Some((seen, inventory)) = last.as_ref()
            && seen.elapsed() <= age
        {
            return inventory.clone();
        }
        let store = self.store.clone();
        let look = tokio::task::spawn_blocking(move || look(&store)).await;
        let inventory = match look {
            Ok(Ok(inventory)) => inventory,
            Ok(Err(error)) => Inventory { problem: Some(chain(&error)), ..Inventory::default() },
            Err(_) => Inventory { problem: Some("looking ended without a result".to_owned()), ..Inventory::default() },
        };
        let inventory = Arc::new(inventory);
        *last = Some((Instant::now(), inventory.clone()));
        inventory
    }
}

fn look(store: &Store) -> Result<Inventory, StoreError> {
    let images = store.images()?;
    let (disk, usage) = (store.file_system()?, store.usage()?);
    let used = Disk { capacity_bytes: disk.capacity_bytes, available_bytes: disk.available_bytes }.used_percent();
    let disk = DiskStatus {
        capacity_bytes: disk.capacity_bytes,
        available_bytes: disk.available_bytes,
        free_inodes: disk.free_inodes,
        used_percent: used.unwrap_or(100),
        images_bytes: usage.used_bytes,
        images_inodes: usage.inodes,
    };
    let image_count = images.len();
    let mut rows = rows(&images);
    rows.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    rows.truncate(IMAGES_MAX);
    Ok(Inventory { images: rows, image_count, disk: Some(disk), problem: None })
}

fn rows(images: &[Image]) -> Vec<ImageRow> {
    let mut owners: HashMap<&Digest, usize> = HashMap::new();
    for image in images {
        for layer in &image.layers {
            *owners.entry(&layer.chain_id).or_default() += 1;
        }
    }
    let shared = |image: &Image| {
        let layers = image.layers.iter().filter(|layer| owners.get(&layer.chain_id).is_some_and(|count| *count > 1));
        layers.map(|layer| layer.size_bytes).sum()
    };
    images.iter().map(|image| row(image, shared(image))).collect()
}

fn row(image: &Image, shared_bytes: u64) -> ImageRow {
    let names = image.repo_tags.iter().chain(&image.repo_digests);
    ImageRow {
        id: image.id.to_string(),
        names: names.take(NAMES_MAX).map(ToString::to_string).collect(),
        platform: image.platform.clone(),
        size_bytes: image.compressed_bytes,
        shared_bytes,
        unpacked_bytes: image.unpacked_bytes,
        pins: image.pins.iter().map(ToString::to_string).collect(),
        first_seen: image.first_seen,
        last_used: image.last_used,
        damage: image.damage.clone(),
    }
}

#[cfg(test)]
mod tests {
    use windlass_testkit::images::{Entry, Image as TestImage, Layer};
    use windlass_testkit::registry::TestRegistry;

    use super::*;
    use crate::rig::Rig;

    #[tokio::test(flavor = "multi_thread")]
    async fn shared_bytes_are_those_of_layers_that_others_have() {
        let registry = TestRegistry::open();
        let base = || Layer::new([Entry::file("base", "the same in both")]);
        let images = ["one", "two"].map(|own| {
            TestImage::build().layer(base()).layer(Layer::new([Entry::file("own", own.repeat(100))])).finish()
        });
        let base_bytes = u64::try_from(images[0].layers[0].blob.bytes.len()).unwrap();
        let rig = Rig::new();
        let inventories = Inventories::new(rig.store().clone());
        rig.pull(&registry.place(&images[0].bundle(), "app", "one")).await;
        let alone = inventories.within(Duration::ZERO).await;
        assert_eq!((alone.image_count, alone.images[0].shared_bytes), (1, 0));
        rig.pull(&registry.place(&images[1].bundle(), "app", "two")).await;
        let both = inventories.within(Duration::ZERO).await;
        assert_eq!(both.images.iter().map(|image| image.shared_bytes).collect::<Vec<_>>(), [base_bytes; 2]);
        assert!(both.images.iter().all(|image| image.size_bytes > base_bytes));
        // Who does not mind gets the last look.
        assert!(Arc::ptr_eq(&inventories.within(Duration::from_secs(3600)).await, &both));
    }
}
