//! Every file of a stack of layers, as overlayfs would show it, without mounting anything.
//!
//! In: the stored layers, topmost first, in whatever form. Out: each entry once, a directory before what is in it, names
//! in the order of their bytes. Memory holds the names of the directories on the way to the entry at hand; where an
//! ordinary user unpacked the layers, also what their records say of every entry, since owners, exact modes and devices
//! are only there.
//!
//! Invariants: `the_files_of_an_image_are_those_that_a_mount_shows`, `a_user_sees_the_owners_that_the_image_says`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

use super::SUMS;
use super::below::{Below, Lower, Merged};
use super::dir::marks::Form;
use super::dir::meta::of_stat;
use super::dir::resolve;
use super::error::{Doing, Failed, LayerError};
use super::limits::LayerLimits;
use super::part::{Node, NodeIs};
use super::rules::{Device, Meta, Rules, split};
use super::stored::Stored;
use super::sums::{self, Content, Origin};
use super::tar::Time;

/// Directories above one another; no layer that was accepted can have more, a damaged image file may seem to.
const DEPTH_MAX: usize = 4096;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
    },
    /// A symbolic link and its text.
    Symlink(&'a [u8]),
    /// A device.
    Device(Device),
    /// A named pipe.
    Fifo,
}

/// One entry of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Its path from the root, without a slash in front; empty for the root.
    pub path: &'a [u8],
    /// What it is.
    pub kind: FileKind<'a>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
}

