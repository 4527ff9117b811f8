//! Carries the entries of one layer into a [`Tree`]: parents, links in the way, collisions, whiteouts. One set of
//! rules for every form a layer can have.
//!
//! | the name is taken by | a directory comes | anything else comes | a whiteout comes |
//! | --- | --- | --- | --- |
//! | a directory of this layer | it stays, owner and mode are replaced | removed with all below it | it becomes opaque |
//! | a link or file of this layer | replaced; the directory is opaque | replaced | nothing |
//! | a whiteout of this layer | replaced; the directory is opaque | replaced | nothing |
//!
//! Whiteouts speak of the layers below only, wherever they stand in the archive. Layers are unpacked side by side, so
//! what needs the layers below is noted in [`Needs`]; with the layers below at hand ([`Below`]) it is done at once.
//!
//! Here is the way of every entry from the archive to the record; `entries` does what each kind asks for, `parents` finds
//! or makes the directory it belongs in, `hard_links` its target.
//!
//! Source of truth: OCI image-spec `layer.md`; the CVEs are named where they are answered.

mod directories;
mod entries;
mod hard_links;
mod parents;
mod zeros;

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;

use super::below::Below;
use super::error::{EntryName, LayerError};
use super::needs::{Implicit, Needs};
use super::rules::{Action, Meta, NodeKind, Rules, split};
use super::sums::{self, Content, Origin};
use super::tar::{Entry, Reader, Source};
use super::tree::Tree;
use super::{Progress, Step};
use directories::Directories;
pub(super) use zeros::append_zeros;

/// After how many entries the caller hears of progress.
const REPORT_ENTRIES: u64 = 256;

/// Memory for putting the record of a layer in order that names entries twice.
const SUMS_IN_MEMORY_MAX: u64 = 64 << 20;

/// What was made.
#[derive(Debug)]
pub(super) struct Applied<T> {
    pub(super) tree: T,
    pub(super) needs: Needs,
    pub(super) entries: u64,
}

impl<T> Applied<T> {
    pub(super) fn map<U>(self, what: impl FnOnce(T) -> U) -> Applied<U> {
        Applied { tree: what(self.tree), needs: self.needs, entries: self.entries }
    }
}

/// One layer on its way into a tree.
pub(super) struct Apply<'a, T: Tree> {
    pub(super) tree: T,
    rules: Rules<'a>,
    below: Option<Below>,
    /// The record of entries, for forms that need one beside them.
    sums: Option<sums::Writer>,
    progress: &'a dyn Progress,
    pub(super) needs: Needs,
    directories: Directories<T::Dir>,
    /// Links of lower layers that paths led through. What takes their place ends that.
    followed: HashSet<Vec<u8>>,
    whiteout_directories: u64,
    lookups: u64,
    entries: u64,
    overrides: bool,
}

