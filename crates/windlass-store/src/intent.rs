//! Intents: what a pull under way needs, told to collectors of every process.
//!
//! An intent is a file `meta/intents/<lease>`, locked by its process for as long as the lease lives. Its lines name
//! blobs and layers; a line is written **before** the presence of the thing is checked. A collector takes the sweep
//! lock alone, reads all intents, and deletes only what none of them names, while a lease writes its line and checks
//! under the same lock, shared. So either the collector sees the line or the lease sees that the thing is gone.
//! An intent whose lock can be taken belongs to a dead process and is dropped by recovery.
//!
//! Invariants: `what_a_lease_needs_survives_collection`, `a_killed_pull_costs_only_the_layers_in_flight`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::OFlags;
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::layout::{Layout, create_file};
use crate::lock::{Lock, Share, boot_id};

/// Longest wait for the sweep lock. It is held for one short transaction, never while trees are deleted.
const SWEEP_WAIT: Duration = Duration::from_secs(30);
/// Largest intent file that is read: some 80 bytes for each part of an image at its limits.
const INTENT_MAX_BYTES: u64 = 4 << 20;

/// One lease's intent.
#[derive(Debug)]
pub(crate) struct Intent {
    path: PathBuf,
    id: String,
    lock: std::sync::Mutex<Lock>,
}

/// What all intents together need.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) blobs: BTreeSet<String>,
    pub(crate) chains: BTreeSet<String>,
    /// How many leases are alive.
    pub(crate) leases: usize,
}

/// Between "needed" and "swept".
pub(crate) fn sweep_lock(layout: &Layout, share: Share) -> Result<Lock, StoreError> {
    let path = layout.sweep();
    Lock::wait(&path, share, Instant::now() + SWEEP_WAIT)?
        .ok_or_else(|| StoreError::Locked { root: layout.root().to_owned(), holder: None })
}

impl Intent {
    /// Writes the intent durably.
    pub(crate) fn begin(layout: &Layout, purpose: &str, now: Timestamp) -> Result<Intent, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Shared, so that no recovery meets the file between its creation and its lock.
        let _sweep = sweep_lock(layout, Share::Shared)?;
        let nonce = now.as_nanosecond() as u64 & 0xffff_ffff;
        let id = format!("{}-{nonce:08x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = layout.intents().join(&id);
        let file = append_only(create_file(&path)?, &path)?;
        let Ok(lock) = Lock::try_on(file, Share::Alone, &path)? else {
            return Err(StoreError::Locked { root: layout.root().to_owned(), holder: None });
        };
        let intent = Intent { path, id, lock: std::sync::Mutex::new(lock) };
        let line = purpose.replace('\n', " ");
        intent.write(&format!("pull {line}\nprocess {} boot {} since {now}\n", std::process::id(), boot_id()))?;
        let mut lock = intent.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lock.file().sync_all().map_err(|source| StoreError::sync(&intent.path, source))?;
        drop(lock);
        Ok(intent)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Protects a blob from now on. The caller holds the sweep lock shared while it then looks for it.
    pub(crate) fn need_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.write(&format!("blob {digest}\n"))
    }

    /// Protects a layer from now on, the same way.
    pub(crate) fn need_chain(&self, chain: &Digest) -> Result<(), StoreError> {
        self.write(&format!("chain {chain}\n"))
    }

    fn write(&self, line: &str) -> Result<(), StoreError> {
        let mut lock = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lock.file().write_all(line.as_bytes()).map_err(|source| StoreError::io("write", &self.path, source))
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        // What stays behind is a file without a lock, which the next recovery drops.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "intent left for recovery");
        }
    }
}

fn append_only(file: File, path: &Path) -> Result<File, StoreError> {
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map_err(|errno| StoreError::io("open", path, errno))?;
    Ok(file)
}

/// Reads what living leases need. The caller holds the sweep lock alone.
pub(crate) fn needed(layout: &Layout) -> Result<Needed, StoreError> {
    needed_by(intents(layout)?)
}

/// Reads what living leases but this one need. The caller holds the sweep lock alone.
pub(crate) fn needed_beside(layout: &Layout, own: &Intent) -> Result<Needed, StoreError> {
    let mut others = intents(layout)?;
    others.retain(|path| *path != own.path);
    needed_by(others)
}

fn needed_by(intents: Vec<PathBuf>) -> Result<Needed, StoreError> {
    let mut needed = Needed::default();
    for path in intents {
        if is_dead(&path)? {
            continue;
        }
        needed.leases += 1;
        let mut text = String::new();
        let file = File::open(&path).map_err(|source| StoreError::io("open", &path, source))?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, INTENT_MAX_BYTES), &mut text)
            .map_err(|source| StoreError::io("read", &path, source))?;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("blob", digest)) => drop(needed.blobs.insert(digest.to_owned())),
                Some(("chain", chain)) => drop(needed.chains.insert(chain.to_owned())),
                Some(_) | None => {}
            }
        }
    }
    Ok(needed)
}

/// Lists intents whose process is gone. The caller holds the sweep lock alone.
pub(crate) fn dead(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let mut dead = Vec::new();
    for path in intents(layout)? {
        if is_dead(&path)? {
            dead.push(path);
        }
    }
    Ok(dead)
}

fn intents(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let dir = layout.intents();
    let entries = fs::read_dir(&dir).map_err(|source| StoreError::io("read", &dir, source))?;
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|source| StoreError::io("read", &dir, source))
}

/// Whether no process holds the file. One that vanished meanwhile counts as dead too.
pub(crate) fn is_dead(path: &Path) -> Result<bool, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Lock::try_on(file, Share::Shared, path)?.is_ok()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(StoreError::io("open", path, source)),
    }
}
