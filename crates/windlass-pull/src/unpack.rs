//! An image's root file system into a new directory; the store is neither needed nor touched.
//!
//! Layers are applied one after the other in a private directory beside the target, each verified before it changes
//! the tree; the target appears by a rename when all of them are in.
//!
//! Invariants: `an_unpacked_tree_has_what_the_layers_leave`, `nothing_appears_when_a_layer_is_wrong`.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::manifest::{Compression, Descriptor, LayerType, chain_ids, parse_config};
use windlass_core::plan::note_on_layers;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_distribution::BlobFetch;
use windlass_store::layer::{self, LayerLimits, LayerSpec};
use windlass_store::{LayerSize, StoreError};

use crate::PullError;
use crate::archive::ImageSource;
use crate::archive::source::io_error;
use crate::engine::{Engine, blocking};
use crate::events::{EventSink, Events, LayerInfo, LayerState, Outcome};
use crate::image_size::ImageSize;
use crate::layers::Notes;
use crate::load;
use crate::origin::Origin;
use crate::pipe::{PipeWriter, READ_BYTES, pipe};
use crate::pull::{or_canceled, wanted};
use crate::pump::{Downloading, pump_to_end};
use crate::request::PullOptions;
use crate::resolve::resolve;

/// An image to be unpacked.
#[derive(Debug, Clone)]
pub struct UnpackRequest {
    /// A registry's reference, or an archive.
    pub source: ImageSource,
    /// The directory to make; it must not exist, or be empty.
    pub directory: PathBuf,
    /// Whose rules the credentials follow.
    pub mode: Mode,
    /// The rest.
    pub options: PullOptions,
}

/// What was unpacked.
#[derive(Debug, Clone)]
pub struct UnpackReport {
    /// The image ID.
    pub id: Digest,
    /// The manifest's digest.
    pub manifest: Digest,
    /// Number of layers applied.
    pub layers: usize,
    /// What a person should know although it worked.
    pub warnings: Vec<String>,
    /// What is odd about the image without being wrong.
    pub notes: Vec<String>,
}

