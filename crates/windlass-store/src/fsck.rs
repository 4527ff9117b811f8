//! Checks everything the store holds against its records, and puts damage aside.
//!
//! Quick looks at names, sizes and kinds; full also hashes every blob and every file of every layer. Nothing is locked
//! while it looks, so pulls go on; what looks wrong is looked at again under the sweep lock before it is believed,
//! since a collection may have removed it meanwhile.
//! Repair never deletes evidence: damaged content moves to `quarantine/`, and the images that need it become absent,
//! to be pulled again. A lost record whose content is sound is written anew.
//!
//! Invariants: `every_kind_of_damage_is_found_and_healed`, `evidence_is_kept_in_quarantine`,
//! `leftovers_are_garbage_and_no_damage`.

mod repair;
mod tables;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use windlass_core::digest::{Algorithm, Digest};

use crate::blobs;
use crate::claim::snapshot_numbers;
use crate::error::StoreError;
use crate::intent::sweep_lock;
use crate::layer::Depth;
use crate::layers;
use crate::lock::Share;
use crate::meta::Record as _;
use crate::meta::record::{BlobKind, SnapshotRecord};
use crate::recover::entries;
use crate::snapshots;
use crate::snapshots::record::RuntimeRecord;
use crate::store::Store;
use tables::{Tables, Unreadable};

/// Whether to put damage aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Repair {
    /// Only report.
    #[default]
    No,
    /// Quarantine what is damaged, remove records that name it, write lost records anew.
    Yes,
}

/// What is wrong with a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingClass {
    /// The metadata database cannot be read: every image is absent, layers are found again as they are pulled.
    Database,
    /// A record of the metadata cannot be read.
    RecordUnreadable,
    /// A record is missing though something refers to it.
    RecordMissing,
    /// A name leads to no image.
    NameDangling,
    /// A blob's file is missing.
    BlobMissing,
    /// A blob's file has another size, or is no file.
    BlobSize,
    /// A blob does not hash to its name.
    BlobDigest,
    /// An unpacked layer is missing.
    LayerMissing,
    /// An unpacked layer differs from what was written.
    LayerContent,
    /// A container runtime's snapshot leads to a layer, parent or directory that is gone. It stays: the runtime knows its
    /// name, and pulling the image again makes it whole.
    SnapshotDangling,
    /// Nothing refers to it: no damage, the collector removes it.
    Garbage,
}

/// How a finding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No damage.
    Harmless,
    /// Put right: quarantined, removed or written anew.
    Repaired,
    /// Still there.
    Left,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub class: FindingClass,
    /// A digest, chain ID, name or path.
    pub what: String,
    /// Details, for people.
    pub detail: String,
    /// Images that are not whole because of it; absent once repaired.
    pub images: Vec<Digest>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckReport {
    /// All findings.
    pub findings: Vec<Finding>,
    /// Blobs looked at.
    pub blobs: u64,
    /// Layers looked at.
    pub layers: u64,
}

/// The one-word result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing wrong; garbage does not count.
    Clean,
    /// Damage was found and all of it repaired.
    Repaired,
    /// Damage is left.
    Damaged,
}

impl FsckReport {
    /// Clean, repaired, or damage left.
    pub fn verdict(&self) -> Verdict {
        if self.findings.iter().any(|finding| finding.outcome == Outcome::Left) {
            Verdict::Damaged
        } else if self.findings.iter().any(|finding| finding.outcome == Outcome::Repaired) {
            Verdict::Repaired
        } else {
            Verdict::Clean
        }
    }
}
/// Something that looks wrong.
struct Suspect {
    class: FindingClass,
    what: String,
    detail: String,
    subject: Subject,
}

