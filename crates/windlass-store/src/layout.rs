//! Where everything stands below the root, and the one place that creates it.
//!
//! ```text
//! <root>/oci-layout                 {"imageLayoutVersion":"1.0.0"}, written last: a root with it is complete
//! <root>/blobs/<alg>/<hex>          0400, verified: manifests, indexes, configs; layers only where kept
//! <root>/ingest/<lease>/            blobs being written
//! <root>/meta/store.redb            the database; meta/format its version, readable without it
//! <root>/meta/intents/<lease>       one locked file per pull under way, naming what it needs
//! <root>/snapshots/<n>/{fs,sums,note} or {image,note}
//! <root>/e/<n>-<chain>/             where image files are mounted
//! <root>/upper/<n>/{fs,work}        what a container runtime writes: see `snapshots`
//! <root>/l/<n>, l/C<n>              links to layers, and to what the runtime committed, under short names
//! <root>/stage/<chain>/             a layer being unpacked; <chain>.claim is its lock
//! <root>/image_manager/{pulling,pulled}
//! <root>/quarantine/<alg>/<hex>.<time>, quarantine/upper/<n>.<time>
//! <root>/lock                       flock, with the holder's process id and boot id
//! ```
//!
//! Invariants: `everything_is_private_even_under_umask_zero`, `a_foreign_directory_is_refused_untouched`,
//! `a_newer_format_is_refused_untouched`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use windlass_core::digest::Digest;

use crate::error::StoreError;

/// The newest format of the root that this version reads and writes.
pub const FORMAT: u64 = 1;

const OCI_LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

/// What may stand in a root whose creation was cut off, beside nothing at all.
const OURS: &[&str] = &[
    "blobs",
    "e",
    "ingest",
    "l",
    "meta",
    "snapshots",
    "stage",
    "image_manager",
    "quarantine",
    "upper",
    "lock",
    // The layout file while it is made: by another process at this moment, or by one that was killed then.
    "oci-layout.tmp",
    "lost+found",
];

const DIRECTORIES: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "ingest",
    "meta",
    "meta/intents",
    "snapshots",
    "stage",
    "image_manager",
    "image_manager/pulling",
    "image_manager/pulled",
    "quarantine",
];

