//! The entries of an image file while its tar is coming: in memory, small, and by the rules of every other form.
//!
//! Bytes of files are not written here: they stand in the image file already, where the tar has them. Only what is in
//! pieces (sparse files) or in a layer below (files that this layer links to) needs a place of its own behind the tar.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use rustix::io::Errno;
use windlass_erofs::{Attributes, Content, DATA_START, Kind, New, NodeId, Time, TreeError};

use crate::layer::error::Failed;
use crate::layer::rules::{Device, Meta};
use crate::layer::tree::{Found, Made, Source, Tree};

/// Most pieces of all sparse files of a layer together.
const PIECES_MAX: usize = 1 << 20;

/// A directory of the layer.
#[derive(Debug)]
pub(crate) struct DirNode {
    id: NodeId,
    path: Vec<u8>,
    hides_below: bool,
}

/// Bytes of a file that stand elsewhere in the image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where in the file.
    pub(super) to: u64,
    /// Where in the image file.
    pub(super) from: u64,
    pub(super) bytes: u64,
}

/// A file that has to be put together behind the tar.
#[derive(Debug)]
pub(super) struct Scattered {
    pub(super) node: NodeId,
    pub(super) size_bytes: u64,
    pub(super) pieces: Vec<Piece>,
}

/// A file whose bytes are coming.
#[derive(Debug)]
pub(crate) struct OpenFile {
    id: NodeId,
    size_bytes: u64,
    at: u64,
    pieces: Vec<Piece>,
}

/// Room behind the tar, for bytes of the layers below.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) image: File,
    /// The next free byte.
    pub(super) end: u64,
}

/// The entries of one layer.
#[derive(Debug)]
pub(crate) struct Entries {
    pub(super) tree: windlass_erofs::Tree,
    pub(super) scattered: Vec<Scattered>,
    pieces: usize,
    pub(super) room: Option<Room>,
    lost_xattrs: bool,
}

impl Entries {
    /// A layer that is read from its archive.
    pub(crate) fn new() -> Entries {
        // Whoever applies the layer asks for its memory with every entry.
        let tree = windlass_erofs::Tree::new(usize::MAX);
        Entries { tree, scattered: Vec::new(), pieces: 0, room: None, lost_xattrs: false }
    }

    /// A layer whose archive is whole, so that there is room behind it.
    pub(super) fn with_room(room: Room) -> Entries {
        Entries { room: Some(room), ..Entries::new() }
    }

    /// Whether extended attributes were left out, where no Linux file system has them.
    pub(crate) fn lost_xattrs(&self) -> bool {
        self.lost_xattrs
    }

    fn is_taken(&self, dir: &DirNode, name: &[u8]) -> bool {
        self.tree.find(dir.id, name).is_some()
    }

    fn make(
        &mut self,
        dir: &DirNode,
        name: &[u8],
        new: New<'_>,
        attributes: &Attributes,
    ) -> Result<Made<NodeId>, Failed> {
        if self.is_taken(dir, name) {
            return Ok(Made::Taken);
        }
        self.tree.insert(dir.id, name, new, attributes).map(Made::New).map_err(|why| failed("create", &why))
    }

    /// Attributes of what can have no extended ones.
    fn plain(&mut self, meta: &Meta) -> Attributes {
        self.lost_xattrs |= !meta.xattrs.is_empty();
        Attributes { xattrs: Vec::new(), ..attributes(meta) }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<u64, Failed> {
        let action = "write";
        // Only a layer whose archive is whole has links into the layers below.
        let Some(room) = &mut self.room else { return Err(Failed { action, errno: Errno::INVAL }) };
        let at = room.end;
        room.image
            .write_all_at(bytes, at)
            .map_err(|error| Failed { action, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) })?;
        room.end += bytes.len() as u64;
        Ok(at)
    }
}

/// The error number that a file system would give for the same.
pub(super) fn failed(action: &'static str, why: &TreeError) -> Failed {
    let errno = match why {
        TreeError::Full { .. } => Errno::NOMEM,
        TreeError::Taken => Errno::EXIST,
        TreeError::Absent | TreeError::Removed => Errno::NOENT,
        TreeError::NotADirectory => Errno::NOTDIR,
        TreeError::DirectoryLink => Errno::PERM,
        TreeError::Name | TreeError::LinkText => Errno::NAMETOOLONG,
        TreeError::ContentOffset { .. } => Errno::FBIG,
        // As ext4 says it.
        TreeError::XattrValue { .. } | TreeError::XattrsTooLarge { .. } => Errno::NOSPC,
        _ => Errno::INVAL,
    };
    Failed { action, errno }
}

