//! Compares an unpacked layer with the record that was taken when it was written.
//!
//! Every entry is looked up below the tree without following any link. Quick compares kind and size, full also the
//! checksum of each file's content. Whiteouts are not compared: settling removes those that hide nothing.
//!
//! Invariants: `every_kind_of_damage_is_found_and_healed`, `a_sound_store_has_no_findings`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::fsck::Depth;
use crate::layer::rules::Device;
use crate::layer::sums::{Content, Reader};
use crate::layer::{EntryName, SUMS, TREE};
use crate::meta::record::Form;

/// Size of the pieces in which a file is read.
const READ_BYTES: usize = 256 << 10;

/// Checks the layer in `dir`.
///
/// # Errors
/// The first difference, for people.
pub(crate) fn verify(dir: &Path, form: Form, depth: Depth) -> Result<(), String> {
    let path = dir.join(SUMS);
    let file = File::open(&path).map_err(|error| format!("its record cannot be opened: {error}"))?;
    let tree = File::open(dir.join(TREE)).map_err(|error| format!("its tree cannot be opened: {error}"))?;
    // Later records of a name replace earlier ones; only what is not a plain entry is kept by name.
    let mut last: BTreeMap<Vec<u8>, Content> = BTreeMap::new();
    for record in Reader::new(file).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        match record.content {
            Content::Opaque => {}
            Content::Removed => {
                let below = [record.path.as_slice(), b"/"].concat();
                last.retain(|name, _| *name != record.path && !name.starts_with(&below));
            }
            content => drop(last.insert(record.path, content)),
        }
    }
    let mut check = Check { tree: tree.as_fd(), form, depth, buffer: Vec::new() };
    last.iter().try_for_each(|(name, content)| {
        check.entry(name, content).map_err(|detail| format!("{}: {detail}", EntryName::new(name)))
    })
}

struct Check<'a> {
    tree: BorrowedFd<'a>,
    form: Form,
    depth: Depth,
    buffer: Vec<u8>,
}

impl Check<'_> {
    fn entry(&mut self, name: &[u8], content: &Content) -> Result<(), String> {
        match content {
            Content::Directory => self.is_kind(name, FileType::Directory),
            Content::File { size_bytes, crc32c } => self.file(name, *size_bytes, *crc32c),
            Content::Symlink(target) => self.symlink(name, target),
            Content::HardLink(_) => self.open(name).map(drop),
            Content::Device(Device { block, .. }) => match (self.form, block) {
                (Form::UserDirectory, _) => Ok(()),
                (Form::Directory, true) => self.is_kind(name, FileType::BlockDevice),
                (Form::Directory, false) => self.is_kind(name, FileType::CharacterDevice),
            },
            Content::Fifo => match self.form {
                Form::UserDirectory => Ok(()),
                Form::Directory => self.is_kind(name, FileType::Fifo),
            },
            Content::Whiteout | Content::Opaque | Content::Removed => Ok(()),
        }
    }

    /// Opens a name without following links, for looking only: a link itself can be looked at this way.
    fn open(&self, name: &[u8]) -> Result<OwnedFd, String> {
        self.open_with(name, OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn open_with(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, String> {
        let name = if name.is_empty() { b".".as_slice() } else { name };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(self.tree, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            .map_err(|errno| std::io::Error::from(errno).to_string())
    }

    fn is_kind(&self, name: &[u8], want: FileType) -> Result<(), String> {
        let fd = self.open(name)?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| std::io::Error::from(errno).to_string())?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == want { Ok(()) } else { Err(format!("it is a {kind:?}, not a {want:?}")) }
    }

    fn file(&mut self, name: &[u8], size_bytes: u64, crc32c: u32) -> Result<(), String> {
        let fd = self.open(name)?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| std::io::Error::from(errno).to_string())?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err("it is no file".to_owned());
        }
        if u64::try_from(found.st_size) != Ok(size_bytes) {
            return Err(format!("it has {} bytes, {size_bytes} were written", found.st_size));
        }
        if self.depth == Depth::Quick {
            return Ok(());
        }
        let got = self.checksum(name)?;
        if got == crc32c { Ok(()) } else { Err("its content changed".to_owned()) }
    }

    fn checksum(&mut self, name: &[u8]) -> Result<u32, String> {
        let mut file = File::from(self.open_with(name, OFlags::RDONLY | OFlags::NONBLOCK)?);
        self.buffer.resize(READ_BYTES, 0);
        let mut crc = 0;
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => return Ok(crc),
                Ok(count) => crc = crc32c::crc32c_append(crc, &self.buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), String> {
        let fd = self.open(name)?;
        let got = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|_| "it is no link".to_owned())?;
        if got.as_bytes() == target { Ok(()) } else { Err("it points elsewhere".to_owned()) }
    }
}
