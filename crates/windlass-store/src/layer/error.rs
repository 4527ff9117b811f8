//! Why a layer was refused or could not be written.
//!
//! Names of entries are foreign bytes: they are kept escaped and shortened ([`EntryName`]), so that printing an error
//! cannot steer a terminal or flood a log.

use std::fmt;
use std::io;

use rustix::io::Errno;
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

/// Longest part of an entry's name that an error repeats, in bytes of the escaped text.
const NAME_SHOWN_MAX: usize = 256;

/// The name of an archive entry, safe to print: ASCII, control characters escaped, at most 256 characters.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EntryName(String);

impl EntryName {
    /// Escapes the bytes of a name.
    pub fn new(name: &[u8]) -> EntryName {
        let mut text = String::new();
        for &byte in name {
            if text.len() >= NAME_SHOWN_MAX {
                text.push_str("...");
                break;
            }
            text.extend(std::ascii::escape_default(byte).map(char::from));
        }
        EntryName(text)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a layer was not applied. Nothing of it is visible then; the caller removes the stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The blob has more or fewer bytes than its descriptor says.
    #[error("the layer has {} {want} bytes", if *.longer { "more than" } else { "fewer than" })]
    Size {
        /// Size of the descriptor, in bytes.
        want: u64,
        /// Whether bytes were left over (true) or missing.
        longer: bool,
    },
    /// The blob does not hash to its digest.
    #[error("the layer {want} hashed to {got}")]
    Digest {
        /// The digest of the descriptor.
        want: Digest,
        /// What the bytes hashed to.
        got: Digest,
    },
    /// The unpacked stream does not hash to the diff ID of the image's config.
    #[error("the unpacked layer hashed to {got}, the config says {want}")]
    DiffId {
        /// The diff ID of the config.
        want: Digest,
        /// What the unpacked bytes hashed to.
        got: Digest,
    },
    /// The compressed stream breaks the rules of its format.
    #[error("the {format} stream of the layer is damaged: {what}")]
    Compression {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The archive breaks the rules of tar, or of OCI layers.
    #[error("the archive is malformed at entry {entry}: {what}")]
    Archive {
        /// The entry, or the one before the damage.
        entry: EntryName,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry whose name or link leaves the root, or turns in circles.
    #[error("entry {entry} is unsafe: {what}")]
    UnsafePath {
        /// The entry.
        entry: EntryName,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry of a kind that is not created.
    #[error("entry {entry} cannot be created: {what}")]
    UnsupportedEntry {
        /// The entry.
        entry: EntryName,
        /// What kind it is.
        what: &'static str,
    },
    /// A limit was passed.
    #[error("entry {entry} passes the limit {limit} of {max}")]
    Limit {
        /// The entry at which it happened.
        entry: EntryName,
        /// The configuration key of the limit, under `limits:`.
        limit: &'static str,
        /// Its value, in the unit its key names.
        max: u64,
    },
    /// The file system refused an operation on an entry.
    #[error("cannot {action} {entry}: {}", io::Error::from(*.errno))]
    Entry {
        /// The entry.
        entry: EntryName,
        /// What was tried, a verb.
        action: &'static str,
        /// The answer of the kernel.
        errno: Errno,
    },
    /// The stage directory or the file of sums failed.
    #[error("cannot {action} the unpacked layer")]
    Stage {
        /// What was tried, a verb.
        action: &'static str,
        /// The answer of the kernel.
        #[source]
        source: io::Error,
    },
    /// The kernel has no `openat2` (before 5.6), without which paths are not resolved safely.
    #[error("the kernel has no openat2")]
    NoOpenat2,
    /// Reading the blob failed.
    #[error("cannot read the layer's bytes")]
    Input {
        /// What the reader answered; its cause is the caller's own error.
        #[source]
        source: io::Error,
    },
    /// The file of sums is damaged or of a newer version.
    #[error("the record of the unpacked layer is damaged: {what}")]
    Sums {
        /// What is wrong.
        what: &'static str,
    },
    /// The caller asked to stop.
    #[error("unpacking was cancelled")]
    Canceled,
}

impl LayerError {
    /// The class of this failure.
    pub fn reason(&self) -> Reason {
        match self {
            LayerError::Size { .. } => Reason::SizeMismatch,
            LayerError::Digest { .. } => Reason::DigestMismatch,
            LayerError::DiffId { .. } => Reason::DiffIdMismatch,
            LayerError::Compression { .. } => Reason::BadCompression,
            LayerError::Archive { .. } => Reason::BadArchive,
            LayerError::UnsafePath { .. } => Reason::UnsafePath,
            LayerError::UnsupportedEntry { .. } => Reason::UnsupportedEntry,
            LayerError::Limit { .. } => Reason::LimitExceeded,
            LayerError::Entry { errno, .. } => reason_of(*errno),
            LayerError::Stage { source, .. } => {
                source.raw_os_error().map_or(Reason::IoError, |code| reason_of(Errno::from_raw_os_error(code)))
            }
            LayerError::NoOpenat2 => Reason::NotPermitted,
            LayerError::Input { source } => match source.kind() {
                io::ErrorKind::TimedOut => Reason::Timeout,
                _ => Reason::IoError,
            },
            LayerError::Sums { .. } => Reason::IoError,
            LayerError::Canceled => Reason::Canceled,
        }
    }
}

fn reason_of(errno: Errno) -> Reason {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::MLINK => Reason::NoSpace,
        Errno::PERM | Errno::ACCESS => Reason::NotPermitted,
        _ => Reason::IoError,
    }
}

/// A failed system call and what it was for; the entry is added where it is known.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// What was tried, a verb.
    pub action: &'static str,
    /// The answer of the kernel.
    pub errno: Errno,
}

impl Failed {
    /// Says which entry it was about.
    pub fn at(self, entry: &[u8]) -> LayerError {
        if self.errno == Errno::NOSYS && self.action == RESOLVE {
            return LayerError::NoOpenat2;
        }
        LayerError::Entry { entry: EntryName::new(entry), action: self.action, errno: self.errno }
    }

    /// Says that it was about the stage itself.
    pub fn at_stage(self) -> LayerError {
        LayerError::Stage { action: self.action, source: self.errno.into() }
    }
}

/// The action of [`Failed`] for looking a name up.
pub(super) const RESOLVE: &str = "resolve";

/// Adds what was tried to a bare error number.
pub(super) trait Doing<T> {
    /// Names the action, a verb.
    ///
    /// # Errors
    /// The same failure with its action.
    fn doing(self, action: &'static str) -> Result<T, Failed>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, action: &'static str) -> Result<T, Failed> {
        self.map_err(|errno| Failed { action, errno })
    }
}
