//! Images of the store as a layout or archive that other tools read.
//!
//! Layers whose compressed bytes are gone are fetched again by digest; the written bytes are verified while they
//! are written, and nothing appears unless all of it is right. A docker archive holds layers uncompressed: those that are
//! kept as image files need no registry for it. Elsewhere such layers are compressed anew when that is asked for.
//!
//! Invariants: `a_docker_archive_needs_no_registry_for_image_files`, `layers_are_compressed_anew_when_asked`, `a_loaded_image_is_the_saved_one` (dropped layers are fetched again), `several_images_share_one_archive`,
//! `an_image_out_of_an_index_is_saved_as_its_manifest`.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::manifest::{Compression, Descriptor, LayerType, media_type};
use windlass_core::reference::Reference;
use windlass_store::LayerRecord;

use crate::PullError;
use crate::archive::sink::{Sink, blob_name};
use crate::archive::source::io_error;
use crate::archive::{CHOSEN_FROM, DockerItem, IMAGE_NAME, REF_NAME, WrittenIndex};
use crate::engine::{Engine, blocking};
use crate::recompress::{LayerSupply, Recompress, Recompressed, layer_supply, rewritten};
use crate::request::PullOptions;
use crate::supply::{Access, Stored, Supply, feed, stored, supply};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveFormat {
    /// An OCI layout in a directory that does not exist yet.
    OciDir,
    /// An OCI layout in a tar file.
    OciArchive,
    /// A tar file for `docker load`.
    DockerArchive,
}

/// Images to be written out.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// Names or image IDs in the store, in the order of the archive.
    pub images: Vec<String>,
    /// What to write.
    pub format: SaveFormat,
    /// Where; `-` is standard output, for tar files.
    pub path: PathBuf,
    /// Whose rules the credentials follow when dropped layers are fetched again.
    pub mode: Mode,
    /// What to do about those that cannot be fetched. A docker archive has no compressed layers.
    pub recompress: Recompress,
    /// The rest; only `cancel` matters.
    pub options: PullOptions,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct SaveReport {
    /// The images, by ID, in the order asked.
    pub images: Vec<Digest>,
    /// Blobs that had to be fetched again.
    pub fetched_again: usize,
    /// Images that were written with another manifest, because layers were compressed anew.
    pub recompressed: Vec<Recompressed>,
}

impl Engine {
    /// Writes images out. Nothing appears at the path unless all of it could be written.
    ///
    /// # Errors
    /// [`PullError::BlobMissing`] when a dropped layer is no longer served, [`PullError::Recompressible`] when it cannot
    /// be fetched and could be compressed anew; I/O errors with their path.
    pub async fn save(&self, request: SaveRequest) -> Result<SaveReport, PullError> {
        let access = Access { mode: request.mode, cancel: request.options.cancel.clone() };
        let mut images = Vec::new();
        for name in &request.images {
            images.push((name.clone(), stored(&self.inner, name).await?));
        }
        let path = request.path.clone();
        let format = request.format;
        let sink = blocking(move || match format {
            SaveFormat::OciDir => Sink::dir(&path),
            SaveFormat::OciArchive | SaveFormat::DockerArchive => Sink::tar(&path),
        })
        .await?;
        let recompress = request.recompress;
        let report = SaveReport::default();
        let mut save = Save { engine: self, sink: Some(sink), access, recompress, anew: HashMap::new(), report };
        match request.format {
            SaveFormat::OciDir | SaveFormat::OciArchive => save.oci(&images).await?,
            SaveFormat::DockerArchive => save.docker(&images).await?,
        }
        save.report.images = images.iter().map(|(_, stored)| stored.image.id.clone()).collect();
        let Save { sink, report, .. } = save;
        let sink = sink.ok_or(PullError::Internal("the sink is gone"))?;
        blocking(move || sink.finish()).await?;
        Ok(report)
    }
}

/// One archive being written.
struct Save<'e> {
    engine: &'e Engine,
    /// Out only while a worker writes.
    sink: Option<Sink>,
    access: Access,
    recompress: Recompress,
    /// Layers that were compressed anew, by the digest that their manifests have.
    anew: HashMap<Digest, Descriptor>,
    report: SaveReport,
}

