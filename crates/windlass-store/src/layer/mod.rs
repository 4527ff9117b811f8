//! Layers: from the bytes of a blob to a tree on disk, in one pass, without trusting any of them.
//!
//! ```text
//! blob bytes -> sha256 -> inflate -> sha256 (diff ID) -> tar entries -> rules -> tree of files + record of sums
//!   blob.rs               compress/    stream.rs            tar/       rules.rs,   dir/           sums/
//!                                                                      apply/
//! ```
//!
//! A layer is unpacked by itself, without the layers below, so that all layers of an image go at once; what depends on
//! those is noted and put right by [`settle`] when they are there, or, seldom, by extracting again with them
//! ([`LayerSpec::lowers`]). The result of either is what applying the layers one after the other gives.
//!
//! In a stage directory, which nobody else can enter, [`extract`] makes two names: [`TREE`], the directory for
//! overlayfs, and [`SUMS`], the record of every entry. Nothing in them may be used before `extract` has returned: only
//! then size, digest and diff ID have been compared. On an error the caller removes the stage with [`remove_tree`].
//!
//! Source of truth: OCI image-spec `layer.md`; Linux `overlayfs.rst`; Go `archive/tar` for the dialect.
//!
//! Invariants: `hostile_layers_are_refused_or_applied_safely` (nothing outside the stage is touched);
//! `any_stack_equals_layers_applied_one_after_the_other`; `one_thread_and_two_give_the_same_tree`.

mod apply;
mod below;
mod blob;
pub mod compress;
mod confine;
pub mod dir;
mod erofs;
mod error;
mod extract;
pub mod limits;
mod list;
mod needs;
mod part;
mod plain;
mod read_back;
pub mod rules;
mod settle;
mod stored;
mod stream;
pub mod sums;
pub mod tar;
pub mod tree;
mod verify;

use std::io::BufRead;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

use windlass_core::digest::Digest;

pub use compress::Compression;
pub use dir::marks::Form;
pub use dir::remove_tree;
pub use erofs::StoredTar;
pub use error::{EntryName, Failed, LayerError};
pub use limits::LayerLimits;
pub use list::{FileEntry, FileKind, Hear, list};
pub use needs::{Implicit, Needs};
pub use stored::Stored;
pub use verify::{Damage, DamageKind, Depth};

/// Name of the tree inside a stage or snapshot.
pub const TREE: &str = "fs";

/// Name of the record inside a stage or snapshot.
pub const SUMS: &str = "sums";

/// Name of the image file inside a stage or snapshot.
pub const IMAGE: &str = "image";

/// What a layer is unpacked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A directory for overlayfs, [`TREE`], with a record of its entries, [`SUMS`].
    #[default]
    Overlay,
    /// A file that the kernel mounts, [`IMAGE`]: the tar itself with EROFS metadata behind it.
    Erofs,
}

/// Hears how far a layer is, and may stop it. Called from the threads that unpack, every few hundred KiB or entries.
pub trait Progress: Sync {
    /// Takes what was done since the last call; `Break` ends the work with [`LayerError::Canceled`].
    fn advance(&self, step: Step) -> ControlFlow<()>;
}

/// Nobody is interested.
impl Progress for () {
    fn advance(&self, _: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What was done since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the blob that were read.
    pub blob_bytes: u64,
    /// Bytes of the tar that came out.
    pub tar_bytes: u64,
    /// Entries.
    pub entries: u64,
}

/// What a layer is and how it is to be unpacked.
#[derive(Debug)]
pub struct LayerSpec<'a> {
    /// Digest of the blob.
    pub digest: &'a Digest,
    /// Bytes of the blob.
    pub size_bytes: u64,
    /// What the media type says. [`Compression::None`] is never decompressed; else the first bytes decide.
    pub compression: Compression,
    /// Digest of the tar, from the config.
    pub diff_id: &'a Digest,
    /// What it may ask of us.
    pub limits: &'a LayerLimits,
    /// Whether to inflate on the calling thread and write on a second one. Pays when layers are fewer than cores.
    pub split: bool,
    /// Whose rights there are.
    pub form: Form,
    /// Whether `security.ima` and `security.evm` are kept.
    pub integrity_xattrs: bool,
    /// What it becomes.
    pub format: Format,
    /// The layers below, topmost first, if they are all there (an empty list for the lowest layer). None: unpack
    /// without them and [`settle`] later, as an image file is if there are any.
    pub below: Option<&'a [Stored]>,
}

