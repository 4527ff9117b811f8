//! Putting right what a killed process or a power cut left, before anything else is done.
//!
//! What tells that there is something to do goes last, so that a recovery that is killed is begun again.
//! Cheap on purpose: nothing is hashed, and where no intent is dead and the machine has not been started since, only
//! the directory of intents is read. Damage to recorded images needs no mark: every look-up checks blobs and
//! layers of the image it answers (see `image`), so a damaged one is never present.
//!
//! | left behind | after a kill | after a restart of the machine |
//! | --- | --- | --- |
//! | intents, ingest directories, stages, claims of dead processes | removed | removed |
//! | unpacked and finished layers without a record | kept for the next pull | removed: their bytes were never synced |
//! | a second copy of a recorded layer, from a conversion | removed | removed |
//! | directories of snapshots of a container runtime, without a record | removed | removed |
//! | blobs without a record | kept, hashed before they are used | removed |
//!
//! Invariants: `a_finished_layer_survives_a_kill_but_not_a_reboot`,
//! `a_killed_pull_costs_only_the_layers_in_flight`, `a_recovery_that_was_cut_off_is_begun_again`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use windlass_core::digest::{Algorithm, Digest};

use crate::claim::{Claim, Note, snapshot_numbers};
use crate::error::StoreError;
use crate::image_mounts;
use crate::intent;
use crate::layers;
use crate::layout::{Layout, Sync, write_whole};
use crate::lock::{Share, boot_id};
use crate::meta::Meta;
use crate::meta::record::{BlobRecord, SnapshotRecord};
use crate::partial::{self, PARTIAL};
use crate::pending;
use crate::snapshots;
use crate::snapshots::record::RuntimeRecord;

/// What opening had to put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// Pulls whose process died.
    pub dead_pulls: usize,
    /// Layers in work that were thrown away.
    pub stages: usize,
    /// Finished layers that were thrown away because the machine was started since.
    pub layers_dropped: usize,
    /// Finished layers of unfinished pulls that the next pull finds.
    pub layers_kept: usize,
    /// Second copies of layers whose conversion to another form did not finish.
    pub conversions: usize,
    /// Blobs without a record that were thrown away.
    pub blobs_dropped: usize,
    /// Directories of a container runtime's snapshots that were never recorded, or are no more.
    pub runtime_directories: usize,
}

/// Whether the machine was started since the store was last recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boot {
    Same,
    Another,
}

/// Recovers if there is anything to recover.
pub(crate) fn run(layout: &Layout, meta: &Meta, keep_above: Option<u64>) -> Result<Recovered, StoreError> {
    let boot = noted_boot(layout);
    if boot == Boot::Same && intent::dead(layout)?.is_empty() {
        return Ok(Recovered::default());
    }
    // No lease begins or takes anything while this is held, and no other process recovers.
    let _sweep = intent::sweep_lock(layout, Share::Alone)?;
    let mut recovered = Recovered::default();
    let dead = intent::dead(layout)?;
    recovered.dead_pulls = dead.len();
    drop_ingests(layout, keep_above)?;
    partial::expire(layout)?;
    recovered.stages = drop_stages(layout)?;
    let needed = intent::needed(layout)?;
    let (layers_recorded, blobs, runtime) = meta.read(|tx| {
        Ok::<_, StoreError>((tx.all::<SnapshotRecord>()?, tx.all::<BlobRecord>()?, tx.sound::<RuntimeRecord>()?))
    })?;
    // With a record that cannot be read nobody knows whose a directory is.
    if let Ok(runtime) = runtime.into_iter().map(|(_, record)| record).collect::<Result<Vec<_>, _>>() {
        for stray in snapshots::strays(layout, &runtime)? {
            layers::remove(&stray)?;
            recovered.runtime_directories += 1;
        }
    }
    let recorded: BTreeSet<u64> = layers_recorded.iter().map(|(_, record)| record.n).collect();
    for n in snapshot_numbers(layout)?.into_iter().filter(|n| !recorded.contains(n)) {
        let dir = layout.snapshot(n);
        match Note::read(&dir) {
            // The layer was converted, or was about to be.
            Some(note)
                if !needed.chains.contains(note.chain_id.as_str()) && stands(layout, &layers_recorded, &note) =>
            {
                image_mounts::detach(layout, n, &note.chain_id);
                layers::remove(&dir)?;
                recovered.conversions += 1;
            }
            Some(note) if note.is_of_this_boot() => {
                mark_finished(layout, &note.chain_id, n)?;
                recovered.layers_kept += 1;
            }
            Some(note) if needed.chains.contains(note.chain_id.as_str()) => {}
            Some(_) | None => {
                layers::remove(&dir)?;
                recovered.layers_dropped += 1;
            }
        }
    }
    if boot == Boot::Another {
        let known: BTreeSet<String> = blobs.into_iter().map(|(digest, _)| digest).chain(needed.blobs).collect();
        recovered.blobs_dropped = drop_blobs(layout, &known)?;
        write_whole(&layout.boot(), boot_id().as_bytes(), Sync::Durable)?;
    }
    // Last: while one is there, a recovery that was killed itself is begun again.
    dead.iter().try_for_each(|path| remove_file(path))?;
    tracing::info!(?recovered, "store recovered");
    Ok(recovered)
}