/// The paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// What stands at a root before anything is done to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, an empty directory, or a creation that was cut off.
    Nothing,
    /// A store of a format that this version knows.
    Store,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Layout {
        Layout { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("meta/store.redb")
    }

    pub(crate) fn intents(&self) -> PathBuf {
        self.root.join("meta/intents")
    }

    /// Lock between "needed" and "swept": see `intent`.
    pub(crate) fn sweep(&self) -> PathBuf {
        self.root.join("meta/sweep")
    }

    /// Notes of mounted images.
    pub(crate) fn mounts(&self) -> PathBuf {
        self.root.join("meta/mounts")
    }

    /// Boot id of the last boot that recovered this store.
    pub(crate) fn boot(&self) -> PathBuf {
        self.root.join("meta/boot")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().as_str()).join(digest.hex())
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, n: u64) -> PathBuf {
        self.snapshots().join(n.to_string())
    }

    /// Where image files of layers are mounted; a short path, since hundreds of them make up one option of a mount.
    pub(crate) fn image_mounts(&self) -> PathBuf {
        self.root.join("e")
    }

    /// Directories that belong to snapshots of a container runtime.
    pub(crate) fn uppers(&self) -> PathBuf {
        self.root.join("upper")
    }

    pub(crate) fn upper(&self, n: u64) -> PathBuf {
        self.uppers().join(n.to_string())
    }

    /// Links to whatever may be a lower layer, side by side under short names.
    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("l")
    }

    /// What this kernel and file system were found to be able to do.
    pub(crate) fn probed(&self) -> PathBuf {
        self.root.join("meta/erofs")
    }

    /// Lock on what is mounted in `e/`.
    pub(crate) fn image_mounts_lock(&self) -> PathBuf {
        self.root.join("meta/e.lock")
    }

    pub(crate) fn stages(&self) -> PathBuf {
        self.root.join("stage")
    }

    pub(crate) fn stage(&self, chain: &Digest) -> PathBuf {
        self.stages().join(chain.hex())
    }

    pub(crate) fn claim(&self, chain: &Digest) -> PathBuf {
        self.stages().join(format!("{}.claim", chain.hex()))
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(crate) fn image_manager(&self) -> PathBuf {
        self.root.join("image_manager")
    }

    /// Looks at the root without touching it.
    ///
    /// # Errors
    /// [`StoreError::Format`] for a newer store, [`StoreError::NotAStore`] for a directory with other things in it.
    pub(crate) fn examine(&self) -> Result<Found, StoreError> {
        let names = match fs::read_dir(&self.root) {
            Ok(entries) => entries
                .map(|entry| entry.map(|e| e.file_name()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| StoreError::io("read", &self.root, source))?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(source) => return Err(StoreError::io("read", &self.root, source)),
        };
        let has = |name: &str| names.iter().any(|n| n == name);
        if has("meta") {
            self.check_format()?;
        }
        if has("oci-layout") && has("meta") {
            return Ok(Found::Store);
        }
        let foreign = || StoreError::NotAStore { root: self.root.clone() };
        if names.iter().all(|name| OURS.iter().any(|ours| name == ours)) { Ok(Found::Nothing) } else { Err(foreign()) }
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.root.join("meta/format");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(StoreError::io("read", &path, source)),
        };
        match text.trim().parse::<u64>() {
            Ok(found) if found <= FORMAT => Ok(()),
            _ => Err(StoreError::Format {
                root: self.root.clone(),
                found: text.trim().chars().take(32).collect(),
                known: FORMAT,
            }),
        }
    }

    /// Makes the root directory itself, so that its lock can be taken before anything else is made.
    pub(crate) fn create_root(&self) -> Result<(), StoreError> {
        if let Some(parent) = self.root.parent() {
            fs::create_dir_all(parent).map_err(|source| StoreError::io("create", parent, source))?;
        }
        make_dir(&self.root)
    }

    /// Makes the directories that are missing: somebody may have tidied up.
    pub(crate) fn create_directories(&self) -> Result<(), StoreError> {
        DIRECTORIES.iter().try_for_each(|name| make_dir(&self.root.join(name)))
    }

    /// Makes what is missing. The caller holds the lock.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        self.create_directories()?;
        write_once(&self.root.join("meta/format"), format!("{FORMAT}\n").as_bytes())?;
        write_once(&self.root.join("oci-layout"), OCI_LAYOUT.as_bytes())?;
        sync_dir(&self.root.join("meta"))?;
        sync_dir(&self.root)
    }
}

/// Makes a directory with mode 0700, whatever the umask; one that is there stays as it is.
pub(crate) fn make_dir(path: &Path) -> Result<(), StoreError> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(StoreError::io("create", path, errno)),
    }
}

/// Writes a small file under a temporary name, syncs it and renames it into place: whole or not there.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], sync: Sync) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::io("remove", &temporary, source)),
    }
    let file = create_file(&temporary)?;
    io::Write::write_all(&mut &file, bytes).map_err(|source| StoreError::io("write", &temporary, source))?;
    if sync == Sync::Durable {
        file.sync_all().map_err(|source| StoreError::sync(&temporary, source))?;
    }
    fs::rename(&temporary, path).map_err(|source| StoreError::io("rename", &temporary, source))?;
    match (sync, path.parent()) {
        (Sync::Durable, Some(parent)) => sync_dir(parent),
        (Sync::Durable, None) | (Sync::Later, _) => Ok(()),
    }
}

/// Whether a write must be on disk when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Yes: file and name.
    Durable,
    /// No: a later sync covers it, or its loss does not matter.
    Later,
}

fn write_once(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if path.exists() { Ok(()) } else { write_whole(path, bytes, Sync::Durable) }
}

/// Creates a new file with mode 0600 that no link can redirect.
pub(crate) fn create_file(path: &Path) -> Result<fs::File, StoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map(fs::File::from)
        .map_err(|errno| StoreError::io("create", path, errno))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = fs::File::open(path).map_err(|source| StoreError::io("open", path, source))?;
    dir.sync_all().map_err(|source| StoreError::sync(path, source))
}
