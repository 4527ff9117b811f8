//! `<root>/node.lock`: one daemon on a root, and where the command line finds it.
//!
//! In: a root that is a store, the socket of a daemon. Out: [`NodeLock`], held for the daemon's life, or the [`Holder`]
//! that is there. The kernel drops the lock when the process ends, however it ends; what is written in the file counts
//! only while it is locked.
//!
//! Invariants: `a_second_daemon_is_refused_and_told_of_the_first`, `a_lock_without_a_process_is_no_daemon`,
//! `whoever_looks_keeps_no_daemon_out`.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// The file's name below the root.
const FILE: &str = "node.lock";
/// Longest content that is read: a path and some numbers.
const CONTENT_BYTES_MAX: u64 = 8 << 10;
/// For how long a daemon that starts waits for whoever only looks, or for one that is just ending.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The daemon on a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The kernel's id of the boot it runs in; empty where the kernel has none.
    pub boot_id: String,
    /// Where it listens.
    pub socket: PathBuf,
}

/// The held lock of a root. Dropped, it is free again.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes the lock of a root for this process and says in it where it listens. Waits up to a second.
    ///
    /// # Errors
    /// [`NodeError::Running`] names the daemon that is there; [`NodeError::Lock`] when the file cannot be used.
    pub fn take(root: &Path, socket: &Path) -> Result<NodeLock, NodeError> {
        let path = root.join(FILE);
        let failed = |source: std::io::Error| NodeError::Lock { path: path.clone(), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        let deadline = Instant::now() + PATIENCE;
        while !try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
            if Instant::now() >= deadline {
                return Err(NodeError::Running { root: root.to_owned(), holder: read(&mut file) });
            }
            std::thread::sleep(PAUSE);
        }
        let holder = Holder { pid: std::process::id(), boot_id: boot_id(), socket: socket.to_owned() };
        let text = serde_json::to_string(&holder).map_err(|error| failed(error.into()))?;
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
        Ok(NodeLock { _file: file })
    }

    /// The daemon on a root; `None` where none runs, or where it cannot be seen.
    pub fn holder(root: &Path) -> Option<Holder> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(rustix::fs::open(root.join(FILE), flags, Mode::empty()).ok()?);
        // Shared, so that two who look do not take each other for a daemon.
        if try_lock(&file, FlockOperation::NonBlockingLockShared).ok()? {
            return None;
        }
        read(&mut file)
    }
}

/// Tries once; whether the lock is held now.
fn try_lock(file: &File, operation: FlockOperation) -> std::io::Result<bool> {
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(CONTENT_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let held = NodeLock::take(root.path(), Path::new("/run/a.sock")).unwrap();
        let holder = NodeLock::holder(root.path()).unwrap();
        assert_eq!((holder.pid, holder.socket.as_path()), (std::process::id(), Path::new("/run/a.sock")));
        let error = NodeLock::take(root.path(), Path::new("/run/b.sock")).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.to_string().contains("/run/a.sock"), "{error}");
        drop(held);
        NodeLock::take(root.path(), Path::new("/run/b.sock")).unwrap();
    }

    #[test]
    fn a_lock_without_a_process_is_no_daemon() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(NodeLock::holder(root.path()), None);
        drop(NodeLock::take(root.path(), Path::new("/run/a.sock")).unwrap());
        assert_eq!(NodeLock::holder(root.path()), None);
    }

    #[test]
    fn whoever_looks_keeps_no_daemon_out() {
        let root = tempfile::tempdir().unwrap();
        drop(NodeLock::take(root.path(), Path::new("/run/a.sock")).unwrap());
        let looking = File::open(root.path().join(FILE)).unwrap();
        assert!(try_lock(&looking, FlockOperation::NonBlockingLockShared).unwrap());
        let starting = std::thread::spawn({
            let root = root.path().to_owned();
            move || NodeLock::take(&root, Path::new("/run/a.sock")).map(drop)
        });
        drop(looking);
        starting.join().unwrap().unwrap();
    }
}
