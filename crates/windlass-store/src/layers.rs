//! The one place where the store touches the form of an unpacked layer.
//!
//! Everything else knows only that a layer is made in a stage, settled, moved as a whole, checked and removed. Another
//! form (an EROFS image, one file per layer) is another [`Form`](crate::meta::record::Form) and another arm here.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::manifest::{self, LayerType};

use crate::error::StoreError;
use crate::layer::{
    self, Compression, Damage, DamageKind, Depth, Extracted, Form, LayerError, LayerLimits, LayerSpec, Needs, Progress,
    Settled,
};
use crate::meta::record;
use crate::store::Store;
use crate::work::LayerKey;

pub(crate) use crate::layer::TREE;

/// On how many threads a layer is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Threads {
    /// On the calling one.
    #[default]
    One,
    /// Hashing and inflating on the calling one, writing on another: pays when there are fewer layers than cores.
    Two,
}

/// The form that layers unpacked by this process have.
pub(crate) fn form() -> record::Form {
    match Form::of_this_process() {
        Form::Root => record::Form::Directory,
        Form::User => record::Form::UserDirectory,
    }
}

/// Unpacks a blob into an empty stage.
pub(crate) fn extract(
    input: &mut (dyn BufRead + Send),
    key: &LayerKey,
    store: &Store,
    stage: &Path,
    lowers: Option<&[PathBuf]>,
    threads: Threads,
    progress: &dyn Progress,
) -> Result<Extracted, StoreError> {
    let failed = |source: LayerError| StoreError::Layer { blob: key.layer.blob.clone(), source };
    let compression = match LayerType::of(&key.layer.media_type).map(|found| found.compression) {
        Some(manifest::Compression::Gzip) => Compression::Gzip,
        Some(manifest::Compression::Zstd) => Compression::Zstd,
        // Unknown types were refused where the manifest was read; here the digest decides what they hold.
        Some(manifest::Compression::None) | None => Compression::None,
    };
    let limits = &store.options().limits;
    let mut spec = LayerSpec::new(&key.layer.blob, key.layer.size_bytes, compression, &key.layer.diff_id, limits);
    spec.split = threads == Threads::Two;
    let below = lowers.map(open_all).transpose()?;
    let below: Option<Vec<BorrowedFd<'_>>> = below.as_ref().map(|below| below.iter().map(|dir| dir.as_fd()).collect());
    spec.lowers = below.as_deref();
    let dir = open_dir(stage)?;
    layer::extract(input, &spec, dir.as_fd(), progress).map_err(failed)
}

/// Completes a layer with the trees below it, topmost first.
pub(crate) fn settle(stage: &Path, extracted: &Extracted, lowers: &[PathBuf]) -> Result<Settled, StoreError> {
    let below = open_all(lowers)?;
    let below: Vec<BorrowedFd<'_>> = below.iter().map(|dir| dir.as_fd()).collect();
    let dir = open_dir(stage)?;
    layer::settle(dir.as_fd(), &extracted.needs, &below, Form::of_this_process()).map_err(|source| StoreError::Tree {
        action: "settle",
        path: stage.to_owned(),
        source,
    })
}

/// What a layer that was unpacked before a crash still needs from below.
pub(crate) fn needs_of(stage: &Path, limits: &LayerLimits) -> Option<Needs> {
    let dir = File::open(stage).ok()?;
    layer::needs_of(dir.as_fd(), limits).ok()
}

/// Compares a layer with the record that was taken when it was written.
///
/// # Errors
/// What differs, for people: the first entry, and how many more.
pub(crate) fn verify(dir: &Path, form: record::Form, depth: Depth) -> Result<(), String> {
    let form = match form {
        record::Form::Directory => Form::Root,
        record::Form::UserDirectory => Form::User,
    };
    let (mut first, mut count) = (None, 0u64);
    let mut found = |damage: Damage| {
        count += 1;
        first.get_or_insert(damage);
    };
    let file = File::open(dir).map_err(|error| error.to_string())?;
    layer::verify(file.as_fd(), depth, form, &mut found).map_err(|error| error.to_string())?;
    match first {
        None => Ok(()),
        Some(Damage { entry, kind }) => {
            let what = match kind {
                DamageKind::Missing => "is missing",
                DamageKind::Kind => "is of another kind",
                DamageKind::Size => "has another size",
                DamageKind::Content => "has other content",
            };
            let more = if count > 1 { format!(", and {} more entries differ", count - 1) } else { String::new() };
            Err(format!("{entry} {what}{more}"))
        }
    }
}

/// Removes whatever stands at `path`: a stage, a layer, a directory of ingests. Nothing there is no error.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let dir = match File::open(parent) {
        Ok(dir) => dir,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StoreError::io("open", parent, source)),
    };
    match layer::remove_tree(dir.as_fd(), name.as_bytes()) {
        // Another collection was at it at the same time.
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(StoreError::io("remove", path, errno)),
    }
}

fn open_dir(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|source| StoreError::io("open", path, source))
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<File>, StoreError> {
    paths.iter().map(|path| open_dir(path)).collect()
}
