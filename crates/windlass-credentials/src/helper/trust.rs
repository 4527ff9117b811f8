//! Which program may run: found in the listed directories, and written by nobody we do not trust.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{HelperError, HelperPolicy};

/// Longest name of a helper.
const MAX_NAME_BYTES: usize = 64;

/// Who may own helpers and the directories above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustedOwner {
    /// Root alone.
    #[default]
    Root,
    /// Root, or the user this process runs as. For people who keep helpers in their home.
    RootOrSelf,
}

impl TrustedOwner {
    fn includes(self, uid: u32) -> bool {
        match self {
            TrustedOwner::Root => uid == 0,
            TrustedOwner::RootOrSelf => uid == 0 || uid == rustix::process::geteuid().as_raw(),
        }
    }
}

/// The program of a helper. Blocks.
pub(super) fn find(policy: &HelperPolicy, name: &str) -> Result<PathBuf, HelperError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
        return Err(HelperError::Name);
    }
    let file = format!("docker-credential-{name}");
    for directory in policy.directories.iter().filter(|directory| directory.is_absolute()) {
        let Ok(path) = std::fs::canonicalize(directory.join(&file)) else { continue };
        check_program(policy.owner, directory, &path)?;
        return Ok(path);
    }
    Err(HelperError::Missing { name: name.to_owned() })
}

/// Whether a program, free of links, that was found in `directory` may run. Blocks.
pub(crate) fn check_program(owner: TrustedOwner, directory: &Path, path: &Path) -> Result<(), HelperError> {
    let metadata = std::fs::metadata(path).map_err(HelperError::Io)?;
    if !metadata.is_file() {
        return Err(untrusted(path, "it is not a regular file"));
    }
    check(owner, path, &metadata, "others may write to it", 0o022)?;
    for above in path.ancestors().skip(1).chain(link_directory(directory).iter().flat_map(|d| d.ancestors())) {
        let metadata = std::fs::metadata(above).map_err(HelperError::Io)?;
        // In a sticky directory such as /tmp others can add, but not replace.
        let forbidden =
            if metadata.mode() & 0o1000 != 0 && above != path.parent().unwrap_or(above) { 0 } else { 0o022 };
        check(owner, above, &metadata, "others may write to its directory", forbidden)?;
    }
    Ok(())
}

/// The directory in which a link to the program lies, itself free of links.
fn link_directory(directory: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(directory).ok()
}

fn check(
    owner: TrustedOwner,
    path: &Path,
    metadata: &Metadata,
    why_writable: &'static str,
    forbidden: u32,
) -> Result<(), HelperError> {
    if !owner.includes(metadata.uid()) {
        return Err(untrusted(path, "its owner is not trusted"));
    }
    if metadata.mode() & forbidden != 0 {
        return Err(untrusted(path, why_writable));
    }
    Ok(())
}

fn untrusted(path: &Path, why: &'static str) -> HelperError {
    HelperError::Untrusted { path: path.to_owned(), why }
}
