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
//! Source of truth: OCI image-spec `layer.md`; the CVEs are named where they are answered.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::ControlFlow;

use super::below::{Below, Lower};
use super::dir::chain::shared_directories;
use super::error::{EntryName, Failed, LayerError};
use super::needs::{Implicit, Needs};
use super::part::{Node, NodeIs};
use super::rules::{Action, Meta, NodeKind, Rules, components, split};
use super::sums::{self, Content, Origin};
use super::tar::{Entry, Piece, Reader, Source};
use super::tree::{self, Found, Made, Tree};
use super::{Progress, Step};

/// Links followed for one path, as in the kernel.
const LINKS_MAX: u32 = 40;

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

/// What a directory is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Content,
    Whiteout,
}

/// What the layers below have in a path's way.
enum Passed {
    /// A link with this text.
    Link(Vec<u8>),
    /// A file, device or pipe.
    File,
    /// A directory, or nothing.
    Nothing,
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

    // ---- entries

    fn file<S: Source>(&mut self, path: &[u8], reader: &mut Reader<'_, S>) -> Result<(), LayerError> {
        let meta = self.rules.meta(reader.entry())?;
        let (parent, name) = split(path);
        let dir = self.directory(parent, Purpose::Content)?;
        let size_bytes = reader.entry().size_bytes;
        let mut file = self.place(&dir, name, path, |tree| tree.make_file(&dir, name, &meta, size_bytes))?;
        let (mut crc32c, summed) = (0, self.sums.is_some());
        loop {
            let position = reader.position();
            match reader.data()? {
                Piece::Data(bytes) => {
                    if summed {
                        crc32c = crc32c::crc32c_append(crc32c, bytes);
                    }
                    self.tree
                        .write(&mut file, bytes, tree::Source::Archive(position))
                        .map_err(|failed| failed.at(path))?;
                }
                Piece::Hole(bytes) => {
                    if summed {
                        crc32c = append_zeros(crc32c, bytes);
                    }
                    self.tree.hole(&mut file, bytes).map_err(|failed| failed.at(path))?;
                }
                Piece::End => break,
            }
        }
        self.tree.close(file, &meta).map_err(|failed| failed.at(path))?;
        let path = joined(self.tree.path(&dir), name);
        self.record(&path, &Content::File { size_bytes, crc32c }, &meta, Origin::Archive)
    }

    fn node(&mut self, path: &[u8], kind: NodeKind, entry: &Entry) -> Result<(), LayerError> {
        let meta = self.rules.meta(entry)?;
        if path.is_empty() {
            return self.root(&meta);
        }
        let (parent, name) = split(path);
        let dir = self.directory(parent, Purpose::Content)?;
        let full = joined(self.tree.path(&dir), name);
        let content = match kind {
            NodeKind::Directory => return self.make_directory(&dir, name, &full, &meta),
            NodeKind::HardLink => return self.hard_link(&dir, name, &full, entry),
            NodeKind::Symlink => {
                self.place(&dir, name, path, |tree| tree.make_symlink(&dir, name, &entry.link, &meta))?;
                Content::Symlink(entry.link.clone())
            }
            NodeKind::Device(device) => {
                self.place(&dir, name, path, |tree| tree.make_special(&dir, name, Some(device), &meta))?;
                Content::Device(device)
            }
            NodeKind::Fifo => {
                self.place(&dir, name, path, |tree| tree.make_special(&dir, name, None, &meta))?;
                Content::Fifo
            }
            // Files have data and go their own way.
            NodeKind::File => return Ok(()),
        };
        self.record(&full, &content, &meta, Origin::Archive)
    }

    fn root(&mut self, meta: &Meta) -> Result<(), LayerError> {
        let root = self.tree.root();
        self.tree.update_directory(&root, meta).map_err(|failed| failed.at(b"/"))?;
        self.overrides |= self.needs.implicit.remove(&b""[..]).is_none();
        self.record(b"", &Content::Directory, meta, Origin::Archive)
    }