impl<'a> LayerSpec<'a> {
    /// A layer unpacked by itself, on one thread, with the rights of this process.
    pub fn new(
        digest: &'a Digest,
        size_bytes: u64,
        compression: Compression,
        diff_id: &'a Digest,
        limits: &'a LayerLimits,
    ) -> LayerSpec<'a> {
        LayerSpec {
            digest,
            size_bytes,
            compression,
            diff_id,
            limits,
            split: false,
            form: Form::of_this_process(),
            integrity_xattrs: false,
            format: Format::Overlay,
            below: None,
        }
    }
}

/// What a person may want to know although the layer is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The media type says one compression, the bytes another.
    CompressionDiffers {
        /// What the media type says.
        stated: Compression,
        /// What the bytes are.
        found: Compression,
    },
    /// Zeros behind the last gzip member were ignored.
    ZeroPadding,
    /// Extended attributes are only in the record, since the file system or the user's rights do not allow them.
    XattrsNotStored,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::CompressionDiffers { stated, found } => {
                write!(f, "the layer's type says {}, its bytes are {}", stated.as_str(), found.as_str())
            }
            Warning::ZeroPadding => f.write_str("zeros behind the end of the compressed layer were ignored"),
            Warning::XattrsNotStored => {
                f.write_str("extended attributes of the layer could not be set on this file system")
            }
        }
    }
}

/// A layer that was unpacked and is verified.
#[derive(Debug)]
pub struct Extracted {
    /// What [`settle`] has to put right.
    pub needs: Needs,
    /// Bytes of the tar, holes of sparse files included.
    pub unpacked_bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
    /// Bytes of the tar as a stream.
    pub tar_bytes: u64,
    /// The entries of an image file whose metadata is not written yet. None: they are read from the file again.
    pub(crate) draft: Option<erofs::Entries>,
}

/// Lets go of entries that are not written yet, of the largest layers first, until they take no more than `max_bytes`
/// of memory. They are read from their files again.
pub(crate) fn forget_largest(mut layers: Vec<&mut Extracted>, max_bytes: u64) {
    let bytes = |layer: &Extracted| layer.draft.as_ref().map_or(0, tree::Tree::memory_bytes);
    layers.sort_by_key(|layer| bytes(layer));
    let mut kept = 0;
    for layer in layers {
        kept += bytes(layer);
        if kept > max_bytes {
            layer.draft = None;
        }
    }
}

/// Outcome of [`settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// The layer is complete.
    Done,
    /// It has to be extracted again, into a new stage, with the layers below given.
    Redo,
}

/// Unpacks a layer into a stage directory: hash, inflate, hash, write, in one pass over `input`.
///
/// `input` is read to its end, and one byte beyond the announced size at most. The stage must be empty, private to this
/// call and not group- or world-accessible. Blocking; memory is bounded by the limits, about 3 MiB for usual layers.
///
/// # Errors
/// The first thing that is wrong, except that damaged content whose digest does not fit is [`LayerError::Digest`]: the
/// transfer is to blame then. The stage is left as it was at that moment.
pub fn extract(
    input: &mut (dyn BufRead + Send),
    spec: &LayerSpec<'_>,
    stage: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    extract::extract(input, spec, stage, progress)
}