#[derive(Clone)]
enum Subject {
    Record(&'static str),
    Name,
    Blob(Digest),
    Layer {
        chain: Digest,
        dir: PathBuf,
    },
    /// An image refers to a blob without a record.
    BlobRecord {
        digest: Digest,
        kind: BlobKind,
    },
    /// An image refers to a layer without a record.
    LayerRecord(Digest),
    /// A snapshot of a container runtime.
    Snapshot,
    Garbage,
}

impl Store {
    /// Checks the store, see the module.
    ///
    /// # Errors
    /// The metadata or a directory cannot be read at all; everything else is a finding.
    pub fn fsck(&self, depth: Depth, repair: Repair) -> Result<FsckReport, StoreError> {
        let mut report = FsckReport::default();
        if !self.root().exists() {
            // A store that was never made has nothing wrong with it.
            return Ok(report);
        }
        let tables = match self.read(Tables::read) {
            Err(error @ StoreError::Meta { .. }) => {
                report.findings.push(self.database_damaged(&error, repair)?);
                return Ok(report);
            }
            other => other?,
        };
        report.blobs = tables.blobs.len() as u64;
        report.layers = tables.snapshots.len() as u64;
        let suspects = self.suspects(&tables, depth)?;
        if suspects.is_empty() {
            return Ok(report);
        }
        let _sweep = match repair {
            Repair::Yes => {
                self.meta()?;
                Some(sweep_lock(self.layout(), Share::Alone)?)
            }
            Repair::No => None,
        };
        let now = self.read(Tables::read)?;
        for suspect in suspects {
            if !self.still_wrong(&suspect, &now)? {
                continue;
            }
            let images = now.images_with(&suspect.subject);
            let outcome = match (&suspect.subject, repair) {
                (Subject::Garbage, _) => Outcome::Harmless,
                (_, Repair::No) => Outcome::Left,
                (_, Repair::Yes) => self.repair(&suspect, &images, &now)?,
            };
            let Suspect { class, what, detail, .. } = suspect;
            report.findings.push(Finding { class, what, detail, images, outcome });
        }
        Ok(report)
    }

    fn suspects(&self, tables: &Tables, depth: Depth) -> Result<Vec<Suspect>, StoreError> {
        let mut suspects = Vec::new();
        for Unreadable { table, key, detail } in &tables.unreadable {
            let class = FindingClass::RecordUnreadable;
            let what = format!("{table} {key}");
            suspects.push(Suspect { class, what, detail: detail.clone(), subject: Subject::Record(table) });
        }
        for (key, name) in tables.names.iter().filter(|(_, name)| !tables.images.contains_key(name.image.as_str())) {
            let detail = format!("it leads to image {}", name.image);
            let class = FindingClass::NameDangling;
            suspects.push(Suspect { class, what: key.clone(), detail, subject: Subject::Name });
        }
        for (digest, record) in &tables.blobs {
            if let Ok(digest) = Digest::parse(digest)
                && let Some((class, detail)) = self.check_blob(&digest, record.size_bytes, depth)?
            {
                suspects.push(Suspect { class, what: digest.to_string(), detail, subject: Subject::Blob(digest) });
            }
        }
        for (chain, record) in &tables.snapshots {
            if let Ok(chain) = Digest::parse(chain) {
                let dir = self.layout().snapshot(record.n);
                if let Some((class, detail)) = check_layer(&dir, record, depth)? {
                    let what = chain.to_string();
                    suspects.push(Suspect { class, what, detail, subject: Subject::Layer { chain, dir } });
                }
            }
        }
        suspects.extend(tables.lost_records());
        suspects.extend(tables.dangling_snapshots(self.layout()));
        self.garbage(tables, &mut suspects)?;
        Ok(suspects)
    }

