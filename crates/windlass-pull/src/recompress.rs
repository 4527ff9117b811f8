//! Layers compressed anew, for images whose compressed layers are kept neither here nor anywhere that answers.
//!
//! In: a layer that is kept as an image file, and so as its own tar, byte for byte. Out: a blob of the same media type
//! with another digest, and a manifest that names it. Config, image ID and diff IDs stay what they are; the digest of
//! the manifest does not, so repo digests and signatures of the image do not fit what was written. That is why it is
//! done only when asked for, and only for layers that cannot be had otherwise.
//!
//! Invariants: `layers_are_compressed_anew_when_asked`, `a_damaged_tar_is_not_compressed_anew`,
//! `a_tar_read_back_is_not_compressed_anew`; others read what is written:
//! `what_is_saved_compressed_anew_is_read_by_skopeo_and_podman`,
//! `what_is_pushed_compressed_anew_is_pulled_by_skopeo_and_podman`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use windlass_core::digest::{Algorithm, Digest, Hasher};
use windlass_core::manifest::{Compression, Descriptor, LayerType};
use windlass_store::{Image, LayerRecord, Store, StoreError};

use crate::PullError;
use crate::archive::source::io_error;
use crate::engine::{Inner, blocking};
use crate::pipe::READ_BYTES;
use crate::supply::{Access, Supply, supply};

/// Whether layers that cannot be had as the manifest names them are compressed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompress {
    /// They are not: that is an error.
    #[default]
    No,
    /// They are, where their own tar is here; the manifest gets another digest then.
    Yes,
}

/// An image that was written with another manifest than the stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recompressed {
    /// The image ID, which is the same.
    pub image: Digest,
    /// The manifest here.
    pub stored: Digest,
    /// The manifest that was written.
    pub written: Digest,
    /// How many of its layers were compressed anew.
    pub layers: usize,
}

/// What a layer's blob is taken from.
pub(crate) enum LayerSupply {
    /// The blob that the manifest names.
    Named(Supply),
    /// Another one of the same tar.
    Anew(Box<Anew>),
}

/// A layer that was compressed anew, in an unnamed file.
#[derive(Debug, Clone)]
pub(crate) struct Anew {
    pub(crate) descriptor: Descriptor,
    file: Arc<File>,
}

impl Anew {
    /// The blob from an offset on.
    pub(crate) fn open(&self, at: u64) -> impl Read + Send + use<> {
        Opened { file: self.file.clone(), at }
    }
}

struct Opened {
    file: Arc<File>,
    at: u64,
}

