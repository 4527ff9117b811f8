//! Changes that another keeper of images made, repeated here: a runtime in which somebody removed or moved a name.
//!
//! What was written here after the other's change is newer and stays: each call says when that change was made.
//!
//! Invariants: `a_name_that_another_removed_goes_and_the_image_stays`, `what_is_newer_here_stays`,
//! `a_name_that_another_gave_leads_to_the_image`.

use jiff::Timestamp;
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::meta::WriteTx;
use crate::meta::record::{ImageRecord, NameRecord};
use crate::names::Name;
use crate::remove::forget;
use crate::store::Store;

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// It was changed.
    Changed,
    /// It was as it should be, or something newer is here.
    Same,
}

impl Store {
    /// Takes exactly this name away, if it was last written before `at`. The image stays, even without any name.
    ///
    /// # Errors
    /// The metadata cannot be written, or [`StoreError::Locked`].
    pub fn mirror_removed_name(&self, name: &Name, at: Timestamp) -> Result<Mirrored, StoreError> {
        let key = name.to_string();
        let is_old = |found: &NameRecord| found.since < at;
        if !self.read(|tx| tx.get::<NameRecord>(&key))?.as_ref().is_some_and(is_old) {
            return Ok(Mirrored::Same);
        }
        self.write(|tx| match tx.get::<NameRecord>(&key)?.as_ref().is_some_and(is_old) {
            true => tx.remove::<NameRecord>(&key).map(|_| Mirrored::Changed),
            false => Ok(Mirrored::Same),
        })
    }

    /// Lets a name lead to what another keeper shows by it: `target`, a manifest or an index. Where no image here was
    /// made of that, the name goes. A name that was written since `at` stays as it is.
    ///
    /// # Errors
    /// The metadata cannot be written, or [`StoreError::Locked`].
    pub fn mirror_name(&self, name: &Name, target: &Digest, at: Timestamp) -> Result<Mirrored, StoreError> {
        let key = name.to_string();
        let is_same = |found: &NameRecord| found.manifest == *target || found.index.as_ref() == Some(target);
        if self.read(|tx| tx.get::<NameRecord>(&key))?.is_some_and(|found| is_same(&found) || found.since >= at) {
            return Ok(Mirrored::Same);
        }
        self.write(|tx| {
            let before = tx.get::<NameRecord>(&key)?;
            if before.as_ref().is_some_and(|found| is_same(found) || found.since >= at) {
                return Ok(Mirrored::Same);
            }
            match (made_of(tx, target)?, before) {
                (Some(record), _) => tx.put(&key, &record).map(|()| Mirrored::Changed),
                (None, Some(_)) => tx.remove::<NameRecord>(&key).map(|_| Mirrored::Changed),
                (None, None) => Ok(Mirrored::Same),
            }
        })
    }

    /// Takes an image with all its names and pins away, unless it, or a name of it, was written since `at`. What nothing
    /// needs any more stays on disk until the next collection.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while it is mounted.
    pub fn mirror_removed_image(&self, image: &Digest, at: Timestamp) -> Result<Mirrored, StoreError> {
        if let Some(target) = self.mounted_at(image)?.first() {
            return Err(StoreError::InUse { image: image.clone(), by: format!("the mount at {}", target.display()) });
        }
        self.write(|tx| {
            let Some(found) = tx.get::<ImageRecord>(image.as_str())? else { return Ok(Mirrored::Same) };
            let names = tx.all::<NameRecord>()?.into_iter().filter(|(_, name)| name.image == *image);
            let names: Vec<(String, NameRecord)> = names.collect();
            if found.first_seen >= at || names.iter().any(|(_, name)| name.since >= at) {
                return Ok(Mirrored::Same);
            }
            names.iter().try_for_each(|(key, _)| tx.remove::<NameRecord>(key).map(drop))?;
            forget(tx, image)?;
            Ok(Mirrored::Changed)
        })
    }
}

/// A name's record for the image that was made of a manifest or an index.
fn made_of(tx: &WriteTx<'_>, target: &Digest) -> Result<Option<NameRecord>, StoreError> {
    for (id, image) in tx.all::<ImageRecord>()? {
        let fits = |(manifest, index): &(&Digest, Option<&Digest>)| *manifest == target || *index == Some(target);
        let mut pairs = image.manifests.iter().rev().map(|found| (&found.manifest, found.index.as_ref()));
        let (Some((manifest, index)), Ok(image)) = (pairs.find(fits), Digest::parse(&id)) else { continue };
        // Named by its manifest, an image has no index.
        let index = index.filter(|index| *index == target).cloned();
        let since = Timestamp::now();
        return Ok(Some(NameRecord { image, manifest: manifest.clone(), index, implied: false, since }));
    }
    Ok(None)
}