    fn check_blob(
        &self,
        digest: &Digest,
        size_bytes: u64,
        depth: Depth,
    ) -> Result<Option<(FindingClass, String)>, StoreError> {
        let path = self.layout().blob(digest);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some((FindingClass::BlobMissing, "its file is gone".to_owned())));
            }
            Err(source) => return Err(StoreError::io("stat", &path, source)),
        };
        if !found.is_file() || found.len() != size_bytes {
            let detail = format!("{} bytes, {size_bytes} are recorded", found.len());
            return Ok(Some((FindingClass::BlobSize, detail)));
        }
        if depth == Depth::Quick {
            return Ok(None);
        }
        let mut file = fs::File::open(&path).map_err(|source| StoreError::io("open", &path, source))?;
        // A sector that cannot be read is damage too, not a reason to stop looking.
        match blobs::hash(&mut file, digest, &path) {
            Ok(got) if got == *digest => Ok(None),
            Ok(got) => Ok(Some((FindingClass::BlobDigest, format!("it hashes to {got}")))),
            Err(error) => Ok(Some((FindingClass::BlobDigest, error.to_string()))),
        }
    }

    fn garbage(&self, tables: &Tables, suspects: &mut Vec<Suspect>) -> Result<(), StoreError> {
        let (blobs, chains) = tables.referenced();
        let mut add = |what: String, detail: &str| {
            let class = FindingClass::Garbage;
            suspects.push(Suspect { class, what, detail: detail.to_owned(), subject: Subject::Garbage });
        };
        tables.blobs.keys().filter(|digest| !blobs.contains(*digest)).for_each(|digest| add(digest.clone(), "blob"));
        tables.snapshots.keys().filter(|chain| !chains.contains(*chain)).for_each(|chain| add(chain.clone(), "layer"));
        let named: BTreeSet<&Digest> = tables.names.values().map(|name| &name.image).collect();
        for id in tables.images.keys().filter(|id| named.iter().all(|image| image.as_str() != id.as_str())) {
            add(id.clone(), "image without a name");
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for (hex, _) in entries(&self.layout().blobs().join(algorithm.as_str()))? {
                let digest = format!("{algorithm}:{hex}");
                if !tables.blobs.contains_key(&digest) && !blobs.contains(&digest) {
                    add(digest, "blob without a record");
                }
            }
        }
        let recorded: BTreeSet<u64> = tables.snapshots.values().map(|record| record.n).collect();
        for n in snapshot_numbers(self.layout())?.into_iter().filter(|n| !recorded.contains(n)) {
            add(self.layout().snapshot(n).display().to_string(), "layer without a record");
        }
        let runtime = RuntimeRecord::TABLE;
        let are_all_known = tables.unreadable.iter().all(|unreadable| unreadable.table != runtime);
        for stray in snapshots::strays(self.layout(), tables.runtime.values())?.into_iter().filter(|_| are_all_known) {
            add(stray.display().to_string(), "directory of a snapshot without a record");
        }
        Ok(())
    }

    /// Looks again, with the tables as they are now: what a collection removed meanwhile is no damage.
    fn still_wrong(&self, suspect: &Suspect, now: &Tables) -> Result<bool, StoreError> {
        Ok(match &suspect.subject {
            Subject::Record(_) | Subject::Garbage => true,
            Subject::Name => {
                now.names.get(&suspect.what).is_some_and(|name| !now.images.contains_key(name.image.as_str()))
            }
            Subject::Blob(digest) => match now.blobs.get(digest.as_str()) {
                None => false,
                Some(_) if suspect.class == FindingClass::BlobDigest => true,
                Some(record) => self.check_blob(digest, record.size_bytes, Depth::Quick)?.is_some(),
            },
            Subject::Layer { chain, dir } => match now.snapshots.get(chain.as_str()) {
                None => false,
                Some(record) => self.layout().snapshot(record.n) == *dir,
            },
            Subject::BlobRecord { digest, .. } => !now.blobs.contains_key(digest.as_str()),
            Subject::LayerRecord(chain) => !now.snapshots.contains_key(chain.as_str()),
            Subject::Snapshot => {
                now.runtime.get(&suspect.what).is_some_and(|record| now.dangles(record, self.layout()).is_some())
            }
        })
    }
}

fn check_layer(
    dir: &Path,
    record: &SnapshotRecord,
    depth: Depth,
) -> Result<Option<(FindingClass, String)>, StoreError> {
    if !layers::is_there(dir, record.form) {
        return Ok(Some((FindingClass::LayerMissing, "its content is gone".to_owned())));
    }
    Ok(layers::verify(dir, record, depth).err().map(|detail| (FindingClass::LayerContent, detail)))
}
