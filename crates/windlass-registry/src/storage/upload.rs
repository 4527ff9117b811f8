//! Upload sessions: a file that grows, hashed while it is written, bound to who opened it and where.
//!
//! One request at a time writes to a session; whoever writes holds the [`Writer`] and gives it back, also when
//! the client goes away, so that the next request goes on at the true offset. After a failed write the session is
//! gone: what a file holds after an I/O error is not known.

use std::collections::HashMap;
use std::io::{self, Read, Seek, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::NamedTempFile;
use windlass_core::digest::{Algorithm, Digest, Hasher};

use super::{Storage, StorageError};
use crate::access::Identity;
use crate::config::Limits;
use crate::route::{RepositoryName, UploadId};

/// Open sessions of one registry.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: HashMap<Box<str>, Arc<Upload>>,
    max: usize,
    idle: Duration,
}

impl Sessions {
    pub(crate) fn new(limits: &Limits) -> Sessions {
        Sessions { open: HashMap::new(), max: limits.uploads, idle: limits.upload_idle }
    }

    fn drop_idle(&mut self, now: Instant) {
        let idle = self.idle;
        self.open.retain(|_, upload| now.saturating_duration_since(upload.state().touched) < idle);
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: UploadId,
    repository: RepositoryName,
    owner: Identity,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` while a request writes.
    writer: Option<Writer>,
    touched: Instant,
}

/// The right to write to a session.
#[derive(Debug)]
pub(crate) struct Writer {
    file: NamedTempFile,
    algorithm: Algorithm,
    hasher: Hasher,
    written_bytes: u64,
    max_bytes: u64,
}

impl Writer {
    /// Bytes so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Appends and hashes.
    pub(crate) fn write(&mut self, bytes: &Bytes) -> Result<(), StorageError> {
        let total = self.written_bytes.saturating_add(bytes.len() as u64);
        if total > self.max_bytes {
            return Err(StorageError::TooLarge { limit_bytes: self.max_bytes });
        }
        self.file.write_all(bytes).map_err(StorageError::io("write", self.file.path()))?;
        self.hasher.update(bytes);
        self.written_bytes = total;
        Ok(())
    }

    /// The digest of everything written, by the algorithm asked for.
    fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, StorageError> {
        if algorithm == self.algorithm {
            return Ok(self.hasher.clone().finish());
        }
        let failed = |error| StorageError::io("read", self.file.path())(error);
        let file = self.file.as_file();
        let mut hasher = algorithm.hasher();
        (&*file).rewind().map_err(failed)?;
        let mut piece = vec![0; 256 << 10];
        loop {
            match (&*file).read(&mut piece) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => hasher.update(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl Upload {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to write.
    pub(crate) fn take_writer(&self) -> Result<Writer, StorageError> {
        self.state().writer.take().ok_or(StorageError::Busy)
    }

    /// Gives the right to write back.
    pub(crate) fn give_back(&self, writer: Writer) {
        let mut state = self.state();
        state.writer = Some(writer);
        state.touched = Instant::now();
    }

    /// Bytes so far; `None` while a request writes.
    pub(crate) fn written_bytes(&self) -> Option<u64> {
        self.state().writer.as_ref().map(Writer::written_bytes)
    }
}

impl Storage {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session.
    pub(crate) fn begin_upload(
        &self,
        id: UploadId,
        repository: &RepositoryName,
        owner: &Identity,
        algorithm: Algorithm,
    ) -> Result<Arc<Upload>, StorageError> {
        let now = Instant::now();
        let file = self.temp_file()?;
        let hasher = algorithm.hasher();
        let writer = Writer { file, algorithm, hasher, written_bytes: 0, max_bytes: self.blob_bytes_max };
        let state = Mutex::new(State { writer: Some(writer), touched: now });
        let upload = Arc::new(Upload { id, repository: repository.clone(), owner: owner.clone(), state });
        let mut sessions = self.sessions();
        sessions.drop_idle(now);
        if sessions.open.len() >= sessions.max {
            return Err(StorageError::TooManyUploads);
        }
        sessions.open.insert(upload.id.as_str().into(), upload.clone());
        Ok(upload)
    }

    /// Finds a session that `owner` opened in `repository`. Anybody else's is unknown.
    pub(crate) fn upload(
        &self,
        id: &UploadId,
        repository: &RepositoryName,
        owner: &Identity,
    ) -> Result<Arc<Upload>, StorageError> {
        let mut sessions = self.sessions();
        sessions.drop_idle(Instant::now());
        sessions
            .open
            .get(id.as_str())
            .filter(|upload| upload.repository == *repository && upload.owner == *owner)
            .cloned()
            .ok_or(StorageError::UploadUnknown)
    }

    /// Forgets a session; its file goes with the last writer.
    pub(crate) fn end_upload(&self, upload: &Upload) {
        self.sessions().open.remove(upload.id.as_str());
    }

    /// Checks what was written against `want` and makes it a blob of the session's repository. The session is over
    /// either way: by the specification a client starts anew after a wrong digest.
    pub(crate) fn commit_upload(&self, upload: &Upload, mut writer: Writer, want: &Digest) -> Result<(), StorageError> {
        self.end_upload(upload);
        let got = writer.digest(want.algorithm())?;
        if got != *want {
            return Err(StorageError::Digest { want: want.clone(), got });
        }
        self.adopt(writer.file, want)?;
        self.link_blob(&upload.repository, want)
    }
}
