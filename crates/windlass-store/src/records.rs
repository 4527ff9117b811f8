//! Pull intents and pull records: the kubelet's own files, written so that they survive a power cut.
//!
//! `pulling/` holds one intent for each image string being pulled, so that a crash cannot make an image look as if
//! the node had come with it; `pulled/` holds one record for each image ID, with what proves the right to use it.
//! Content and rules are `windlass_core::access`; here are names, locks and syncs. The directory may be a kubelet's.
//! Source of truth: kubernetes `pkg/kubelet/images/pullmanager/fs_pullrecords.go`, `image_pull_manager.go`.
//!
//! Invariants: `an_intent_stays_when_the_record_cannot_be_written`, `equal_pulls_share_one_intent`,
//! `an_unreadable_record_proves_nothing`, `intents_of_present_images_become_records`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use windlass_core::access::{Grant, PullIntent, PulledRecord, RECORD_MAX_BYTES, RecordLookup};

use crate::error::StoreError;
use crate::layout::{Sync, make_dir, sync_dir, write_whole};
use crate::lock::{Lock, Share};
use crate::recover::entries;

/// Longest wait for another process that changes a record: each change is two small writes and their syncs.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The two directories of pull records. Clones share the count of pulls under way.
#[derive(Clone, Debug)]
pub struct PullRecords {
    dir: PathBuf,
    under_way: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// A pull under way. Dropped, it counts as failed, and its intent goes with the last pull of the same image.
#[derive(Debug)]
#[must_use = "dropped, the pull counts as failed"]
pub struct PullMark {
    records: PullRecords,
    image: String,
    /// The record could not be written: the intent must stay.
    stays: bool,
}

impl PullRecords {
    /// Records below `dir`, an `image_manager` directory: the store's own or a kubelet's. Nothing is created yet.
    pub fn new(dir: &Path) -> PullRecords {
        PullRecords { dir: dir.to_owned(), under_way: Arc::default() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says, durably, that a pull of `image` (exactly as the pod names it) begins.
    ///
    /// # Errors
    /// The intent cannot be written; then the pull must not begin.
    pub fn begin(&self, image: &str) -> Result<PullMark, StoreError> {
        let mut under_way = self.count();
        let count = under_way.entry(image.to_owned()).or_insert(0);
        if *count == 0 {
            let written = self.write(&self.pulling(image), &PullIntent { image: image.to_owned() }.encode());
            if let Err(error) = written {
                under_way.remove(image);
                return Err(error);
            }
        }
        *count += 1;
        Ok(PullMark { records: self.clone(), image: image.to_owned(), stays: false })
    }

    /// Whether an intent for exactly this image string is on file.
    pub fn has_intent(&self, image: &str) -> bool {
        let found = read_bounded(&self.pulling(image));
        found
            .ok()
            .flatten()
            .and_then(|bytes| PullIntent::decode(&bytes).ok())
            .is_some_and(|intent| intent.image == image)
    }

    /// The record of an image ID. A file that cannot be read is a record that proves nothing.
    pub fn record(&self, image_ref: &str) -> RecordLookup {
        match read_bounded(&self.pulled(image_ref)) {
            Ok(found) => RecordLookup::of(found.as_deref(), image_ref),
            Err(_) => RecordLookup::Unreadable,
        }
    }

    /// Changes the record of an image ID, from an empty one if there is none that can be read, and writes it durably
    /// if `change` says that it changed.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn update(&self, image_ref: &str, change: impl FnOnce(&mut PulledRecord) -> bool) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut record = match self.record(image_ref) {
            RecordLookup::Found(record) => record,
            RecordLookup::Absent | RecordLookup::Unreadable => PulledRecord::new(image_ref),
        };
        if !change(&mut record) {
            return Ok(());
        }
        write_whole(&self.pulled(image_ref), &record.encode(), Sync::Durable)
    }

