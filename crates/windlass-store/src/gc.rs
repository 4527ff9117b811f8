//! Collection: marks what names, pins, mounts, snapshots of a container runtime and living leases need, sweeps the rest, and
//! explains each victim.
//!
//! The order of deletion is record, tree, blob: a record never names what is gone. Records go in one short
//! transaction under the sweep lock, trees are renamed out of `snapshots/` under it and deleted after it, so nobody
//! waits for a large tree. A killed collection is finished by the next recovery or collection.
//!
//! Which images go for age or space is not decided here: that is a rule (`windlass_core::gc`), and its choice is an
//! argument. Explained victims are the same with [`Dry::Run`] and without.
//!
//! Invariants: `what_a_lease_needs_survives_collection`, `after_removing_all_images_less_than_one_mebibyte_is_left`,
//! `a_dry_run_explains_and_deletes_nothing`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use windlass_core::digest::{Algorithm, Digest};

use crate::claim::{Claim, Note, snapshot_numbers};
use crate::error::StoreError;
use crate::image::{Gathered, needed_blobs};
use crate::image_mounts;
use crate::intent::{Intent, Needed, needed, sweep_lock};
use crate::layers;
use crate::layout::Layout;
use crate::lock::Share;
use crate::meta::record::{BlobRecord, SnapshotRecord};
use crate::partial;
use crate::recover::entries;
use crate::remove::forget;
use crate::snapshots::record::RuntimeRecord;
use crate::snapshots::{self, need};
use crate::store::Store;

/// How long the collector leaves alone what has no record yet, when it runs by itself.
pub const GRACE: Duration = Duration::from_secs(120);

/// Whether a collection deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dry {
    /// It deletes.
    #[default]
    No,
    /// It only explains.
    Run,
}

/// What to collect.
#[derive(Clone, Debug, Default)]
pub struct GcRequest {
    /// Whether to delete or to explain only.
    pub dry: Dry,
    /// Younger things without a record stay ([`GRACE`] for the automatic collector, zero by hand).
    pub grace: Duration,
    /// Images that go, each with the reason given for it. Pinned and mounted ones stay nevertheless.
    pub images: Vec<(Digest, String)>,
}

impl GcRequest {
    /// Sweeps what nothing refers to; no image goes that has a name or a pin.
    pub fn sweep() -> GcRequest {
        GcRequest::default()
    }
}

/// What kind of thing a victim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VictimKind {
    /// An image: its record and names.
    Image,
    /// An unpacked layer.
    Layer,
    /// A blob.
    Blob,
}

/// One thing that goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// What kind of thing.
    pub kind: VictimKind,
    /// Image ID, chain ID, or digest; the path for something that has none.
    pub what: String,
    /// Why, for people.
    pub why: String,
    /// Bytes that become free; zero for images, whose layers and blobs are listed by themselves.
    pub size_bytes: u64,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// What goes, images first, then layers, then blobs.
    pub victims: Vec<Victim>,
    /// Sum of the victims' bytes.
    pub freed_bytes: u64,
    /// Images that were to go and stay, with the reason.
    pub kept: Vec<(Digest, String)>,
}

/// What is to be deleted, found under the sweep lock.
#[derive(Default)]
struct Plan {
    report: GcReport,
    images: Vec<Digest>,
    names: Vec<String>,
    chains: Vec<String>,
    blobs: Vec<String>,
    trees: Vec<(PathBuf, Option<Digest>)>,
    files: Vec<PathBuf>,
}

impl Store {
    /// Collects, see the module.
    ///
    /// # Errors
    /// The metadata or a directory cannot be read or written; what was deleted by then stays deleted.
    pub fn gc(&self, request: &GcRequest) -> Result<GcReport, StoreError> {
        self.meta()?;
        let layout = self.layout();
        // A living intent of its own: if this process is killed, the next one knows that there is something to do.
        let _intent = Intent::begin(layout, "gc", Timestamp::now())?;
        let sweep = sweep_lock(layout, Share::Alone)?;
        let plan = self.plan(request, &needed(layout)?)?;
        if request.dry == Dry::Run {
            return Ok(plan.report);
        }
        self.forget(&plan)?;
        let trash: Vec<PathBuf> =
            plan.trees.iter().filter_map(|(tree, chain)| take_out(layout, tree, chain.as_ref())).collect();
        for file in &plan.files {
            remove_file(file)?;
        }
        snapshots::drop_dangling(layout)?;
        drop(sweep);
        for tree in trash {
            layers::remove(&tree)?;
        }
        empty_trash(layout)?;
        partial::expire(layout)?;
        // Left by who was killed, or whose overlay was unmounted by other means. The next collection tries again.
        if let Err(error) = self.unmount_unused() {
            tracing::debug!(%error, "unused layers stay mounted");
        }
        if !plan.report.victims.is_empty() {
            self.meta()?.compact()?;
        }
        Ok(plan.report)
    }

