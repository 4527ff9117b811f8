//! Images to registries: pushed from the store, or copied from one registry to another.
//!
//! Always by digest, blobs before the manifests that name them, the tag last; a blob that is there is not sent, one
//! in another repository of the same registry is mounted. Copied blobs stream through, nothing is stored here.
//!
//! Invariants: `a_pushed_image_is_the_stored_one`, `copy_takes_the_whole_index_or_one_platform`,
//! `blobs_of_the_same_registry_are_mounted`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::manifest::{Descriptor, Document, IndexWalk, LayerType, Manifest};
use windlass_core::reference::Reference;
use windlass_distribution::{FetchedManifest, Mount, Pushed, Repository, TagOrDigest, UploadSource};
use windlass_store::{Image, Name, Store};

use crate::PullError;
use crate::attempt::Attempts;
use crate::engine::{Engine, blocking};
use crate::origin::Origin;
use crate::pipe::{PipeWriter, pipe};
use crate::pull::{or_canceled, wanted};
use crate::pump::pump_to_end;
use crate::recompress::{Anew, LayerSupply, Recompress, Recompressed, layer_supply, rewritten};
use crate::request::PullOptions;
use crate::resolve::resolve;
use crate::supply::{Access, Stored, Supply, stored};

/// An image of the store to be pushed.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Its name or ID in the store.
    pub image: String,
    /// Where to; `None`: to the registry its name says.
    pub target: Option<String>,
    /// Whose rules the credentials follow.
    pub mode: Mode,
    /// What to do about layers that are not kept here and cannot be fetched again.
    pub recompress: Recompress,
    /// The rest; only `cancel` matters.
    pub options: PullOptions,
}

/// An image to be copied between registries, or within one.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// From where.
    pub source: String,
    /// To where; the tag `latest` where none is given.
    pub target: String,
    /// How much of an index.
    pub platforms: Platforms,
    /// Whose rules the credentials follow.
    pub mode: Mode,
    /// The rest.
    pub options: PullOptions,
}

/// How much of an index is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platforms {
    /// All of it; the target has the same digest then.
    All,
    /// The manifest for the platform of the options, or of this machine.
    One,
}

/// What was brought to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferReport {
    /// Where to, normalised.
    pub target: String,
    /// The digest under the target's name.
    pub digest: Digest,
    /// Manifests and indexes written.
    pub documents: usize,
    /// Blobs sent.
    pub uploaded: usize,
    /// Blobs taken over from another repository of the registry.
    pub mounted: usize,
    /// Blobs that were there before.
    pub already_there: usize,
    /// How it differs from the stored image, where layers of it were compressed anew.
    pub recompressed: Option<Recompressed>,
}

/// How a blob came to be at the target.
#[derive(Debug, Clone, Copy)]
enum Came {
    Uploaded,
    Mounted,
    There,
}

impl Engine {
    /// Pushes an image of the store: the manifest of its platform, under the target's tag or digest.
    ///
    /// # Errors
    /// [`PullError::BlobMissing`] when a dropped layer is served by nobody any more, [`PullError::Recompressible`] when
    /// it could be compressed anew, [`PullError::OtherDigest`] when it was to be and the target is a digest; what the
    /// registry says.
    pub async fn push(&self, request: PushRequest) -> Result<TransferReport, PullError> {
        let image = stored(&self.inner, &request.image).await?;
        let target = request.target.as_deref().unwrap_or(&request.image);
        let target = Reference::parse(target).map_err(PullError::Reference)?;
        let repository = self.inner.repository(&target, request.mode).await?;
        let name = target_name(&repository, &target)?;
        let host = target.host().to_string();
        let from = image.image.sources.iter().find(|source| source.host == host && source.path != target.path());
        let mut report = TransferReport::new(&target, image.image.id.clone());
        let push = Arc::new(Push {
            engine: self.clone(),
            mount_from: from.map(|source| source.path.clone()),
            image,
            repository,
            recompress: request.recompress,
            wants: target.digest().cloned(),
            access: Access { mode: request.mode, cancel: request.options.cancel.clone() },
        });
        let mut anew = HashMap::new();
        let mut count = |report: &mut TransferReport, (blob, came, new): Sent| {
            report.count(came);
            anew.extend(new.map(|new| (blob, new)));
        };
        let mut tasks = JoinSet::new();
        for blob in blobs(&push.image.manifest) {
            while tasks.len() >= self.inner.layers_in_work {
                let sent = next(&mut tasks, &request.options).await?;
                count(&mut report, sent);
            }
            let push = push.clone();
            tasks.spawn(async move { push.blob(blob).await });
        }
        while !tasks.is_empty() {
            let sent = next(&mut tasks, &request.options).await?;
            count(&mut report, sent);
        }
        let (manifest, bytes) = push.manifest(&anew, &mut report)?;
        let pushed = push.repository.push_manifest(&name, &manifest.media_type, Bytes::from(bytes));
        or_canceled(&request.options, wrap(&push.repository, pushed)).await?;
        report.digest = manifest.digest;
        report.documents = 1;
        Ok(report)
    }