impl Save<'_> {
    async fn oci(&mut self, images: &[(String, Stored)]) -> Result<(), PullError> {
        self.with_sink(|sink| sink.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)).await?;
        let mut entries = Vec::new();
        for (name, image) in images {
            for layer in &image.manifest.layers {
                self.layer_blob(image, layer).await?;
            }
            let image = &self.as_written(image)?;
            let (config, documents) = (image.config.clone(), image.documents.clone());
            let id = image.image.id.clone();
            self.with_sink(move |sink| {
                sink.blob(&id, config.len() as u64, &mut &config[..])?;
                documents.iter().try_for_each(|(at, bytes)| sink.blob(&at.digest, at.size_bytes, &mut &bytes[..]))
            })
            .await?;
            entries.extend(index_entries(name, image));
        }
        let index = WrittenIndex { schema_version: 2, media_type: media_type::OCI_INDEX, manifests: &entries };
        let index = serde_json::to_vec(&index).map_err(|_| PullError::Internal("an index did not serialise"))?;
        self.with_sink(move |sink| sink.file("index.json", &index)).await
    }

    /// Writes a layer's blob once, from wherever it is.
    async fn layer_blob(&mut self, image: &Stored, layer: &Descriptor) -> Result<(), PullError> {
        let is_written = self.sink.as_ref().is_some_and(|sink| sink.has_blob(&layer.digest));
        if is_written || self.anew.contains_key(&layer.digest) {
            return Ok(());
        }
        let inner = &self.engine.inner;
        match layer_supply(inner, &image.image, layer, &self.access, self.recompress).await? {
            LayerSupply::Named(supply) => self.blob_from(supply, layer).await,
            LayerSupply::Anew(anew) => {
                let new = anew.descriptor.clone();
                self.anew.insert(layer.digest.clone(), new.clone());
                self.with_sink(move |sink| sink.blob(&new.digest, new.size_bytes, &mut anew.open(0))).await
            }
        }
    }

    async fn blob_from(&mut self, supply: Supply, layer: &Descriptor) -> Result<(), PullError> {
        self.count(&supply);
        let mut sink = self.take()?;
        let blob = layer.clone();
        let written = feed(supply, &self.access, move |mut bytes| {
            sink.blob(&blob.digest, blob.size_bytes, &mut bytes)?;
            Ok(sink)
        });
        self.sink = Some(written.await?);
        Ok(())
    }

    /// The image with the manifest that it gets when layers of it were compressed anew. No index lists that one, and no
    /// name by digest means it.
    fn as_written(&mut self, image: &Stored) -> Result<Stored, PullError> {
        let mut image = image.clone();
        let Some((manifest, bytes)) = image.documents.last() else { return Ok(image) };
        if let Some((written, bytes, layers)) = rewritten(manifest, bytes, &self.anew)? {
            let (stored, id) = (manifest.digest.clone(), image.image.id.clone());
            let digest = written.digest.clone();
            self.report.recompressed.push(Recompressed { image: id, stored, written: digest, layers });
            image.root = written.clone();
            image.documents = vec![(written, bytes)];
            image.image.repo_digests.clear();
        }
        Ok(image)
    }

    async fn docker(&mut self, images: &[(String, Stored)]) -> Result<(), PullError> {
        let mut items: Vec<DockerItem> = Vec::new();
        let mut written: HashMap<Digest, String> = HashMap::new();
        for (name, image) in images {
            let mut layers = Vec::new();
            for (layer, record) in image.manifest.layers.iter().zip(&image.image.layers) {
                if !written.contains_key(&record.diff_id) {
                    let member = blob_name(&record.diff_id);
                    self.plain_layer(image, layer, record).await?;
                    written.insert(record.diff_id.clone(), member);
                }
                layers.push(written[&record.diff_id].clone());
            }
            let (id, config) = (image.image.id.clone(), image.config.clone());
            self.with_sink(move |sink| sink.blob(&id, config.len() as u64, &mut &config[..])).await?;
            let config = blob_name(&image.image.id);
            let tags = tags(name, image);
            match items.iter_mut().find(|item| item.config == config) {
                Some(item) => item.repo_tags.get_or_insert_default().extend(tags),
                None => items.push(DockerItem { config, repo_tags: Some(tags), layers: Some(layers) }),
            }
        }
        let items = serde_json::to_vec(&items).map_err(|_| PullError::Internal("manifest.json did not serialise"))?;
        self.with_sink(move |sink| sink.file("manifest.json", &items)).await
    }

    /// Writes a layer uncompressed: out of its image file, or from its blob.
    async fn plain_layer(&mut self, image: &Stored, layer: &Descriptor, record: &LayerRecord) -> Result<(), PullError> {
        let (store, chain) = (self.engine.store().clone(), record.chain_id.clone());
        if let Some(mut tar) = blocking(move || store.layer_tar(&chain)).await? {
            let diff_id = record.diff_id.clone();
            return self.with_sink(move |sink| sink.blob(&diff_id, tar.left_bytes(), &mut tar)).await;
        }
        self.decompressed_layer(image, layer, &record.diff_id).await
    }

    /// Writes a layer from its blob. Its length must be known first, so it goes through an unnamed file.
    async fn decompressed_layer(
        &mut self,
        image: &Stored,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<(), PullError> {
        let supply = supply(&self.engine.inner, &image.image, layer, &self.access).await?;
        self.count(&supply);
        let mut sink = self.take()?;
        let (diff_id, spool_dir) = (diff_id.clone(), self.engine.store().root().to_owned());
        let kind = LayerType::of(&layer.media_type).map_or(Compression::None, |kind| kind.compression);
        let written = feed(supply, &self.access, move |bytes| {
            let (mut file, length) = decompress(kind, bytes, &spool_dir)?;
            sink.blob(&diff_id, length, &mut file)?;
            Ok(sink)
        });
        self.sink = Some(written.await?);
        Ok(())
    }

    fn count(&mut self, supply: &Supply) {
        match supply {
            Supply::Fetch(_) => self.report.fetched_again += 1,
            Supply::Kept(_) | Supply::Tar(_) => {}
        }
    }

    fn take(&mut self) -> Result<Sink, PullError> {
        self.sink.take().ok_or(PullError::Internal("the sink is gone"))
    }

    async fn with_sink(
        &mut self,
        work: impl FnOnce(&mut Sink) -> Result<(), PullError> + Send + 'static,
    ) -> Result<(), PullError> {
        let mut sink = self.take()?;
        let sink = blocking(move || work(&mut sink).map(|()| sink)).await?;
        self.sink = Some(sink);
        Ok(())
    }
}

