//! Hard links: to what this layer has, or with the layers below at hand to what they have, which is copied up first.

use super::parents::Purpose;
use super::{Apply, joined};
use crate::layer::below::Lower;
use crate::layer::error::{EntryName, LayerError};
use crate::layer::part::{Node, NodeIs};
use crate::layer::rules::{Meta, split};
use crate::layer::sums::{Content, Origin};
use crate::layer::tar::Entry;
use crate::layer::tree::{self, Found, Tree};

impl<T: Tree> Apply<'_, T> {
    pub(super) fn hard_link(
        &mut self,
        dir: &T::Dir,
        name: &[u8],
        full: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let refuse = |what| LayerError::Archive { entry: EntryName::new(&entry.name), what };
        let mut target = Vec::new();
        self.rules.link_target(entry, &mut target)?;
        if target.is_empty() {
            return Err(refuse("a hard link to the root"));
        }
        let (target_parent, target_name) = split(&target);
        let stacked = self.below.is_some();
        let found = if stacked {
            Some(self.directory(target_parent, Purpose::Content)?)
        } else {
            self.existing_directory(target_parent)?
        };
        let Some(target_dir) = found else { return self.unresolved(full) };
        let target_full = joined(self.tree.path(&target_dir), target_name);
        if target_full == full {
            return Err(refuse("a hard link to itself"));
        }
        if target_full.strip_prefix(full).is_some_and(|rest| rest.starts_with(b"/")) {
            return Err(refuse("a hard link in place of the directory that holds its target"));
        }
        match self.tree.find(&target_dir, target_name).map_err(|failed| failed.at(&target))? {
            Found::Symlink(_) | Found::Other => {}
            Found::Directory(_) => return Err(refuse("a hard link to a directory")),
            Found::Whiteout => return Err(refuse("a hard link to something that this layer removes")),
            Found::Absent if !stacked => return self.unresolved(full),
            Found::Absent => self.copy_up(&target_dir, target_name, &target_full, &refuse)?,
        }
        self.place(dir, name, full, |tree| tree.make_link(dir, name, &target_dir, target_name))?;
        self.record(full, &Content::HardLink(target_full), &Meta::default(), Origin::Archive)
    }

    pub(super) fn unresolved(&mut self, full: &[u8]) -> Result<(), LayerError> {
        self.needs.redo = true;
        self.record(full, &Content::Unresolved, &Meta::default(), Origin::Archive)
    }

    /// Brings a lower layer's file into this layer, as overlayfs does when it is linked to.
    fn copy_up(
        &mut self,
        dir: &T::Dir,
        name: &[u8],
        full: &[u8],
        refuse: &dyn Fn(&'static str) -> LayerError,
    ) -> Result<(), LayerError> {
        let lower = match &mut self.below {
            Some(below) if !self.needs.root_opaque && !self.tree.hides_below(dir) => {
                below.find(full).map_err(|failed| failed.at(full))?
            }
            Some(_) | None => Lower::Absent,
        };
        match lower {
            Lower::Absent => Err(refuse("a hard link to something that does not exist")),
            Lower::Directory(_) => Err(refuse("a hard link to a directory")),
            Lower::Symlink(text, node) => {
                let meta = node.meta(&self.rules).map_err(|failed| failed.at(full))?;
                self.place(dir, name, full, |tree| tree.make_symlink(dir, name, &text, &meta))?;
                self.record(full, &Content::Symlink(text), &meta, Origin::CopiedUp)
            }
            Lower::Other(node) => self.copy_up_node(dir, name, full, &node),
        }
    }

    fn copy_up_node(&mut self, dir: &T::Dir, name: &[u8], full: &[u8], node: &Node) -> Result<(), LayerError> {
        let meta = node.meta(&self.rules).map_err(|failed| failed.at(full))?;
        let device = match node.is() {
            NodeIs::Device(device) => Some(device),
            NodeIs::Fifo => None,
            NodeIs::File { size_bytes } => {
                let mut file = self.place(dir, name, full, |tree| tree.make_file(dir, name, &meta, size_bytes))?;
                let mut crc32c = 0;
                node.content(|bytes| {
                    crc32c = crc32c::crc32c_append(crc32c, bytes);
                    self.tree.write(&mut file, bytes, tree::Source::Below)
                })
                .map_err(|failed| failed.at(full))?;
                self.tree.close(file, &meta).map_err(|failed| failed.at(full))?;
                return self.record(full, &Content::File { size_bytes, crc32c }, &meta, Origin::CopiedUp);
            }
        };
        self.place(dir, name, full, |tree| tree.make_special(dir, name, device, &meta))?;
        let content = device.map_or(Content::Fifo, Content::Device);
        self.record(full, &content, &meta, Origin::CopiedUp)
    }
}
