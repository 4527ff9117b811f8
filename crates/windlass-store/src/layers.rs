//! The one place where the store touches the form of an unpacked layer.
use crate::error::StoreError;
use crate::layer::{LayerError, Progress};
use crate::store::Store;
use crate::work::LayerKey;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// The tree inside a stage or snapshot.
pub(crate) const TREE: &str = "fs";
#[derive(Debug)]
pub(crate) struct Extracted;
impl Extracted {
    pub(crate) fn needs_nothing(&self) -> bool {
        true
    }
    pub(crate) fn size_bytes(&self) -> u64 {
        0
    }
    pub(crate) fn entries(&self) -> u64 {
        0
    }
}
pub(crate) enum Settled {
    Done,
    Redo,
}
pub(crate) fn extract(
    _: &mut dyn BufRead,
    key: &LayerKey,
    _: &Store,
    _: &Path,
    _: Option<&[PathBuf]>,
    _: &dyn Progress,
) -> Result<Extracted, StoreError> {
    Err(StoreError::Layer { blob: key.layer.blob.clone(), source: LayerError::Canceled })
}
pub(crate) fn settle(_: &Path, _: &mut Extracted, lowers: &[PathBuf]) -> Result<Settled, StoreError> {
    Ok(if lowers.len() > 1000 { Settled::Redo } else { Settled::Done })
}
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("remove", path, source)),
    }
}