/// What completes a layer.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// The layers below, topmost first.
    pub below: &'a [Stored],
    /// Whose rights there are.
    pub form: Form,
    /// Digest of the tar.
    pub diff_id: &'a Digest,
    /// Digest over this and all lower layers: what an image file is told apart by.
    pub chain_id: &'a Digest,
    /// What the layer may ask of us.
    pub limits: &'a LayerLimits,
    /// Whether `security.ima` and `security.evm` are kept.
    pub integrity_xattrs: bool,
}

/// Completes a layer that was extracted, now that the layers below are there. It may be called again after a crash.
///
/// An image file gets its metadata here; it is never to be extracted again, since the tar is at hand.
///
/// # Errors
/// What the file system says; for an image file also what [`extract`] says about entries, if their verdict had to wait
/// for the layers below.
pub fn settle(
    stage: BorrowedFd<'_>,
    extracted: &mut Extracted,
    completion: &Completion<'_>,
) -> Result<Settled, LayerError> {
    match erofs::open(stage)? {
        Some(_) => erofs::complete(stage, extracted, completion).map(|()| Settled::Done),
        None => dir::settled::settle(stage, &extracted.needs, completion.below, completion.form),
    }
}

/// Applies a layer on top of an existing tree without overlayfs: what it removes is removed, what it has moves in.
///
/// `scratch` is an empty directory on the same file system, as private as a stage; the layer is extracted and verified
/// there first, so that `target` changes only for a layer that is good. It is empty again afterwards.
///
/// # Errors
/// As [`extract`]; if the file system fails while the layer moves in, `target` is left with a part of it.
pub fn apply_plain(
    input: &mut (dyn BufRead + Send),
    spec: &LayerSpec<'_>,
    target: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    plain::apply(input, spec, target, scratch, progress)
}

/// Writes a stored layer as a tar stream: the entries of its archive with the metadata the image gave them, whatever is
/// on disk. Applied to the same layers below it gives the same tree. An image file gives the very tar it was made of, a
/// directory one with another diff ID.
///
/// # Errors
/// [`LayerError::Sums`] where tree and record do not agree, or what `out` says as [`LayerError::Stage`].
pub fn read_back(snapshot: BorrowedFd<'_>, out: &mut dyn std::io::Write) -> Result<(), LayerError> {
    match erofs::open(snapshot)? {
        Some(image) => erofs::copy_tar(&image, out),
        None => read_back::read_back(snapshot, out),
    }
}

/// The tar of a layer that is kept as an image file; none for a directory.
///
/// # Errors
/// [`LayerError::Sums`] for a file that is none of ours, or what the file system says.
pub fn stored_tar(snapshot: BorrowedFd<'_>) -> Result<Option<StoredTar>, LayerError> {
    erofs::open(snapshot)?.map(StoredTar::of).transpose()
}

/// Compares a stored layer with its record, or an image file with its sums and its diff ID; `found` hears of every
/// difference. Says how many entries were compared; an image file is one.
///
/// # Errors
/// [`LayerError::Sums`] if the record itself is damaged, or what the file system says.
pub fn verify(
    snapshot: BorrowedFd<'_>,
    depth: Depth,
    form: Form,
    diff_id: &Digest,
    found: &mut dyn FnMut(Damage),
) -> Result<u64, LayerError> {
    match erofs::open(snapshot)? {
        Some(image) => erofs::verify(&image, depth, diff_id, found),
        None => verify::verify(snapshot, depth, form, found),
    }
}

/// What a stored layer needs from the layers below, from its record: for a layer that was extracted before a crash.
///
/// # Errors
/// [`LayerError::Sums`] if the record is damaged.
pub fn needs_of(snapshot: BorrowedFd<'_>, limits: &LayerLimits) -> Result<Needs, LayerError> {
    match erofs::open(snapshot)? {
        // Its entries are read again, with the layers below at hand.
        Some(_) => Ok(Needs::redo()),
        None => needs::from_sums(snapshot, limits),
    }
}
