//! Layers that are unpacked but not settled, written down so that a killed pull does not fetch them again.
//!
//! The file `pending` in a stage says all that settling needs. It counts within the same boot only, like the note of
//! a finished layer, and only when it is whole.
//!
//! Invariants: `a_pending_layer_reads_back_equal`, `an_unpacked_layer_survives_a_kill`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::layer::{Extracted, Implicit, Needs};
use crate::lock::boot_id;

const PENDING: &str = "pending";
/// Largest file that is read: the limit of what one layer may leave pending, in base64, with room to spare.
const PENDING_MAX_BYTES: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    chain_id: Digest,
    diff_id: Digest,
    boot_id: String,
    unpacked_bytes: u64,
    entries: u64,
    root_opaque: bool,
    redo: bool,
    /// Path, whether it was made for whiteouts, whether it is cut off from below.
    implicit: Vec<(String, bool, bool)>,
    whiteouts: Vec<String>,
}

/// Writes down what an unpacked layer needs.
pub(crate) fn write(
    stage: &Path,
    chain_id: &Digest,
    diff_id: &Digest,
    extracted: &Extracted,
) -> Result<(), StoreError> {
    let needs = &extracted.needs;
    let implicit = needs.implicit.iter();
    let pending = Pending {
        chain_id: chain_id.clone(),
        diff_id: diff_id.clone(),
        boot_id: boot_id().to_owned(),
        unpacked_bytes: extracted.unpacked_bytes,
        entries: extracted.entries,
        root_opaque: needs.root_opaque,
        redo: needs.redo,
        implicit: implicit.map(|(path, what)| (BASE64.encode(path), what.for_whiteouts, what.cut)).collect(),
        whiteouts: needs.whiteouts.iter().map(|path| BASE64.encode(path)).collect(),
    };
    let path = stage.join(PENDING);
    let bytes = serde_json::to_vec(&pending).map_err(|source| StoreError::PullRecord { path: path.clone(), source })?;
    let mut file = crate::layout::create_file(&path)?;
    file.write_all(&bytes).map_err(|source| StoreError::io("write", &path, source))
}

/// Reads it back; `None` when it is not there, not whole, of another layer or of another boot.
pub(crate) fn read(stage: &Path, chain_id: &Digest, diff_id: &Digest) -> Option<Extracted> {
    let mut bytes = Vec::new();
    File::open(stage.join(PENDING)).ok()?.take(PENDING_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let pending: Pending = serde_json::from_slice(&bytes).ok()?;
    let is_ours = pending.chain_id == *chain_id && pending.diff_id == *diff_id;
    if !is_ours || pending.boot_id.is_empty() || pending.boot_id != boot_id() {
        return None;
    }
    let mut needs = Needs::default();
    needs.root_opaque = pending.root_opaque;
    needs.redo = pending.redo;
    let implicit = pending.implicit.into_iter();
    needs.implicit = implicit
        .map(|(path, for_whiteouts, cut)| Some((BASE64.decode(path).ok()?, Implicit { for_whiteouts, cut })))
        .collect::<Option<BTreeMap<_, _>>>()?;
    let whiteouts = pending.whiteouts.into_iter();
    needs.whiteouts = whiteouts.map(|path| BASE64.decode(path).ok()).collect::<Option<BTreeSet<_>>>()?;
    let (unpacked_bytes, entries) = (pending.unpacked_bytes, pending.entries);
    Some(Extracted { needs, unpacked_bytes, entries, warnings: Vec::new() })
}

/// Whether a stage holds a layer that a later pull can use.
pub(crate) fn is_there(stage: &Path, chain_id: &Digest) -> bool {
    let mut bytes = Vec::new();
    let file = File::open(stage.join(PENDING));
    let read = file.and_then(|file| file.take(PENDING_MAX_BYTES).read_to_end(&mut bytes));
    let pending = read.ok().and_then(|_| serde_json::from_slice::<Pending>(&bytes).ok());
    pending.is_some_and(|found| found.chain_id == *chain_id && found.boot_id == boot_id() && !found.boot_id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_layer_reads_back_equal() {
        let stage = tempfile::tempdir().unwrap();
        let mut needs = Needs::default();
        needs.root_opaque = true;
        needs.implicit.insert(b"bin\xff\n".to_vec(), Implicit { for_whiteouts: true, cut: false });
        needs.implicit.insert(Vec::new(), Implicit { for_whiteouts: false, cut: true });
        needs.whiteouts.insert(b"etc/x".to_vec());
        let extracted = Extracted { needs, unpacked_bytes: 7, entries: 9, warnings: Vec::new() };
        let (chain, diff) = (Digest::sha256(b"chain"), Digest::sha256(b"diff"));
        write(stage.path(), &chain, &diff, &extracted).unwrap();
        let back = read(stage.path(), &chain, &diff).unwrap();
        assert_eq!((back.needs, back.unpacked_bytes, back.entries), (extracted.needs, 7, 9));
        assert!(is_there(stage.path(), &chain) && !is_there(stage.path(), &diff));
        assert!(read(stage.path(), &chain, &chain).is_none(), "another layer");
        let path = stage.path().join(PENDING);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(read(stage.path(), &chain, &diff).is_none(), "cut off");
    }
}
