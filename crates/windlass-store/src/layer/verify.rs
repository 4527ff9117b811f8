//! Compares a stored layer with its record, for `fsck` and the scrub.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::dir::chain::Chain;
use super::dir::marks::{self, Form};
use super::dir::resolve;
use super::error::{Doing, EntryName, Failed, LayerError};
use super::rules::split;
use super::sums::{self, Content, Origin, Record};
use super::{SUMS, TREE};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Kinds and sizes; no content is read.
    Quick,
    /// Content too.
    Full,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// It is not there.
    Missing,
    /// Something of another kind is there.
    Kind,
    /// Its size is not the recorded one.
    Size,
    /// Its content is not what was unpacked.
    Content,
}

/// One difference between a tree and its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The entry.
    pub entry: EntryName,
    /// What is wrong.
    pub kind: DamageKind,
}

/// See [`super::verify`].
pub(super) fn verify(
    snapshot: BorrowedFd<'_>,
    depth: Depth,
    form: Form,
    found: &mut dyn FnMut(Damage),
) -> Result<u64, LayerError> {
    let sums = resolve::open_file(snapshot, SUMS.as_bytes()).doing("open").map_err(Failed::at_stage)?;
    let tree =
        resolve::open_directory(snapshot, TREE.as_bytes(), OFlags::RDONLY).doing("open").map_err(Failed::at_stage)?;
    let buffer = vec![0; BUFFER_BYTES];
    let mut check = Check { tree: Chain::new(tree.as_fd(), None), depth, form, buffer };
    let mut count = 0;
    for record in sums::Reader::new(File::from(sums))? {
        let record = record?;
        count += 1;
        if let Some(kind) = check.entry(&record).map_err(|failed| failed.at(&record.path))? {
            found(Damage { entry: EntryName::new(&record.path), kind });
        }
    }
    Ok(count)
}

struct Check<'a> {
    tree: Chain<'a>,
    depth: Depth,
    form: Form,
    buffer: Vec<u8>,
}

impl Check<'_> {
    fn entry(&mut self, record: &Record) -> Result<Option<DamageKind>, Failed> {
        // Settling may have taken these away, or made them something of the layers below.
        match (&record.content, record.origin) {
            (
                Content::Whiteout
                | Content::Opaque
                | Content::Unresolved
                | Content::Assumed
                | Content::Stacked
                | Content::Removed,
                _,
            )
            | (_, Origin::Implicit) => {
                return Ok(None);
            }
            _ => {}
        }
        if record.path.is_empty() {
            return Ok(None);
        }
        let (parent, name) = split(&record.path);
        let (depth, form) = (self.depth, self.form);
        let Some(dir) = self.tree.at(parent)? else { return Ok(Some(DamageKind::Missing)) };
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Some(DamageKind::Missing)),
            Err(errno) => return Err(Failed { action: "look at", errno }),
        };
        if marks::is_whiteout(dir, name, &stat, form).doing("look at")? {
            return Ok(Some(DamageKind::Missing));
        }
        if !kind_fits(&record.content, &stat, form) {
            return Ok(Some(DamageKind::Kind));
        }
        match &record.content {
            Content::File { size_bytes, .. } if u64::try_from(stat.st_size) != Ok(*size_bytes) => {
                Ok(Some(DamageKind::Size))
            }
            Content::File { crc32c, .. } if depth == Depth::Full => {
                let file = resolve::open_file(dir, name).doing("open")?;
                let fits = sum_of(&file, &mut self.buffer)? == *crc32c;
                Ok((!fits).then_some(DamageKind::Content))
            }
            Content::Symlink(text) => {
                let stored = rustix::fs::readlinkat(dir, name, Vec::new()).doing("read the link")?;
                Ok((stored.to_bytes() != text).then_some(DamageKind::Content))
            }
            _ => Ok(None),
        }
    }
}

fn kind_fits(content: &Content, stat: &Stat, form: Form) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match (content, form) {
        (Content::Directory, _) => kind == FileType::Directory,
        (Content::File { .. }, _) => kind == FileType::RegularFile,
        (Content::Symlink(_), _) => kind == FileType::Symlink,
        (Content::HardLink(_), _) => kind != FileType::Directory,
        (Content::Fifo, _) => kind == FileType::Fifo,
        (Content::Device(_), Form::User) => kind == FileType::RegularFile,
        (Content::Device(device), Form::Root) => {
            let want = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
            kind == want && stat.st_rdev == rustix::fs::makedev(device.major, device.minor)
        }
        (
            Content::Whiteout
            | Content::Opaque
            | Content::Unresolved
            | Content::Assumed
            | Content::Stacked
            | Content::Removed,
            _,
        ) => true,
    }
}

fn sum_of(file: &OwnedFd, buffer: &mut [u8]) -> Result<u32, Failed> {
    let mut crc = 0;
    loop {
        match rustix::io::read(file, &mut *buffer) {
            Ok(0) => return Ok(crc),
            Ok(count) => crc = crc32c::crc32c_append(crc, &buffer[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failed { action: "read", errno }),
        }
    }
}