impl<'a, T: Tree> Apply<'a, T> {
    pub(super) fn new(
        tree: T,
        rules: Rules<'a>,
        below: Option<Below>,
        sums: Option<sums::Writer>,
        progress: &'a dyn Progress,
    ) -> Result<Apply<'a, T>, LayerError> {
        let mut needs = Needs::default();
        needs.add_implicit(b"", Implicit { for_whiteouts: false, described: false }, rules.limits)?;
        needs.stacked = below.is_some();
        let directories = Directories::new(rules.limits.open_directories);
        let mut apply = Apply {
            tree,
            rules,
            below,
            sums,
            progress,
            needs,
            directories,
            followed: HashSet::new(),
            whiteout_directories: 0,
            lookups: 0,
            entries: 0,
            overrides: false,
        };
        if apply.needs.stacked {
            apply.record(b"", &Content::Stacked, &Meta::default(), Origin::Archive)?;
        }
        Ok(apply)
    }

    /// Takes every entry to the end of the stream.
    pub(super) fn run<S: Source>(&mut self, reader: &mut Reader<'_, S>) -> Result<(), LayerError> {
        let mut path = Vec::new();
        while reader.advance()? {
            self.count(reader.entry())?;
            let action = self.rules.judge(reader.entry(), &mut path)?;
            match self.entry(action, &path, reader) {
                Ok(()) => {}
                Err(error) if self.may_be_mistaken(&error) => {
                    // The verdict is left to an extraction with the layers below; the stream is still verified.
                    self.unresolved(&path)?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        reader.drain()
    }

    fn entry<S: Source>(&mut self, action: Action, path: &[u8], reader: &mut Reader<'_, S>) -> Result<(), LayerError> {
        match action {
            Action::Skip => Ok(()),
            Action::Whiteout => self.whiteout(path),
            Action::Opaque => self.opaque(path),
            Action::Node(NodeKind::File) => self.file(path, reader),
            Action::Node(kind) => self.node(path, kind, reader.entry()),
        }
    }

    /// Whether an entry is refused because of what was only assumed about the layers below.
    fn may_be_mistaken(&self, error: &LayerError) -> bool {
        let by_structure = matches!(error, LayerError::Archive { .. } | LayerError::UnsafePath { .. });
        // The root is always there without an entry.
        by_structure && self.below.is_none() && self.needs.implicit.keys().any(|path| !path.is_empty())
    }

    /// Writes what had to wait for the last entry, and ends the record.
    pub(super) fn finish(mut self) -> Result<Applied<T>, LayerError> {
        if self.needs.implicit.contains_key(&b""[..]) {
            self.record(b"", &Content::Directory, &Meta::implicit_directory(), Origin::Implicit)?;
        }
        if let Some(sums) = self.sums.take() {
            let max = SUMS_IN_MEMORY_MAX;
            let file = sums.finish(self.overrides, max).map_err(|source| match source.kind() {
                std::io::ErrorKind::FileTooLarge => {
                    LayerError::Limit { entry: EntryName::default(), limit: "layerRepeatedBytes", max }
                }
                _ => LayerError::Stage { action: "write the record of", source },
            })?;
            self.finish_directories(file)?;
        }
        let step = Step { entries: self.entries % REPORT_ENTRIES, ..Step::default() };
        if self.progress.advance(step).is_break() {
            return Err(LayerError::Canceled);
        }
        Ok(Applied { tree: self.tree, needs: self.needs, entries: self.entries })
    }

    fn finish_directories(&mut self, sums: File) -> Result<(), LayerError> {
        for record in sums::Reader::new(sums)? {
            let record = record?;
            if record.content != Content::Directory {
                continue;
            }
            let (parent, name) = split(&record.path);
            let Some(dir) = self.existing_directory(parent)? else { continue };
            self.tree.finish_directory(&dir, name, &record.meta).map_err(|failed| failed.at(&record.path))?;
        }
        Ok(())
    }

    fn count(&mut self, entry: &Entry) -> Result<(), LayerError> {
        self.entries += 1;
        let max = self.rules.limits.entries;
        if self.entries > max {
            return Err(LayerError::Limit { entry: EntryName::new(&entry.name), limit: "layerEntries", max });
        }
        let max = self.rules.limits.metadata_bytes;
        if self.tree.memory_bytes() > max {
            return Err(LayerError::Limit { entry: EntryName::new(&entry.name), limit: "layerMetadataBytes", max });
        }
        if self.entries.is_multiple_of(REPORT_ENTRIES) {
            let step = Step { entries: REPORT_ENTRIES, ..Step::default() };
            if let ControlFlow::Break(()) = self.progress.advance(step) {
                return Err(LayerError::Canceled);
            }
        }
        Ok(())
    }

    fn record(&mut self, path: &[u8], content: &Content, meta: &Meta, origin: Origin) -> Result<(), LayerError> {
        match &mut self.sums {
            Some(sums) => sums
                .put(path, content, meta, origin)
                .map_err(|source| LayerError::Stage { action: "write the record of", source }),
            None => Ok(()),
        }
    }
}

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