    /// Copies an image from registry to registry.
    ///
    /// # Errors
    /// What either registry says; the target's tag is written last, so it never names half an image.
    pub async fn copy(&self, request: CopyRequest) -> Result<TransferReport, PullError> {
        let source = Reference::parse(&request.source).map_err(PullError::Reference)?;
        let target = Reference::parse(&request.target).map_err(PullError::Reference)?;
        let from = self.inner.repository(&source, request.mode).await?;
        let to = self.inner.repository(&target, request.mode).await?;
        let name = target_name(&to, &target)?;
        let same_registry = source.host() == target.host() && source.path() != target.path();
        let mut copy = Copy {
            engine: self,
            options: &request.options,
            mount_from: same_registry.then(|| source.path().to_owned()),
            from,
            to,
            report: TransferReport::new(&target, Digest::sha256(b"")),
        };
        let root = match request.platforms {
            Platforms::All => copy.root(&source).await?,
            Platforms::One => copy.chosen(&source).await?,
        };
        copy.below(&root).await?;
        copy.put(&name, &root).await?;
        copy.report.digest = root.digest;
        Ok(copy.report)
    }

    /// Gives an image of the store one more name.
    ///
    /// # Errors
    /// No such image, or a target that is no reference.
    pub async fn tag(&self, image: &str, target: &str) -> Result<Name, PullError> {
        let target = Reference::parse(target).map_err(PullError::Reference)?;
        let (store, image) = (self.store().clone(), image.to_owned());
        blocking(move || store.tag(&image, &target)).await
    }
}

impl TransferReport {
    fn new(target: &Reference, digest: Digest) -> TransferReport {
        let target = Name::of(target).to_string();
        TransferReport { target, digest, documents: 0, uploaded: 0, mounted: 0, already_there: 0, recompressed: None }
    }

    fn count(&mut self, came: Came) {
        match came {
            Came::Uploaded => self.uploaded += 1,
            Came::Mounted => self.mounted += 1,
            Came::There => self.already_there += 1,
        }
    }
}

/// One image on its way to a registry.
struct Push {
    engine: Engine,
    image: Stored,
    repository: Repository,
    /// A repository of the same registry that has the image's blobs.
    mount_from: Option<String>,
    access: Access,
    recompress: Recompress,
    /// The digest in the target's name.
    wants: Option<Digest>,
}

/// A blob of the stored manifest, how it came there, and the blob that came instead.
type Sent = (Digest, Came, Option<Descriptor>);

impl Push {
    async fn blob(&self, blob: Descriptor) -> Result<Sent, PullError> {
        if let Some(came) = without_upload(&self.repository, &blob, self.mount_from.as_deref()).await? {
            return Ok((blob.digest, came, None));
        }
        if blob.digest == self.image.image.id {
            let config = UploadSource::bytes(Bytes::from(self.image.config.clone()));
            let came = upload(&self.repository, &blob, &config).await?;
            return Ok((blob.digest, came, None));
        }
        let (engine, image) = (&self.engine.inner, &self.image.image);
        let source = match layer_supply(engine, image, &blob, &self.access, self.recompress).await? {
            LayerSupply::Named(Supply::Kept(_)) => from_store(self.engine.store(), &blob.digest),
            LayerSupply::Named(Supply::Tar(_)) => from_image_file(self.engine.store(), image, &blob.digest)?,
            LayerSupply::Named(Supply::Fetch(begun)) => from_registry(begun.repository.clone(), blob.clone()),
            LayerSupply::Anew(anew) => return self.anew(blob.digest, anew).await,
        };
        let came = upload(&self.repository, &blob, &source).await?;
        Ok((blob.digest, came, None))
    }

    async fn anew(&self, digest: Digest, anew: Box<Anew>) -> Result<Sent, PullError> {
        if let Some(digest) = self.wants.clone() {
            return Err(PullError::OtherDigest { digest });
        }
        let new = anew.descriptor.clone();
        let came = match without_upload(&self.repository, &new, None).await? {
            Some(came) => came,
            None => {
                let source = UploadSource::new(move |offset| Ok(Box::new(anew.open(offset))));
                upload(&self.repository, &new, &source).await?
            }
        };
        Ok((digest, came, Some(new)))
    }

