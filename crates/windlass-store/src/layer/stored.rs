//! A finished layer, opened, whatever its form.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use windlass_erofs::Image;

use super::dir::resolve;
use super::error::{Doing, Failed, LayerError};
use super::{IMAGE, TREE, erofs};

/// A layer that others can lie on. A clone is the same open layer.
#[derive(Clone, Debug)]
pub enum Stored {
    /// The root of a tree of files.
    Directory(Arc<OwnedFd>),
    /// An image file.
    Image(Arc<Image<File>>),
}

impl Stored {
    /// Opens what a stage or snapshot holds.
    ///
    /// # Errors
    /// [`LayerError::Stage`] when it holds no layer.
    pub fn open(snapshot: BorrowedFd<'_>) -> Result<Stored, LayerError> {
        match resolve::open_file(snapshot, IMAGE.as_bytes()) {
            Ok(fd) => Ok(Stored::Image(Arc::new(erofs::opened(fd.into())?))),
            Err(Errno::NOENT) => resolve::open_directory(snapshot, TREE.as_bytes(), OFlags::RDONLY)
                .map(|fd| Stored::Directory(Arc::new(fd)))
                .doing("open")
                .map_err(Failed::at_stage),
            Err(errno) => Err(Failed { action: "open", errno }.at_stage()),
        }
    }

    /// A tree of files that is no snapshot of ours.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn plain(root: BorrowedFd<'_>) -> Result<Stored, LayerError> {
        resolve::reopen(root).map(|fd| Stored::Directory(Arc::new(fd))).map_err(Failed::at_stage)
    }

    /// The directory that reading it needs beside open descriptors.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stored::Directory(root) => Some(root.as_fd()),
            Stored::Image(_) => None,
        }
    }
}