    /// Does what a kubelet does at its start: intents of images that are present become records without proof, and
    /// records of the older version are written anew. `present` gives image ID and names (tags and digests).
    ///
    /// # Errors
    /// A directory cannot be read or a record not written.
    pub fn start(&self, present: &[(String, Vec<String>)], now: Timestamp) -> Result<(), StoreError> {
        if !self.dir.join("pulling").is_dir() {
            return Ok(());
        }
        for (_, path) in self.files("pulling")? {
            let Some(intent) = read_bounded(&path)?.and_then(|bytes| PullIntent::decode(&bytes).ok()) else { continue };
            let Some((image_ref, _)) = present.iter().find(|(_, names)| names.contains(&intent.image)) else {
                continue;
            };
            self.update(image_ref, |record| {
                let fresh = record.last_updated.is_none();
                record.last_updated = record.last_updated.or(Some(now));
                fresh
            })?;
            remove(&path)?;
        }
        self.rewrite_older()
    }

    /// Removes records of images that are no longer listed and were not touched since `gc_started`. Returns how many.
    ///
    /// # Errors
    /// The directory cannot be read or a file not removed.
    pub fn prune(&self, listed: &BTreeSet<String>, gc_started: Timestamp) -> Result<usize, StoreError> {
        if !self.dir.join("pulled").is_dir() {
            return Ok(0);
        }
        let _lock = self.lock()?;
        let mut pruned = 0;
        for (_, path) in self.files("pulled")? {
            let record = read_bounded(&path)?.and_then(|bytes| PulledRecord::decode(&bytes).ok());
            if record.is_some_and(|record| record.is_orphan(listed, gc_started)) {
                remove(&path)?;
                pruned += 1;
            }
        }
        Ok(pruned)
    }

    fn rewrite_older(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        for (_, path) in self.files("pulled")? {
            let Some(bytes) = read_bounded(&path)? else { continue };
            let Ok(record) = PulledRecord::decode(&bytes) else { continue };
            let older = !contains(&bytes, b"\"kubelet.config.k8s.io/v1beta1\"");
            if older {
                write_whole(&path, &record.encode(), Sync::Durable)?;
            }
        }
        Ok(())
    }

    fn files(&self, which: &str) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let mut files = entries(&self.dir.join(which))?;
        files.retain(|(name, _)| PulledRecord::is_file_name(name));
        Ok(files)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        write_whole(path, bytes, Sync::Durable)
    }

    /// Makes the directories and takes the lock between processes.
    fn lock(&self) -> Result<Lock, StoreError> {
        for dir in [self.dir.clone(), self.dir.join("pulling"), self.dir.join("pulled")] {
            make_dir(&dir)?;
        }
        let path = self.dir.join("windlass.lock");
        Lock::wait(&path, Share::Alone, Instant::now() + LOCK_WAIT)?
            .ok_or_else(|| StoreError::Locked { root: self.dir.clone(), holder: None })
    }

    fn count(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pulling(&self, image: &str) -> PathBuf {
        self.dir.join("pulling").join(PullIntent::file_name(image))
    }

    fn pulled(&self, image_ref: &str) -> PathBuf {
        self.dir.join("pulled").join(PulledRecord::file_name(image_ref))
    }
}

impl PullMark {
    /// Records, durably, what made the pull succeed; only then is the intent removed.
    ///
    /// # Errors
    /// The record cannot be written: the intent stays on purpose, so that the image still counts as pulled.
    pub fn succeeded(
        mut self,
        image_ref: &str,
        repository: &str,
        grant: Grant,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let written = self.records.update(image_ref, |record| record.grant(repository, grant, now));
        self.stays = written.is_err();
        written
    }

