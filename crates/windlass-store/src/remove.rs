//! Changing what is named: tags, removal, pins, last use.
//!
//! Removing a name removes the image with its last one; removing an image by its ID removes all its names. A pinned
//! or mounted image stays. What nothing refers to any more is swept at once, so the bytes are free when it returns.
//!
//! Invariants: `the_last_name_takes_the_image_along`, `a_pinned_image_stays`.

use jiff::Timestamp;
use windlass_core::digest::Digest;
use windlass_core::pin::{Pin, PinSource};
use windlass_core::reference::Reference;

use crate::error::StoreError;
use crate::gc::{GcReport, GcRequest};
use crate::image::Image;
use crate::meta::WriteTx;
use crate::meta::record::{ImageRecord, NameRecord, PinRecord, UseRecord};
use crate::names::Name;
use crate::store::Store;

/// What a removal did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Removed {
    /// Names that are gone.
    pub names: Vec<Name>,
    /// The image that is gone with its last name.
    pub image: Option<Digest>,
    /// What was swept because nothing refers to it any more.
    pub swept: GcReport,
}

impl Store {
    /// Gives an image one more name; a name that another image has moves.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`], [`StoreError::Damaged`].
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Name, StoreError> {
        let image = self.whole(source)?;
        let Some((manifest, index)) = image.manifests.last().cloned() else {
            return Err(StoreError::Damaged { image: image.id, what: "it has no manifest".to_owned() });
        };
        let name = match target.tag() {
            Some(tag) => Name::tagged(&target.repository(), tag),
            None => Name::of(target),
        };
        let record = NameRecord { image: image.id, manifest, index, implied: false, since: Timestamp::now() };
        self.write(|tx| tx.put(&name.to_string(), &record))?;
        Ok(name)
    }

    /// Notes that somebody asked for a name by digest that came along with a tag until now: it no longer goes with it.
    ///
    /// # Errors
    /// The metadata cannot be written, or [`StoreError::Locked`].
    pub fn ask_for(&self, reference: &Reference) -> Result<(), StoreError> {
        let name = Name::of(reference).to_string();
        let is_implied = |name: Option<NameRecord>| name.filter(|name| name.implied);
        if is_implied(self.read(|tx| tx.get(&name))?).is_none() {
            return Ok(());
        }
        self.write(|tx| match is_implied(tx.get(&name)?) {
            Some(record) => tx.put(&name, &NameRecord { implied: false, ..record }),
            None => Ok(()),
        })
    }

    /// Removes a name, or an image by its ID (or the beginning of it) with all names.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`]; [`StoreError::Pinned`] and [`StoreError::InUse`] when the image would go.
    pub fn remove(&self, text: &str) -> Result<Removed, StoreError> {
        let image = self.known(text)?;
        let typed = Reference::parse(text).ok().map(|reference| Name::of(&reference));
        let named = typed.filter(|name| image.repo_tags.contains(name) || image.repo_digests.contains(name));
        let goes = match &named {
            Some(name) => with_implied(self, &image, name)?,
            None => image.repo_tags.iter().chain(&image.repo_digests).cloned().collect(),
        };
        let is_last = goes.len() == image.repo_tags.len() + image.repo_digests.len();
        if is_last {
            self.refuse_if_held(&image)?;
        }
        self.write(|tx| {
            goes.iter().try_for_each(|name| tx.remove::<NameRecord>(&name.to_string()).map(drop))?;
            if is_last { forget(tx, &image.id) } else { Ok(()) }
        })?;
        let swept = if is_last { self.gc(&GcRequest::sweep())? } else { GcReport::default() };
        Ok(Removed { names: goes, image: is_last.then_some(image.id), swept })
    }

