//! Blobs: files named by their digest, read-only, never there unless every byte was hashed.
//!
//! A blob is written to the lease's directory in `ingest/`, hashed while it is written, compared, and renamed. It is
//! not synced here: the commit of the image syncs everything at once.
//!
//! Invariants: `what_does_not_hash_never_leaves_ingest`, `one_byte_too_many_stops_the_reading`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, Mode};
use windlass_core::digest::{Digest, Hasher};

use crate::error::StoreError;
use crate::layout::{Layout, create_file, make_dir};
use crate::store::Store;

/// Size of the pieces in which a blob is copied.
const COPY_BYTES: usize = 256 << 10;

impl Store {
    /// Reads a blob whole and checks it; `None` when it is not here.
    ///
    /// # Errors
    /// [`StoreError::SizeMismatch`] above `max_bytes`, [`StoreError::DigestMismatch`] for a damaged blob.
    pub fn read_blob(&self, digest: &Digest, max_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.layout().blob(digest);
        let Some(file) = self.open_blob(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|source| StoreError::io("read", &path, source))?;
        if bytes.len() as u64 > max_bytes {
            let got_bytes = bytes.len() as u64;
            return Err(StoreError::SizeMismatch { digest: digest.clone(), want_bytes: max_bytes, got_bytes });
        }
        let got = digest.algorithm().digest(&bytes);
        if got != *digest {
            return Err(StoreError::DigestMismatch { want: digest.clone(), got });
        }
        Ok(Some(bytes))
    }

    /// Opens a blob for reading; `None` when it is not here. The bytes are not checked again: who sends them on by
    /// their digest has a receiver that checks, who uses them checks himself.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it is here and cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.layout().blob(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("open", &path, source)),
        }
    }
}

/// What a blob should be.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
}

/// A blob being written. Dropped before [`Ingest::publish`], its file is removed.
#[derive(Debug)]
pub(crate) struct Ingest {
    path: PathBuf,
    file: File,
    promise: Promise,
    written: u64,
    hasher: Hasher,
    published: bool,
}

impl Ingest {
    /// Starts a blob in `dir`, the lease's own directory, with room for all of it.
    pub(crate) fn begin(dir: &Path, promise: Promise) -> Result<Ingest, StoreError> {
        // One blob may be two layers of an image, written at the same time.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{}-{}-{number}", promise.digest.algorithm(), promise.digest.hex()));
        let file = create_file(&path)?;
        let hasher = promise.digest.algorithm().hasher();
        let ingest = Ingest { path, file, written: 0, hasher, published: false, promise };
        ingest.allocate()?;
        Ok(ingest)
    }

    /// No fragments, and a full disk is known before the first byte.
    fn allocate(&self) -> Result<(), StoreError> {
        if self.promise.size_bytes == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.promise.size_bytes) {
            // Not every file system can; then the writes find out.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(StoreError::NoSpace {
                path: self.path.clone(),
                need_bytes: Some(self.promise.size_bytes),
                free_bytes: None,
            }),
            Err(errno) => Err(StoreError::io("allocate", &self.path, errno)),
        }
    }

    /// Adds bytes; refuses the first one that is too many.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.written += bytes.len() as u64;
        if self.written > self.promise.size_bytes {
            return Err(self.wrong_size());
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|source| StoreError::io("write", &self.path, source))
    }

    /// Compares and renames: the blob is there for everybody, though not yet durable.
    pub(crate) fn publish(mut self, layout: &Layout) -> Result<(), StoreError> {
        if self.written != self.promise.size_bytes {
            return Err(self.wrong_size());
        }
        let got = self.hasher.clone().finish();
        if got != self.promise.digest {
            return Err(StoreError::DigestMismatch { want: self.promise.digest.clone(), got });
        }
        let mode = Mode::RUSR;
        rustix::fs::fchmod(&self.file, mode).map_err(|errno| StoreError::io("set the mode of", &self.path, errno))?;
        let target = layout.blob(&self.promise.digest);
        fs::rename(&self.path, &target).map_err(|source| StoreError::io("rename", &self.path, source))?;
        self.published = true;
        Ok(())
    }

    /// Keeps what was written as the beginning of the blob, if that is worth it.
    pub(crate) fn keep_beginning(mut self, layout: &Layout, above_bytes: u64) -> Result<(), StoreError> {
        if self.written < above_bytes {
            return Ok(());
        }
        // Gives back what was allocated for the rest.
        self.file.set_len(self.written).map_err(|source| StoreError::io("truncate", &self.path, source))?;
        crate::partial::keep(layout, &self.path, &self.promise.digest)?;
        self.published = true;
        Ok(())
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.promise.digest
    }

    fn wrong_size(&self) -> StoreError {
        StoreError::SizeMismatch {
            digest: self.promise.digest.clone(),
            want_bytes: self.promise.size_bytes,
            got_bytes: self.written,
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.published {
            // What stays is in the lease's directory and goes with it.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Copies a reader into a blob, in pieces.
pub(crate) fn copy(input: &mut dyn Read, mut ingest: Ingest, layout: &Layout) -> Result<(), StoreError> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return ingest.publish(layout),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(StoreError::Input { digest: ingest.promise.digest.clone(), source }),
        };
        ingest.write(&buffer[..count])?;
    }
}

/// Whether the blob's file holds what its name says. Reads all of it.
pub(crate) fn is_sound(layout: &Layout, promise: &Promise) -> Result<bool, StoreError> {
    let path = layout.blob(&promise.digest);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(StoreError::io("open", &path, source)),
    };
    let found = file.metadata().map_err(|source| StoreError::io("stat", &path, source))?;
    if !found.is_file() || found.len() != promise.size_bytes {
        return Ok(false);
    }
    Ok(hash(&mut file, &promise.digest, &path)? == promise.digest)
}

pub(crate) fn hash(file: &mut File, like: &Digest, path: &Path) -> Result<Digest, StoreError> {
    let mut hasher = like.algorithm().hasher();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(StoreError::io("read", path, source)),
        }
    }
}

/// Makes a lease's directory.
pub(crate) fn make_ingest_dir(layout: &Layout, lease: &str) -> Result<PathBuf, StoreError> {
    let dir = layout.ingest().join(lease);
    make_dir(&dir)?;
    Ok(dir)
}
