//! An image's root file system into a new directory: out of the store where the image is, else from a registry or an
//! archive, and then the store is neither needed nor touched.
//!
//! Layers are applied one after the other in a private directory beside the target, each verified before it changes
//! the tree; the target appears by a rename when all of them are in. Layers of the store go the same way as those of a
//! registry: as the bytes that the store has for them ([`Store::layer_bytes`]), through the same rules and checks.
//!
//! Invariants: `an_unpacked_tree_has_what_the_layers_leave`, `what_is_here_is_unpacked_without_a_registry`,
//! `a_damaged_layer_of_the_store_is_told_and_nothing_appears`.

mod here;
mod stage;

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::manifest::{Compression, Descriptor, ImageConfig, LayerType, parse_config};
use windlass_core::plan::note_on_layers;
use windlass_core::platform::Wanted;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_distribution::BlobFetch;
use windlass_store::layer::{self, LayerError, LayerLimits, LayerSpec};
use windlass_store::{LayerRecord, LayerSize, Store, StoreError};

use crate::PullError;
use crate::archive::ImageSource;
use crate::engine::{Engine, blocking};
use crate::events::{EventSink, Events, LayerInfo, LayerState, Outcome};
use crate::image_size::ImageSize;
use crate::layers::Notes;
use crate::load;
use crate::origin::Origin;
use crate::pipe::{PipeWriter, READ_BYTES, pipe};
use crate::pull::{or_canceled, platform_warnings, stack, wanted};
use crate::pump::{Downloading, pump_to_end};
use crate::request::PullOptions;
use crate::resolve::{Resolved, resolve};
use stage::{SCRATCH, Stage, TREE, parent};

/// An image to be unpacked.
#[derive(Debug, Clone)]
pub struct UnpackRequest {
    /// A reference or image ID, looked for in the store first; or an archive.
    pub source: ImageSource,
    /// The directory to make; it must not exist, or be empty.
    pub directory: PathBuf,
    /// Whose rules the credentials follow.
    pub mode: Mode,
    /// The rest.
    pub options: PullOptions,
}

/// Where an unpacked image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnpackedFrom {
    /// It was here; no registry was asked.
    Store,
    /// Its registry.
    Registry,
    /// The archive that was given.
    Archive,
}

/// What was unpacked.
#[derive(Debug, Clone)]
pub struct UnpackReport {
    /// The image ID.
    pub id: Digest,
    /// The manifest's digest.
    pub manifest: Digest,
    /// Where it came from.
    pub from: UnpackedFrom,
    /// Number of layers applied.
    pub layers: usize,
    /// What a person should know although it worked.
    pub warnings: Vec<String>,
    /// What is odd about the image without being wrong.
    pub notes: Vec<String>,
}

/// An image that was found, with a place that has its layers.
struct Found {
    place: Place,
    resolved: Resolved,
    config: ImageConfig,
}

/// What has the layers.
enum Place {
    Store(Store),
    Elsewhere(Box<Origin>),
}

impl Place {
    fn from(&self) -> UnpackedFrom {
        match self {
            Place::Store(_) => UnpackedFrom::Store,
            Place::Elsewhere(origin) => match **origin {
                Origin::Registry { .. } => UnpackedFrom::Registry,
                Origin::Archive { .. } => UnpackedFrom::Archive,
            },
        }
    }
}

impl Engine {
    /// Unpacks an image into a new directory. The store may be one that was opened for reading and does not exist; it is
    /// not changed.
    ///
    /// # Errors
    /// [`PullError`]; nothing stands at the directory then. [`PullError::StoredLayer`] for a layer of the store that is
    /// not what was unpacked.
    pub async fn unpack(&self, request: UnpackRequest, sink: Arc<dyn EventSink>) -> Result<UnpackReport, PullError> {
        let target = request.directory.clone();
        let stage = blocking(move || Stage::begin(&target)).await?;
        let shown = match &request.source {
            ImageSource::Registry(name) => name.clone(),
            _ => request.directory.display().to_string(),
        };
        let events = Events::new(sink, &shown);
        let result = self.unpack_onto(&request, stage, &events).await;
        match &result {
            Ok(report) => events.finished(
                report.id.clone(),
                match report.from {
                    UnpackedFrom::Store => Outcome::AlreadyHere,
                    UnpackedFrom::Registry | UnpackedFrom::Archive => Outcome::Pulled,
                },
            ),
            Err(_) => events.failed(),
        }
        result
    }

