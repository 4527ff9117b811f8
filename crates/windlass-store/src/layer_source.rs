//! What a stored layer can be made of again, from what is here: for another form of it, or for a plain tree.
//!
//! | the layer is | its compressed blob | the bytes are | and they are |
//! | --- | --- | --- | --- |
//! | an image file | | the tar in it | the layer's own: they hash to the diff ID |
//! | an image file that was made of a directory | dropped | the tar in it | another tar of the same entries |
//! | an image file that was made of a directory | kept | the blob | the layer's own |
//! | a directory | kept | the blob | the layer's own |
//! | a directory | dropped | the tree and its record, read back as a tar | another tar of the same entries |
//!
//! Whoever applies them checks them: [`LayerSource::layer`] has the digest that they must have. A directory that is read
//! back is compared with the sums of its record on the way. Either tar, applied to the same layers below, gives the same
//! tree; that another one is never taken for the layer's own is for the caller to see to.
//!
//! Invariants: `layers_are_converted_there_and_back`, `a_stored_layer_is_applied_as_the_registrys_is`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use windlass_core::digest::{Algorithm, Digest, Hasher};
use windlass_core::manifest::media_type;

use crate::error::StoreError;
use crate::layer::{self, LayerError};
use crate::layers;
use crate::meta::record::{LayerRecord, SnapshotRecord};
use crate::store::Store;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// The bytes of one layer.
#[derive(Debug)]
pub(crate) struct LayerSource {
    /// What the bytes are.
    layer: LayerRecord,
    bytes: Bytes,
    snapshot: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Bytes {
    Blob,
    Image,
    Tree,
}

impl Store {
    /// Gives `work` a stored layer as bytes to be unpacked, with what they are: digest, size and media type of the bytes,
    /// and the diff ID that they have. That is the layer's own one wherever its own tar or its blob is here; a directory
    /// whose blob was dropped has another tar of the same entries. `work` checks the bytes. Nothing is changed, and
    /// nothing is held: a layer that is removed meanwhile is an error.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] for a layer that is not here, [`StoreError::Tree`] where it is found damaged on the
    /// way, whatever `work` said of what came; else the error of `work`.
    pub fn layer_bytes<T, E: From<StoreError>>(
        &self,
        layer: &LayerRecord,
        work: impl FnOnce(&LayerRecord, &mut (dyn BufRead + Send)) -> Result<T, E>,
    ) -> Result<T, E> {
        let source = self.layer_source(layer)?;
        source.feed(self, |bytes| work(&source.layer, bytes))
    }

    fn layer_source(&self, layer: &LayerRecord) -> Result<LayerSource, StoreError> {
        let record = self.read(|tx| tx.get::<SnapshotRecord>(layer.chain_id.as_str()))?;
        let missing = || StoreError::Incomplete { part: "layer", digest: layer.diff_id.clone() };
        let record = record.ok_or_else(missing)?;
        // The blob is not what the layer is checked by; one that was cut off is as good as none.
        let kept = self.open_blob(&layer.blob)?.and_then(|file| file.metadata().ok());
        let kept = kept.is_some_and(|found| found.len() == layer.size_bytes).then(|| layer.clone());
        LayerSource::of(self, &layer.chain_id, &record, kept)
    }

    /// The layer's compressed bytes, if they are here; that they are whole is seen when they are read.
    pub(crate) fn kept_layer(&self, blobs: &[LayerRecord]) -> Result<Option<LayerRecord>, StoreError> {
        for blob in blobs {
            if self.open_blob(&blob.blob)?.is_some() {
                return Ok(Some(blob.clone()));
            }
        }
        Ok(None)
    }
}

impl LayerSource {
    /// Chooses, see the module. A directory is read once for what its tar hashes to.
    pub(crate) fn of(
        store: &Store,
        chain: &Digest,
        record: &SnapshotRecord,
        kept: Option<LayerRecord>,
    ) -> Result<LayerSource, StoreError> {
        let snapshot = store.layout().snapshot(record.n);
        let plain = |tar: Digest, size_bytes: u64| LayerRecord {
            blob: tar.clone(),
            size_bytes,
            media_type: media_type::OCI_LAYER.to_owned(),
            diff_id: tar,
            chain_id: chain.clone(),
        };
        let tar = layer::stored_tar(open(&snapshot)?.as_fd()).map_err(unreadable(&snapshot))?;
        // Its own tar is as good as the blob, and needs no decoder.
        let blob = kept.filter(|_| tar.is_none() || record.tar.is_some());
        let (bytes, layer) = match (blob, tar) {
            (Some(blob), _) => (Bytes::Blob, blob),
            (None, Some(tar)) => (Bytes::Image, plain(record.tar_digest().clone(), tar.left_bytes())),
            (None, None) => {
                let (tar, size_bytes) = weigh(&snapshot, record)?;
                (Bytes::Tree, plain(tar, size_bytes))
            }
        };
        Ok(LayerSource { layer, bytes, snapshot })
    }

