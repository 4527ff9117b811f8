//! Claims: who unpacks a layer. One lock file per chain ID, so that two pulls, in one process or in two, never
//! unpack the same layer at the same time, and a dead one never blocks a living.
//!
//! The file's text says how far its last holder came: nothing, `working`, or `done <n>` once the layer stands in
//! `snapshots/<n>`. Who takes the lock over from a dead holder reads it there. A finished layer carries a note with
//! all that its record will need, and the boot id: without a sync it is only as good as the page cache, so it counts
//! within the same boot only.
//!
//! Invariants: `two_processes_fetch_each_layer_once`, `a_dead_holder_of_a_layer_is_taken_over`,
//! `a_finished_layer_survives_a_kill_but_not_a_reboot`.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::{Lock, Share, boot_id, open_lock};
use crate::meta::record::{Form, SnapshotRecord};
use crate::recover::entries;

const WORKING: &str = "working";
const NOTE: &str = "note";
/// A note is some 400 bytes.
const NOTE_MAX_BYTES: u64 = 16 << 10;

/// What stands beside a finished layer until, and after, its image is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    pub(crate) chain_id: Digest,
    pub(crate) diff_id: Digest,
    /// As in the record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) tar: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) parent: Option<Digest>,
    pub(crate) form: Form,
    pub(crate) size_bytes: u64,
    pub(crate) entries: u64,
    pub(crate) boot_id: String,
}

impl Note {
    /// The record that a commit makes of it.
    pub(crate) fn record(&self, n: u64) -> SnapshotRecord {
        SnapshotRecord {
            n,
            form: self.form,
            diff_id: self.diff_id.clone(),
            tar: self.tar.clone(),
            parent: self.parent.clone(),
            size_bytes: self.size_bytes,
            entries: self.entries,
        }
    }

    /// Whether the layer was finished in this boot, so that what was not synced is there nevertheless.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        !self.boot_id.is_empty() && self.boot_id == boot_id()
    }

    pub(crate) fn write(&self, stage: &Path) -> Result<(), StoreError> {
        let path = stage.join(NOTE);
        let bytes = serde_json::to_vec(self).map_err(|source| StoreError::PullRecord { path: path.clone(), source })?;
        // A pull that was killed right here may have left one.
        drop(fs::remove_file(&path));
        let mut file = crate::layout::create_file(&path)?;
        file.write_all(&bytes).map_err(|source| StoreError::io("write", &path, source))
    }

    /// Reads a layer's note; `None` where there is none that makes sense.
    pub(crate) fn read(dir: &Path) -> Option<Note> {
        let mut bytes = Vec::new();
        File::open(dir.join(NOTE)).ok()?.take(NOTE_MAX_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// A claim that is held. Dropped, the layer is free for others, who learn how far this holder came.
#[derive(Debug)]
pub(crate) struct Claim {
    lock: Lock,
    path: PathBuf,
}

/// What the last holder left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// There was none.
    Nothing,
    /// It died at work, perhaps after finishing.
    Unknown,
    /// It finished the layer in this directory.
    Finished(u64),
}

impl Claim {
    /// Tries once; `None` when somebody else holds it.
    pub(crate) fn attempt(layout: &Layout, chain: &Digest) -> Result<Option<(Claim, Left)>, StoreError> {
        let path = layout.claim(chain);
        loop {
            let file = open_lock(&path)?;
            let Ok(mut lock) = Lock::try_on(file, Share::Alone, &path)? else { return Ok(None) };
            // Its last holder may have removed it between our open and our lock.
            let found = lock.file().metadata().map_err(|source| StoreError::io("stat", &path, source))?;
            if found.nlink() == 0 {
                continue;
            }
            let left = read_left(lock.file()).map_err(|source| StoreError::io("read", &path, source))?;
            return Ok(Some((Claim { lock, path }, left)));
        }
    }

    /// Says that work begins.
    pub(crate) fn working(&mut self) -> Result<(), StoreError> {
        self.rewrite(WORKING)
    }

    /// Says where the finished layer stands, and gives the claim up.
    pub(crate) fn finished(mut self, n: u64) -> Result<(), StoreError> {
        self.rewrite(&format!("done {n}"))
    }

    /// Gives the claim up with nothing left of the work.
    pub(crate) fn abandon(self) {
        // A file that stays is one more empty claim, which recovery removes.
        drop(fs::remove_file(&self.path));
    }

    fn rewrite(&mut self, text: &str) -> Result<(), StoreError> {
        let file = self.lock.file();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(|source| StoreError::io("write", &self.path, source))
    }
}

fn read_left(file: &mut File) -> std::io::Result<Left> {
    let mut text = String::new();
    file.rewind()?;
    file.take(64).read_to_string(&mut text)?;
    Ok(match text.strip_prefix("done ").map(str::parse) {
        Some(Ok(n)) => Left::Finished(n),
        Some(Err(_)) => Left::Unknown,
        None if text.is_empty() => Left::Nothing,
        None => Left::Unknown,
    })
}

/// Looks for the finished layer that a claim's last holder may have left.
pub(crate) fn find_finished(layout: &Layout, chain: &Digest, left: Left) -> Result<Option<(u64, Note)>, StoreError> {
    let valid = |n: u64| {
        let note = Note::read(&layout.snapshot(n))?;
        (note.chain_id == *chain && note.is_of_this_boot()).then_some((n, note))
    };
    match left {
        Left::Nothing => Ok(None),
        Left::Finished(n) => Ok(valid(n)),
        Left::Unknown => Ok(snapshot_numbers(layout)?.into_iter().find_map(valid)),
    }
}

/// The numbers of all directories in `snapshots/`.
pub(crate) fn snapshot_numbers(layout: &Layout) -> Result<Vec<u64>, StoreError> {
    Ok(entries(&layout.snapshots())?.into_iter().filter_map(|(name, _)| name.parse().ok()).collect())
}
