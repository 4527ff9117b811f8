//! One configuration file: read with bounds, kept until it changes.
//!
//! A file is recognised by device, inode, size and times, so a new one moved into place is seen at once. Only decoded
//! documents are kept, for both sets of rules.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode as FileMode, OFlags};
use windlass_core::dockerconfig::{DecodeError, Document, Layout, MAX_DOCUMENT_BYTES, decode};
use windlass_core::keyring::Mode;
use windlass_core::reason::Reason;
use zeroize::Zeroizing;

/// Largest file that is read.
pub const MAX_FILE_BYTES: u64 = MAX_DOCUMENT_BYTES as u64;

/// Why a file was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is not there.
    #[error("the file does not exist")]
    Missing,
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io(#[source] std::io::Error),
    /// A directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// More than [`MAX_FILE_BYTES`].
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// Somebody else could have planted it.
    #[error("the file belongs to user {owner}, neither to root nor to us")]
    ForeignOwner {
        /// Its owner.
        owner: u32,
    },
    /// It holds no usable document.
    #[error("{0}")]
    Decode(DecodeError),
}

impl FileError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            FileError::Missing => Reason::InvalidConfig,
            FileError::Io(_) => Reason::IoError,
            FileError::NotRegular | FileError::TooLarge | FileError::ForeignOwner { .. } | FileError::Decode(_) => {
                Reason::InvalidCredentials
            }
        }
    }
}

/// Who chose the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The caller, by name: it must be there, whoever owns it.
    Explicit,
    /// A list of usual places: it may be missing, and must belong to root or to us.
    Usual,
}

/// What a file held when it was last read.
#[derive(Debug)]
pub(crate) struct Content {
    kubelet: Result<Document, DecodeError>,
    own: Result<Document, DecodeError>,
    /// Whether the group or everybody may read it.
    pub(crate) exposed: bool,
}

impl Content {
    /// The document by the rules of `mode`.
    pub(crate) fn document(&self, mode: Mode) -> Result<&Document, &DecodeError> {
        match mode {
            Mode::Kubelet => self.kubelet.as_ref(),
            Mode::Windlass => self.own.as_ref(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A path and what was last read from it.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    layout: Layout,
    choice: Choice,
    cached: Mutex<Option<(Stamp, Arc<Content>)>>,
}

impl ConfigFile {
    /// A file by its path; `.dockercfg` has the old layout, any other name the new one.
    pub(crate) fn new(path: PathBuf, choice: Choice) -> ConfigFile {
        let old = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".dockercfg"));
        let layout = if old { Layout::DockerCfg } else { Layout::ConfigJson };
        ConfigFile { path, layout, choice, cached: Mutex::new(None) }
    }

    /// Who chose it.
    pub(crate) fn choice(&self) -> Choice {
        self.choice
    }

    /// The content, read again only if the file has changed. Blocks.
    pub(crate) fn load(&self) -> Result<Arc<Content>, FileError> {
        let known = self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((stamp, content)) = known
            && std::fs::metadata(&self.path).is_ok_and(|metadata| stamp_of(&metadata) == stamp)
        {
            return Ok(content);
        }
        let fresh = self.read();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        *cached = fresh.as_ref().ok().map(|(stamp, content)| (*stamp, Arc::clone(content)));
        fresh.map(|(_, content)| content)
    }

    fn read(&self) -> Result<(Stamp, Arc<Content>), FileError> {
        let file = open(&self.path)?;
        let metadata = file.metadata().map_err(FileError::Io)?;
        if !metadata.is_file() {
            return Err(FileError::NotRegular);
        }
        let ours = [0, rustix::process::geteuid().as_raw()];
        if self.choice == Choice::Usual && !ours.contains(&metadata.uid()) {
            return Err(FileError::ForeignOwner { owner: metadata.uid() });
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(FileError::TooLarge);
        }
        // Room for all of it at once, so that no copies stay behind; the length was just checked.
        let room = usize::try_from(metadata.len()).unwrap_or(0) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(FileError::Io)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(FileError::TooLarge);
        }
        let content = Content {
            kubelet: decode(&bytes, self.layout, Mode::Kubelet),
            own: decode(&bytes, self.layout, Mode::Windlass),
            exposed: metadata.mode() & 0o044 != 0,
        };
        Ok((stamp_of(&metadata), Arc::new(content)))
    }
}

/// Opens without waiting for a writer if somebody put a pipe there.
fn open(path: &Path) -> Result<File, FileError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, FileMode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Err(FileError::Missing),
        Err(error) => Err(FileError::Io(error.into())),
    }
}

fn stamp_of(metadata: &std::fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}