    async fn unpack_onto(
        &self,
        request: &UnpackRequest,
        mut stage: Stage,
        events: &Events,
    ) -> Result<UnpackReport, PullError> {
        let (engine, options) = (&self.inner, &request.options);
        let wanted = wanted(engine, options);
        let Found { place, resolved, config } = self.found(request, &wanted, events).await?;
        let warnings = platform_warnings(&resolved, &config, &wanted, options)?;
        let layers = &resolved.manifest.layers;
        let infos = layers.iter().map(|layer| LayerInfo { digest: layer.digest.clone(), size_bytes: layer.size_bytes });
        events.resolved(config.platform().to_string(), resolved.root.clone(), infos.collect());
        let shared = Arc::new(Shared {
            limits: self.store().options().limits.clone(),
            cancel: options.cancel.clone(),
            size: ImageSize::new(engine.image_limits),
            notes: Notes::default(),
        });
        note_on_layers(layers.len()).into_iter().for_each(|note| shared.notes.add(note));
        for (number, (blob, key)) in layers.iter().zip(stack(&resolved, &config)).enumerate() {
            let job = Job { blob: blob.clone(), layer: key.layer, shared: shared.clone() };
            let applied = apply(&place, job, stage, events, number).await;
            stage = applied.map_err(|error| shared.size.why(error))?;
            events.layer(number, LayerState::Done);
        }
        blocking(move || stage.finish()).await?;
        Ok(UnpackReport {
            id: resolved.manifest.config.digest.clone(),
            manifest: resolved.digest.clone(),
            from: place.from(),
            layers: layers.len(),
            warnings,
            notes: shared.notes.take(),
        })
    }

    /// Finds the image and reads what it says of itself.
    async fn found(&self, request: &UnpackRequest, wanted: &Wanted, events: &Events) -> Result<Found, PullError> {
        let (engine, options) = (&self.inner, &request.options);
        if let ImageSource::Registry(name) = &request.source
            && let Some(here) = or_canceled(options, here::here(engine, name, wanted, events)).await?
        {
            return self.checked(Place::Store(engine.store.clone()), here.resolved, &here.config);
        }
        let origin = self.unpack_origin(request).await?;
        let resolved = or_canceled(options, resolve(engine, &origin, wanted)).await?;
        // Before its config is fetched.
        resolved.manifest.layer_types(&engine.limits)?;
        let config = or_canceled(options, origin.config(&resolved.manifest.config, &engine.limits)).await?;
        self.checked(Place::Elsewhere(Box::new(origin)), resolved, &config)
    }

    fn checked(&self, place: Place, resolved: Resolved, config: &[u8]) -> Result<Found, PullError> {
        let limits = &self.inner.limits;
        resolved.manifest.layer_types(limits)?;
        let config = parse_config(config, limits)?;
        config.check_layers(&resolved.manifest)?;
        Ok(Found { place, resolved, config })
    }

    async fn unpack_origin(&self, request: &UnpackRequest) -> Result<Origin, PullError> {
        let name = match &request.source {
            ImageSource::Registry(name) => {
                let reference = Reference::parse(name).map_err(PullError::Reference)?;
                let repository = Arc::new(self.inner.repository(&reference, request.mode).await?);
                return Ok(Origin::Registry { repository, reference });
            }
            ImageSource::Detect { .. } => None,
            ImageSource::OciDir { name, .. }
            | ImageSource::OciArchive { name, .. }
            | ImageSource::DockerArchive { name, .. } => name.as_deref(),
        };
        let parent = parent(&request.directory).to_owned();
        let archive = load::open_with(self, &request.source, &parent).await?;
        let root = archive.select(name)?.root.clone();
        Ok(Origin::Archive { archive, root })
    }
}

/// One layer to be applied.
#[derive(Debug, Clone)]
struct Job {
    blob: Descriptor,
    layer: LayerRecord,
    shared: Arc<Shared>,
}

/// What the layers of one image share.
#[derive(Debug)]
struct Shared {
    limits: LayerLimits,
    cancel: CancellationToken,
    size: ImageSize,
    notes: Notes,
}

