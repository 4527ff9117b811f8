//! Adoption: containerd asks for a layer that is here, and gets a record instead of a place to unpack.
//!
//! containerd finds the record by its label and its parent, and keeps its name for good. So the name follows from the
//! layer, and where a layer is wanted on another parent name (one that containerd unpacked itself), it gets one more
//! record, whose name follows from both.

use windlass_core::digest::Digest;

use super::labels::SNAPSHOT_REF;
use super::record::{RuntimeRecord, State};
use super::stack::{self, Held};
use super::{Labels, SnapshotError, Snapshots, labels};
use crate::meta::Look;

/// Digits of the parent's digest in a name.
const PARENT_DIGITS: usize = 16;

impl Snapshots {
    /// Writes records anew that were lost, with the database for example, while containerd still knows their names: those
    /// of a layer and of all below it. Says how many were missing; zero also where the layer is not here.
    ///
    /// # Errors
    /// The metadata cannot be read or written.
    pub fn rebuild(&self, top: &Digest) -> Result<usize, SnapshotError> {
        let _alone = self.alone();
        let _kept = self.keep_layers()?;
        let missing = self.read(|tx| missing(tx, top))?;
        if missing.is_empty() {
            return Ok(0);
        }
        self.write(|tx| {
            for (chain, parent) in &missing {
                let labels = Labels::from([(SNAPSHOT_REF.to_owned(), chain.to_string())]);
                let parent = parent.as_ref().map(name);
                let record = RuntimeRecord::new(parent.as_deref(), State::Layer { chain: chain.clone() }, labels);
                tx.put(&name(chain), &record)?;
            }
            Ok(missing.len())
        })
    }

    /// Records a layer under a name, if it is here; whether it is. The caller holds the sweep lock.
    pub(super) fn adopt(&self, chain: &Digest, parent: Option<&str>, given: &Labels) -> Result<bool, SnapshotError> {
        let found = self.read(|tx| {
            if !self.fits(tx, chain, parent)? {
                return Ok(None);
            }
            find(tx, chain, parent, given).map(Some)
        })?;
        match found {
            None => Ok(false),
            Some(Place::Taken) => Ok(true),
            Some(Place::Free(_)) => self.write(|tx| {
                if !self.fits(tx, chain, parent)? {
                    return Ok(false);
                }
                if let Place::Free(name) = find(tx, chain, parent, given)? {
                    let state = State::Layer { chain: chain.clone() };
                    tx.put(&name, &RuntimeRecord::new(parent, state, labels::without_empty(given)))?;
                }
                Ok(true)
            }),
        }
    }

    /// Whether the layer is here and whole; that it belongs on this parent is a condition.
    fn fits(&self, tx: &impl Look, chain: &Digest, parent: Option<&str>) -> Result<bool, SnapshotError> {
        match stack::held(tx, self.store.layout(), chain, parent)? {
            Held::No => Ok(false),
            Held::Here => Ok(true),
            Held::OnAnother(wanted) => {
                let wanted = wanted.map_or_else(|| "nothing".to_owned(), |wanted| wanted.to_string());
                let parent = parent.unwrap_or("nothing");
                Err(SnapshotError::invalid(format!("layer {chain} stands on {wanted}, and {parent} is not that")))
            }
        }
    }
}

/// The name of a layer's record, unless it is taken by one on another parent.
fn name(chain: &Digest) -> String {
    format!("wl/{chain}")
}

/// Layers without a record, each with the one below it. None at all unless all of them are here.
fn missing(tx: &impl Look, top: &Digest) -> Result<Vec<(Digest, Option<Digest>)>, SnapshotError> {
    let mut missing = Vec::new();
    let mut next = Some(top.clone());
    while let Some(chain) = next {
        let Some(layer) = stack::layer(tx, &chain)? else { return Ok(Vec::new()) };
        if tx.look::<RuntimeRecord>(&name(&chain))?.is_none() {
            missing.push((chain, layer.parent.clone()));
        }
        next = layer.parent;
    }
    Ok(missing)
}

/// Where a layer's record is.
enum Place {
    /// It is there, as it must be for containerd to find it.
    Taken,
    /// Under this name it is to be written.
    Free(String),
}

fn find(tx: &impl Look, chain: &Digest, parent: Option<&str>, given: &Labels) -> Result<Place, SnapshotError> {
    let of_parent = Digest::sha256(parent.unwrap_or_default().as_bytes());
    for name in [name(chain), format!("wl/{}/{chain}", &of_parent.hex()[..PARENT_DIGITS])] {
        match tx.look::<RuntimeRecord>(&name)? {
            None => return Ok(Place::Free(name)),
            Some(record) if record.parent.as_deref() != parent => {}
            Some(record) if record.labels.get(SNAPSHOT_REF) == given.get(SNAPSHOT_REF) => return Ok(Place::Taken),
            // The label was changed: without it nobody finds it.
            Some(_) => return Ok(Place::Free(name)),
        }
    }
    Err(SnapshotError::refused(format!("layer {chain} is known on other parents under every name it could have")))
}
