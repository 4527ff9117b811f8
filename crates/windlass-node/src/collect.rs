//! Collection by the daemon itself, for nodes whose kubelet does not do it; and the choice it shares with `windlass gc`.
//!
//! In: the images with their use, the disk, the settings. Out: what goes and why, and the removal of it.
//! Source of truth for the rules: `windlass_core::gc`, after kubelet `pkg/kubelet/images/image_gc_manager.go`: first
//! images that are unused for too long, then the longest unused until the disk is below its low threshold. Images that
//! are pinned, mounted or under a container stay.
//!
//! Invariants: `an_image_under_a_container_stays_and_counts_as_used`, `age_goes_before_space`; and with the whole daemon
//! (in the command's tests) `images_unused_for_too_long_go_where_the_daemon_collects`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use windlass_core::digest::Digest;
use windlass_core::gc::{Clock, Disk, GcError, GcSettings, ImageUse, Shield, Victim, for_space, old};
use windlass_core::keyring::Mode;
use windlass_core::reason::{Reason, chain};
use windlass_store::{
    Dry, GRACE, GcReport, GcRequest, Image, SnapshotError, SnapshotInfo, SnapshotKind, Store, StoreError,
};

use crate::daemon::{Daemon, locked};
use crate::parts::CollectOptions;
use crate::status::CollectionStatus;
use crate::words::bytes;

/// containerd's label for the chain ID of a layer.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Images removed that the status names.
const REMOVED_MAX: usize = 100;

/// What is to go.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// Images, each with the reason.
    pub victims: Vec<Victim>,
    /// Bytes that would have to go yet; the other images are young, pinned or in use.
    pub missing_bytes: u64,
}

/// Every image with its use and what keeps it.
///
/// # Errors
/// What the store says.
pub fn uses(store: &Store) -> Result<Vec<ImageUse>, StoreError> {
    let below_containers = below_containers(store)?;
    store.images()?.iter().map(|image| image_use(store, image, &below_containers)).collect()
}

/// Chain IDs of the layers that a container's writable snapshot or a view stands on, with its key.
fn below_containers(store: &Store) -> Result<HashMap<String, String>, StoreError> {
    let snapshots = match store.snapshots().list() {
        Ok(snapshots) => snapshots,
        Err(SnapshotError::Store(error)) => return Err(error),
        // A list has no other errors.
        Err(error) => {
            tracing::error!(%error, "snapshots cannot be listed");
            Vec::new()
        }
    };
    let committed: HashMap<&str, &SnapshotInfo> =
        snapshots.iter().map(|snapshot| (snapshot.name.as_str(), snapshot)).collect();
    let mut below = HashMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.kind != SnapshotKind::Committed) {
        let Some(parent) = &snapshot.parent else { continue };
        // containerd's own copies may lack the label; the chain ID ends their name then.
        let named = || parent.rsplit_once('/').map_or(parent.as_str(), |(_, chain)| chain).to_owned();
        let label = committed.get(parent.as_str()).and_then(|parent| parent.labels.get(SNAPSHOT_REF)).cloned();
        below.insert(label.unwrap_or_else(named), snapshot.name.clone());
    }
    Ok(below)
}

fn image_use(store: &Store, image: &Image, below: &HashMap<String, String>) -> Result<ImageUse, StoreError> {
    let pins = image.pins.iter().map(|pin| Shield::Pinned(pin.source.to_string()));
    let mounts = store.mounted_at(&image.id)?;
    let mounts = mounts.iter().map(|at| Shield::InUse(format!("the mount at {}", at.display())));
    let top = image.layers.last().and_then(|layer| below.get(layer.chain_id.as_str()));
    let container = top.map(|key| Shield::InUse(format!("snapshot {key}")));
    Ok(ImageUse {
        id: image.id.clone(),
        size_bytes: image.unpacked_bytes,
        first_detected: image.first_seen,
        last_used: image.last_used,
        shields: pins.chain(mounts).chain(container).collect(),
    })
}

/// Says in the store that these images are used now, as the kubelet does for those of containers.
fn touch_used(store: &Store, uses: &mut [ImageUse], now: Timestamp) -> Result<(), StoreError> {
    for image in uses.iter_mut().filter(|image| image.shields.iter().any(|by| matches!(by, Shield::InUse(_)))) {
        store.touch(&image.id, now)?;
        image.last_used = Some(now);
    }
    Ok(())
}

