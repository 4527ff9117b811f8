//! The one place where the store touches the form of an unpacked layer.
//!
//! Everything else knows only that a layer is made in a stage, settled, moved as a whole, checked and removed. A form
//! is one [`Form`](crate::meta::record::Form) and one arm here; layers of one image may have different ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use windlass_core::manifest::{self, LayerType};

use crate::error::StoreError;
use crate::layer::{
    self, Completion, Compression, Damage, DamageKind, Depth, Extracted, Form, IMAGE, LayerError, LayerLimits,
    LayerSpec, Needs, Progress, Settled, Stored, TREE,
};
use crate::layout::Layout;
use crate::meta::record::{self, SnapshotRecord};
use crate::store::Store;
use crate::work::LayerKey;

/// On how many threads a layer is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Threads {
    /// On the calling one.
    #[default]
    One,
    /// Hashing and inflating on the calling one, writing on another: pays when there are fewer layers than cores.
    Two,
}

/// The form of what stands in a stage.
pub(crate) fn form_of(stage: &Path) -> record::Form {
    match (stage.join(IMAGE).exists(), Form::of_this_process()) {
        (true, _) => record::Form::Erofs,
        (false, Form::Root) => record::Form::Directory,
        (false, Form::User) => record::Form::UserDirectory,
    }
}

/// The file or directory that must be there for a layer to be there.
pub(crate) fn content(snapshot: &Path, form: record::Form) -> PathBuf {
    snapshot.join(match form {
        record::Form::Directory | record::Form::UserDirectory => TREE,
        record::Form::Erofs => IMAGE,
    })
}

/// Whether a layer of this form stands in a snapshot, as far as a look tells.
pub(crate) fn is_there(snapshot: &Path, form: record::Form) -> bool {
    std::fs::symlink_metadata(content(snapshot, form)).is_ok_and(|found| match form {
        record::Form::Directory | record::Form::UserDirectory => found.is_dir(),
        record::Form::Erofs => found.is_file(),
    })
}

/// Whether the layer of a record stands where the record says.
pub(crate) fn stands(layout: &Layout, record: &SnapshotRecord) -> bool {
    is_there(&layout.snapshot(record.n), record.form)
}

/// Unpacks a blob into an empty stage.
pub(crate) fn extract(
    input: &mut (dyn BufRead + Send),
    key: &LayerKey,
    store: &Store,
    stage: &Path,
    below: Option<&[Stored]>,
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
    spec.format = store.format()?;
    spec.below = below;
    let dir = open_dir(stage)?;
    layer::extract(input, &spec, dir.as_fd(), progress).map_err(failed)
}

/// Completes a layer with the layers below it, topmost first.
pub(crate) fn settle(
    stage: &Path,
    extracted: &mut Extracted,
    key: &LayerKey,
    below: &[Stored],
    limits: &LayerLimits,
) -> Result<Settled, StoreError> {
    let dir = open_dir(stage)?;
    let completion = Completion {
        below,
        form: Form::of_this_process(),
        diff_id: &key.layer.diff_id,
        chain_id: &key.layer.chain_id,
        limits,
        integrity_xattrs: false,
    };
    layer::settle(dir.as_fd(), extracted, &completion).map_err(|source| match form_of(stage) {
        // Entries of its tar may have been judged only now.
        record::Form::Erofs => StoreError::Layer { blob: key.layer.blob.clone(), source },
        record::Form::Directory | record::Form::UserDirectory => {
            StoreError::Tree { action: "settle", path: stage.to_owned(), source }
        }
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
pub(crate) fn verify(dir: &Path, record: &SnapshotRecord, depth: Depth) -> Result<(), String> {
    let form = match record.form {
        record::Form::Directory | record::Form::Erofs => Form::Root,
        record::Form::UserDirectory => Form::User,
    };
    let (mut first, mut count) = (None, 0u64);
    let mut found = |damage: Damage| {
        count += 1;
        first.get_or_insert(damage);
    };
    let file = File::open(dir).map_err(|error| error.to_string())?;
    layer::verify(file.as_fd(), depth, form, record.tar_digest(), &mut found).map_err(|error| error.to_string())?;
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

/// Layers that a pull has opened to lay others on them, by their snapshots: each is opened once.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<BTreeMap<PathBuf, Stored>>);

impl Opened {
    /// The layers in these snapshots.
    ///
    /// # Errors
    /// One of them holds no layer that can be read.
    pub(crate) fn all(&self, snapshots: &[PathBuf]) -> Result<Vec<Stored>, StoreError> {
        // An entry is put in whole, so a thread that panicked left it sound.
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |path: &PathBuf| {
            if let Some(stored) = opened.get(path) {
                return Ok(stored.clone());
            }
            let stored = Stored::open(open_dir(path)?.as_fd()).map_err(|source| StoreError::Tree {
                action: "open",
                path: path.clone(),
                source,
            })?;
            opened.insert(path.clone(), stored.clone());
            Ok(stored)
        };
        snapshots.iter().map(open).collect()
    }
}