    /// The manifest to write at last.
    fn manifest(
        &self,
        anew: &HashMap<Digest, Descriptor>,
        report: &mut TransferReport,
    ) -> Result<(Descriptor, Vec<u8>), PullError> {
        let stored = self.image.documents.last().cloned();
        let (manifest, bytes) = stored.ok_or(PullError::Internal("a stored image has no manifest"))?;
        let Some((written, bytes_written, layers)) = rewritten(&manifest, &bytes, anew)? else {
            return Ok((manifest, bytes));
        };
        let image = self.image.image.id.clone();
        let (stored, digest) = (manifest.digest, written.digest.clone());
        report.recompressed = Some(Recompressed { image, stored, written: digest, layers });
        Ok((written, bytes_written))
    }
}

/// Config and layers, each once; foreign layers stay where their `urls` say.
fn blobs(manifest: &Manifest) -> Vec<Descriptor> {
    let is_foreign = |layer: &Descriptor| {
        !layer.urls.is_empty() && LayerType::of(&layer.media_type).is_some_and(|kind| kind.foreign)
    };
    let layers = manifest.layers.iter().filter(|layer| !is_foreign(layer));
    let all = std::iter::once(&manifest.config).chain(layers);
    let distinct: BTreeMap<&Digest, &Descriptor> = all.map(|blob| (&blob.digest, blob)).collect();
    distinct.into_values().cloned().collect()
}

/// The name to write at last, refused before anything is sent if nothing could be checked against it.
fn target_name(repository: &Repository, target: &Reference) -> Result<TagOrDigest, PullError> {
    let name = TagOrDigest::from(target);
    let checked = name.check().map(|()| name);
    checked.map_err(|error| PullError::Fetch { source: Box::new(error), attempts: Attempts::of(repository) })
}

async fn next<T: 'static>(tasks: &mut JoinSet<Result<T, PullError>>, options: &PullOptions) -> Result<T, PullError> {
    or_canceled(options, async {
        match tasks.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(_)) | None => Err(PullError::Internal("a transfer's task panicked")),
        }
    })
    .await
}

/// Adds what was tried to an error of the client.
async fn wrap<T>(
    repository: &Repository,
    work: impl Future<Output = Result<T, windlass_distribution::FetchError>>,
) -> Result<T, PullError> {
    let done = work.await;
    done.map_err(|error| PullError::Fetch { source: Box::new(error), attempts: Attempts::of(repository) })
}

/// A blob that need not be sent.
async fn without_upload(
    repository: &Repository,
    blob: &Descriptor,
    mount_from: Option<&str>,
) -> Result<Option<Came>, PullError> {
    if wrap(repository, repository.has_blob(blob)).await? {
        return Ok(Some(Came::There));
    }
    let Some(from) = mount_from else { return Ok(None) };
    match wrap(repository, repository.mount_blob(blob, from)).await? {
        Mount::Mounted => Ok(Some(Came::Mounted)),
        Mount::UploadNeeded => Ok(None),
    }
}

async fn upload(repository: &Repository, blob: &Descriptor, source: &UploadSource) -> Result<Came, PullError> {
    match wrap(repository, repository.push_blob(blob, source)).await? {
        Pushed::Uploaded => Ok(Came::Uploaded),
        Pushed::AlreadyThere => Ok(Came::There),
    }
}

/// A kept blob, opened anew for every try.
fn from_store(store: &Store, digest: &Digest) -> UploadSource {
    let (store, digest) = (store.clone(), digest.clone());
    UploadSource::new(move |offset| {
        let file = store.open_blob(&digest).map_err(io::Error::other)?;
        let mut file = file.ok_or(io::ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    })
}

/// An uncompressed layer out of its image file, opened anew for every try.
fn from_image_file(store: &Store, image: &Image, digest: &Digest) -> Result<UploadSource, PullError> {
    let layer = image.layers.iter().find(|layer| layer.blob == *digest);
    let chain = layer.map(|layer| layer.chain_id.clone()).ok_or(PullError::Internal("a layer has no record"))?;
    let store = store.clone();
    Ok(UploadSource::new(move |offset| {
        let tar = store.layer_tar(&chain).map_err(io::Error::other)?;
        let mut tar = tar.ok_or(io::ErrorKind::NotFound)?;
        tar.skip(offset);
        Ok(Box::new(tar))
    }))
}

/// A blob of another repository, fetched while it is sent; every try fetches it anew.
fn from_registry(repository: Repository, blob: Descriptor) -> UploadSource {
    let runtime = tokio::runtime::Handle::current();
    UploadSource::new(move |offset| {
        let (writer, mut reader) = pipe();
        // Ends when the blob does, or when the reader is dropped.
        runtime.spawn(stream(repository.clone(), blob.clone(), writer));
        let skipped = io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
        if skipped < offset {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Box::new(reader))
    })
}

/// A writer dropped without its end is the reader's error; why is logged, since the upload's error comes first.
async fn stream(repository: Repository, blob: Descriptor, writer: PipeWriter) {
    let mut fetch = repository.blob(&blob);
    if let Err(error) = pump_to_end(None, &mut fetch, writer, |_| {}).await {
        tracing::warn!(blob = %blob.digest, %error, "the source of an upload stopped");
    }
}

/// One copy under way.
struct Copy<'e> {
    engine: &'e Engine,
    options: &'e PullOptions,
    from: Repository,
    to: Repository,
    /// The source's path, where the registry can take blobs over from it.
    mount_from: Option<String>,
    report: TransferReport,
}