    fn make_directory(&mut self, dir: &T::Dir, name: &[u8], full: &[u8], meta: &Meta) -> Result<(), LayerError> {
        self.end_following(dir, name);
        if let Made::Taken = self.tree.make_directory(dir, name, meta).map_err(|failed| failed.at(full))? {
            self.overrides = true;
            match self.tree.find(dir, name).map_err(|failed| failed.at(full))? {
                Found::Directory(existing) => {
                    self.tree.update_directory(&existing, meta).map_err(|failed| failed.at(full))?;
                    self.describe(full)?;
                }
                Found::Absent | Found::Symlink(_) | Found::Whiteout | Found::Other => {
                    self.clear(dir, name)?;
                    self.place(dir, name, full, |tree| tree.make_directory(dir, name, meta))?;
                    self.record(full, &Content::Directory, meta, Origin::Archive)?;
                    return self.mark_opaque(dir, name, full);
                }
            }
        }
        self.record(full, &Content::Directory, meta, Origin::Archive)
    }

    fn mark_opaque(&mut self, dir: &T::Dir, name: &[u8], full: &[u8]) -> Result<(), LayerError> {
        if let Found::Directory(made) = self.tree.find(dir, name).map_err(|failed| failed.at(full))? {
            self.tree.make_opaque(&made).map_err(|failed| failed.at(full))?;
        }
        self.record(full, &Content::Opaque, &Meta::default(), Origin::Archive)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let (parent, name) = split(path);
        let Some(dir) = self.resolve(parent, Some(Purpose::Whiteout))? else { return Ok(()) };
        let full = joined(self.tree.path(&dir), name);
        self.end_following(&dir, name);
        if let Made::Taken = self.tree.make_whiteout(&dir, name).map_err(|failed| failed.at(path))? {
            let Found::Directory(own) = self.tree.find(&dir, name).map_err(|failed| failed.at(path))? else {
                // What this layer has there hides the layers below by itself.
                return Ok(());
            };
            match self.needs.implicit.get(&full) {
                Some(Implicit { for_whiteouts: true, described: false }) => {
                    // It was to hide parts of a directory that goes as a whole.
                    self.clear(&dir, name)?;
                    self.place(&dir, name, path, |tree| tree.make_whiteout(&dir, name))?;
                }
                Some(_) | None => {
                    if self.describe(&full)? {
                        // Nothing is left below whose owner and mode it could take.
                        let meta = Meta::implicit_directory();
                        self.record(&full, &Content::Directory, &meta, Origin::Archive)?;
                    }
                    self.directories.clear();
                    self.tree.make_opaque(&own).map_err(|failed| failed.at(path))?;
                    self.overrides = true;
                    return self.record(&full, &Content::Opaque, &Meta::default(), Origin::Archive);
                }
            }
        }
        self.needs.add_whiteout(&full, self.rules.limits)?;
        self.record(&full, &Content::Whiteout, &Meta::default(), Origin::Archive)
    }

    /// A directory without an entry has one now; says whether it was one.
    fn describe(&mut self, full: &[u8]) -> Result<bool, LayerError> {
        let Some(implicit) = self.needs.implicit.get_mut(full).filter(|implicit| !implicit.described) else {
            return Ok(false);
        };
        implicit.described = true;
        self.record(full, &Content::Assumed, &Meta::default(), Origin::Archive)?;
        Ok(true)
    }

    fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let Some(dir) = self.resolve(path, Some(Purpose::Whiteout))? else { return Ok(()) };
        let full = self.tree.path(&dir).to_vec();
        self.needs.root_opaque |= full.is_empty();
        // What is open does not know of the mark.
        self.directories.clear();
        self.tree.make_opaque(&dir).map_err(|failed| failed.at(path))?;
        self.overrides = true;
        self.record(&full, &Content::Opaque, &Meta::default(), Origin::Archive)
    }

    // ---- collisions

    /// Makes something that is no directory; what has its name gives way (never followed: CVE-2021-32760,
    /// CVE-2026-33056), other names of the old file keep their content (RUSTSEC-2018-0002).
    fn place<X>(
        &mut self,
        dir: &T::Dir,
        name: &[u8],
        path: &[u8],
        mut make: impl FnMut(&mut T) -> Result<Made<X>, Failed>,
    ) -> Result<X, LayerError> {
        self.end_following(dir, name);
        if let Made::New(made) = make(&mut self.tree).map_err(|failed| failed.at(path))? {
            return Ok(made);
        }
        self.clear(dir, name)?;
        match make(&mut self.tree).map_err(|failed| failed.at(path))? {
            Made::New(made) => Ok(made),
            Made::Taken => Err(Failed { action: "replace", errno: rustix::io::Errno::EXIST }.at(path)),
        }
    }

    /// Something is about to stand where a lower layer's link was followed.
    fn end_following(&mut self, dir: &T::Dir, name: &[u8]) {
        if !self.followed.is_empty() && self.followed.remove(&joined(self.tree.path(dir), name)) {
            self.directories.clear();
        }
    }

    fn clear(&mut self, dir: &T::Dir, name: &[u8]) -> Result<(), LayerError> {
        let full = joined(self.tree.path(dir), name);
        self.tree.remove(dir, name).map_err(|failed| failed.at(&full))?;
        self.overrides = true;
        self.directories.clear();
        for assumed in self.needs.forget_below(&full) {
            self.record(&assumed, &Content::Assumed, &Meta::default(), Origin::Archive)?;
        }
        self.record(&full, &Content::Removed, &Meta::default(), Origin::Archive)
    }

    // ---- hard links

    fn hard_link(&mut self, dir: &T::Dir, name: &[u8], full: &[u8], entry: &Entry) -> Result<(), LayerError> {
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

    fn unresolved(&mut self, full: &[u8]) -> Result<(), LayerError> {
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

    // ---- directories

    /// The directory that a cleaned path leads to, links resolved inside the root, missing ones made.
    fn directory(&mut self, path: &[u8], purpose: Purpose) -> Result<T::Dir, LayerError> {
        match self.resolve(path, Some(purpose))? {
            Some(dir) => Ok(dir),
            None => Err(Failed { action: "create", errno: rustix::io::Errno::NOENT }.at(path)),
        }
    }

    /// The same, but nothing is made: none if a part is missing in this layer.
    fn existing_directory(&mut self, path: &[u8]) -> Result<Option<T::Dir>, LayerError> {
        self.resolve(path, None)
    }

    fn resolve(&mut self, path: &[u8], make: Option<Purpose>) -> Result<Option<T::Dir>, LayerError> {
        let (mut known, mut dir) = self.directories.nearest(path).unwrap_or_else(|| (0, self.tree.root()));
        while known < path.len() {
            let from = if known == 0 { 0 } else { known + 1 };
            known = path[from..].iter().position(|&b| b == b'/').map_or(path.len(), |at| from + at);
            match self.walk(dir, &path[from..known], path, make)? {
                Some(next) => dir = next,
                None => return Ok(None),
            }
            self.directories.keep(&path[..known], &dir);
        }
        if make == Some(Purpose::Content) && self.whiteout_directories > 0 {
            self.lookups += self.needs.used_for_content(self.tree.path(&dir));
        }
        Ok(Some(dir))
    }

    /// One step down, over the links that stand in the way.
    fn walk(
        &mut self,
        start: T::Dir,
        name: &[u8],
        path: &[u8],
        make: Option<Purpose>,
    ) -> Result<Option<T::Dir>, LayerError> {
        let mut todo = vec![name.to_vec()];
        let (mut dir, mut links) = (start, 0);
        while let Some(name) = todo.pop() {
            self.lookups += 1;
            if self.lookups > self.rules.limits.lookups {
                let max = self.rules.limits.lookups;
                return Err(LayerError::Limit { entry: EntryName::new(path), limit: "layerLookups", max });
            }
            if name == b".." {
                let up = split(self.tree.path(&dir)).0.to_vec();
                // This path has no links, so it does not come back here.
                let Some(parent) = self.existing_directory(&up)? else { return Ok(None) };
                dir = parent;
                continue;
            }
            let text = match self.tree.find(&dir, &name).map_err(|failed| failed.at(path))? {
                Found::Directory(next) => {
                    dir = next;
                    continue;
                }
                Found::Symlink(text) => text,
                Found::Other => {
                    let what = "its parent is not a directory";
                    return Err(LayerError::Archive { entry: EntryName::new(path), what });
                }
                Found::Whiteout => {
                    // Below something that this layer removes there is nothing to hide.
                    let Some(Purpose::Content) = make else { return Ok(None) };
                    self.clear(&dir, &name)?;
                    dir = self.after_whiteout(&dir, &name)?;
                    continue;
                }
                Found::Absent => match self.passed_below(&dir, &name)? {
                    Passed::Link(text) => text,
                    // A file has nothing in it to hide.
                    Passed::File if make == Some(Purpose::Whiteout) => return Ok(None),
                    Passed::File | Passed::Nothing => {
                        let Some(purpose) = make else { return Ok(None) };
                        dir = self.implicit(&dir, &name, purpose)?;
                        continue;
                    }
                },
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(LayerError::UnsafePath { entry: EntryName::new(path), what: "its links form a loop" });
            }
            if text.starts_with(b"/") {
                dir = self.tree.root();
            }
            todo.extend(components(&text).rev().filter(|part| *part != b".").map(<[u8]>::to_vec));
        }
        Ok(Some(dir))
    }

    /// What a lower layer has under this name that a path cannot simply go through.
    fn passed_below(&mut self, dir: &T::Dir, name: &[u8]) -> Result<Passed, LayerError> {
        let Some(below) = &mut self.below else { return Ok(Passed::Nothing) };
        if self.needs.root_opaque || self.tree.hides_below(dir) {
            return Ok(Passed::Nothing);
        }
        let path = joined(self.tree.path(dir), name);
        match below.find(&path).map_err(|failed| failed.at(&path))? {
            Lower::Symlink(text, _) => {
                if !self.followed.contains(&path) {
                    self.needs.account(&path, self.rules.limits)?;
                    self.followed.insert(path);
                }
                Ok(Passed::Link(text))
            }
            Lower::Other(_) => Ok(Passed::File),
            Lower::Absent | Lower::Directory(_) => Ok(Passed::Nothing),
        }
    }

    /// A parent without an entry.
    fn implicit(&mut self, dir: &T::Dir, name: &[u8], purpose: Purpose) -> Result<T::Dir, LayerError> {
        let for_whiteouts = purpose == Purpose::Whiteout;
        if !for_whiteouts && self.whiteout_directories > 0 {
            self.lookups += self.needs.used_for_content(self.tree.path(dir));
        }
        let (full, made) = self.make_parent(dir, name, Origin::Implicit)?;
        self.whiteout_directories += u64::from(for_whiteouts);
        self.needs.add_implicit(&full, Implicit { for_whiteouts, described: false }, self.rules.limits)?;
        Ok(made)
    }

    /// A parent without an entry whose name this layer removed from the layers below.
    fn after_whiteout(&mut self, dir: &T::Dir, name: &[u8]) -> Result<T::Dir, LayerError> {
        let (full, made) = self.make_parent(dir, name, Origin::Archive)?;
        self.tree.make_opaque(&made).map_err(|failed| failed.at(&full))?;
        self.record(&full, &Content::Opaque, &Meta::default(), Origin::Archive)?;
        // Opened anew: what was open does not know of the mark.
        self.open_made(dir, name, &full)
    }

    fn make_parent(&mut self, dir: &T::Dir, name: &[u8], origin: Origin) -> Result<(Vec<u8>, T::Dir), LayerError> {
        let full = joined(self.tree.path(dir), name);
        let limits = self.rules.limits;
        if name.len() > limits.component_bytes {
            let max = limits.component_bytes as u64;
            return Err(LayerError::Limit { entry: EntryName::new(&full), limit: "componentBytes", max });
        }
        if components(&full).count() > limits.depth {
            let max = limits.depth as u64;
            return Err(LayerError::Limit { entry: EntryName::new(&full), limit: "directoryDepth", max });
        }
        let meta = Meta::implicit_directory();
        self.place(dir, name, &full, |tree| tree.make_directory(dir, name, &meta))?;
        self.record(&full, &Content::Directory, &meta, origin)?;
        let made = self.open_made(dir, name, &full)?;
        Ok((full, made))
    }

    fn open_made(&mut self, dir: &T::Dir, name: &[u8], full: &[u8]) -> Result<T::Dir, LayerError> {
        match self.tree.find(dir, name).map_err(|failed| failed.at(full))? {
            Found::Directory(made) => Ok(made),
            Found::Absent | Found::Symlink(_) | Found::Whiteout | Found::Other => {
                Err(Failed { action: "create", errno: rustix::io::Errno::NOTDIR }.at(full))
            }
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

/// The checksum after so many zeros, without making them.
pub(super) fn append_zeros(crc: u32, mut count: u64) -> u32 {
    const CHUNK: usize = 4096;
    let (mut crc, mut power, mut length) = (crc, crc32c::crc32c(&[0; CHUNK]), CHUNK);
    let rest = usize::try_from(count % CHUNK as u64).unwrap_or_default();
    crc = crc32c::crc32c_append(crc, &[0; CHUNK][..rest]);
    count /= CHUNK as u64;
    while count > 0 {
        if count & 1 == 1 {
            crc = crc32c::crc32c_combine(crc, power, length);
        }
        power = crc32c::crc32c_combine(power, power, length);
        length = length.saturating_mul(2);
        count >>= 1;
    }
    crc
}

/// Directories kept open by the path that led to them: the ones used lately, in two generations.
#[derive(Debug)]
struct Directories<D> {
    young: HashMap<Vec<u8>, D>,
    old: HashMap<Vec<u8>, D>,
    half: usize,
    last: Option<(Vec<u8>, D)>,
}

impl<D: Clone> Directories<D> {
    fn new(max: usize) -> Directories<D> {
        Directories { young: HashMap::new(), old: HashMap::new(), half: max.div_ceil(2), last: None }
    }

    /// The directory at a path, or one above it, and how much of the path leads there. A handful of prefixes is tried:
    /// a path may have thousands.
    fn nearest(&mut self, path: &[u8]) -> Option<(usize, D)> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Some((path.len(), dir.clone()));
        }
        let shared = self.last.as_ref().map_or(0, |(last, _)| shared_directories(last, path));
        for length in [path.len(), split(path).0.len(), shared] {
            if length > 0
                && let Some(dir) = self.get(&path[..length])
            {
                return Some((length, dir));
            }
        }
        None
    }

    fn get(&mut self, path: &[u8]) -> Option<D> {
        if let Some(dir) = self.young.get(path) {
            let dir = dir.clone();
            self.last = Some((path.to_vec(), dir.clone()));
            return Some(dir);
        }
        let (path, dir) = self.old.remove_entry(path)?;
        self.keep(&path, &dir);
        Some(dir)
    }

    fn keep(&mut self, path: &[u8], dir: &D) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(path.to_vec(), dir.clone());
        self.last = Some((path.to_vec(), dir.clone()));
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_summed_without_being_made() {
        for count in [0usize, 1, 511, 4096, 4097, 1_000_000] {
            let zeros = vec![0; count];
            let want = crc32c::crc32c_append(crc32c::crc32c(b"windlass"), &zeros);
            assert_eq!(append_zeros(crc32c::crc32c(b"windlass"), count as u64), want, "{count} zeros");
        }
    }
}
