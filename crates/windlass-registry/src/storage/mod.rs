//! Content as files. Everything here blocks; callers are on blocking threads.
//!
//! ```text
//! <root>/blobs/<alg>/<hex>                              verified bytes, 0400: blobs and manifests
//! <root>/repositories/<name>/_blobs/<alg>/<hex>         empty: this repository holds that blob
//! <root>/repositories/<name>/_manifests/<alg>/<hex>     the media type it was pushed with
//! <root>/repositories/<name>/_tags/<tag>                the digest the tag names
//! <root>/tmp/                                           uploads and files being written; emptied at start
//! ```
//! No component of a repository's name begins with `_`, so names and these folders never meet.
//! A file gets its name only when it is whole: written in `tmp`, synced, renamed, then its directory is synced.
//! Bytes are shared between repositories; links are not, and only links say what a repository holds.
//!
//! Invariants: `nothing_unverified_becomes_a_blob`, `a_restart_keeps_what_was_accepted_and_nothing_else`.

mod repository;
mod upload;

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::NamedTempFile;
use windlass_core::digest::{Algorithm, Digest};
use windlass_core::reason::Reason;

use crate::config::{Durability, Limits};
pub(crate) use repository::StoredManifest;
pub(crate) use upload::{Sessions, Upload, Writer};

/// Why storage failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The file system failed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Content does not hash to the digest it was sent under.
    #[error("content hashed to {got}, not to {want}")]
    Digest {
        /// What the client promised.
        want: Digest,
        /// What it sent.
        got: Digest,
    },
    /// More bytes than allowed.
    #[error("more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Another request writes to the same upload.
    #[error("the upload is in use")]
    Busy,
    /// No such upload.
    #[error("no such upload")]
    UploadUnknown,
    /// The bound on open uploads is reached.
    #[error("too many open uploads")]
    TooManyUploads,
    /// The runtime is going down.
    #[error("the registry is stopping")]
    Stopped,
}

impl StorageError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            StorageError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NoSpace,
                _ => Reason::IoError,
            },
            StorageError::Digest { .. } => Reason::DigestMismatch,
            StorageError::TooLarge { .. } | StorageError::TooManyUploads => Reason::LimitExceeded,
            StorageError::Busy => Reason::InUse,
            StorageError::UploadUnknown => Reason::NotFound,
            StorageError::Stopped => Reason::Canceled,
        }
    }

    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError::Io { doing, path: path.into(), source }
    }
}

/// The files of one registry. One process at a time may use a root.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    durability: Durability,
    blob_bytes_max: u64,
    sessions: Mutex<Sessions>,
}

impl Storage {
    /// Opens or makes a root and drops what an earlier process left unfinished.
    ///
    /// # Errors
    /// [`StorageError::Io`] when a directory cannot be made or emptied.
    pub fn open(root: &Path, durability: Durability, limits: &Limits) -> Result<Storage, StorageError> {
        let storage = Storage {
            root: root.to_owned(),
            durability,
            blob_bytes_max: limits.blob_bytes,
            sessions: Mutex::new(Sessions::new(limits)),
        };
        let tmp = storage.tmp();
        match fs::remove_dir_all(&tmp) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::io("empty", tmp)(error)),
        }
        storage.make_dir(&tmp)?;
        storage.make_dir(&storage.repositories_dir())?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            storage.make_dir(&storage.root.join("blobs").join(algorithm.as_str()))?;
        }
        Ok(storage)
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn repositories_dir(&self) -> PathBuf {
        self.root.join("repositories")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Opens a blob by its digest, whichever repository holds it. `None` when nobody does.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, StorageError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => {
                let size_bytes = file.metadata().map_err(StorageError::io("stat", path))?.len();
                Ok(Some((file, size_bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("open", path)(error)),
        }
    }

    /// Gives a whole and verified file its name among the blobs.
    fn adopt(&self, file: NamedTempFile, digest: &Digest) -> Result<(), StorageError> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        file.as_file().set_permissions(Permissions::from_mode(0o400)).map_err(StorageError::io("seal", &path))?;
        self.publish(file, &path)
    }

    /// Syncs, renames, syncs the directory.
    fn publish(&self, file: NamedTempFile, path: &Path) -> Result<(), StorageError> {
        if self.durability == Durability::Synced {
            file.as_file().sync_data().map_err(StorageError::io("sync", path))?;
        }
        file.persist(path).map_err(|error| StorageError::io("rename to", path)(error.error))?;
        self.sync_parent(path)
    }

    fn sync_parent(&self, path: &Path) -> Result<(), StorageError> {
        match (self.durability, path.parent()) {
            (Durability::Synced, Some(parent)) => {
                File::open(parent).and_then(|dir| dir.sync_all()).map_err(StorageError::io("sync", parent))
            }
            (Durability::Synced, None) | (Durability::Relaxed, _) => Ok(()),
        }
    }

    fn temp_file(&self) -> Result<NamedTempFile, StorageError> {
        NamedTempFile::new_in(self.tmp()).map_err(StorageError::io("make a file in", self.tmp()))
    }

    /// Writes a small file as a whole, replacing what has its name. Its directory is made when missing.
    fn write_file(&self, path: &Path, content: &[u8]) -> Result<(), StorageError> {
        if let Some(parent) = path.parent() {
            self.make_dir(parent)?;
        }
        let mut file = self.temp_file()?;
        file.write_all(content).map_err(StorageError::io("write", path))?;
        self.publish(file, path)
    }

    fn make_dir(&self, path: &Path) -> Result<(), StorageError> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_dir(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self.sync_parent(path),
            // Another request was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(StorageError::io("make", path)(error)),
        }
    }
}

/// Runs `work` on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StorageError::Stopped),
    }
}
