//! Where a tree is made before it has its name: all of it appears, or nothing does.
//!
//! Invariant: `nothing_appears_when_a_layer_is_wrong`.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use windlass_store::layer;

use crate::PullError;
use crate::archive::source::io_error;

/// What becomes the target.
pub(super) const TREE: &str = "tree";
/// Where a layer is extracted before it moves in.
pub(super) const SCRATCH: &str = "scratch";

/// The private directory beside the target. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub(super) struct Stage {
    path: PathBuf,
    target: PathBuf,
}

impl Stage {
    /// Makes it; the target must not exist, or be empty.
    pub(super) fn begin(target: &Path) -> Result<Stage, PullError> {
        match fs::read_dir(target) {
            Ok(entries) => {
                if entries.count() > 0 {
                    return Err(io_error(target, io::ErrorKind::DirectoryNotEmpty.into()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(target, error)),
        }
        let made = tempfile::Builder::new()
            .prefix(".windlass-unpack-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent(target));
        let path = made.map_err(|error| io_error(target, error))?.keep();
        let stage = Stage { path, target: target.to_owned() };
        for (name, mode) in [(TREE, 0o755), (SCRATCH, 0o700)] {
            let path = stage.path.join(name);
            let made = fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)));
            made.map_err(|error| io_error(&path, error))?;
        }
        Ok(stage)
    }

    /// Opens [`TREE`] or [`SCRATCH`].
    pub(super) fn open(&self, name: &str) -> Result<File, PullError> {
        let path = self.path.join(name);
        File::open(&path).map_err(|error| io_error(&path, error))
    }

    /// Lets the tree take the target's place.
    pub(super) fn finish(self) -> Result<(), PullError> {
        // An empty directory gives way to a rename; one that holds something does not.
        fs::rename(self.path.join(TREE), &self.target).map_err(|error| io_error(&self.target, error))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let removed = File::open(parent)
            .and_then(|dir| layer::remove_tree(dir.as_fd(), name.as_bytes()).map_err(io::Error::from));
        if let Err(error) = removed {
            tracing::warn!(%error, path = %self.path.display(), "left behind");
        }
    }
}

/// The directory that a path is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