/// Hears of one entry; `Break` ends the list.
pub type Hear<'h> = &'h mut dyn FnMut(&FileEntry<'_>) -> ControlFlow<()>;

/// Lists the layers in these snapshots, topmost first, written with the rights that `form` says.
///
/// # Errors
/// [`LayerError::Sums`] for a damaged record or image file, or what the file system says.
pub fn list(snapshots: &[BorrowedFd<'_>], form: Form, each: Hear<'_>) -> Result<(), LayerError> {
    let layers = snapshots.iter().map(|snapshot| Stored::open(*snapshot)).collect::<Result<Vec<_>, _>>()?;
    let truths = match form {
        Form::Root => Vec::new(),
        Form::User => snapshots.iter().map(|snapshot| Truth::read(*snapshot)).collect::<Result<Vec<_>, _>>()?,
    };
    let below = Below::new(&layers, form).map_err(Failed::at_stage)?;
    let limits = LayerLimits::default();
    let mut list = List { below, truths, form, rules: Rules { limits: &limits, integrity_xattrs: true }, each };
    // No layers, no files.
    let Lower::Directory(root) = list.find(b"")? else { return Ok(()) };
    match list.directory(b"", &root)? {
        ControlFlow::Continue(names) => list.walk(names),
        ControlFlow::Break(()) => Ok(()),
    }
}

struct List<'a, 'h> {
    below: Below,
    /// What the records of the layers say, topmost first; empty where the disk says the same.
    truths: Vec<Truth>,
    form: Form,
    rules: Rules<'a>,
    each: Hear<'h>,
}

/// The names of a directory that are still to come.
type Names = std::vec::IntoIter<Vec<u8>>;

impl List<'_, '_> {
    fn find(&mut self, path: &[u8]) -> Result<Lower, LayerError> {
        self.below.find(path).map_err(|failed| failed.at(path))
    }

    fn walk(&mut self, root: Names) -> Result<(), LayerError> {
        let mut open = vec![(Vec::new(), root)];
        while let Some((dir, names)) = open.last_mut() {
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let path = if dir.is_empty() { name } else { [dir, &b"/"[..], &name].concat() };
            let told = match self.find(&path)? {
                Lower::Absent => ControlFlow::Continue(()),
                Lower::Directory(merged) => match self.directory(&path, &merged)? {
                    ControlFlow::Continue(names) => {
                        open.push((path, names));
                        ControlFlow::Continue(())
                    }
                    ControlFlow::Break(()) => ControlFlow::Break(()),
                },
                Lower::Symlink(text, node) => self.tell(&path, FileKind::Symlink(&text), &self.meta(&path, &node)?),
                Lower::Other(node) => {
                    let kind = match node.is() {
                        NodeIs::File { size_bytes } => FileKind::File { size_bytes },
                        NodeIs::Device(device) => FileKind::Device(device),
                        NodeIs::Fifo => FileKind::Fifo,
                    };
                    self.tell(&path, kind, &self.meta(&path, &node)?)
                }
            };
            if told.is_break() {
                return Ok(());
            }
            if open.len() > DEPTH_MAX {
                return Err(LayerError::Sums { what: "directories lie in one another without end" });
            }
        }
        Ok(())
    }

    /// Tells of a directory. Says what names are in it, whiteouts among them.
    fn directory(&mut self, path: &[u8], merged: &Merged) -> Result<ControlFlow<(), Names>, LayerError> {
        let meta = match self.form {
            Form::Root => merged.meta(&self.rules).map_err(|failed| failed.at(path))?,
            // Its own is in the records alone.
            Form::User => Meta::implicit_directory(),
        };
        if self.tell(path, FileKind::Directory, &meta).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let mut names = Vec::new();
        merged.names(&mut |name| names.push(name.to_vec())).map_err(|failed| failed.at(path))?;
        names.sort_unstable();
        names.dedup();
        Ok(ControlFlow::Continue(names.into_iter()))
    }

    /// Owner, mode and time as the disk has them; extended attributes are not read.
    fn meta(&self, path: &[u8], node: &Node) -> Result<Meta, LayerError> {
        match node {
            Node::File { stat, .. } => Ok(of_stat(stat)),
            Node::Image(node) => node.meta(&self.rules).map_err(|failed| failed.at(path)),
        }
    }

    fn tell(&mut self, path: &[u8], kind: FileKind<'_>, meta: &Meta) -> ControlFlow<()> {
        let mut entry = FileEntry { path, kind, mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime };
        if let Some(said) = said(&self.truths, path) {
            (entry.mode, entry.uid, entry.gid, entry.mtime) = (said.mode, said.uid, said.gid, said.mtime);
            entry.kind = said.device.map_or(kind, FileKind::Device);
        }
        if let FileKind::Symlink(_) = entry.kind {
            // A link has no mode of its own.
            entry.mode = 0o777;
        }
        (self.each)(&entry)
    }
}

/// What the record of one layer says.
#[derive(Default)]
struct Truth {
    entries: HashMap<Vec<u8>, Said>,
    /// Other names of entries.
    links: HashMap<Vec<u8>, Vec<u8>>,
    /// Paths at which the layers below count no more.
    hidden: HashSet<Vec<u8>>,
    /// Directories in which they do not. Such a directory itself may still take its owner and mode over from them.
    opaque: HashSet<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Said {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    device: Option<Device>,
}

impl Truth {
    fn read(snapshot: BorrowedFd<'_>) -> Result<Truth, LayerError> {
        let sums = resolve::open_file(snapshot, SUMS.as_bytes()).doing("open").map_err(Failed::at_stage)?;
        let mut truth = Truth::default();
        for record in sums::Reader::new(File::from(sums))? {
            let sums::Record { path, content, meta, origin } = record?;
            let device = match content {
                Content::Device(device) => Some(device),
                Content::HardLink(target) => {
                    truth.links.insert(path, target);
                    continue;
                }
                Content::Whiteout => {
                    truth.hidden.insert(path);
                    continue;
                }
                Content::Opaque => {
                    truth.opaque.insert(path);
                    continue;
                }
                // Owner and mode of such a directory come from the layers below.
                Content::Directory if origin == Origin::Implicit => continue,
                Content::Directory => None,
                Content::File { .. } | Content::Symlink(_) | Content::Fifo => {
                    truth.hidden.insert(path.clone());
                    None
                }
                Content::Unresolved | Content::Assumed | Content::Stacked | Content::Removed => continue,
            };
            let said = Said { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, device };
            truth.entries.insert(path, said);
        }
        Ok(truth)
    }

    fn of(&self, path: &[u8]) -> Option<Said> {
        let path = self.links.get(path).map_or(path, Vec::as_slice);
        self.entries.get(path).copied()
    }

    /// Whether this layer hides what those below have at a path.
    fn hides(&self, path: &[u8]) -> bool {
        let mut at = path;
        while !self.hidden.contains(at) {
            if at.is_empty() {
                return false;
            }
            at = split(at).0;
            if self.opaque.contains(at) {
                return true;
            }
        }
        true
    }
}

/// What the records say of an entry that shows; none for a directory that no layer describes.
fn said(truths: &[Truth], path: &[u8]) -> Option<Said> {
    for truth in truths {
        if let Some(said) = truth.of(path) {
            return Some(said);
        }
        if truth.hides(path) {
            return None;
        }
    }
    None
}