impl Engine {
    /// Unpacks an image into a new directory. The store may be one that was opened for reading and does not exist.
    ///
    /// # Errors
    /// [`PullError`]; nothing stands at the directory then.
    pub async fn unpack(&self, request: UnpackRequest, sink: Arc<dyn EventSink>) -> Result<UnpackReport, PullError> {
        let target = request.directory.clone();
        let stage = blocking(move || Stage::begin(&target)).await?;
        let origin = self.unpack_origin(&request).await?;
        let shown = match &request.source {
            ImageSource::Registry(name) => name.clone(),
            _ => request.directory.display().to_string(),
        };
        let events = Events::new(sink, &shown);
        let result = self.unpack_from(&origin, &request, stage, &events).await;
        match &result {
            Ok(report) => events.finished(report.id.clone(), Outcome::Pulled),
            Err(_) => events.failed(),
        }
        result
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

    async fn unpack_from(
        &self,
        origin: &Origin,
        request: &UnpackRequest,
        mut stage: Stage,
        events: &Events,
    ) -> Result<UnpackReport, PullError> {
        let (engine, options) = (&self.inner, &request.options);
        let wanted = wanted(engine, options);
        let resolved = or_canceled(options, resolve(engine, origin, &wanted)).await?;
        resolved.manifest.layer_types(&engine.limits)?;
        let config = or_canceled(options, origin.config(&resolved.manifest.config, &engine.limits)).await?;
        let config = parse_config(&config, &engine.limits)?;
        config.check_layers(&resolved.manifest)?;
        let warnings = crate::pull::platform_warnings(&resolved, &config, &wanted, options)?;
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
        let parts = layers.iter().zip(&config.diff_ids).zip(chain_ids(&config.diff_ids));
        for (number, ((blob, diff_id), chain_id)) in parts.enumerate() {
            let job = Job { blob: blob.clone(), diff_id: diff_id.clone(), chain_id, shared: shared.clone() };
            let applied = apply(origin, job, stage, events, number).await;
            stage = applied.map_err(|error| shared.size.why(error))?;
            events.layer(number, LayerState::Done);
        }
        blocking(move || stage.finish()).await?;
        let (id, manifest) = (resolved.manifest.config.digest.clone(), resolved.digest.clone());
        Ok(UnpackReport { id, manifest, layers: layers.len(), warnings, notes: shared.notes.take() })
    }
}

/// One layer to be applied.
#[derive(Debug, Clone)]
struct Job {
    blob: Descriptor,
    diff_id: Digest,
    chain_id: Digest,
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
async fn apply(origin: &Origin, job: Job, stage: Stage, events: &Events, number: usize) -> Result<Stage, PullError> {
    match origin {
        Origin::Archive { archive, .. } => {
            let archive = archive.clone();
            blocking(move || {
                let bytes = archive.blob(&job.blob.digest)?.ok_or_else(|| archive.missing(&job.blob.digest))?;
                job.apply(&mut BufReader::with_capacity(READ_BYTES, bytes), &stage)?;
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
                let worker = tokio::task::spawn_blocking(move || work.apply(&mut reader, &tree));
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
    /// Blocking.
    fn apply(&self, input: &mut (dyn BufRead + Send), stage: &Stage) -> Result<(), PullError> {
        let compression = match LayerType::of(&self.blob.media_type).map(|kind| kind.compression) {
            Some(Compression::Gzip) => layer::Compression::Gzip,
            Some(Compression::Zstd) => layer::Compression::Zstd,
            Some(Compression::None) | None => layer::Compression::None,
        };
        let blob = &self.blob;
        let shared = &self.shared;
        let spec = LayerSpec::new(&blob.digest, blob.size_bytes, compression, &self.diff_id, &shared.limits);
        let open = |name| stage.open(name);
        let (tree, scratch) = (open(TREE)?, open(SCRATCH)?);
        let watch = shared.size.watch(&self.chain_id, &shared.cancel);
        let applied = layer::apply_plain(input, &spec, tree.as_fd(), scratch.as_fd(), &watch);
        let applied = applied.map_err(|source| match source.reason() {
            Reason::Canceled => PullError::Canceled,
            _ => {
                let source = Box::new(StoreError::Layer { blob: blob.digest.clone(), source });
                PullError::Layer { digest: blob.digest.clone(), source }
            }
        })?;
        shared.notes.add_all(&blob.digest, &applied.warnings);
        shared.size.put(&self.chain_id, LayerSize { unpacked_bytes: applied.unpacked_bytes, entries: applied.entries })
    }
}

const TREE: &str = "tree";
const SCRATCH: &str = "scratch";

/// The private directory beside the target. Dropped, it is removed with all that is in it.
#[derive(Debug)]
struct Stage {
    path: PathBuf,
    target: PathBuf,
}

impl Stage {
    fn begin(target: &Path) -> Result<Stage, PullError> {
        match fs::read_dir(target) {
            Ok(entries) => {
                if entries.count() > 0 {
                    return Err(io_error(target, io::ErrorKind::DirectoryNotEmpty.into()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(target, error)),
        }
        let made = tempfile::Builder::new()
            .prefix(".windlass-unpack-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent(target));
        let path = made.map_err(|error| io_error(target, error))?.keep();
        let stage = Stage { path, target: target.to_owned() };
        for (name, mode) in [(TREE, 0o755), (SCRATCH, 0o700)] {
            let path = stage.path.join(name);
            let made = fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)));
            made.map_err(|error| io_error(&path, error))?;
        }
        Ok(stage)
    }

    fn open(&self, name: &str) -> Result<File, PullError> {
        let path = self.path.join(name);
        File::open(&path).map_err(|error| io_error(&path, error))
    }

    fn finish(self) -> Result<(), PullError> {
        // An empty directory gives way to a rename; one that holds something does not.
        fs::rename(self.path.join(TREE), &self.target).map_err(|error| io_error(&self.target, error))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let removed = File::open(parent)
            .and_then(|dir| layer::remove_tree(dir.as_fd(), name.as_bytes()).map_err(io::Error::from));
        if let Err(error) = removed {
            tracing::warn!(%error, path = %self.path.display(), "left behind");
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