    fn forget(&self, plan: &Plan) -> Result<(), StoreError> {
        if plan.images.is_empty() && plan.names.is_empty() && plan.chains.is_empty() && plan.blobs.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            plan.names.iter().try_for_each(|name| tx.remove::<crate::meta::record::NameRecord>(name).map(drop))?;
            plan.images.iter().try_for_each(|image| forget(tx, image))?;
            plan.chains.iter().try_for_each(|chain| tx.remove::<SnapshotRecord>(chain).map(drop))?;
            plan.blobs.iter().try_for_each(|blob| tx.remove::<BlobRecord>(blob).map(drop))
        })
    }

    fn plan(&self, request: &GcRequest, needed: &Needed) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        let gathered = self.read(|tx| Gathered::all(tx).map(Some))?;
        let Some(mut gathered) = gathered else { return Ok(plan) };
        self.choose_images(request, &mut gathered, &mut plan)?;
        // What a container runtime made a record of stays, whether an image has it or not.
        let runtime = self.read(|tx| tx.all::<RuntimeRecord>())?;
        for stray in snapshots::strays(self.layout(), runtime.iter().map(|(_, record)| record))? {
            let why = "left by a snapshot that was not recorded".to_owned();
            let what = stray.display().to_string();
            plan.report.victims.push(Victim { kind: VictimKind::Layer, what, why, size_bytes: 0 });
            plan.trees.push((stray, None));
        }
        let mut blobs: BTreeSet<String> = needed.blobs.clone();
        let mut chains: BTreeSet<String> = needed.chains.clone();
        chains.extend(need::recorded_chains(runtime.iter().map(|(name, record)| (name, record))));
        for (id, record) in &gathered.images {
            let Ok(id) = Digest::parse(id) else { continue };
            blobs.extend(needed_blobs(&id, record).map(ToString::to_string));
            blobs.extend(record.layers.iter().map(|layer| layer.blob.to_string()));
            chains.extend(record.layers.iter().map(|layer| layer.chain_id.to_string()));
        }
        self.choose_layers(request, &gathered, (&chains, &needed.chains), &mut plan)?;
        self.choose_stages(request, &needed.chains, &mut plan)?;
        self.choose_blobs(request, &gathered, &blobs, &mut plan)?;
        plan.report.freed_bytes = plan.report.victims.iter().map(|victim| victim.size_bytes).sum();
        Ok(plan)
    }

    fn choose_images(&self, request: &GcRequest, gathered: &mut Gathered, plan: &mut Plan) -> Result<(), StoreError> {
        let mut stay = Vec::new();
        for (id, record) in std::mem::take(&mut gathered.images) {
            let Ok(digest) = Digest::parse(&id) else {
                stay.push((id, record));
                continue;
            };
            let names = gathered.names.get(&digest).map(Vec::as_slice).unwrap_or_default();
            let asked = request.images.iter().find(|(image, _)| *image == digest).map(|(_, why)| why.clone());
            let why = asked.or_else(|| names.is_empty().then(|| "no name leads to it".to_owned()));
            let held =
                gathered.pins.get(&digest).and_then(|pins| pins.first()).map(|pin| format!("pinned by {}", pin.source));
            let held = match held {
                Some(held) => Some(held),
                None => self.mounted_at(&digest)?.first().map(|target| format!("mounted at {}", target.display())),
            };
            match (why, held) {
                (None, _) => stay.push((id, record)),
                (Some(_), Some(held)) => {
                    plan.report.kept.push((digest, held));
                    stay.push((id, record));
                }
                (Some(why), None) => {
                    plan.names.extend(names.iter().map(ToString::to_string));
                    plan.report.victims.push(Victim { kind: VictimKind::Image, what: id, why, size_bytes: 0 });
                    plan.images.push(digest);
                }
            }
        }
        gathered.images = stay;
        Ok(())
    }

    fn choose_layers(
        &self,
        request: &GcRequest,
        gathered: &Gathered,
        (live, leased): (&BTreeSet<String>, &BTreeSet<String>),
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let layout = self.layout();
        let recorded: BTreeSet<u64> = gathered.snapshots.values().map(|record| record.n).collect();
        for (chain, record) in gathered.snapshots.iter().filter(|(chain, _)| !live.contains(*chain)) {
            plan.chains.push(chain.clone());
            plan.trees.push((layout.snapshot(record.n), Digest::parse(chain).ok()));
            let why = "no image has this layer".to_owned();
            plan.report.victims.push(Victim {
                kind: VictimKind::Layer,
                what: chain.clone(),
                why,
                size_bytes: record.size_bytes,
            });
        }
        for n in snapshot_numbers(layout)?.into_iter().filter(|n| !recorded.contains(n)) {
            let dir = layout.snapshot(n);
            let note = Note::read(&dir);
            let is_needed = note.as_ref().is_some_and(|note| {
                let chain = note.chain_id.as_str();
                let stands_elsewhere = gathered.snapshots.get(chain).is_some_and(|other| layers::stands(layout, other));
                let wanted = leased.contains(chain) || live.contains(chain) && !stands_elsewhere;
                wanted && note.is_of_this_boot()
            });
            if is_needed || is_younger(&dir, request.grace) {
                continue;
            }
            let (what, size_bytes) = match &note {
                Some(note) => (note.chain_id.to_string(), note.size_bytes),
                None => (dir.display().to_string(), 0),
            };
            let why = "left by a pull or conversion that did not finish".to_owned();
            plan.report.victims.push(Victim { kind: VictimKind::Layer, what, why, size_bytes });
            plan.trees.push((dir, note.map(|note| note.chain_id)));
        }
        Ok(())
    }

    /// Layers that were unpacked but never finished, and that nobody waits for.
    fn choose_stages(&self, request: &GcRequest, live: &BTreeSet<String>, plan: &mut Plan) -> Result<(), StoreError> {
        for (hex, dir) in entries(&self.layout().stages())? {
            let Ok(chain) = Digest::parse(&format!("{}:{hex}", Algorithm::Sha256)) else { continue };
            if live.contains(chain.as_str()) || is_younger(&dir, request.grace) {
                continue;
            }
            if let Some((claim, _)) = Claim::attempt(self.layout(), &chain)? {
                let why = "left by a pull that did not finish".to_owned();
                let what = chain.to_string();
                plan.report.victims.push(Victim { kind: VictimKind::Layer, what, why, size_bytes: 0 });
                plan.trees.push((dir, Some(chain)));
                drop(claim);
            }
        }
        Ok(())
    }

    fn choose_blobs(
        &self,
        request: &GcRequest,
        gathered: &Gathered,
        live: &BTreeSet<String>,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        for (digest, record) in gathered.blobs.iter().filter(|(digest, _)| !live.contains(*digest)) {
            plan.blobs.push(digest.clone());
            let why = "no image refers to it".to_owned();
            let victim = Victim { kind: VictimKind::Blob, what: digest.clone(), why, size_bytes: record.size_bytes };
            plan.report.victims.push(victim);
            plan.files.extend(Digest::parse(digest).ok().map(|digest| self.layout().blob(&digest)));
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for (hex, path) in entries(&self.layout().blobs().join(algorithm.as_str()))? {
                let digest = format!("{algorithm}:{hex}");
                if gathered.blobs.contains_key(&digest) || live.contains(&digest) || is_younger(&path, request.grace) {
                    continue;
                }
                let size_bytes = fs::symlink_metadata(&path).map_or(0, |found| found.len());
                let why = "left by a pull that did not finish".to_owned();
                plan.report.victims.push(Victim { kind: VictimKind::Blob, what: digest, why, size_bytes });
                plan.files.push(path);
            }
        }
        Ok(())
    }
}

