//! Checks everything the store holds against its records, and puts damage aside.
//!
//! Quick looks at names, sizes and kinds; full also hashes every blob and every file of every layer. Nothing is locked
//! while it looks, so pulls go on; what looks wrong is looked at again under the sweep lock before it is believed,
//! since a collection may have removed it meanwhile.
//! Repair never deletes evidence: damaged content moves to `quarantine/`, and the images that need it become absent,
//! to be pulled again. A lost record whose content is sound is written anew.
//!
//! Invariants: `every_kind_of_damage_is_found_and_healed`, `a_sound_store_has_no_findings`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use windlass_core::digest::{Algorithm, Digest};

use crate::blobs::{self, Promise};
use crate::claim::{Note, snapshot_numbers};
use crate::error::StoreError;
use crate::image::needed_blobs;
use crate::intent::sweep_lock;
use crate::layers::TREE;
use crate::layout::{Layout, Sync, make_dir, write_whole};
use crate::lock::Share;
use crate::meta::record::{BlobKind, BlobRecord, Form, ImageRecord, NameRecord, PinRecord, SnapshotRecord, UseRecord};
use crate::meta::{ReadTx, Record};
use crate::recover::entries;
use crate::scrub;
use crate::store::Store;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Depth {
    /// Presence, sizes and kinds.
    #[default]
    Quick,
    /// Every byte.
    Full,
}

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

/// Everything the tables say, with what does not decode kept apart.
#[derive(Default)]
struct Tables {
    names: BTreeMap<String, NameRecord>,
    images: BTreeMap<String, ImageRecord>,
    blobs: BTreeMap<String, BlobRecord>,
    snapshots: BTreeMap<String, SnapshotRecord>,
    unreadable: Vec<Unreadable>,
}

struct Unreadable {
    table: &'static str,
    key: String,
    detail: String,
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
    Garbage,
}

impl Store {
    /// Checks the store, see the module.
    ///
    /// # Errors
    /// The metadata or a directory cannot be read at all; everything else is a finding.
    pub fn fsck(&self, depth: Depth, repair: Repair) -> Result<FsckReport, StoreError> {
        let mut report = FsckReport::default();
        let tables = self.read(Tables::read)?;
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
                if let Some((class, detail)) = check_layer(&dir, record.form, depth)? {
                    let what = chain.to_string();
                    suspects.push(Suspect { class, what, detail, subject: Subject::Layer { chain, dir } });
                }
            }
        }
        suspects.extend(tables.lost_records());
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
        })
    }

    fn repair(&self, suspect: &Suspect, images: &[Digest], now: &Tables) -> Result<Outcome, StoreError> {
        let layout = self.layout();
        match &suspect.subject {
            Subject::Garbage => return Ok(Outcome::Harmless),
            Subject::Record(table) => {
                let key = suspect.what.strip_prefix(table).unwrap_or_default().trim_start();
                self.drop_record(table, key)?;
            }
            Subject::Name => self.write(|tx| tx.remove::<NameRecord>(&suspect.what).map(drop))?,
            Subject::Blob(digest) => {
                set_aside(layout, &layout.blob(digest), digest)?;
                self.write(|tx| tx.remove::<BlobRecord>(digest.as_str()).map(drop))?;
            }
            Subject::Layer { chain, dir } => {
                set_aside(layout, dir, chain)?;
                self.write(|tx| tx.remove::<SnapshotRecord>(chain.as_str()).map(drop))?;
            }
            Subject::BlobRecord { digest, kind } => {
                if let Some(record) = self.lost_blob(digest, *kind)? {
                    self.write(|tx| tx.put(digest.as_str(), &record))?;
                    return Ok(Outcome::Repaired);
                }
            }
            Subject::LayerRecord(chain) => {
                if let Some(record) = self.lost_layer(chain, now)? {
                    self.write(|tx| tx.put(chain.as_str(), &record))?;
                    return Ok(Outcome::Repaired);
                }
            }
        }
        self.make_absent(images)?;
        Ok(Outcome::Repaired)
    }

    /// Removes images and their names; pins stay for when the image comes back.
    fn make_absent(&self, images: &[Digest]) -> Result<(), StoreError> {
        if images.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for image in images {
                tx.remove::<ImageRecord>(image.as_str())?;
                tx.remove::<UseRecord>(image.as_str())?;
            }
            for (key, name) in tx.all_readable::<NameRecord>()? {
                if images.contains(&name.image) {
                    tx.remove::<NameRecord>(&key)?;
                }
            }
            Ok(())
        })
    }

    fn drop_record(&self, table: &'static str, key: &str) -> Result<(), StoreError> {
        let raw = self.read(|tx| tx.raw(table, key))?;
        let dir = self.layout().quarantine().join("meta");
        make_dir(&dir)?;
        let name = format!("{table}-{}.{}", Digest::sha256(key.as_bytes()).short(), Timestamp::now().as_second());
        write_whole(&dir.join(name), &raw.unwrap_or_default(), Sync::Durable)?;
        self.write(|tx| tx.remove_raw(table, key))
    }

    fn lost_blob(&self, digest: &Digest, kind: BlobKind) -> Result<Option<BlobRecord>, StoreError> {
        let Ok(found) = fs::symlink_metadata(self.layout().blob(digest)) else { return Ok(None) };
        let promise = Promise { digest: digest.clone(), size_bytes: found.len() };
        let record = BlobRecord { size_bytes: promise.size_bytes, kind };
        Ok(blobs::is_sound(self.layout(), &promise)?.then_some(record))
    }

    fn lost_layer(&self, chain: &Digest, now: &Tables) -> Result<Option<SnapshotRecord>, StoreError> {
        let recorded: BTreeSet<u64> = now.snapshots.values().map(|record| record.n).collect();
        for n in snapshot_numbers(self.layout())?.into_iter().filter(|n| !recorded.contains(n)) {
            let dir = self.layout().snapshot(n);
            let Some(note) = Note::read(&dir).filter(|note| note.chain_id == *chain) else { continue };
            if check_layer(&dir, note.form, Depth::Full)?.is_none() {
                return Ok(Some(note.record(n)));
            }
        }
        Ok(None)
    }
}

