//! Pull intents and pull records in the kubelet's own format.
use std::path::{Path, PathBuf};

/// The two directories of pull records.
#[derive(Clone, Debug)]
pub struct PullRecords {
    dir: PathBuf,
}

impl PullRecords {
    /// Records under `dir`, an `image_manager` directory.
    pub fn new(dir: &Path) -> PullRecords {
        PullRecords { dir: dir.to_owned() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
