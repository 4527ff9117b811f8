//! Layers that are unpacked but not settled, written down so that a killed pull does not fetch them again.
//!
//! The file `pending` in a stage says that the layer beside it is whole; what it needs from below is read from its
//! record of entries. It counts within the same boot only, like the note of a finished layer.
//!
//! Invariants: `a_pending_layer_is_known_by_chain_diff_id_and_boot`, `a_killed_pull_costs_only_the_layers_in_flight`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::layer::{Extracted, LayerLimits};
use crate::layers;
use crate::lock::boot_id;

const PENDING: &str = "pending";
/// The file is some 300 bytes.
const PENDING_MAX_BYTES: u64 = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    chain_id: Digest,
    diff_id: Digest,
    boot_id: String,
    unpacked_bytes: u64,
    entries: u64,
    tar_bytes: u64,
}

/// Says that the stage holds a whole layer.
pub(crate) fn write(
    stage: &Path,
    chain_id: &Digest,
    diff_id: &Digest,
    extracted: &Extracted,
) -> Result<(), StoreError> {
    let pending = Pending {
        chain_id: chain_id.clone(),
        diff_id: diff_id.clone(),
        boot_id: boot_id().to_owned(),
        unpacked_bytes: extracted.unpacked_bytes,
        entries: extracted.entries,
        tar_bytes: extracted.tar_bytes,
    };
    let path = stage.join(PENDING);
    let bytes = serde_json::to_vec(&pending).map_err(|source| StoreError::PullRecord { path: path.clone(), source })?;
    let mut file = crate::layout::create_file(&path)?;
    file.write_all(&bytes).map_err(|source| StoreError::io("write", &path, source))
}

/// The layer in a stage; `None` when it is not whole, another layer, or of another boot.
pub(crate) fn read(stage: &Path, chain_id: &Digest, diff_id: &Digest, limits: &LayerLimits) -> Option<Extracted> {
    let found = look(stage).filter(|found| found.chain_id == *chain_id && found.diff_id == *diff_id)?;
    let needs = layers::needs_of(stage, limits)?;
    let Pending { unpacked_bytes, entries, tar_bytes, .. } = found;
    Some(Extracted { needs, unpacked_bytes, entries, warnings: Vec::new(), tar_bytes, draft: None })
}

/// Takes it back: the layer is finished. One that stays does no harm.
pub(crate) fn remove(layer: &Path) {
    drop(std::fs::remove_file(layer.join(PENDING)));
}

/// Whether a stage holds a layer that a later pull can use.
pub(crate) fn is_there(stage: &Path, chain_id: &Digest) -> bool {
    look(stage).is_some_and(|found| found.chain_id == *chain_id)
}

fn look(stage: &Path) -> Option<Pending> {
    let mut bytes = Vec::new();
    File::open(stage.join(PENDING)).ok()?.take(PENDING_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let pending: Pending = serde_json::from_slice(&bytes).ok()?;
    (!pending.boot_id.is_empty() && pending.boot_id == boot_id()).then_some(pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Needs;

    #[test]
    fn a_pending_layer_is_known_by_chain_diff_id_and_boot() {
        let stage = tempfile::tempdir().unwrap();
        let extracted = Extracted {
            needs: Needs::default(),
            unpacked_bytes: 7,
            entries: 9,
            warnings: Vec::new(),
            tar_bytes: 8,
            draft: None,
        };
        let (chain, diff) = (Digest::sha256(b"chain"), Digest::sha256(b"diff"));
        assert!(!is_there(stage.path(), &chain));
        write(stage.path(), &chain, &diff, &extracted).unwrap();
        assert!(is_there(stage.path(), &chain) && !is_there(stage.path(), &diff));
        assert!(read(stage.path(), &chain, &diff, &LayerLimits::default()).is_none(), "there is no record of entries");
        let path = stage.path().join(PENDING);
        let whole = std::fs::read_to_string(&path).unwrap();
        for spoilt in [whole.replace(boot_id(), "of-an-earlier-boot"), whole[..whole.len() - 1].to_owned()] {
            std::fs::write(&path, spoilt).unwrap();
            assert!(!is_there(stage.path(), &chain));
        }
    }
}
