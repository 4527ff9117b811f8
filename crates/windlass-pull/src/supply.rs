//! The bytes of a stored image's blob as its manifest names them, wherever they can still be had: kept in the store, in
//! an image file where the layer is uncompressed, or fetched again by digest from the repositories the image came from.
//!
//! Invariants: `a_load_keeps_layers_that_a_pull_had_dropped` (kept blobs need no network), `a_blob_nobody_has_is_named_with_its_source`.

use std::io::{BufReader, Read};

use tokio_util::sync::CancellationToken;
use windlass_core::keyring::Mode;
use windlass_core::manifest::{Descriptor, Document, Manifest, parse_document};
use windlass_core::reference::Reference;
use windlass_distribution::{BlobEvent, BlobFetch, Repository};
use windlass_store::{Image, LayerRecord, StoredTar};

use crate::PullError;
use crate::attempt::Attempts;
use crate::engine::{Inner, blocking};
use crate::pipe::{PipeWriter, READ_BYTES, pipe};
use crate::pump::pump_to_end;

/// Where credentials for fetching again come from.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) mode: Mode,
    pub(crate) cancel: CancellationToken,
}

/// A stored image with its documents.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) image: Image,
    /// What its name stands for: the index if there is one, else the manifest.
    pub(crate) root: Descriptor,
    /// Root and, behind an index, the manifest; with their bytes.
    pub(crate) documents: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) manifest: Manifest,
    pub(crate) config: Vec<u8>,
}

/// Finds a whole image and reads its documents.
pub(crate) async fn stored(engine: &Inner, name: &str) -> Result<Stored, PullError> {
    let (store, limits, name) = (engine.store.clone(), engine.limits.clone(), name.to_owned());
    blocking(move || {
        let image = store.find(&name)?.ok_or_else(|| PullError::ImageUnknown { name: name.clone() })?;
        if let Some(what) = &image.damage {
            let (image, what) = (image.id.clone(), what.clone());
            return Err(windlass_store::StoreError::Damaged { image, what }.into());
        }
        let named = Reference::parse(&name).ok().map(|reference| store.resolved(&reference)).transpose()?.flatten();
        let (manifest, index) = named
            .or_else(|| image.manifests.last().cloned())
            .ok_or(PullError::Internal("a stored image has no manifest"))?;
        let mut documents = Vec::new();
        for digest in index.iter().chain(std::iter::once(&manifest)) {
            let bytes = store.read_blob(digest, limits.manifest_bytes)?;
            let bytes = bytes.ok_or_else(|| PullError::ImageUnknown { name: name.clone() })?;
            let media_type = match parse_document(&bytes, None, None, &limits)? {
                Document::Index(index) => index.media_type,
                Document::Manifest(manifest) => manifest.media_type,
            };
            documents.push((Descriptor::new(media_type, digest.clone(), bytes.len() as u64), bytes));
        }
        let last = documents.last().ok_or(PullError::Internal("a stored image has no manifest"))?;
        let Document::Manifest(manifest) = parse_document(&last.1, None, None, &limits)? else {
            return Err(PullError::Internal("a stored image's manifest is an index"));
        };
        let config = store.read_blob(&image.id, limits.config_bytes)?;
        let config = config.ok_or(PullError::ImageUnknown { name })?;
        let root = documents[0].0.clone();
        Ok(Stored { image, root, documents, manifest, config })
    })
    .await
}

/// A blob's bytes for a blocking reader.
pub(crate) type BlobReader = Box<dyn Read + Send>;

/// A blob's bytes: from the store, or as a fetch that has begun.
pub(crate) enum Supply {
    Kept(std::fs::File),
    /// The blob is an uncompressed layer, which an image file holds.
    Tar(StoredTar),
    Fetch(Box<Begun>),
}

/// A fetch whose first bytes are here, so that it is known to be served.
pub(crate) struct Begun {
    pub(crate) repository: Repository,
    fetch: BlobFetch,
    first: Option<BlobEvent>,
}

/// Looks for a blob of an image: kept, then each of its sources.
///
/// # Errors
/// [`PullError::BlobMissing`] naming the last source.
pub(crate) async fn supply(
    engine: &Inner,
    image: &Image,
    blob: &Descriptor,
    access: &Access,
) -> Result<Supply, PullError> {
    let (store, digest, size_bytes) = (engine.store.clone(), blob.digest.clone(), blob.size_bytes);
    let kept = blocking(move || {
        let file = store.open_blob(&digest)?;
        let is_whole = |file: &std::fs::File| file.metadata().is_ok_and(|found| found.len() == size_bytes);
        Ok::<_, windlass_store::StoreError>(file.filter(is_whole))
    });
    if let Some(file) = kept.await? {
        return Ok(Supply::Kept(file));
    }
    let is_plain = |layer: &&LayerRecord| layer.blob == blob.digest && layer.diff_id == blob.digest;
    if let Some(layer) = image.layers.iter().find(is_plain) {
        let (store, chain, size_bytes) = (engine.store.clone(), layer.chain_id.clone(), blob.size_bytes);
        let tar = blocking(move || store.layer_tar(&chain)).await?;
        if let Some(tar) = tar.filter(|tar| tar.left_bytes() == size_bytes) {
            return Ok(Supply::Tar(tar));
        }
    }
    let mut last = None;
    for source in &image.sources {
        let Ok(reference) = Reference::parse(&format!("{}/{}", source.host, source.path)) else { continue };
        let repository = engine.repository(&reference, access.mode).await?;
        let mut fetch = repository.blob(blob);
        match fetch.next().await {
            Ok(first) => return Ok(Supply::Fetch(Box::new(Begun { repository, fetch, first }))),
            Err(error) if error.reason() == windlass_core::reason::Reason::BlobMissing => {
                last = Some((reference.repository(), error));
            }
            Err(error) => {
                return Err(PullError::Fetch { source: Box::new(error), attempts: Attempts::of(&repository) });
            }
        }
    }
    let (place, source) = match last {
        Some((place, error)) => (place, Some(Box::new(error))),
        None => ("no registry".to_owned(), None),
    };
    Err(PullError::BlobMissing { digest: blob.digest.clone(), image: image.id.to_string(), place, source })
}

/// Gives a blob's bytes to blocking work on another thread.
pub(crate) async fn feed<T: Send + 'static>(
    supply: Supply,
    access: &Access,
    work: impl FnOnce(BlobReader) -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    match supply {
        Supply::Kept(file) => blocking(move || work(Box::new(BufReader::with_capacity(READ_BYTES, file)))).await,
        Supply::Tar(tar) => blocking(move || work(Box::new(BufReader::with_capacity(READ_BYTES, tar)))).await,
        Supply::Fetch(mut begun) => {
            let (writer, reader) = pipe();
            let worker = tokio::task::spawn_blocking(move || work(Box::new(reader)));
            let driven = tokio::select! {
                driven = drive(&mut begun, writer) => driven,
                () = access.cancel.cancelled() => Err(PullError::Canceled),
            };
            let worked = worker.await.map_err(|_| PullError::Internal("a worker thread panicked"))?;
            driven.and(worked)
        }
    }
}

async fn drive(begun: &mut Begun, writer: PipeWriter) -> Result<(), PullError> {
    // After a restart, what was written cannot be taken back; the reader fails and says so.
    let pumped = pump_to_end(begun.first.take(), &mut begun.fetch, writer, |_| {}).await;
    pumped.map_err(|error| PullError::Fetch { source: Box::new(error), attempts: Attempts::default() })
}
