//! The form of one file: the tar itself, byte for byte, with EROFS metadata behind it, ready to be mounted.
//!
//! [`super::extract()`] writes the tar as it arrives ([`TarCopy`]) and collects the entries in memory ([`Entries`]).
//! [`complete`] puts them right with the layers below and writes them behind the tar; like everything of a pull, the file
//! becomes durable with the commit. An entry that cannot be judged without the layers below costs no second transfer: the tar is here, and its headers are read
//! again.
//!
//! Nothing stands beside the file. Its head says how long the tar is and what it hashes to; see [`windlass_erofs`].
//!
//! Invariants: `image_files_and_directories_are_the_same_tree`, `a_flipped_bit_of_an_image_file_is_found`.

mod copy;
mod entries;
pub(super) mod lower;
mod settled;
mod source;
mod tar;

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use windlass_core::digest::Digest;
use windlass_erofs::{BLOCK_BYTES, Content, DATA_START, Image, Layer, ReadAt, ReadError, WriteError};

pub(crate) use copy::TarCopy;
pub(crate) use entries::Entries;
pub use tar::StoredTar;

use self::copy::{start_write_back, written};
use self::entries::{Room, Scattered, failed};
use self::settled::OwnEntries;
use self::source::Archive;
use super::apply::Apply;
use super::below::Below;
use super::dir::resolve;
use super::error::{Doing, EntryName, Failed, LayerError};
use super::rules::Rules;
use super::settle::carry_out;
use super::tar::Reader;
use super::{Completion, Damage, DamageKind, Depth, Extracted, IMAGE, Settled};

/// Bytes read or copied at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Starts the image file of a stage.
///
/// # Errors
/// What the file system says.
pub(super) fn create(stage: BorrowedFd<'_>) -> Result<TarCopy, LayerError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(stage, IMAGE, flags, Mode::RUSR | Mode::WUSR)
        .doing("create the file of")
        .map_err(Failed::at_stage)?;
    Ok(TarCopy::new(file.into()))
}

/// The image file of a stage or snapshot, for reading; none where it holds a directory.
///
/// # Errors
/// What the file system says.
pub(super) fn open(snapshot: BorrowedFd<'_>) -> Result<Option<File>, LayerError> {
    match resolve::open_file(snapshot, IMAGE.as_bytes()) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Failed { action: "open the file of", errno }.at_stage()),
    }
}

/// Writes the metadata of a layer whose tar is there.
///
/// # Errors
/// What the file system says, and what applying says about entries that had to wait for the layers below.
pub(super) fn complete(
    stage: BorrowedFd<'_>,
    extracted: &mut Extracted,
    completion: &Completion<'_>,
) -> Result<(), LayerError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let image =
        rustix::fs::openat(stage, IMAGE, flags, Mode::empty()).doing("open the file of").map_err(Failed::at_stage)?;
    let image = File::from(image);
    let rules = Rules { limits: completion.limits, integrity_xattrs: completion.integrity_xattrs };
    let mut below = Below::new(completion.below, completion.form).map_err(Failed::at_stage)?;
    let draft = extracted.draft.take().filter(|_| !extracted.needs.redo);
    let mut entries = match draft {
        Some(entries) => entries,
        None => again(&image, extracted, completion)?,
    };
    let own = &mut OwnEntries(&mut entries.tree);
    if carry_out(own, &extracted.needs, &mut below, &rules)? == Settled::Redo {
        // Not both at once in memory.
        drop(entries);
        entries = again(&image, extracted, completion)?;
        // Made with the layers below at hand, it is not to be made again.
        let _ = carry_out(&mut OwnEntries(&mut entries.tree), &extracted.needs, &mut below, &rules)?;
    }
    finish(&image, entries, extracted.tar_bytes, completion)
}

/// Reads the entries of the tar once more, with the layers below at hand.
fn again(image: &File, extracted: &mut Extracted, completion: &Completion<'_>) -> Result<Entries, LayerError> {
    let end = DATA_START + extracted.tar_bytes;
    // A process that died here may have left metadata.
    image.set_len(end).map_err(written)?;
    let room = Room { image: image.try_clone().map_err(written)?, end: end.next_multiple_of(BLOCK_BYTES) };
    let rules = Rules { limits: completion.limits, integrity_xattrs: completion.integrity_xattrs };
    let below = Below::new(completion.below, completion.form).map_err(Failed::at_stage)?;
    let mut reader = Reader::new(Archive::new(image, extracted.tar_bytes), completion.limits);
    let mut apply = Apply::new(Entries::with_room(room), rules, Some(below), None, &())?;
    apply.run(&mut reader)?;
    let applied = apply.finish()?;
    extracted.needs = applied.needs;
    Ok(applied.tree)
}