/// A document to be copied.
struct Doc {
    digest: Digest,
    media_type: String,
    bytes: Bytes,
    document: Document,
}

impl From<FetchedManifest> for Doc {
    fn from(found: FetchedManifest) -> Doc {
        Doc { digest: found.digest, media_type: found.media_type, bytes: found.bytes, document: found.document }
    }
}

impl Copy<'_> {
    async fn root(&self, source: &Reference) -> Result<Doc, PullError> {
        let name = TagOrDigest::from(source);
        or_canceled(self.options, wrap(&self.from, self.from.manifest(&name))).await.map(Doc::from)
    }

    /// The manifest for one platform.
    async fn chosen(&self, source: &Reference) -> Result<Doc, PullError> {
        let engine = &self.engine.inner;
        let origin = Origin::Registry { repository: Arc::new(self.from.clone()), reference: source.clone() };
        let wanted = wanted(engine, self.options);
        let resolved = or_canceled(self.options, resolve(engine, &origin, &wanted)).await?;
        let (digest, bytes) =
            resolved.documents.into_iter().last().ok_or(PullError::Internal("nothing was resolved"))?;
        let media_type = resolved.manifest.media_type.clone();
        Ok(Doc { digest, media_type, bytes, document: Document::Manifest(resolved.manifest) })
    }

    /// Everything a document names, children before their parents.
    async fn below(&mut self, root: &Doc) -> Result<(), PullError> {
        let limits = self.engine.inner.limits.clone();
        let mut walk = IndexWalk::default();
        walk.enter(&root.digest, 0, &limits)?;
        let mut order: Vec<Doc> = Vec::new();
        let mut stack: Vec<(Descriptor, usize)> = children(&root.document, 1);
        while let Some((entry, depth)) = stack.pop() {
            if !walk.enter(&entry.digest, depth, &limits)? {
                continue;
            }
            let child = or_canceled(self.options, wrap(&self.from, self.from.child(&entry))).await?;
            let child = Doc::from(child);
            stack.extend(children(&child.document, depth + 1));
            order.push(child);
        }
        self.blobs_of(&root.document).await?;
        for child in order.iter().rev() {
            self.blobs_of(&child.document).await?;
            self.put(&TagOrDigest::Digest(child.digest.clone()), child).await?;
        }
        Ok(())
    }

    async fn blobs_of(&mut self, document: &Document) -> Result<(), PullError> {
        let Document::Manifest(manifest) = document else { return Ok(()) };
        let mut tasks = JoinSet::new();
        for blob in blobs(manifest) {
            while tasks.len() >= self.engine.inner.layers_in_work {
                self.report.count(next(&mut tasks, self.options).await?);
            }
            let (from, to, mount_from) = (self.from.clone(), self.to.clone(), self.mount_from.clone());
            tasks.spawn(async move {
                match without_upload(&to, &blob, mount_from.as_deref()).await? {
                    Some(came) => Ok(came),
                    None => upload(&to, &blob, &from_registry(from, blob.clone())).await,
                }
            });
        }
        while !tasks.is_empty() {
            self.report.count(next(&mut tasks, self.options).await?);
        }
        Ok(())
    }

    async fn put(&mut self, name: &TagOrDigest, document: &Doc) -> Result<(), PullError> {
        let pushed = self.to.push_manifest(name, &document.media_type, document.bytes.clone());
        or_canceled(self.options, wrap(&self.to, pushed)).await?;
        self.report.documents += 1;
        Ok(())
    }
}

/// The documents an index names.
fn children(document: &Document, depth: usize) -> Vec<(Descriptor, usize)> {
    match document {
        Document::Manifest(_) => Vec::new(),
        Document::Index(index) => {
            let documents = index.entries.iter().filter(|entry| entry.is_document());
            documents.map(|entry| (entry.clone(), depth)).collect()
        }
    }
}
