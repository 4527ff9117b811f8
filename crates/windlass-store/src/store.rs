//! The store itself: opening it, and what all its parts share.
//!
//! In: a root directory and options. Out: a [`Store`], a cheap clone that any thread may use; everything blocks.
//! Opening creates what is missing, refuses what is foreign or newer, and recovers when a process or the machine
//! died since (see `recover`). A store opened for reading only never creates or changes anything; a root that does
//! not exist then reads as empty.
//!
//! Invariants: `opening_for_reading_creates_nothing`, `a_newer_format_is_refused_untouched`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::error::StoreError;
use crate::flight::Flights;
use crate::layer::{Format, LayerLimits};
use crate::layout::{Found, Layout};
use crate::lock::{RootLock, Share};
use crate::meta::{Hold, Meta, ReadTx, WriteTx};
use crate::probe;
use crate::records::PullRecords;
use crate::recover::{self, Recovered};
use crate::space::{FileSystem, Reserve};
use crate::sync::SyncGroup;

/// How long an operation waits for another process to let go of the store.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a store may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Read and write; a root that does not exist is created.
    #[default]
    Write,
    /// Read only; nothing is created, nothing recovered.
    Read,
}

/// Whether the compressed bytes of layers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeepLayers {
    /// Dropped once unpacked; fetched again by digest when they are needed.
    #[default]
    No,
    /// Kept: this node serves them, or nobody else could.
    Yes,
}

/// What layers are unpacked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SnapshotFormat {
    /// Image files where kernel and file system can mount them and this user may, directories elsewhere.
    #[default]
    Auto,
    /// Directories.
    Overlay,
    /// Image files, and an error where they could not be mounted.
    Erofs,
}

/// How a store is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Whether it may be changed.
    pub access: Access,
    /// For how long lock and database are held.
    pub hold: Hold,
    /// How long to wait for another process ([`LOCK_TIMEOUT`]).
    pub lock_timeout: Duration,
    /// Whether pulls keep compressed layers.
    pub keep_layers: KeepLayers,
    /// Bytes from which the beginning of a cut-off layer blob is kept for 24 hours; `None`: never.
    pub keep_partial_above_bytes: Option<u64>,
    /// What no pull may use up.
    pub reserve: Reserve,
    /// Limits of each layer.
    pub limits: LayerLimits,
    /// What layers are unpacked into from now on; those that are here stay as they are.
    pub snapshot_format: SnapshotFormat,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            access: Access::Write,
            hold: Hold::Transaction,
            lock_timeout: LOCK_TIMEOUT,
            keep_layers: KeepLayers::No,
            keep_partial_above_bytes: None,
            reserve: Reserve::default(),
            limits: LayerLimits::default(),
            snapshot_format: SnapshotFormat::Auto,
        }
    }
}

/// An open store. Clones share everything; the last one closes it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// What the clones of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    /// `None`: opened for reading and nothing is there.
    meta: Option<Meta>,
    pub(crate) options: StoreOptions,
    pub(crate) syncs: SyncGroup,
    /// Opened first: the kernel reports through it every write-back error since.
    pub(crate) root_dir: Option<File>,
    /// How many syncs failed. A lease that saw another number at its beginning may have lost bytes.
    pub(crate) failed_syncs: AtomicU64,
    pub(crate) flights: Flights,
    /// Leases of this process that have not committed yet.
    pub(crate) leases: AtomicUsize,
    pub(crate) records: PullRecords,
    recovered: Recovered,
    /// What layers are unpacked into, once it was asked.
    format: OnceLock<Format>,
    /// Who changes snapshots of a container runtime.
    pub(crate) snapshots: Mutex<()>,
    /// A record of such a snapshot that stood for a layer was removed: the layer may be nobody's now.
    pub(crate) let_go: AtomicBool,
}