/// Applies one layer; wrong bytes are fetched afresh as long as the client knows whom to ask.
async fn apply(place: &Place, job: Job, stage: Stage, events: &Events, number: usize) -> Result<Stage, PullError> {
    let origin = match place {
        Place::Elsewhere(origin) => &**origin,
        Place::Store(store) => {
            let store = store.clone();
            let work = move || {
                let applied = store.layer_bytes(&job.layer, |are, bytes| job.apply(are, bytes, &stage));
                applied.map(|()| stage).map_err(|error| stored(&job.layer, error))
            };
            return blocking(work).await;
        }
    };
    match origin {
        Origin::Archive { archive, .. } => {
            let archive = archive.clone();
            blocking(move || {
                let bytes = archive.blob(&job.blob.digest)?.ok_or_else(|| archive.missing(&job.blob.digest))?;
                job.apply(&job.layer, &mut BufReader::with_capacity(READ_BYTES, bytes), &stage)?;
                Ok::<_, PullError>(stage)
            })
            .await
        }
        Origin::Registry { repository, .. } => {
            let stage = Arc::new(stage);
            let mut fetch = repository.blob(&job.blob);
            loop {
                let (writer, mut reader) = pipe();
                let (work, tree) = (job.clone(), stage.clone());
                let worker = tokio::task::spawn_blocking(move || work.apply(&work.layer, &mut reader, &tree));
                let driven = tokio::select! {
                    driven = drive(origin, &mut fetch, writer, events, number) => driven,
                    () = job.shared.cancel.cancelled() => Err(PullError::Canceled),
                };
                let applied = worker.await.map_err(|_| PullError::Internal("an unpacking thread panicked"))?;
                let error = match (driven, applied) {
                    (Ok(()), Ok(())) => break,
                    (Err(error), _) => return Err(error),
                    (Ok(()), Err(error)) => error,
                };
                let wrong_bytes = matches!(error.reason(), Reason::DigestMismatch | Reason::SizeMismatch);
                if !wrong_bytes || !fetch.reject_source() {
                    return Err(error);
                }
            }
            Arc::into_inner(stage).ok_or(PullError::Internal("a worker kept the stage"))
        }
    }
}

async fn drive(
    origin: &Origin,
    fetch: &mut BlobFetch,
    writer: PipeWriter,
    events: &Events,
    number: usize,
) -> Result<(), PullError> {
    let mut downloading = Downloading::new(events, number, 0);
    let pumped = pump_to_end(None, fetch, writer, |event| downloading.hear(event)).await;
    pumped.map_err(|error| origin.fetch_error(error))
}

impl Job {
    /// Applies bytes of the layer: its blob, or what the store has in its place. Blocking.
    fn apply(&self, bytes: &LayerRecord, input: &mut (dyn BufRead + Send), stage: &Stage) -> Result<(), PullError> {
        let compression = match LayerType::of(&bytes.media_type).map(|kind| kind.compression) {
            Some(Compression::Gzip) => layer::Compression::Gzip,
            Some(Compression::Zstd) => layer::Compression::Zstd,
            Some(Compression::None) | None => layer::Compression::None,
        };
        let (blob, chain_id, shared) = (&self.layer.blob, &self.layer.chain_id, &self.shared);
        let spec = LayerSpec::new(&bytes.blob, bytes.size_bytes, compression, &bytes.diff_id, &shared.limits);
        let open = |name| stage.open(name);
        let (tree, scratch) = (open(TREE)?, open(SCRATCH)?);
        let watch = shared.size.watch(chain_id, &shared.cancel);
        let applied = layer::apply_plain(input, &spec, tree.as_fd(), scratch.as_fd(), &watch);
        let applied = applied.map_err(|source| match source.reason() {
            Reason::Canceled => PullError::Canceled,
            _ => {
                let source = Box::new(StoreError::Layer { blob: blob.clone(), source });
                PullError::Layer { digest: blob.clone(), source }
            }
        })?;
        shared.notes.add_all(blob, &applied.warnings);
        shared.size.put(chain_id, LayerSize { unpacked_bytes: applied.unpacked_bytes, entries: applied.entries })
    }
}

/// Tells damage of a stored layer from what else can go wrong on the way to the target.
fn stored(layer: &LayerRecord, error: PullError) -> PullError {
    let damaged = |source| PullError::StoredLayer { diff_id: layer.diff_id.clone(), source };
    match error {
        PullError::Store(source) if source.reason() != Reason::NotPermitted => damaged(Box::new(source)),
        PullError::Layer { source, digest } => match *source {
            StoreError::Layer {
                source:
                    LayerError::Digest { .. }
                    | LayerError::DiffId { .. }
                    | LayerError::Size { .. }
                    | LayerError::Sums { .. }
                    | LayerError::Input { .. },
                ..
            } => damaged(source),
            _ => PullError::Layer { source, digest },
        },
        error => error,
    }
}