fn check_layer(dir: &Path, form: Form, depth: Depth) -> Result<Option<(FindingClass, String)>, StoreError> {
    if !fs::symlink_metadata(dir.join(TREE)).is_ok_and(|found| found.is_dir()) {
        return Ok(Some((FindingClass::LayerMissing, "its tree is gone".to_owned())));
    }
    Ok(scrub::verify(dir, form, depth).err().map(|detail| (FindingClass::LayerContent, detail)))
}

/// Moves damaged content to `quarantine/<alg>/<hex>.<time>`. What is gone already needs no moving.
fn set_aside(layout: &Layout, path: &Path, digest: &Digest) -> Result<(), StoreError> {
    let dir = layout.quarantine().join(digest.algorithm().as_str());
    make_dir(&dir)?;
    let target = dir.join(format!("{}.{}", digest.hex(), Timestamp::now().as_nanosecond()));
    match fs::rename(path, &target) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("quarantine", path, source)),
    }
}

impl Tables {
    fn read(tx: &ReadTx<'_>) -> Result<Tables, StoreError> {
        let mut unreadable = Vec::new();
        let tables = Tables {
            names: sort(tx, &mut unreadable)?,
            images: sort(tx, &mut unreadable)?,
            blobs: sort(tx, &mut unreadable)?,
            snapshots: sort(tx, &mut unreadable)?,
            unreadable: Vec::new(),
        };
        let _uses: BTreeMap<String, UseRecord> = sort(tx, &mut unreadable)?;
        let _pins: BTreeMap<String, PinRecord> = sort(tx, &mut unreadable)?;
        Ok(Tables { unreadable, ..tables })
    }

    /// Blobs and chains that images refer to, kept layers included.
    fn referenced(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut blobs, mut chains) = (BTreeSet::new(), BTreeSet::new());
        for (id, record) in &self.images {
            let Ok(id) = Digest::parse(id) else { continue };
            blobs.extend(needed_blobs(&id, record).map(ToString::to_string));
            blobs.extend(record.layers.iter().map(|layer| layer.blob.to_string()));
            chains.extend(record.layers.iter().map(|layer| layer.chain_id.to_string()));
        }
        (blobs, chains)
    }

    fn lost_records(&self) -> Vec<Suspect> {
        let mut lost = BTreeMap::new();
        for (id, record) in &self.images {
            let Ok(id) = Digest::parse(id) else { continue };
            for digest in needed_blobs(&id, record).filter(|digest| !self.blobs.contains_key(digest.as_str())) {
                let kind = if *digest == id { BlobKind::Config } else { BlobKind::Manifest };
                lost.insert(digest.to_string(), Subject::BlobRecord { digest: digest.clone(), kind });
            }
            for layer in record.layers.iter().filter(|layer| !self.snapshots.contains_key(layer.chain_id.as_str())) {
                lost.insert(layer.chain_id.to_string(), Subject::LayerRecord(layer.chain_id.clone()));
            }
        }
        let class = FindingClass::RecordMissing;
        let detail = "an image refers to it";
        lost.into_iter().map(|(what, subject)| Suspect { class, what, detail: detail.to_owned(), subject }).collect()
    }

    /// Images that are not whole without it.
    fn images_with(&self, subject: &Subject) -> Vec<Digest> {
        let images = self.images.iter().filter_map(|(id, record)| Some((Digest::parse(id).ok()?, record)));
        let affected = images.filter(|(id, record)| match subject {
            Subject::Blob(digest) | Subject::BlobRecord { digest, .. } => {
                needed_blobs(id, record).any(|need| need == digest)
            }
            Subject::Layer { chain, .. } | Subject::LayerRecord(chain) => {
                record.layers.iter().any(|layer| layer.chain_id == *chain)
            }
            Subject::Record(_) | Subject::Name | Subject::Garbage => false,
        });
        affected.map(|(id, _)| id).collect()
    }
}

fn sort<R: Record>(tx: &ReadTx<'_>, unreadable: &mut Vec<Unreadable>) -> Result<BTreeMap<String, R>, StoreError> {
    let mut good = BTreeMap::new();
    for (key, record) in tx.sound::<R>()? {
        match record {
            Ok(record) => drop(good.insert(key, record)),
            Err(error) => {
                let detail = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                unreadable.push(Unreadable { table: R::TABLE, key, detail });
            }
        }
    }
    Ok(good)
}