pub(super) fn attributes(meta: &Meta) -> Attributes {
    Attributes {
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: Time { seconds: meta.mtime.seconds, nanos: meta.mtime.nanos },
        xattrs: meta.xattrs.clone(),
    }
}

impl Tree for Entries {
    type Dir = Rc<DirNode>;
    type File = OpenFile;

    fn root(&self) -> Rc<DirNode> {
        Rc::new(DirNode { id: self.tree.root(), path: Vec::new(), hides_below: false })
    }

    fn path<'d>(&self, dir: &'d Rc<DirNode>) -> &'d [u8] {
        &dir.path
    }

    fn memory_bytes(&self) -> u64 {
        (self.tree.memory_bytes() + self.pieces * size_of::<Piece>()) as u64
    }

    fn hides_below(&self, dir: &Rc<DirNode>) -> bool {
        dir.hides_below
    }

    fn find(&mut self, dir: &Rc<DirNode>, name: &[u8]) -> Result<Found<Rc<DirNode>>, Failed> {
        let Some(id) = self.tree.find(dir.id, name) else { return Ok(Found::Absent) };
        Ok(match self.tree.kind(id) {
            None => Found::Absent,
            Some(Kind::Directory) => {
                let slash = if dir.path.is_empty() { &b""[..] } else { b"/" };
                let hides_below = dir.hides_below || self.tree.is_opaque(id);
                Found::Directory(Rc::new(DirNode { id, path: [&dir.path, slash, name].concat(), hides_below }))
            }
            Some(Kind::Symlink) => Found::Symlink(self.tree.link_text(id).unwrap_or_default().to_vec()),
            Some(Kind::Device(windlass_erofs::Device::WHITEOUT)) => Found::Whiteout,
            Some(Kind::File | Kind::Device(_) | Kind::Fifo) => Found::Other,
        })
    }

    fn make_directory(&mut self, dir: &Rc<DirNode>, name: &[u8], meta: &Meta) -> Result<Made<()>, Failed> {
        self.make(dir, name, New::Directory, &attributes(meta)).map(made)
    }

    fn update_directory(&mut self, dir: &Rc<DirNode>, meta: &Meta) -> Result<(), Failed> {
        self.tree.set_attributes(dir.id, &attributes(meta)).map_err(|why| failed("change", &why))
    }

    fn finish_directory(&mut self, _: &Rc<DirNode>, _: &[u8], _: &Meta) -> Result<(), Failed> {
        // Here children change nothing of their directory.
        Ok(())
    }

    fn make_file(
        &mut self,
        dir: &Rc<DirNode>,
        name: &[u8],
        meta: &Meta,
        size_bytes: u64,
    ) -> Result<Made<OpenFile>, Failed> {
        Ok(match self.make(dir, name, New::File, &attributes(meta))? {
            Made::New(id) => Made::New(OpenFile { id, size_bytes, at: 0, pieces: Vec::new() }),
            Made::Taken => Made::Taken,
        })
    }

    fn write(&mut self, file: &mut OpenFile, bytes: &[u8], source: Source) -> Result<(), Failed> {
        let from = match source {
            Source::Archive(at) => DATA_START + at,
            Source::Below => {
                if let (Some(room), true) = (&mut self.room, file.pieces.is_empty()) {
                    room.end = room.end.next_multiple_of(windlass_erofs::BLOCK_BYTES);
                }
                self.keep(bytes)?
            }
        };
        let length = bytes.len() as u64;
        match file.pieces.last_mut() {
            Some(last) if last.from + last.bytes == from && last.to + last.bytes == file.at => last.bytes += length,
            Some(_) | None => {
                self.pieces += 1;
                if self.pieces > PIECES_MAX {
                    return Err(Failed { action: "write", errno: Errno::NOSPC });
                }
                file.pieces.push(Piece { to: file.at, from, bytes: length });
            }
        }
        file.at += length;
        Ok(())
    }

    fn hole(&mut self, file: &mut OpenFile, bytes: u64) -> Result<(), Failed> {
        file.at += bytes;
        Ok(())
    }

    fn close(&mut self, file: OpenFile, _: &Meta) -> Result<(), Failed> {
        let OpenFile { id, size_bytes, pieces, .. } = file;
        let offset = match pieces[..] {
            [] if size_bytes == 0 => Some(0),
            [Piece { to: 0, from, bytes }] if bytes == size_bytes && from % windlass_erofs::BLOCK_BYTES == 0 => {
                Some(from)
            }
            _ => None,
        };
        match offset {
            Some(offset) => {
                self.pieces -= pieces.len();
                let content = Content { offset, size_bytes };
                self.tree.set_content(id, content).map_err(|why| failed("write", &why))
            }
            None => {
                self.scattered.push(Scattered { node: id, size_bytes, pieces });
                Ok(())
            }
        }
    }

    fn make_symlink(&mut self, dir: &Rc<DirNode>, name: &[u8], target: &[u8], meta: &Meta) -> Result<Made<()>, Failed> {
        // A link has no mode of its own.
        let attributes = Attributes { mode: 0o777, ..self.plain(meta) };
        self.make(dir, name, New::Symlink(target), &attributes).map(made)
    }

    fn make_special(
        &mut self,
        dir: &Rc<DirNode>,
        name: &[u8],
        device: Option<Device>,
        meta: &Meta,
    ) -> Result<Made<()>, Failed> {
        let new = match device {
            Some(Device { block, major, minor }) => New::Device(windlass_erofs::Device { block, major, minor }),
            None => New::Fifo,
        };
        let attributes = self.plain(meta);
        self.make(dir, name, new, &attributes).map(made)
    }

    fn make_link(
        &mut self,
        dir: &Rc<DirNode>,
        name: &[u8],
        target_dir: &Rc<DirNode>,
        target_name: &[u8],
    ) -> Result<Made<()>, Failed> {
        if self.is_taken(dir, name) {
            return Ok(Made::Taken);
        }
        let missing = Failed { action: "link", errno: Errno::NOENT };
        let target = self.tree.find(target_dir.id, target_name).ok_or(missing)?;
        self.tree.link(dir.id, name, target).map(Made::New).map_err(|why| failed("link", &why))
    }

    fn make_whiteout(&mut self, dir: &Rc<DirNode>, name: &[u8]) -> Result<Made<()>, Failed> {
        let new = New::Device(windlass_erofs::Device::WHITEOUT);
        self.make(dir, name, new, &Attributes::default()).map(made)
    }

    fn make_opaque(&mut self, dir: &Rc<DirNode>) -> Result<(), Failed> {
        self.tree.set_opaque(dir.id).map_err(|why| failed("mark as opaque", &why))
    }

    fn remove(&mut self, dir: &Rc<DirNode>, name: &[u8]) -> Result<(), Failed> {
        match self.tree.remove(dir.id, name) {
            Ok(()) | Err(TreeError::Absent) => Ok(()),
            Err(why) => Err(failed("remove", &why)),
        }
    }
}

