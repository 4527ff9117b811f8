//! One layer, one pass: wires the stages together on one thread or on two.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::sync_channel;

use rustix::fs::{Mode, OFlags};

use super::apply::{Applied, Apply};
use super::below::Below;
use super::blob::Blob;
use super::compress::{Compression, Decoder};
use super::confine::confined;
use super::dir::DirTree;
use super::erofs::{self, Entries};
use super::error::{Doing, Failed, LayerError};
use super::rules::Rules;
use super::stored::Stored;
use super::stream::{self, BUFFERS, Inline, Meter, Piped, Unpacked};
use super::tar::{Reader, Source};
use super::{Extracted, Format, LayerSpec, Progress, SUMS, TREE, Warning, sums};

pub(super) fn extract(
    input: &mut (dyn BufRead + Send),
    spec: &LayerSpec<'_>,
    stage: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    let below = spec.below.unwrap_or_default();
    let readable: Vec<BorrowedFd<'_>> = below.iter().filter_map(Stored::directory).collect();
    confined(stage, &readable, || one_pass(input, spec, stage, progress))
}

fn one_pass(
    input: &mut (dyn BufRead + Send),
    spec: &LayerSpec<'_>,
    stage: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    let mut blob = Blob::new(input, spec.digest, spec.size_bytes, progress);
    match content(&mut blob, spec, stage, progress) {
        Ok(extracted) => {
            blob.finish()?;
            Ok(extracted)
        }
        Err(error) => Err(blame(&mut blob, error)),
    }
}

/// Damaged content may be the fault of the transfer: then the digest does not fit, and that is what counts.
fn blame(blob: &mut Blob<'_>, error: LayerError) -> LayerError {
    let by_content = match &error {
        LayerError::Compression { .. }
        | LayerError::Archive { .. }
        | LayerError::UnsafePath { .. }
        | LayerError::UnsupportedEntry { .. }
        | LayerError::DiffId { .. } => true,
        LayerError::Size { .. }
        | LayerError::Digest { .. }
        | LayerError::Limit { .. }
        | LayerError::Entry { .. }
        | LayerError::Stage { .. }
        | LayerError::NoOpenat2
        | LayerError::Input { .. }
        | LayerError::Sums { .. }
        | LayerError::Canceled => false,
    };
    match by_content.then(|| blob.finish()) {
        Some(Err(mismatch)) => mismatch,
        Some(Ok(())) | None => error,
    }
}

fn content(
    blob: &mut Blob<'_>,
    spec: &LayerSpec<'_>,
    stage: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    let (decoder, found) = Decoder::new(blob, spec.compression, spec.limits)?;
    let copy = match spec.format {
        Format::Overlay => None,
        Format::Erofs => Some(erofs::create(stage)?),
    };
    let meter = Meter::new(spec.diff_id, blob.size(), spec.limits, progress, copy);
    let (done, has_zero_padding) = if spec.split {
        split(blob, decoder, found, meter, spec, stage, progress)?
    } else {
        let mut reader = Reader::new(Inline::new(blob, decoder, found, meter), spec.limits);
        let applied = apply(&mut reader, spec, stage, progress)?;
        let source = reader.into_source();
        ((applied, source.meter.finish()?), source.decoder.has_zero_padding())
    };
    let (applied, unpacked) = done;
    let mut warnings = Vec::new();
    if found != spec.compression {
        warnings.push(Warning::CompressionDiffers { stated: spec.compression, found });
    }
    if has_zero_padding {
        warnings.push(Warning::ZeroPadding);
    }
    if applied.tree.lost_xattrs {
        warnings.push(Warning::XattrsNotStored);
    }
    Ok(Extracted {
        needs: applied.needs,
        unpacked_bytes: unpacked.bytes,
        entries: applied.entries,
        warnings,
        tar_bytes: unpacked.stream_bytes,
        draft: applied.tree.entries,
    })
}

/// What is left of a tree that is done with.
struct Left {
    lost_xattrs: bool,
    /// The entries of an image file.
    entries: Option<Entries>,
}

/// What a thread hands back.
type Done = (Applied<Left>, Unpacked);

fn split(
    blob: &mut Blob<'_>,
    mut decoder: Decoder,
    found: Compression,
    meter: Meter<'_>,
    spec: &LayerSpec<'_>,
    stage: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<(Done, bool), LayerError> {
    let (send_full, full) = sync_channel(BUFFERS);
    let (send_empty, empty) = sync_channel(BUFFERS);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<Done, LayerError> {
            let mut reader = Reader::new(Piped::new(meter, full, send_empty), spec.limits);
            let applied = apply(&mut reader, spec, stage, progress)?;
            Ok((applied, reader.into_source().meter.finish()?))
        });
        let inflated = stream::inflate(blob, &mut decoder, found, &send_full, &empty);
        if inflated.is_err() {
            // The writer may have stopped before; it needs to know that this is no end of the stream.
            let _ = send_full.send(None);
        }
        drop(send_full);
        drop(empty);
        let written = match writer.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (inflated, written) {
            (Ok(()), Ok(done)) => Ok((done, decoder.has_zero_padding())),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        }
    })
}

fn apply<S: Source>(
    reader: &mut Reader<'_, S>,
    spec: &LayerSpec<'_>,
    stage: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Applied<Left>, LayerError> {
    let below = match spec.format {
        Format::Overlay => spec.below,
        // It gets what it needs from below when it is settled, and has no room for that while its tar is coming.
        Format::Erofs => spec.below.filter(|below| below.is_empty()),
    };
    let below = below.map(|below| Below::new(below, spec.form)).transpose().map_err(Failed::at_stage)?;
    let rules = Rules { limits: spec.limits, integrity_xattrs: spec.integrity_xattrs };
    match spec.format {
        Format::Overlay => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let sums = rustix::fs::openat(stage, SUMS, flags, Mode::RUSR | Mode::WUSR)
                .doing("write the record of")
                .map_err(Failed::at_stage)?;
            let tree = DirTree::create(stage, TREE, spec.form, spec.below.is_some()).map_err(Failed::at_stage)?;
            let mut apply = Apply::new(tree, rules, below, Some(sums::Writer::new(File::from(sums))), progress)?;
            apply.run(reader)?;
            let applied = apply.finish()?;
            Ok(applied.map(|tree| Left { lost_xattrs: tree.lost_xattrs(), entries: None }))
        }
        Format::Erofs => {
            let mut apply = Apply::new(Entries::new(), rules, below, None, progress)?;
            apply.run(reader)?;
            let applied = apply.finish()?;
            Ok(applied.map(|entries| Left { lost_xattrs: entries.lost_xattrs(), entries: Some(entries) }))
        }
    }
}
