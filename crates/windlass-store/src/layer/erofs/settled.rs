//! The entries of an image file, being settled.

use windlass_erofs::{Attributes, Device, New, NodeId, Tree, TreeError};

use super::entries::{attributes, failed};
use crate::layer::error::Failed;
use crate::layer::rules::{Meta, components, split};
use crate::layer::settle::{Leave, Own};

/// The entries of a layer.
#[derive(Debug)]
pub(super) struct OwnEntries<'a>(pub(super) &'a mut Tree);

impl OwnEntries<'_> {
    /// The directory at a path, and whether it or one above it is opaque. The root counts as not opaque: overlayfs
    /// merges it whatever it says.
    fn directory(&self, path: &[u8]) -> Option<(NodeId, bool)> {
        let mut found = (self.0.root(), false);
        for name in components(path) {
            let id = self.0.find(found.0, name).filter(|&id| self.0.is_directory(id))?;
            found = (id, found.1 || self.0.is_opaque(id));
        }
        Some(found)
    }

    fn entry<'p>(&self, path: &'p [u8]) -> Option<(NodeId, &'p [u8], NodeId)> {
        let (parent, name) = split(path);
        let (dir, _) = self.directory(parent)?;
        Some((dir, name, self.0.find(dir, name)?))
    }

    fn remove(&mut self, dir: NodeId, name: &[u8]) -> Result<(), Failed> {
        self.0.remove(dir, name).map_err(|why| failed("remove", &why))
    }

    fn put_whiteout(&mut self, dir: NodeId, name: &[u8]) -> Result<(), Failed> {
        match self.0.insert(dir, name, New::Device(Device::WHITEOUT), &Attributes::default()) {
            Ok(_) | Err(TreeError::Taken) => Ok(()),
            Err(why) => Err(failed("create the whiteout", &why)),
        }
    }
}

impl Own for OwnEntries<'_> {
    fn hides_below(&mut self, dir: &[u8]) -> Result<Option<bool>, Failed> {
        Ok(self.directory(dir).map(|(_, hides)| hides))
    }

    fn remove_whiteout(&mut self, path: &[u8]) -> Result<(), Failed> {
        match self.entry(path) {
            Some((dir, name, id)) if self.0.is_whiteout(id) => self.remove(dir, name),
            Some(_) | None => Ok(()),
        }
    }

    fn give(&mut self, dir: &[u8], meta: &Meta) -> Result<(), Failed> {
        match self.directory(dir) {
            Some((id, _)) => self.0.set_attributes(id, &attributes(meta)).map_err(|why| failed("change", &why)),
            None => Ok(()),
        }
    }

    fn remove_empty(&mut self, dir: &[u8], leave: Leave) -> Result<(), Failed> {
        let Some((parent, name, id)) = self.entry(dir) else { return Ok(()) };
        if !self.0.is_directory(id) || !self.0.has_no_children(id) {
            return Ok(());
        }
        self.remove(parent, name)?;
        match leave {
            Leave::Nothing => Ok(()),
            Leave::Whiteout => self.put_whiteout(parent, name),
        }
    }

    fn hide(&mut self, name: &[u8]) -> Result<(), Failed> {
        let root = self.0.root();
        match self.0.find(root, name) {
            None => self.put_whiteout(root, name),
            Some(id) if self.0.is_directory(id) => self.0.set_opaque(id).map_err(|why| failed("mark as opaque", &why)),
            // A file or link of this layer hides what is below by itself.
            Some(_) => Ok(()),
        }
    }
}