fn finish(image: &File, mut entries: Entries, tar_bytes: u64, completion: &Completion<'_>) -> Result<(), LayerError> {
    let tar_end = DATA_START + tar_bytes;
    let mut end = entries.room.as_ref().map_or(tar_end, |room| room.end);
    for file in std::mem::take(&mut entries.scattered) {
        // A later entry may have taken its name away.
        if entries.tree.kind(file.node).is_none() {
            continue;
        }
        let offset = end.next_multiple_of(BLOCK_BYTES);
        put_together(image, &file, offset).map_err(written)?;
        let content = Content { offset, size_bytes: file.size_bytes };
        entries.tree.set_content(file.node, content).map_err(|why| failed("write", &why).at_stage())?;
        end = offset + file.size_bytes;
    }
    let at_bytes = end.next_multiple_of(BLOCK_BYTES);
    // Its end may be a hole.
    image.set_len(at_bytes).map_err(written)?;
    let mut uuid = [0; 16];
    for (byte, digits) in uuid.iter_mut().zip(completion.chain_id.hex().as_bytes().chunks_exact(2)) {
        *byte = std::str::from_utf8(digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default();
    }
    let layer = Layer {
        tar_bytes,
        tar_digest: completion.diff_id.as_str(),
        between_crc32c: sum(image, tar_end, at_bytes).map_err(written)?,
        uuid,
    };
    let mut sink = Sink { image, at: at_bytes };
    let front = windlass_erofs::write(&entries.tree, &layer, at_bytes, &mut sink).map_err(unwritten)?.front;
    image.write_all_at(&front[..], 0).map_err(written)?;
    start_write_back(image, tar_end, sink.at);
    Ok(())
}

fn unwritten(why: WriteError) -> LayerError {
    match why {
        WriteError::Io(source) => written(source),
        WriteError::TooLarge | WriteError::ContentBeyond { .. } => {
            LayerError::Stage { action: "write", source: Errno::FBIG.into() }
        }
        other => LayerError::Stage { action: "write", source: io::Error::other(other) },
    }
}

/// Copies the pieces of a sparse file to where they belong; what is between them stays a hole.
fn put_together(image: &File, file: &Scattered, offset: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    for piece in &file.pieces {
        let mut done = 0;
        while done < piece.bytes {
            let step = buffer.len().min(usize::try_from(piece.bytes - done).unwrap_or(usize::MAX));
            image.read_exact_at(&mut buffer[..step], piece.from + done)?;
            image.write_all_at(&buffer[..step], offset + piece.to + done)?;
            done += step as u64;
        }
    }
    Ok(())
}

/// CRC-32C of a part of the file; holes are summed without being read.
fn sum(image: &File, from: u64, to: u64) -> io::Result<u32> {
    let mut buffer = vec![0; if from < to { BUFFER_BYTES } else { 0 }];
    let (mut crc, mut at) = (0, from);
    while at < to {
        let data = match rustix::fs::seek(image, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data.min(to),
            Err(Errno::NXIO) => to,
            Err(errno) => return Err(errno.into()),
        };
        crc = super::apply::append_zeros(crc, data - at);
        at = data;
        let hole = match rustix::fs::seek(image, rustix::fs::SeekFrom::Hole(at)) {
            Ok(hole) => hole.min(to),
            Err(Errno::NXIO) => to,
            Err(errno) => return Err(errno.into()),
        };
        while at < hole {
            let step = buffer.len().min(usize::try_from(hole - at).unwrap_or(usize::MAX));
            image.read_exact_at(&mut buffer[..step], at)?;
            crc = crc32c::crc32c_append(crc, &buffer[..step]);
            at += step as u64;
        }
    }
    Ok(crc)
}

struct Sink<'a> {
    image: &'a File,
    at: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.image.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the tar out.
///
/// # Errors
/// [`LayerError::Sums`] for a file that is none of ours, or what `out` says.
pub(super) fn copy_tar(image: &File, out: &mut dyn Write) -> Result<(), LayerError> {
    let tar_bytes = opened(image)?.head().tar_bytes;
    let failed = |source| LayerError::Stage { action: "write out", source };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < tar_bytes {
        let step = buffer.len().min(usize::try_from(tar_bytes - at).unwrap_or(usize::MAX));
        image.read_exact_at(&mut buffer[..step], DATA_START + at).map_err(failed)?;
        out.write_all(&buffer[..step]).map_err(failed)?;
        at += step as u64;
    }
    Ok(())
}

/// Compares a file with its head, and in full the tar with the diff ID and all else with its sums.
///
/// # Errors
/// [`LayerError::Sums`] for a head that is damaged, or what the file system says.
pub(super) fn verify(
    image: &File,
    depth: Depth,
    diff_id: &Digest,
    found: &mut dyn FnMut(Damage),
) -> Result<u64, LayerError> {
    let opened = opened(image)?;
    let head = opened.head();
    let mut damaged = |what: &str| {
        found(Damage { entry: EntryName::new(what.as_bytes()), kind: DamageKind::Content });
    };
    if head.tar_digest != diff_id.as_str() {
        damaged("head");
    }
    if depth == Depth::Quick {
        return Ok(1);
    }
    let tar_end = DATA_START + head.tar_bytes;
    if opened.check_metadata().is_err() {
        damaged("metadata");
    }
    let behind = sum(image, tar_end, head.metadata_offset).map_err(read)?;
    if behind != head.between_crc32c {
        damaged("content behind the tar");
    }
    let mut hasher = diff_id.algorithm().hasher();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = DATA_START;
    while at < tar_end {
        let step = buffer.len().min(usize::try_from(tar_end - at).unwrap_or(usize::MAX));
        image.read_exact_at(&mut buffer[..step], at).map_err(read)?;
        hasher.update(&buffer[..step]);
        at += step as u64;
    }
    if hasher.finish() != *diff_id {
        damaged("tar");
    }
    Ok(1)
}

fn read(source: io::Error) -> LayerError {
    LayerError::Stage { action: "read", source }
}

/// Reads the head of an image file.
///
/// # Errors
/// [`LayerError::Sums`] for a file that is none of ours, or what the file system says.
pub(super) fn opened<F: ReadAt + Borrow<File>>(image: F) -> Result<Image<F>, LayerError> {
    let size_bytes = image.borrow().metadata().map_err(read)?.len();
    Image::open(image, size_bytes).map_err(unreadable)
}

fn unreadable(why: ReadError) -> LayerError {
    match why {
        ReadError::Io(source) => read(source),
        ReadError::NotALayer => LayerError::Sums { what: "the file is no image of a layer" },
        ReadError::Size { .. } => LayerError::Sums { what: "the file has another size" },
        _ => LayerError::Sums { what: "the head of the file is not what was written" },
    }
}