    /// What the bytes are.
    pub(crate) fn layer(&self) -> &LayerRecord {
        &self.layer
    }

    /// Gives the bytes to `work`. It may be called again.
    pub(crate) fn feed<T, E: From<StoreError>>(
        &self,
        store: &Store,
        work: impl FnOnce(&mut (dyn BufRead + Send)) -> Result<T, E>,
    ) -> Result<T, E> {
        let snapshot = &self.snapshot;
        match self.bytes {
            Bytes::Blob => {
                let missing = || StoreError::Incomplete { part: "blob", digest: self.layer.blob.clone() };
                let file = store.open_blob(&self.layer.blob)?.ok_or_else(missing)?;
                work(&mut BufReader::with_capacity(READ_BYTES, file))
            }
            Bytes::Image => {
                let tar = layer::stored_tar(open(snapshot)?.as_fd()).map_err(unreadable(snapshot))?;
                let missing = || StoreError::Incomplete { part: "layer", digest: self.layer.chain_id.clone() };
                work(&mut BufReader::with_capacity(READ_BYTES, tar.ok_or_else(missing)?))
            }
            Bytes::Tree => read_back_into(snapshot, work),
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|source| StoreError::io("open", path, source))
}

fn unreadable(path: &Path) -> impl Fn(LayerError) -> StoreError {
    move |source| StoreError::Tree { action: "read", path: path.to_owned(), source }
}

/// Digest and size of the tar that a directory reads back as.
fn weigh(snapshot: &Path, record: &SnapshotRecord) -> Result<(Digest, u64), StoreError> {
    let mut scale = Scale { hasher: Algorithm::Sha256.hasher(), bytes: 0 };
    if !layers::is_there(snapshot, record.form) {
        return Err(StoreError::Incomplete { part: "layer", digest: record.diff_id.clone() });
    }
    layer::read_back(open(snapshot)?.as_fd(), &mut scale).map_err(unreadable(snapshot))?;
    Ok((scale.hasher.finish(), scale.bytes))
}

struct Scale {
    hasher: Hasher,
    bytes: u64,
}

impl Write for Scale {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a directory back on a thread of its own while `work` takes the tar.
fn read_back_into<T, E: From<StoreError>>(
    snapshot: &Path,
    work: impl FnOnce(&mut (dyn BufRead + Send)) -> Result<T, E>,
) -> Result<T, E> {
    let dir = open(snapshot)?;
    let (reader, writer) = io::pipe().map_err(|source| StoreError::io("read", snapshot, source))?;
    std::thread::scope(|scope| {
        let back = scope.spawn(move || -> Result<(), LayerError> {
            // Dropped at the end, which is the end of the tar.
            let mut out: io::BufWriter<PipeWriter> = io::BufWriter::with_capacity(READ_BYTES, writer);
            layer::read_back(dir.as_fd(), &mut out)?;
            out.flush().map_err(|source| LayerError::Stage { action: "write out", source })
        });
        let mut reader = BufReader::with_capacity(READ_BYTES, reader);
        let worked = work(&mut reader);
        // Who stopped early must not leave the other waiting.
        drop(reader);
        let back = back.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (worked, back) {
            (Ok(done), Ok(())) => Ok(done),
            // A reader that stopped is why the writer did.
            (Err(error), Err(LayerError::Stage { action: "write out", .. }) | Ok(())) => Err(error),
            (_, Err(source)) => Err(unreadable(snapshot)(source).into()),
        }
    })
}