/// Whether the layer of a note is recorded, and stands elsewhere.
fn stands(layout: &Layout, snapshots: &[(String, SnapshotRecord)], note: &Note) -> bool {
    let recorded = snapshots.iter().find(|(chain, _)| chain == note.chain_id.as_str());
    recorded.is_some_and(|(_, record)| layers::stands(layout, record))
}

fn noted_boot(layout: &Layout) -> Boot {
    match fs::read_to_string(layout.boot()) {
        Ok(text) if text == boot_id() && !text.is_empty() => Boot::Same,
        Ok(_) | Err(_) => Boot::Another,
    }
}

/// Removes ingest directories whose lease is gone.
fn drop_ingests(layout: &Layout, keep_above: Option<u64>) -> Result<(), StoreError> {
    for (name, path) in entries(&layout.ingest())? {
        if name != PARTIAL && !layout.intents().join(&name).exists() {
            if let Some(above_bytes) = keep_above {
                partial::rescue(layout, &path, above_bytes)?;
            }
            layers::remove(&path)?;
        }
    }
    Ok(())
}

/// Removes stages and claims that nobody holds. Returns the number of stages.
fn drop_stages(layout: &Layout) -> Result<usize, StoreError> {
    let mut dropped = 0;
    let entries = entries(&layout.stages())?;
    let chains: BTreeSet<&str> = entries.iter().map(|(name, _)| name.strip_suffix(".claim").unwrap_or(name)).collect();
    for hex in chains {
        let Ok(chain) = Digest::parse(&format!("{}:{hex}", Algorithm::Sha256)) else {
            // Trees that a collector had taken out of the store.
            layers::remove(&layout.stages().join(hex))?;
            continue;
        };
        let Some((claim, _)) = Claim::attempt(layout, &chain)? else { continue };
        let stage = layout.stage(&chain);
        if pending::is_there(&stage, &chain) {
            continue;
        }
        if stage.exists() {
            layers::remove(&stage)?;
            dropped += 1;
        }
        claim.abandon();
    }
    Ok(dropped)
}

/// Tells the next claim of a layer where the finished one stands.
fn mark_finished(layout: &Layout, chain: &Digest, n: u64) -> Result<(), StoreError> {
    match Claim::attempt(layout, chain)? {
        Some((claim, _)) => claim.finished(n),
        None => Ok(()),
    }
}

fn drop_blobs(layout: &Layout, known: &BTreeSet<String>) -> Result<usize, StoreError> {
    let mut dropped = 0;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for (hex, path) in entries(&layout.blobs().join(algorithm.as_str()))? {
            if !known.contains(&format!("{algorithm}:{hex}")) {
                remove_file(&path)?;
                dropped += 1;
            }
        }
    }
    Ok(dropped)
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("remove", path, source)),
    }
}

/// Names and paths in a directory, none in one that is not there; names that are not text are no names of ours and left
/// out.
pub(crate) fn entries(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>, StoreError> {
    let failed = |source| StoreError::io("read", dir, source);
    let mut found = Vec::new();
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(failed(source)),
    };
    for entry in listed {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