    /// The pull failed: the intent goes.
    pub fn failed(self) {}
}

impl Drop for PullMark {
    fn drop(&mut self) {
        let mut under_way = self.records.count();
        let left = under_way.get(&self.image).map_or(0, |count| count - 1);
        if left > 0 {
            under_way.insert(self.image.clone(), left);
            return;
        }
        under_way.remove(&self.image);
        if self.stays {
            return;
        }
        let path = self.records.pulling(&self.image);
        // An intent that stays behind costs one verification.
        if let Err(error) = remove(&path).and_then(|()| sync_dir(&self.records.dir.join("pulling"))) {
            tracing::warn!(%error, "pull intent not removed");
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Reads a file up to a little more than a record may have; `None` when there is none.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::io("open", path, source)),
    };
    let mut bytes = Vec::new();
    let read = file.take(RECORD_MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| StoreError::io("read", path, source))?;
    Ok(Some(bytes))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("remove", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_core::access::SecretProof;

    const IMAGE: &str = "registry.example/team/app:1";
    const ID: &str = "sha256:9f2c0000000000000000000000000000000000000000000000000000000000aa";

    fn secret() -> Grant {
        Grant::Secret(SecretProof {
            uid: "u".to_owned(),
            namespace: "ns".to_owned(),
            name: "s".to_owned(),
            credential_hash: "h".to_owned(),
        })
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn a_pull_leaves_a_record_and_no_intent() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(&dir.path().join("image_manager"));
        assert_eq!(records.record(ID), RecordLookup::Absent);
        let mark = records.begin(IMAGE).unwrap();
        assert!(records.has_intent(IMAGE) && !records.has_intent("registry.example/team/app"));
        mark.succeeded(ID, "registry.example/team/app", secret(), now()).unwrap();
        assert!(!records.has_intent(IMAGE));
        let RecordLookup::Found(record) = records.record(ID) else { panic!("no record") };
        assert_eq!(record.credential_mapping["registry.example/team/app"].kubernetes_secrets.len(), 1);
        let mode =
            |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777;
        assert_eq!(mode(&records.pulled(ID)), 0o600);
        assert_eq!(mode(&records.dir().join("pulled")), 0o700);
    }

    #[test]
    fn equal_pulls_share_one_intent() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        let first = records.begin(IMAGE).unwrap();
        let second = records.clone().begin(IMAGE).unwrap();
        first.failed();
        assert!(records.has_intent(IMAGE), "the second pull is still under way");
        drop(second);
        assert!(!records.has_intent(IMAGE));
    }

    #[test]
    fn an_intent_stays_when_the_record_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        let mark = records.begin(IMAGE).unwrap();
        // A directory in the place of the record cannot be replaced by a file.
        fs::create_dir(records.pulled(ID)).unwrap();
        mark.succeeded(ID, "registry.example/team/app", Grant::NodePods, now()).unwrap_err();
        assert!(records.has_intent(IMAGE));
    }

    #[test]
    fn an_unreadable_record_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        records.update(ID, |record| record.grant("r", Grant::NodePods, now())).unwrap();
        fs::write(records.pulled(ID), b"{\"kind\":").unwrap();
        assert_eq!(records.record(ID), RecordLookup::Unreadable);
        fs::remove_file(records.pulled(ID)).unwrap();
        fs::create_dir(records.pulled(ID)).unwrap();
        assert_eq!(records.record(ID), RecordLookup::Unreadable);
    }

    #[test]
    fn intents_of_present_images_become_records() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        for image in [IMAGE, "registry.example/other:1"] {
            // As a killed process leaves it.
            std::mem::forget(records.begin(image).unwrap());
        }
        records.start(&[(ID.to_owned(), vec![IMAGE.to_owned()])], now()).unwrap();
        assert!(!records.has_intent(IMAGE) && records.has_intent("registry.example/other:1"));
        let RecordLookup::Found(record) = records.record(ID) else { panic!("no record") };
        assert!(record.credential_mapping.is_empty());
    }

    #[test]
    fn records_of_absent_images_are_pruned_unless_they_are_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        records.update(ID, |record| record.grant("r", Grant::NodePods, now())).unwrap();
        assert_eq!(records.prune(&BTreeSet::new(), now()).unwrap(), 0, "written after the collection began");
        let later = now() + jiff::SignedDuration::from_secs(1);
        assert_eq!(records.prune(&BTreeSet::from([ID.to_owned()]), later).unwrap(), 0, "still listed");
        assert_eq!(records.prune(&BTreeSet::new(), later).unwrap(), 1);
        assert_eq!(records.record(ID), RecordLookup::Absent);
    }

    #[test]
    fn the_older_version_is_read_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::new(dir.path());
        records.update(ID, |record| record.grant("r", Grant::NodePods, now())).unwrap();
        let text = fs::read_to_string(records.pulled(ID)).unwrap();
        fs::write(records.pulled(ID), text.replace("v1beta1", "v1alpha1")).unwrap();
        records.start(&[], now()).unwrap();
        assert_eq!(fs::read_to_string(records.pulled(ID)).unwrap(), text);
    }
}