/// Chooses by age, then for space: on the disk as it would be without what goes by age.
///
/// # Errors
/// [`GcError`]: thresholds that cross, a disk without size.
pub fn choose(uses: &[ImageUse], settings: &GcSettings, disk: Disk, clock: Clock) -> Result<Chosen, GcError> {
    settings.check()?;
    let by_age = old(uses, settings, clock, Mode::Windlass);
    let is_left = |image: &&ImageUse| by_age.victims.iter().all(|victim| victim.id != image.id);
    let left: Vec<ImageUse> = uses.iter().filter(is_left).cloned().collect();
    let available_bytes = disk.available_bytes.saturating_add(by_age.victim_bytes());
    let space = for_space(&left, settings, Disk { available_bytes, ..disk }, clock)?;
    let missing_bytes = space.missing_bytes();
    Ok(Chosen { victims: [by_age.victims, space.victims].concat(), missing_bytes })
}

/// Collects again and again, where the configuration wants it, until told to stop.
pub(crate) async fn run(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut changes = daemon.tunables.subscribe();
    loop {
        let options = changes.borrow_and_update().collect;
        daemon.tell_collection(options);
        let every = options.map_or(Duration::MAX, |options| options.every);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // The time begins anew with the new settings.
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(every) => {
                if let Some(options) = options {
                    daemon.collect(options.settings).await;
                }
            }
        }
    }
}

/// What one run did.
struct Collected {
    chosen: Chosen,
    report: GcReport,
}

impl Daemon {
    fn tell_collection(&self, options: Option<CollectOptions>) {
        let settings = options.map_or_else(GcSettings::default, |options| options.settings);
        let mut status = locked(&self.collection);
        status.enabled = options.is_some();
        (status.high_percent, status.low_percent) = (settings.high_percent, settings.low_percent);
    }

    /// One run.
    pub(crate) async fn collect(&self, settings: GcSettings) {
        let store = self.engine.store().clone();
        let watched_for = Duration::try_from(Timestamp::now().duration_since(self.started)).unwrap_or_default();
        let collected = tokio::task::spawn_blocking(move || collect(&store, &settings, watched_for)).await;
        let collected = collected.unwrap_or_else(|_| Err((Reason::Internal, "a worker ended early".to_owned())));
        let status = self.collected(collected).await;
        let mut last = locked(&self.collection);
        *last = CollectionStatus {
            enabled: last.enabled,
            high_percent: last.high_percent,
            low_percent: last.low_percent,
            ..status
        };
    }

    async fn collected(&self, collected: Result<Collected, (Reason, String)>) -> CollectionStatus {
        let mut status = CollectionStatus { last_run: Some(Timestamp::now()), ..CollectionStatus::default() };
        let Collected { chosen, report } = match collected {
            Ok(collected) => collected,
            Err((reason, why)) => {
                tracing::warn!(%reason, error = why.as_str(), "images were not collected");
                self.metrics.collected("failed", &[], 0);
                status.problem = Some(why);
                return status;
            }
        };
        let kept: Vec<&Digest> = report.kept.iter().map(|(id, _)| id).collect();
        let gone: Vec<&Victim> = chosen.victims.iter().filter(|victim| !kept.contains(&&victim.id)).collect();
        for victim in &gone {
            tracing::info!(image = %victim.id, why = %victim.why, "an image was collected");
            // Its names may be known elsewhere.
            if let Err(error) = self.images.remove(victim.id.as_str()).await {
                tracing::warn!(image = %victim.id, %error, "that an image is gone is not known everywhere");
            }
        }
        let labels: Vec<&'static str> = gone.iter().map(|victim| victim.why.label()).collect();
        self.metrics.collected("done", &labels, report.freed_bytes);
        status.freed_bytes = report.freed_bytes;
        status.removed = gone.iter().take(REMOVED_MAX).map(|victim| format!("{}: {}", victim.id, victim.why)).collect();
        if chosen.missing_bytes > 0 {
            let missing = bytes(chosen.missing_bytes);
            let text = format!("{missing} more would have to go; the other images are young, pinned or in use");
            tracing::warn!(problem = text.as_str(), "the disk is too full");
            status.problem = Some(text);
        }
        status
    }
}

