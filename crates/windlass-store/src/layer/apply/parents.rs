//! The directory that an entry belongs in: links resolved inside the root, by this layer and the layers below it, and
//! parents that have no entry made on the way.

use super::{Apply, joined};
use crate::layer::below::Lower;
use crate::layer::error::{EntryName, Failed, LayerError};
use crate::layer::needs::Implicit;
use crate::layer::rules::{Meta, components, split};
use crate::layer::sums::{Content, Origin};
use crate::layer::tree::{Found, Tree};

/// Links followed for one path, as in the kernel.
const LINKS_MAX: u32 = 40;

/// What a directory is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
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

impl<T: Tree> Apply<'_, T> {
    /// The directory that a cleaned path leads to, links resolved inside the root, missing ones made.
    pub(super) fn directory(&mut self, path: &[u8], purpose: Purpose) -> Result<T::Dir, LayerError> {
        match self.resolve(path, Some(purpose))? {
            Some(dir) => Ok(dir),
            None => Err(Failed { action: "create", errno: rustix::io::Errno::NOENT }.at(path)),
        }
    }

    /// The same, but nothing is made: none if a part is missing in this layer.
    pub(super) fn existing_directory(&mut self, path: &[u8]) -> Result<Option<T::Dir>, LayerError> {
        self.resolve(path, None)
    }

    pub(super) fn resolve(&mut self, path: &[u8], make: Option<Purpose>) -> Result<Option<T::Dir>, LayerError> {
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