/// One entry per name: the tag as the image-spec has it, the whole name as containerd and docker read it.
///
/// An entry is the manifest of the platform that is here, not the index it was chosen from, whose other manifests are
/// missing; unless the name itself has the index's digest, which must not name anything else.
fn index_entries(asked: &str, image: &Stored) -> Vec<Descriptor> {
    let names = tags(asked, image);
    let manifest = image.documents.last().map_or(&image.root, |(manifest, _)| manifest);
    let chosen_from = (manifest.digest != image.root.digest).then_some(&image.root.digest);
    let entry = |name: Option<&String>| {
        let named = name.and_then(|name| Reference::parse(name).ok()).and_then(|name| name.digest().cloned());
        let is_index = named.is_some() && named.as_ref() == chosen_from;
        let mut entry = if is_index { image.root.clone() } else { manifest.clone() };
        entry.annotations = name.map(|name| annotations(name)).unwrap_or_default();
        let above = chosen_from.filter(|_| !is_index).map(|index| (CHOSEN_FROM.to_owned(), index.to_string()));
        entry.annotations.extend(above);
        entry
    };
    if names.is_empty() { vec![entry(None)] } else { names.iter().map(|name| entry(Some(name))).collect() }
}

fn annotations(name: &str) -> BTreeMap<String, String> {
    let tag = Reference::parse(name).ok().and_then(|name| name.tag_explicit().map(str::to_owned));
    let tag = tag.map(|tag| (REF_NAME.to_owned(), tag));
    std::iter::once((IMAGE_NAME.to_owned(), name.to_owned())).chain(tag).collect()
}

/// The name asked for; every tag of an image that was asked for by its ID.
fn tags(asked: &str, image: &Stored) -> Vec<String> {
    let by_name = Reference::parse(asked).ok().map(|reference| windlass_store::Name::of(&reference));
    let is_its =
        |name: &windlass_store::Name| image.image.repo_tags.contains(name) || image.image.repo_digests.contains(name);
    match by_name.filter(is_its) {
        Some(name) => vec![name.to_string()],
        None => image.image.repo_tags.iter().map(ToString::to_string).collect(),
    }
}

/// Writes the plain tar of a layer to an unnamed file and rewinds it.
fn decompress(
    kind: Compression,
    bytes: Box<dyn Read + Send>,
    spool_dir: &Path,
) -> Result<(std::fs::File, u64), PullError> {
    let failed = |error| io_error(spool_dir, error);
    let mut plain: Box<dyn Read> = match kind {
        Compression::None => bytes,
        Compression::Gzip | Compression::Zstd => {
            // Between the two the magic bytes win over the media type.
            let mut bytes = bytes;
            let mut head = Vec::new();
            bytes.by_ref().take(2).read_to_end(&mut head).map_err(failed)?;
            let is_gzip = head == [0x1f, 0x8b];
            let whole = std::io::Cursor::new(head).chain(bytes);
            if is_gzip {
                Box::new(flate2::read::MultiGzDecoder::new(whole))
            } else {
                Box::new(zstd::Decoder::new(whole).map_err(failed)?)
            }
        }
    };
    let mut file = tempfile::tempfile_in(spool_dir).map_err(failed)?;
    let length = std::io::copy(&mut plain, &mut file).map_err(failed)?;
    file.flush().map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok((file, length))
}
