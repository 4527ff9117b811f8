//! A layer in an image file, seen by the layers above it.

use std::fs::File;
use std::sync::Arc;

use rustix::io::Errno;
use windlass_erofs::{Attributes, Image, Inode, Kind, ReadError};

use crate::layer::error::Failed;
use crate::layer::part::{Found, Node, NodeIs, Part};
use crate::layer::rules::{Device, Meta, Rules};
use crate::layer::tar::Time;

/// An entry of an image file.
#[derive(Clone, Debug)]
pub(in crate::layer) struct Lower {
    image: Arc<Image<File>>,
    inode: Inode,
}

fn unreadable(why: ReadError) -> Failed {
    let errno = match &why {
        ReadError::Io(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
        // What the kernel says of a damaged file system.
        _ => Errno::UCLEAN,
    };
    Failed { action: "read the layers below of", errno }
}

impl Lower {
    /// The root.
    pub(in crate::layer) fn root(image: &Arc<Image<File>>) -> Result<Lower, Failed> {
        let inode = image.inode(image.root()).map_err(unreadable)?;
        Ok(Lower { image: Arc::clone(image), inode })
    }

    /// What stands under a name of this directory.
    pub(in crate::layer) fn find(&self, name: &[u8]) -> Result<Found, Failed> {
        let found = self.image.lookup(&self.inode, name).map_err(unreadable)?;
        let Some(nid) = found else { return Ok(Found::Absent) };
        let inode = self.image.inode(nid).map_err(unreadable)?;
        let entry = Lower { image: Arc::clone(&self.image), inode };
        Ok(match entry.inode.kind {
            Kind::Directory => {
                let opaque = self.image.is_opaque(&entry.inode).map_err(unreadable)?;
                Found::Directory { part: Part::Image(entry), opaque }
            }
            Kind::Symlink => {
                let text = self.image.link_text(&entry.inode).map_err(unreadable)?;
                Found::Symlink(text, Node::Image(entry))
            }
            Kind::Device(windlass_erofs::Device::WHITEOUT) => Found::Whiteout,
            Kind::File | Kind::Device(_) | Kind::Fifo => Found::Other(Node::Image(entry)),
        })
    }

    pub(in crate::layer) fn meta(&self, rules: &Rules<'_>) -> Result<Meta, Failed> {
        let Attributes { mode, uid, gid, mtime, mut xattrs } =
            self.image.attributes(&self.inode).map_err(unreadable)?;
        xattrs.retain(|(name, _)| rules.keeps_xattr(name));
        Ok(Meta { mode, uid, gid, mtime: Time { seconds: mtime.seconds, nanos: mtime.nanos }, xattrs })
    }

    pub(in crate::layer) fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failed> {
        for entry in self.image.list(&self.inode).map_err(unreadable)? {
            each(&entry.map_err(unreadable)?.name);
        }
        Ok(())
    }

    pub(in crate::layer) fn is(&self) -> NodeIs {
        match self.inode.kind {
            Kind::File => NodeIs::File { size_bytes: self.inode.size_bytes },
            Kind::Device(windlass_erofs::Device { block, major, minor }) => {
                NodeIs::Device(Device { block, major, minor })
            }
            Kind::Fifo | Kind::Directory | Kind::Symlink => NodeIs::Fifo,
        }
    }

    /// Bytes of the file from an offset on; none at its end.
    pub(in crate::layer) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Failed> {
        self.image.read(&self.inode, offset, buffer).map_err(unreadable)
    }
}
