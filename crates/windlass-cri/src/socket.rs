//! The socket's file: made under another name and renamed, so that nobody ever finds one that does not answer.
//!
//! In: a path. Out: a listener for owner and group (0660), its directory made where it is absent. A file that a dead
//! daemon left is replaced; one that somebody listens on, or that is no socket, is an error.
//!
//! Invariants: `a_stale_socket_is_replaced_and_a_living_one_is_not`, `the_socket_is_for_owner_and_group`,
//! `a_path_that_is_too_long_says_so`.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

/// Longest path in bytes: what fits into `sun_path` with its final zero. Clients cannot connect to a longer one.
pub const PATH_MAX_BYTES: usize = 107;
/// Mode of the socket.
const SOCKET_MODE: u32 = 0o660;
/// Mode of a directory that is made for it.
const DIRECTORY_MODE: u32 = 0o770;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Sockets made by this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The path does not begin at the root or names no file.
    #[error("{} is not an absolute path of a socket", path.display())]
    Path {
        /// As given.
        path: PathBuf,
    },
    /// The path is longer than [`PATH_MAX_BYTES`].
    #[error("the path {} has {} bytes, a socket's may have {PATH_MAX_BYTES}", path.display(), path.as_os_str().len())]
    TooLong {
        /// As given.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("another process listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} exists and is no socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SocketError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> windlass_core::reason::Reason {
        use windlass_core::reason::Reason;
        match self {
            SocketError::Path { .. } | SocketError::TooLong { .. } | SocketError::NotASocket { .. } => {
                Reason::InvalidConfig
            }
            SocketError::InUse { .. } => Reason::InUse,
            SocketError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Reason::NotPermitted,
            SocketError::Io { .. } => Reason::IoError,
        }
    }
}

/// A socket's file that is taken away when this is dropped, if it is still the same one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A daemon that took over has another one under the name.
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file stays");
        }
    }
}

/// Listens on `path`. Blocks for some file operations; needs a runtime around it.
///
/// # Errors
/// [`SocketError`]; whatever was at `path` is untouched then.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let (directory, name) = match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if path.is_absolute() => (directory, name),
        _ => return Err(SocketError::Path { path: path.to_owned() }),
    };
    if path.as_os_str().as_bytes().len() > PATH_MAX_BYTES {
        return Err(SocketError::TooLong { path: path.to_owned() });
    }
    let failed = |action, source: io::Error| SocketError::Io { action, path: path.to_owned(), source };
    let making = fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    making.map_err(|source| SocketError::Io { action: "create", path: directory.to_owned(), source })?;
    refuse_what_lives(path)?;

    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at =
        rustix::fs::open(directory, flags, Mode::empty()).map_err(|e| failed("open the directory of", e.into()))?;
    let hidden = format!(".windlass-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let listening = listen(&at, Path::new(&hidden)).and_then(|listener| {
        let renamed = rustix::fs::renameat(&at, &hidden, &at, name);
        renamed.map(|()| listener).map_err(|source| ("rename the socket to", source.into()))
    });
    let listener = listening.map_err(|(action, source)| {
        let _never_made = rustix::fs::unlinkat(&at, &hidden, AtFlags::empty());
        failed(action, source)
    })?;
    let identity = identity(path).map_err(|source| failed("look at", source))?;
    let listener = std::os::unix::net::UnixListener::from(listener);
    let listener = UnixListener::from_std(listener).map_err(|source| failed("listen on", source))?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// A socket under a name in a directory, listening, with its final mode before anybody can connect.
fn listen(at: &OwnedFd, name: &Path) -> Result<OwnedFd, (&'static str, io::Error)> {
    // One of ours with the same number may have died here.
    let _nobodys = rustix::fs::unlinkat(at, name, AtFlags::empty());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.map_err(|e| ("create a socket for", e.into()))?;
    // By the directory's descriptor, so that a path that just fits may have a longer name beside it.
    let address = Path::new("/proc/self/fd").join(at.as_raw_fd().to_string()).join(name);
    let address = SocketAddrUnix::new(&address).map_err(|e| ("name the socket of", e.into()))?;
    rustix::net::bind(&socket, &address).map_err(|e| ("bind", e.into()))?;
    let mode = Mode::from_raw_mode(SOCKET_MODE);
    rustix::fs::chmodat(at, name, mode, AtFlags::empty()).map_err(|e| ("set the mode of", e.into()))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|e| ("listen on", e.into()))?;
    Ok(socket)
}

/// Nothing, or a socket that nobody answers on, may be replaced.
fn refuse_what_lives(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SocketError::Io { action: "look at", path: path.to_owned(), source }),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(source) => Err(SocketError::Io { action: "connect to", path: path.to_owned(), source }),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use windlass_core::reason::Reason;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/windlass/windlass.sock");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()) & 0o007, 0);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "the other name is gone");
        let client = tokio::task::spawn_blocking({
            let path = path.clone();
            move || UnixStream::connect(path).unwrap().write_all(b"x").unwrap()
        });
        let _stream = listener.accept().await.unwrap();
        client.await.unwrap();
        assert_eq!(file.path(), path);
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody took the stale one away");
        let (listener, file) = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert_eq!(error.reason(), Reason::InUse, "{error}");
        // The daemon dies without a word; its file is not that of the next one.
        drop(listener);
        let (_listener, next) = bind(&path).unwrap();
        drop(file);
        assert!(path.exists(), "the old daemon took the new one's file away");
        drop(next);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        for path in [&file, &link, &dir.path().to_owned()] {
            let error = bind(path).unwrap_err();
            assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        let error = bind(&file.join("below")).unwrap_err();
        assert!(matches!(error, SocketError::Io { action: "create", .. }), "{error}");
        assert!(matches!(bind(Path::new("relative")), Err(SocketError::Path { .. })));
        assert!(matches!(bind(Path::new("/")), Err(SocketError::Path { .. })));
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let room = PATH_MAX_BYTES - dir.path().as_os_str().len() - 1;
        let longest = dir.path().join("x".repeat(room));
        drop(bind(&longest).unwrap());
        let error = bind(&dir.path().join("x".repeat(room + 1))).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidConfig);
        assert!(error.to_string().contains("has 108 bytes"), "{error}");
    }
}
