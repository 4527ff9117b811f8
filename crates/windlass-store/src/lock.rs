//! Locks that die with their holder: `flock` on files, waited for without ever blocking for good.
//!
//! The kernel drops a `flock` when the process ends, however it ends, so nothing here needs a time-out to be
//! declared dead. Each lock is taken on its own open file description and therefore also works between threads.
//!
//! Invariants: `the_second_writer_waits_and_then_gives_up`, `readers_share`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::StoreError;

/// First and longest pause between two tries: short for the usual case, long enough not to burn a core.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// With whom a lock is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// With other readers.
    Shared,
    /// With nobody.
    Alone,
}

/// A held lock; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Tries once. `None`: somebody holds it.
    pub(crate) fn try_on(file: File, share: Share, path: &Path) -> Result<Result<Lock, File>, StoreError> {
        let operation = match share {
            Share::Shared => FlockOperation::NonBlockingLockShared,
            Share::Alone => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Ok(Lock { file })),
                Err(Errno::WOULDBLOCK) => return Ok(Err(file)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(StoreError::io("lock", path, errno)),
            }
        }
    }

    /// Waits until `deadline`. `None`: still held by somebody then.
    pub(crate) fn wait(path: &Path, share: Share, deadline: Instant) -> Result<Option<Lock>, StoreError> {
        let mut file = match share {
            // Whoever only reads may have no right to write, or stand on a disk that is read-only.
            Share::Shared => File::open(path).or_else(|_| open_lock(path))?,
            Share::Alone => open_lock(path)?,
        };
        let mut pause = PAUSE.0;
        loop {
            file = match Lock::try_on(file, share, path)? {
                Ok(lock) => return Ok(Some(lock)),
                Err(file) => file,
            };
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            std::thread::sleep(pause.min(deadline - now));
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

/// Opens a lock file, creating it with mode 0600.
pub(crate) fn open_lock(path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|errno| StoreError::io("open", path, errno))
}

/// The lock of the whole store.
#[derive(Debug)]
pub(crate) struct RootLock {
    root: PathBuf,
    path: PathBuf,
    timeout: Duration,
}

impl RootLock {
    pub(crate) fn new(root: &Path, path: PathBuf, timeout: Duration) -> RootLock {
        RootLock { root: root.to_owned(), path, timeout }
    }

    /// Takes the lock, waiting up to the time-out.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the holder.
    pub(crate) fn take(&self, share: Share) -> Result<Lock, StoreError> {
        let Some(mut lock) = Lock::wait(&self.path, share, Instant::now() + self.timeout)? else {
            return Err(StoreError::Locked { root: self.root.clone(), holder: self.holder() });
        };
        if share == Share::Alone {
            let note = format!("pid {} boot {}\n", std::process::id(), boot_id());
            // The note is for people; a lock without it locks just as well.
            if let Err(error) = rewrite(lock.file(), note.as_bytes()) {
                tracing::debug!(%error, "cannot note the holder in the lock file");
            }
        }
        Ok(lock)
    }

    fn holder(&self) -> Option<String> {
        let mut text = String::new();
        File::open(&self.path).ok()?.take(256).read_to_string(&mut text).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

fn rewrite(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(bytes)
}

/// The kernel's id of this boot; empty where the kernel has none, which then never equals a noted one.
pub(crate) fn boot_id() -> &'static str {
    static BOOT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    });
    &BOOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_writer_waits_and_then_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RootLock::new(dir.path(), path.clone(), Duration::from_secs(10)).take(Share::Alone).unwrap();
        let other = RootLock::new(dir.path(), path, Duration::from_millis(30));
        let error = other.take(Share::Alone).unwrap_err();
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(matches!(other.take(Share::Shared), Err(StoreError::Locked { .. })));
        drop(held);
        other.take(Share::Alone).unwrap();
    }

    #[test]
    fn readers_share() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RootLock::new(dir.path(), dir.path().join("lock"), Duration::from_millis(30));
        let first = lock.take(Share::Shared).unwrap();
        let _second = lock.take(Share::Shared).unwrap();
        assert!(matches!(lock.take(Share::Alone), Err(StoreError::Locked { .. })));
        drop(first);
    }
}
