//! What each kind of entry does to the tree, and what gives way where its name is taken: the table of [`super`], row by row.

use super::parents::Purpose;
use super::zeros::append_zeros;
use super::{Apply, joined};
use crate::layer::error::{Failed, LayerError};
use crate::layer::needs::Implicit;
use crate::layer::rules::{Meta, NodeKind, split};
use crate::layer::sums::{Content, Origin};
use crate::layer::tar::{Entry, Piece, Reader, Source};
use crate::layer::tree::{self, Found, Made, Tree};

impl<T: Tree> Apply<'_, T> {
    pub(super) fn file<S: Source>(&mut self, path: &[u8], reader: &mut Reader<'_, S>) -> Result<(), LayerError> {
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

    pub(super) fn node(&mut self, path: &[u8], kind: NodeKind, entry: &Entry) -> Result<(), LayerError> {
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

    pub(super) fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
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

    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let Some(dir) = self.resolve(path, Some(Purpose::Whiteout))? else { return Ok(()) };
        let full = self.tree.path(&dir).to_vec();
        self.needs.root_opaque |= full.is_empty();
        // What is open does not know of the mark.
        self.directories.clear();
        self.tree.make_opaque(&dir).map_err(|failed| failed.at(path))?;
        self.overrides = true;
        self.record(&full, &Content::Opaque, &Meta::default(), Origin::Archive)
    }

    /// Makes something that is no directory; what has its name gives way (never followed: CVE-2021-32760,
    /// CVE-2026-33056), other names of the old file keep their content (RUSTSEC-2018-0002).
    pub(super) fn place<X>(
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
    pub(super) fn end_following(&mut self, dir: &T::Dir, name: &[u8]) {
        if !self.followed.is_empty() && self.followed.remove(&joined(self.tree.path(dir), name)) {
            self.directories.clear();
        }
    }

    pub(super) fn clear(&mut self, dir: &T::Dir, name: &[u8]) -> Result<(), LayerError> {
        let full = joined(self.tree.path(dir), name);
        self.tree.remove(dir, name).map_err(|failed| failed.at(&full))?;
        self.overrides = true;
        self.directories.clear();
        for assumed in self.needs.forget_below(&full) {
            self.record(&assumed, &Content::Assumed, &Meta::default(), Origin::Archive)?;
        }
        self.record(&full, &Content::Removed, &Meta::default(), Origin::Archive)
    }
}