fn collect(store: &Store, settings: &GcSettings, watched_for: Duration) -> Result<Collected, (Reason, String)> {
    let failed = |error: StoreError| (error.reason(), chain(&error));
    let began = Timestamp::now();
    let mut uses = uses(store).map_err(failed)?;
    touch_used(store, &mut uses, began).map_err(failed)?;
    let disk = store.file_system().map_err(failed)?;
    let disk = Disk { capacity_bytes: disk.capacity_bytes, available_bytes: disk.available_bytes };
    let clock = Clock { now: began, watched_for };
    let chosen = choose(&uses, settings, disk, clock).map_err(|error| (error.reason(), chain(&error)))?;
    let images = chosen.victims.iter().map(|victim| (victim.id.clone(), victim.why.to_string())).collect();
    let report = store.gc(&GcRequest { dry: Dry::No, grace: GRACE, images }).map_err(failed)?;
    let listed = store.images().map_err(failed)?.iter().map(|image| image.id.to_string()).collect();
    store.records().prune(&listed, began).map_err(failed)?;
    Ok(Collected { chosen, report })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use windlass_store::Labels;
    use windlass_testkit::images::small;
    use windlass_testkit::registry::TestRegistry;

    use super::*;
    use crate::rig::Rig;

    const NOTHING_FOR_SPACE: GcSettings =
        GcSettings { high_percent: 100, low_percent: 99, min_age: Duration::ZERO, max_age: Duration::from_secs(60) };

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_under_a_container_stays_and_counts_as_used() {
        let registry = TestRegistry::open();
        let rig = Rig::new();
        let mut ids = Vec::new();
        for name in ["running", "unused"] {
            ids.push(rig.pull(&registry.place(&small(name).bundle(), "app", name)).await.id);
        }
        let store = rig.store();
        let image = store.find_id(&ids[0]).unwrap().unwrap();
        // As containerd adopts layers, lowest first, and then makes a container's own on top.
        let snapshots = store.snapshots();
        let mut parent: Option<String> = None;
        for layer in &image.layers {
            let labels: Labels = [(SNAPSHOT_REF.to_owned(), layer.chain_id.to_string())].into();
            snapshots.prepare(&format!("k8s.io/1/extract {}", layer.chain_id), parent.as_deref(), &labels).unwrap();
            let listed = snapshots.list().unwrap();
            let adopted = listed.iter().find(|info| info.labels.get(SNAPSHOT_REF) == Some(&layer.chain_id.to_string()));
            parent = adopted.map(|info| info.name.clone());
        }
        snapshots.prepare("k8s.io/9/container", parent.as_deref(), &Labels::new()).unwrap();

        let mut seen = uses(store).unwrap();
        let later = Timestamp::now().checked_add(SignedDuration::from_mins(5)).unwrap();
        touch_used(store, &mut seen, later).unwrap();
        let disk = Disk { capacity_bytes: 100, available_bytes: 50 };
        let clock = Clock { now: later, watched_for: Duration::MAX };
        let chosen = choose(&seen, &NOTHING_FOR_SPACE, disk, clock).unwrap();
        assert_eq!(chosen.victims.iter().map(|victim| &victim.id).collect::<Vec<_>>(), [&ids[1]]);
        assert_eq!(store.find_id(&ids[0]).unwrap().unwrap().last_used, Some(later));
        // The container goes: its image was used until now.
        snapshots.remove("k8s.io/9/container").unwrap();
        let chosen = choose(&uses(store).unwrap(), &NOTHING_FOR_SPACE, disk, clock).unwrap();
        assert_eq!(chosen.victims.len(), 1);
    }

    #[test]
    fn age_goes_before_space() {
        let image = |name: &str, used: i64| ImageUse {
            id: Digest::sha256(name.as_bytes()),
            size_bytes: 20,
            first_detected: Timestamp::UNIX_EPOCH,
            last_used: Timestamp::from_second(used).ok(),
            shields: Vec::new(),
        };
        let settings = GcSettings { high_percent: 80, low_percent: 70, ..NOTHING_FOR_SPACE };
        let clock = Clock { now: Timestamp::from_second(1_000).unwrap(), watched_for: Duration::MAX };
        let images = [image("old", 100), image("first", 950), image("second", 960)];
        let table = [
            // Without what is old 80 % are used, which is too much: one more goes.
            (0, vec!["old", "first"]),
            // Without it 75 % are used, which is below the high threshold.
            (5, vec!["old"]),
            (90, vec!["old"]),
        ];
        for (available_bytes, want) in table {
            let chosen = choose(&images, &settings, Disk { capacity_bytes: 100, available_bytes }, clock).unwrap();
            let ids: Vec<Digest> = chosen.victims.into_iter().map(|victim| victim.id).collect();
            let want: Vec<Digest> = want.iter().map(|name| Digest::sha256(name.as_bytes())).collect();
            assert_eq!(ids, want, "{available_bytes} free");
        }
    }
}