impl Read for Opened {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Looks for a layer's blob, and compresses the layer anew if nobody has it and that was asked for.
///
/// # Errors
/// As [`supply`]; [`PullError::Recompressible`] where asking for it would help.
pub(crate) async fn layer_supply(
    engine: &Inner,
    image: &Image,
    layer: &Descriptor,
    access: &Access,
    recompress: Recompress,
) -> Result<LayerSupply, PullError> {
    let error = match supply(engine, image, layer, access).await {
        Ok(supply) => return Ok(LayerSupply::Named(supply)),
        Err(error) => error,
    };
    let record = image.layers.iter().find(|record| record.blob == layer.digest);
    let (Some(record), true) = (record.cloned(), is_of_the_registry(&error)) else { return Err(error) };
    let (store, media_type, cancel) = (engine.store.clone(), layer.media_type.clone(), access.cancel.clone());
    match recompress {
        Recompress::No => {
            let has_tar = blocking(move || store.layer_tar(&record.chain_id).map(|tar| tar.is_some())).await?;
            let digest = layer.digest.clone();
            Err(if has_tar { PullError::Recompressible { digest, source: Box::new(error) } } else { error })
        }
        Recompress::Yes => {
            let anew = blocking(move || compress(&store, &record, &media_type, &cancel)).await?;
            anew.map(|anew| LayerSupply::Anew(Box::new(anew))).ok_or(error)
        }
    }
}

/// Whether an error says that the blob cannot be had, and nothing about this machine.
fn is_of_the_registry(error: &PullError) -> bool {
    match error {
        PullError::Fetch { .. }
        | PullError::EveryCredential { .. }
        | PullError::Credentials { .. }
        | PullError::BlobMissing { .. } => true,
        PullError::Shared(error) => is_of_the_registry(error),
        PullError::Reference(_)
        | PullError::Workload(_)
        | PullError::Manifest(_)
        | PullError::Platform(_)
        | PullError::Store(_)
        | PullError::Layer { .. }
        | PullError::StoredLayer { .. }
        | PullError::ImageLimit { .. }
        | PullError::ImageUnknown { .. }
        | PullError::Recompressible { .. }
        | PullError::OtherDigest { .. }
        | PullError::Io { .. }
        | PullError::Layout { .. }
        | PullError::Canceled
        | PullError::Internal(_) => false,
    }
}

/// Compresses a layer's own tar; `None` where the store does not have it. The same tar gives the same blob.
fn compress(
    store: &Store,
    layer: &LayerRecord,
    media_type: &str,
    cancel: &CancellationToken,
) -> Result<Option<Anew>, PullError> {
    let Some(mut tar) = store.layer_tar(&layer.chain_id)? else { return Ok(None) };
    let failed = |error| io_error(store.root(), error);
    let mut out = Encoder::new(media_type, tempfile::tempfile_in(store.root()).map_err(failed)?).map_err(failed)?;
    let mut hasher = layer.diff_id.algorithm().hasher();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(PullError::Canceled);
        }
        let count = tar.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        out.write_all(&buffer[..count]).map_err(failed)?;
    }
    let got = hasher.finish();
    if got != layer.diff_id {
        return Err(StoreError::DigestMismatch { want: layer.diff_id.clone(), got }.into());
    }
    let Spool { file, hasher, bytes } = out.finish().map_err(failed)?;
    let descriptor = Descriptor::new(media_type, hasher.finish(), bytes);
    Ok(Some(Anew { descriptor, file: Arc::new(file) }))
}

enum Encoder {
    None(Spool),
    Gzip(flate2::write::GzEncoder<Spool>),
    Zstd(zstd::Encoder<'static, Spool>),
}

impl Encoder {
    fn new(media_type: &str, file: File) -> io::Result<Encoder> {
        let spool = Spool { file, hasher: Algorithm::Sha256.hasher(), bytes: 0 };
        Ok(match LayerType::of(media_type).map(|kind| kind.compression) {
            Some(Compression::None) | None => Encoder::None(spool),
            Some(Compression::Gzip) => {
                Encoder::Gzip(flate2::write::GzEncoder::new(spool, flate2::Compression::default()))
            }
            Some(Compression::Zstd) => Encoder::Zstd(zstd::Encoder::new(spool, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::None(out) => out.write_all(bytes),
            Encoder::Gzip(out) => out.write_all(bytes),
            Encoder::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Spool> {
        match self {
            Encoder::None(out) => Ok(out),
            Encoder::Gzip(out) => out.finish(),
            Encoder::Zstd(out) => out.finish(),
        }
    }
}

/// Counts and hashes what is written.
struct Spool {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A stored manifest with other blobs in the place of some of its layers. What it says beside digest, size and media type
/// of such a layer goes, since it may be about the bytes of the old blob, as the index of a lazily pulled layer is.
pub(crate) fn rewritten(
    manifest: &Descriptor,
    bytes: &[u8],
    anew: &HashMap<Digest, Descriptor>,
) -> Result<Option<(Descriptor, Vec<u8>, usize)>, PullError> {
    let unreadable = || PullError::Internal("a stored manifest cannot be read again");
    let mut document: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
    let mut count = 0;
    for layer in document["layers"].as_array_mut().ok_or_else(unreadable)? {
        let named = layer["digest"].as_str().and_then(|text| Digest::parse(text).ok());
        if let Some(new) = named.and_then(|digest| anew.get(&digest)) {
            *layer = serde_json::json!({
                "mediaType": new.media_type, "digest": new.digest.as_str(), "size": new.size_bytes,
            });
            count += 1;
        }
    }
    if count == 0 {
        return Ok(None);
    }
    let bytes = serde_json::to_vec(&document).map_err(|_| PullError::Internal("a manifest did not serialise"))?;
    let descriptor = Descriptor::new(manifest.media_type.clone(), Digest::sha256(&bytes), bytes.len() as u64);
    Ok(Some((descriptor, bytes, count)))
}
