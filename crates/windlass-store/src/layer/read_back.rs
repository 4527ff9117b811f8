//! A stored layer as a tar stream again: names and content from the tree, everything else from the record.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::dir::chain::Chain;
use super::dir::resolve;
use super::error::{Doing, Failed, LayerError};
use super::rules::split;
use super::sums::{self, Content, Origin, Record};
use super::tar::{Head, Kind, Writer};
use super::{SUMS, TREE};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// See [`super::read_back`].
pub(super) fn read_back(snapshot: BorrowedFd<'_>, out: &mut dyn Write) -> Result<(), LayerError> {
    let open = |name: &str| resolve::open_directory(snapshot, name.as_bytes(), OFlags::RDONLY);
    let tree = open(TREE).doing("open").map_err(Failed::at_stage)?;
    let sums = resolve::open_file(snapshot, SUMS.as_bytes()).doing("open").map_err(Failed::at_stage)?;
    let mut writer = Writer::new(out);
    let mut files = Files { tree: Chain::new(tree.as_fd(), None), buffer: vec![0; BUFFER_BYTES] };
    for record in sums::Reader::new(File::from(sums))? {
        let record = record?;
        match record.origin {
            Origin::Archive if matches!(record.content, Content::Stacked | Content::Assumed) => {}
            Origin::Archive => entry(&mut writer, &mut files, &record)?,
            // Whoever applies the layer makes these again from the layers below.
            Origin::Implicit | Origin::CopiedUp => {}
        }
    }
    writer.finish().map_err(written)
}

fn written(source: io::Error) -> LayerError {
    LayerError::Stage { action: "write out", source }
}

fn entry(writer: &mut Writer<'_>, files: &mut Files<'_>, record: &Record) -> Result<(), LayerError> {
    let (parent, name) = split(&record.path);
    let beside = |name: &[u8]| [parent, if parent.is_empty() { b"" } else { b"/" }, name].concat();
    let path = record.path.clone();
    let (kind, name, link, size_bytes, device) = match &record.content {
        Content::Directory if path.is_empty() => (Kind::Directory, b"./".to_vec(), &[][..], 0, None),
        Content::Directory => (Kind::Directory, [&path[..], b"/"].concat(), &[][..], 0, None),
        Content::File { size_bytes, .. } => (Kind::File, path, &[][..], *size_bytes, None),
        Content::Symlink(target) => (Kind::Symlink, path, &target[..], 0, None),
        Content::HardLink(target) => (Kind::HardLink, path, &target[..], 0, None),
        Content::Device(device) if device.block => (Kind::BlockDevice, path, &[][..], 0, Some(*device)),
        Content::Device(device) => (Kind::CharDevice, path, &[][..], 0, Some(*device)),
        Content::Fifo => (Kind::Fifo, path, &[][..], 0, None),
        Content::Whiteout => (Kind::File, beside(&[b".wh.", name].concat()), &[][..], 0, None),
        Content::Opaque if path.is_empty() => (Kind::File, b".wh..wh..opq".to_vec(), &[][..], 0, None),
        Content::Opaque => (Kind::File, [&path[..], b"/.wh..wh..opq"].concat(), &[][..], 0, None),
        Content::Unresolved | Content::Assumed | Content::Stacked | Content::Removed => {
            return Err(LayerError::Sums { what: "the layer is not complete" });
        }
    };
    writer.entry(&Head { kind, name: &name, link, size_bytes, device }, &record.meta).map_err(written)?;
    match record.content {
        Content::File { size_bytes, crc32c } => files.copy(&record.path, size_bytes, crc32c, writer),
        _ => Ok(()),
    }
}

/// Reads files of the tree.
struct Files<'a> {
    tree: Chain<'a>,
    buffer: Vec<u8>,
}

impl Files<'_> {
    fn copy(&mut self, path: &[u8], size: u64, want: u32, writer: &mut Writer<'_>) -> Result<(), LayerError> {
        let file = self.open(path).map_err(|failed| failed.at(path))?;
        let (mut left, mut crc) = (size, 0);
        while left > 0 {
            let step = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match rustix::io::read(&file, &mut self.buffer[..step]) {
                Ok(0) => return Err(LayerError::Sums { what: "a file is shorter than recorded" }),
                Ok(count) => {
                    crc = crc32c::crc32c_append(crc, &self.buffer[..count]);
                    writer.data(&self.buffer[..count]).map_err(written)?;
                    left -= count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failed { action: "read", errno }.at(path)),
            }
        }
        if crc == want { Ok(()) } else { Err(LayerError::Sums { what: "a file's content is not what was unpacked" }) }
    }

    fn open(&mut self, path: &[u8]) -> Result<OwnedFd, Failed> {
        let (parent, name) = split(path);
        let missing = Failed { action: "open", errno: Errno::NOENT };
        let dir = self.tree.at(parent)?.ok_or(missing)?;
        resolve::open_file(dir, name).doing("open")
    }
}