fn made(made: Made<NodeId>) -> Made<()> {
    match made {
        Made::New(_) => Made::New(()),
        Made::Taken => Made::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Extracted, Needs, forget_largest};

    fn layer(entries: u32) -> Extracted {
        let mut draft = Entries::new();
        let root = draft.root();
        for n in 0..entries {
            let made = draft.make_directory(&root, n.to_string().as_bytes(), &Meta::implicit_directory());
            assert_eq!(made.expect("room"), Made::New(()));
        }
        let (needs, warnings) = (Needs::default(), Vec::new());
        Extracted { needs, unpacked_bytes: 0, entries: entries.into(), warnings, tar_bytes: 0, draft: Some(draft) }
    }

    #[test]
    fn the_largest_drafts_are_forgotten_first() {
        let mut layers = [layer(2_000), layer(10), layer(1_000), layer(0)];
        let bytes = |layer: &Extracted| layer.draft.as_ref().map_or(0, Tree::memory_bytes);
        let all: u64 = layers.iter().map(bytes).sum();
        let largest = bytes(&layers[0]);
        forget_largest(layers.iter_mut().collect(), all);
        assert!(layers.iter().all(|layer| layer.draft.is_some()));
        forget_largest(layers.iter_mut().collect(), all - largest);
        assert_eq!(layers.each_ref().map(|layer| layer.draft.is_some()), [false, true, true, true]);
        forget_largest(layers.iter_mut().collect(), 0);
        assert!(layers.iter().all(|layer| bytes(layer) == 0));
    }
}