/// First part of the names of trees that wait for their deletion in `stage/`.
const TRASH: &str = "trash-";

/// Deletes trees that wait for it.
pub(crate) fn empty_trash(layout: &Layout) -> Result<(), StoreError> {
    for (name, path) in entries(&layout.stages())?.into_iter().filter(|(name, _)| name.starts_with(TRASH)) {
        tracing::debug!(name, "left by a removal, or by a collection that was killed");
        layers::remove(&path)?;
    }
    Ok(())
}

/// Renames a tree out of `snapshots/`, so that it is gone at once and deleted at leisure.
pub(crate) fn take_out(layout: &Layout, tree: &Path, chain: Option<&Digest>) -> Option<PathBuf> {
    let name = tree.file_name()?.to_str()?;
    let trash = layout.stages().join(format!("{TRASH}{name}-{}", Timestamp::now().as_nanosecond()));
    if let Some(chain) = chain {
        // The claim that said where the layer stands. Who holds it now finds that out by itself.
        drop(fs::remove_file(layout.claim(chain)));
        if let Ok(n) = name.parse() {
            image_mounts::detach(layout, n, chain);
        }
    }
    match fs::rename(tree, &trash) {
        Ok(()) => Some(trash),
        // Deleted by hand: what we want.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        // Deleted where it stands then.
        Err(_) => Some(tree.to_owned()),
    }
}

fn is_younger(path: &Path, grace: Duration) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|found| found.modified());
    !grace.is_zero() && changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age < grace))
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("remove", path, source)),
    }
}