    /// Takes an image's names, pins and record away in one step, whatever it is pinned by; whether it was here. For a
    /// runtime that says so: a pin is only advice to collectors then. What nothing needs any more stays on disk until
    /// the next collection.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while it is mounted.
    pub fn forget_image(&self, image: &Digest) -> Result<bool, StoreError> {
        if let Some(target) = self.mounted_at(image)?.first() {
            return Err(StoreError::InUse { image: image.clone(), by: format!("the mount at {}", target.display()) });
        }
        self.write(|tx| {
            if tx.get::<ImageRecord>(image.as_str())?.is_none() {
                return Ok(false);
            }
            for (key, name) in tx.all::<NameRecord>()? {
                if name.image == *image {
                    tx.remove::<NameRecord>(&key)?;
                }
            }
            forget(tx, image)?;
            Ok(true)
        })
    }

    /// Pins an image: neither the collector nor a removal touches it. `source` says who, once for each image.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`]; [`StoreError::Pin`] for a reason that is too long or not one line.
    pub fn pin(&self, text: &str, source: &PinSource, reason: &str) -> Result<Digest, StoreError> {
        let Pin { source, reason, since } = Pin::new(source.clone(), reason, Timestamp::now())?;
        let image = self.known(text)?.id;
        let key = pin_key(&image, &source);
        self.write(|tx| tx.put(&key, &PinRecord { image: image.clone(), source, reason, since }))?;
        Ok(image)
    }

    /// Takes a pin back; whether there was one.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`].
    pub fn unpin(&self, text: &str, source: &PinSource) -> Result<bool, StoreError> {
        let image = self.known(text)?.id;
        self.write(|tx| tx.remove::<PinRecord>(&pin_key(&image, source)))
    }

    /// Notes that an image was used.
    ///
    /// # Errors
    /// The metadata cannot be written, or [`StoreError::Locked`].
    pub fn touch(&self, image: &Digest, now: Timestamp) -> Result<(), StoreError> {
        self.write(|tx| match tx.get::<ImageRecord>(image.as_str())? {
            Some(_) => tx.put(image.as_str(), &UseRecord { last_used: now }),
            None => Ok(()),
        })
    }

    /// An image that is here, whole or damaged.
    pub(crate) fn known(&self, text: &str) -> Result<Image, StoreError> {
        self.find(text)?.ok_or_else(|| StoreError::UnknownImage { name: text.to_owned() })
    }

    /// An image that is here and whole.
    pub(crate) fn whole(&self, text: &str) -> Result<Image, StoreError> {
        let mut image = self.known(text)?;
        match image.damage.take() {
            None => Ok(image),
            Some(what) => Err(StoreError::Damaged { image: image.id, what }),
        }
    }

    pub(crate) fn refuse_if_held(&self, image: &Image) -> Result<(), StoreError> {
        if let Some(pin) = image.pins.first() {
            let why = format!("{} by {}", pin.reason, pin.source);
            return Err(StoreError::Pinned { image: image.id.clone(), why });
        }
        match self.mounted_at(&image.id)?.first() {
            Some(target) => {
                Err(StoreError::InUse { image: image.id.clone(), by: format!("the mount at {}", target.display()) })
            }
            None => Ok(()),
        }
    }
}

/// The name, and with the last tag of its repository the digest names that came along with it.
fn with_implied(store: &Store, image: &Image, name: &Name) -> Result<Vec<Name>, StoreError> {
    let mut goes = vec![name.clone()];
    let other_tag = |other: &Name| other != name && other.repository() == name.repository();
    if name.tag().is_some() && !image.repo_tags.iter().any(other_tag) {
        let same = image.repo_digests.iter().filter(|digest| digest.repository() == name.repository());
        for digest in same {
            let record = store.read(|tx| tx.get::<NameRecord>(&digest.to_string()))?;
            if record.is_some_and(|record| record.implied) {
                goes.push(digest.clone());
            }
        }
    }
    Ok(goes)
}

/// Removes an image's own records.
pub(crate) fn forget(tx: &WriteTx<'_>, image: &Digest) -> Result<(), StoreError> {
    tx.remove::<ImageRecord>(image.as_str())?;
    tx.remove::<UseRecord>(image.as_str())?;
    for (key, pin) in tx.all::<PinRecord>()? {
        if pin.image == *image {
            tx.remove::<PinRecord>(&key)?;
        }
    }
    Ok(())
}

fn pin_key(image: &Digest, source: &PinSource) -> String {
    format!("{image} {source}")
}