impl Store {
    /// Opens the store at `root`, creating and recovering it as the options allow.
    ///
    /// # Errors
    /// [`StoreError::Format`] and [`StoreError::NotAStore`] before anything is touched; [`StoreError::Locked`] when
    /// another process holds the store for longer than the lock time-out; I/O errors with their path.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        let layout = Layout::new(root);
        let found = layout.examine()?;
        let lock = RootLock::new(root, layout.lock(), options.lock_timeout);
        let mut meta = Meta::new(root, layout.database(), lock, options.hold);
        let (meta, recovered) = match (options.access, found) {
            (Access::Read, Found::Nothing) => (None, Recovered::default()),
            (Access::Read, Found::Store) => (Some(meta), Recovered::default()),
            (Access::Write, found) => {
                if found == Found::Nothing {
                    layout.create_root()?;
                }
                if found == Found::Nothing || options.hold == Hold::Life || !layout.database().exists() {
                    let lock = RootLock::new(root, layout.lock(), options.lock_timeout).take(Share::Alone)?;
                    // Another process may have made it, in a newer format even, while we waited.
                    layout.examine()?;
                    layout.create()?;
                    drop(meta.prepare(lock, options.hold)?);
                } else {
                    layout.create_directories()?;
                }
                let recovered = match recover::run(&layout, &meta, options.keep_partial_above_bytes) {
                    // Left for `fsck`, which can open the store then; every look-up says the same.
                    Err(error @ StoreError::Meta { .. }) => {
                        tracing::error!(%error, "store not recovered");
                        Recovered::default()
                    }
                    other => other?,
                };
                (Some(meta), recovered)
            }
        };
        let records = PullRecords::new(&layout.image_manager());
        let root_dir = match meta {
            Some(_) => Some(File::open(root).map_err(|source| StoreError::io("open", root, source))?),
            None => None,
        };
        Ok(Store {
            shared: Arc::new(Shared {
                layout,
                meta,
                options,
                syncs: SyncGroup::default(),
                root_dir,
                failed_syncs: AtomicU64::new(0),
                flights: Flights::default(),
                leases: AtomicUsize::new(0),
                records,
                recovered,
                format: OnceLock::new(),
                snapshots: Mutex::new(()),
                let_go: AtomicBool::new(false),
            }),
        })
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        self.shared.layout.root()
    }

    /// The options it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    /// What opening had to put right.
    pub fn recovered(&self) -> &Recovered {
        &self.shared.recovered
    }

    /// The pull records and intents in the kubelet's format.
    pub fn records(&self) -> &PullRecords {
        &self.shared.records
    }

    /// Size and use of the file system that holds the store.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the root cannot be looked at.
    pub fn file_system(&self) -> Result<FileSystem, StoreError> {
        FileSystem::of(self.root())
    }

    /// What layers are unpacked into here.
    ///
    /// # Errors
    /// [`StoreError::NoImageFiles`] where image files are wanted and cannot be mounted; I/O errors.
    pub(crate) fn format(&self) -> Result<Format, StoreError> {
        if let Some(format) = self.shared.format.get() {
            return Ok(*format);
        }
        let format = match self.options().snapshot_format {
            SnapshotFormat::Overlay => Format::Overlay,
            wanted @ (SnapshotFormat::Auto | SnapshotFormat::Erofs) => {
                match (probe::probe(self.layout())?.why_not, wanted) {
                    (None, _) => Format::Erofs,
                    (Some(why), SnapshotFormat::Erofs) => {
                        return Err(StoreError::NoImageFiles { root: self.root().to_owned(), why });
                    }
                    (Some(_), SnapshotFormat::Auto | SnapshotFormat::Overlay) => Format::Overlay,
                }
            }
        };
        Ok(*self.shared.format.get_or_init(|| format))
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    pub(crate) fn read<T: Default>(
        &self,
        work: impl FnOnce(&ReadTx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.shared.meta {
            Some(meta) => meta.read(work),
            None => Ok(T::default()),
        }
    }

    pub(crate) fn write<T>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.meta()?.write(work)
    }

    /// The database, for those who change the store.
    pub(crate) fn meta(&self) -> Result<&Meta, StoreError> {
        match (&self.shared.meta, self.shared.options.access) {
            (Some(meta), Access::Write) => Ok(meta),
            (Some(_) | None, Access::Read) | (None, Access::Write) => {
                Err(StoreError::ReadOnly { root: PathBuf::from(self.root()) })
            }
        }
    }
}
