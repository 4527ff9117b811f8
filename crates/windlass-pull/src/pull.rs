//! One pull, from a string to an image on disk. [`pull`] is the story; each line is one step, its details one call
//! away.
//!
//! Order is a promise: nothing unverified becomes visible, the image's name is written last, a lease covers every
//! part until then. A crash or a dropped future at any line leaves finished layers for the next pull, and never
//! half an image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::time::Instant;
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::manifest::{Descriptor, ImageConfig, parse_config};
use windlass_core::plan::note_on_layers;
use windlass_core::platform::{self, ConfigVerdict, Wanted};
use windlass_core::reference::Reference;
use windlass_store::{BlobKind, Image, ImageCommit, LayerKey, LeaseOptions, Name, PullLease, Source};

use crate::PullError;
use crate::engine::{Engine, ForWhom, Inner, Login, blocking};
use crate::events::{EventSink, Events, LayerInfo, LayerState, Outcome};
use crate::image_size::ImageSize;
use crate::layers::{self, LayerContext, Notes};
use crate::origin::Origin;
use crate::request::{Credentials, PullOptions, PullReport, PullRequest, StrictPlatform};
use crate::resolve::{Resolved, resolve};
use crate::uptodate;

impl Engine {
    /// Makes an image present, whatever is here already: asks the registry, fetches what is missing.
    ///
    /// A dropped future stops the transfers, leaves finished layers and no image; `options.cancel` does the same
    /// and returns once every worker has stopped.
    ///
    /// # Errors
    /// [`PullError`], with what was tried; nothing new is visible then.
    pub async fn pull(&self, request: PullRequest, sink: Arc<dyn EventSink>) -> Result<PullReport, PullError> {
        let events = Events::new(sink, &request.image);
        let reference = Reference::parse(&request.image).map_err(PullError::Reference)?;
        let engine = &self.inner;
        let login = match request.credentials {
            Credentials::Given(candidates) => Login::given(candidates),
            Credentials::Sources => {
                let nobody = ForWhom::default();
                let found = engine.credentials(&reference, &nobody, request.mode).await?;
                let login = engine.login(&reference, found.candidates, nobody, request.mode);
                login.passing_over(&found.skipped)
            }
        };
        pull(engine, reference, login, request.mode, &request.options, &events).await
    }
}

/// The story of a pull from a registry, told to the events.
pub(crate) async fn pull(
    engine: &Inner,
    reference: Reference,
    mut login: Login,
    mode: Mode,
    options: &PullOptions,
    events: &Events,
) -> Result<PullReport, PullError> {
    let passed_over = std::mem::take(&mut login.passed_over);
    let repository = engine.open(&reference, login, mode);
    let origin = Origin::Registry { repository: Arc::new(repository), reference: reference.clone() };
    let row = Arc::new(engine.board.begin(reference.as_typed()));
    let result = pull_from(engine, origin, reference, options, &events.on_board(&row)).await;
    let result = result.map_err(|error| error.after(passed_over));
    row.end(&result);
    match &result {
        Ok(report) => events.finished(report.id.clone(), report.outcome),
        Err(_) => events.failed(),
    }
    result
}

async fn pull_from(
    engine: &Inner,
    origin: Origin,
    reference: Reference,
    options: &PullOptions,
    events: &Events,
) -> Result<PullReport, PullError> {
    let began = Instant::now();
    let wanted = wanted(engine, options);
    let unchanged = or_canceled(options, uptodate::unchanged(engine, &origin, &reference, &wanted)).await?;
    if let Some(image) = unchanged {
        return Ok(uptodate::report(&reference, image, &origin, began));
    }
    let lease = LeaseOptions::pull(reference.as_typed());
    bring(engine, origin, Names::Reference(reference), lease, &wanted, options, events, began).await
}

/// The rest of the story, the same for images from registries and archives.
#[expect(clippy::too_many_arguments, reason = "the state of one pull, handed on once")]
pub(crate) async fn bring(
    engine: &Inner,
    origin: Origin,
    names: Names,
    lease: LeaseOptions,
    wanted: &Wanted,
    options: &PullOptions,
    events: &Events,
    began: Instant,
) -> Result<PullReport, PullError> {
    let resolved = or_canceled(options, resolve(engine, &origin, wanted)).await?;
    resolved.manifest.layer_types(&engine.limits)?;
    let lease = begin(engine, lease).await?;
    keep_documents(&lease, &resolved).await?;
    let (config, warnings) = or_canceled(options, config(engine, &origin, &lease, &resolved, wanted, options)).await?;
    for warning in &warnings {
        events.warning(warning.clone());
    }
    let stack = stack(&resolved, &config);
    let done = layers(engine, &origin, &lease, &resolved, &stack, options, events).await?;
    let commit = names.commit(&resolved, &config, &stack);
    let image = commit_image(&lease, commit, events).await?;
    Ok(report(&names, &resolved, &image, &origin, done, warnings, began))
}

/// What a pull asks an index for.
pub(crate) fn wanted(engine: &Inner, options: &PullOptions) -> Wanted {
    match &options.platform {
        Some(platform) => Wanted::on_host(platform, &engine.host_platform),
        None => Wanted::new(&engine.host_platform),
    }
}

/// Ends the wait for `work` when the caller cancels.
pub(crate) async fn or_canceled<T>(
    options: &PullOptions,
    work: impl Future<Output = Result<T, PullError>>,
) -> Result<T, PullError> {
    tokio::select! {
        biased;
        () = options.cancel.cancelled() => Err(PullError::Canceled),
        result = work => result,
    }
}

/// Writes the intent.
async fn begin(engine: &Inner, options: LeaseOptions) -> Result<PullLease, PullError> {
    let store = engine.store.clone();
    blocking(move || store.begin(options)).await
}

/// Stores every document on the way to the manifest.
async fn keep_documents(lease: &PullLease, resolved: &Resolved) -> Result<(), PullError> {
    let (lease, documents) = (lease.clone(), resolved.documents.clone());
    blocking(move || documents.iter().try_for_each(|(digest, bytes)| lease.put_blob(BlobKind::Manifest, digest, bytes)))
        .await
}

/// The config: from the store, or fetched once however many pulls want it; checked against manifest and platform.
async fn config(
    engine: &Inner,
    origin: &Origin,
    lease: &PullLease,
    resolved: &Resolved,
    wanted: &Wanted,
    options: &PullOptions,
) -> Result<(ImageConfig, Vec<String>), PullError> {
    let descriptor = &resolved.manifest.config;
    let turn = engine.flights.turn(&descriptor.digest).await;
    let bytes = match stored_config(lease, descriptor, engine.limits.config_bytes).await? {
        Some(bytes) => bytes,
        None => {
            let bytes = origin.config(descriptor, &engine.limits).await?;
            let (lease, digest, stored) = (lease.clone(), descriptor.digest.clone(), bytes.clone());
            blocking(move || lease.put_blob(BlobKind::Config, &digest, &stored)).await?;
            bytes
        }
    };
    drop(turn);
    let config = parse_config(&bytes, &engine.limits)?;
    config.check_layers(&resolved.manifest)?;
    let warnings = platform_warnings(resolved, &config, wanted, options)?;
    Ok((config, warnings))
}

async fn stored_config(lease: &PullLease, descriptor: &Descriptor, limit: u64) -> Result<Option<Bytes>, PullError> {
    let (lease, digest, size_bytes) = (lease.clone(), descriptor.digest.clone(), descriptor.size_bytes);
    blocking(move || {
        if !lease.has_blob(BlobKind::Config, &digest, size_bytes)? {
            return Ok(None);
        }
        lease.store().read_blob(&digest, limit).map(|found| found.map(Bytes::from))
    })
    .await
}

/// An image that says it is for something else: refused for another system, or when asked to be strict.
pub(crate) fn platform_warnings(
    resolved: &Resolved,
    config: &ImageConfig,
    wanted: &Wanted,
    options: &PullOptions,
) -> Result<Vec<String>, PullError> {
    let mut warnings = Vec::new();
    match &resolved.entry_platform {
        Some(entry) => warnings.extend(platform::lie(entry, config).map(|lie| lie.to_string())),
        None => match platform::judge_config(wanted, config)? {
            ConfigVerdict::Fits => {}
            ConfigVerdict::OtherProcessor(found) => {
                warnings.push(format!("the image is for {found}, not for {}", wanted.platform));
            }
        },
    }
    match (options.strict_platform, warnings.is_empty()) {
        (StrictPlatform::Refuse, false) => Err(platform::PlatformError::OtherSystem {
            wanted: Box::new(wanted.platform.clone()),
            found: Box::new(config.platform()),
        }
        .into()),
        (StrictPlatform::Refuse | StrictPlatform::Warn, _) => Ok(warnings),
    }
}

/// The layers with their chain IDs, bottom first.
pub(crate) fn stack(resolved: &Resolved, config: &ImageConfig) -> Vec<LayerKey> {
    let layers = resolved.manifest.layers.iter().zip(&config.diff_ids);
    LayerKey::stack(
        layers.map(|(layer, diff_id)| {
            (layer.digest.clone(), layer.size_bytes, layer.media_type.clone(), diff_id.clone())
        }),
    )
}

/// What fetching the layers came to.
#[derive(Debug)]
struct LayersDone {
    distinct: usize,
    already_here: usize,
    size_bytes: u64,
    fetched_bytes: u64,
    notes: Vec<String>,
}

/// Plans, fetches and unpacks.
async fn layers(
    engine: &Inner,
    origin: &Origin,
    lease: &PullLease,
    resolved: &Resolved,
    stack: &[LayerKey],
    options: &PullOptions,
    events: &Events,
) -> Result<LayersDone, PullError> {
    let mut infos: Vec<LayerInfo> = Vec::new();
    let mut numbers = BTreeMap::new();
    for layer in &resolved.manifest.layers {
        numbers.entry(layer.digest.clone()).or_insert_with(|| {
            infos.push(LayerInfo { digest: layer.digest.clone(), size_bytes: layer.size_bytes });
            infos.len() - 1
        });
    }
    let size_bytes = infos.iter().map(|layer| layer.size_bytes).sum();
    let distinct = infos.len();
    let platform = resolved.entry_platform.as_ref().map(ToString::to_string).unwrap_or_default();
    events.resolved(platform, resolved.root.clone(), infos.into());

    let wanted = resolved.manifest.layers.iter().zip(stack);
    let wanted: Vec<_> = wanted.map(|(blob, key)| layers::Wanted { key: key.clone(), blob: blob.clone() }).collect();
    let claimed = {
        let lease = lease.clone();
        blocking(move || {
            let claimed = layers::claim(&lease, wanted)?;
            lease.require_space(claimed.plan.fetch_bytes)?;
            Ok::<_, windlass_store::StoreError>(claimed)
        })
        .await?
    };
    let present: BTreeSet<&Digest> = claimed.present().map(|blob| &blob.digest).collect();
    for digest in &present {
        events.layer(numbers[*digest], LayerState::AlreadyHere);
    }
    let already_here = present.len();
    let context = Arc::new(LayerContext {
        origin: origin.clone(),
        lease: lease.clone(),
        events: events.clone(),
        cancel: options.cancel.child_token(),
        parallel: engine.layers_in_work,
        cores: engine.cores,
        slots: engine.slots.clone(),
        registry: origin.registry(),
        numbers,
        fetched_bytes: AtomicU64::new(0),
        size: ImageSize::new(engine.image_limits),
        notes: Notes::default(),
    });
    note_on_layers(stack.len()).into_iter().for_each(|note| context.notes.add(note));
    // A dropped future must stop the blocking threads too.
    let _stop = context.cancel.clone().drop_guard();
    layers::bring(&context, claimed).await?;
    let fetched_bytes = context.fetched_bytes.load(Ordering::Relaxed);
    Ok(LayersDone { distinct, already_here, size_bytes, fetched_bytes, notes: context.notes.take() })
}

/// Makes the image durable and visible.
async fn commit_image(lease: &PullLease, commit: ImageCommit, events: &Events) -> Result<Image, PullError> {
    events.committing();
    let lease = lease.clone();
    blocking(move || lease.commit(commit)).await
}

/// The names an image gets.
#[derive(Debug, Clone)]
pub(crate) enum Names {
    /// The reference that was pulled, and its digests.
    Reference(Reference),
    /// Names out of an archive; there is no registry.
    Loaded { shown: String, names: Vec<Reference> },
}

impl Names {
    fn commit(&self, resolved: &Resolved, config: &ImageConfig, stack: &[LayerKey]) -> ImageCommit {
        let references = match self {
            Names::Reference(reference) => std::slice::from_ref(reference),
            Names::Loaded { names, .. } => names.as_slice(),
        };
        let mut names: Vec<Name> = Vec::new();
        for reference in references {
            let repository = reference.repository();
            names.push(Name::of(reference));
            names.push(Name::digested(&repository, &resolved.digest));
            names.extend(resolved.index.as_ref().map(|index| Name::digested(&repository, index)));
        }
        names.sort();
        names.dedup();
        let source = match self {
            Names::Reference(reference) => {
                Some(Source { host: reference.host().to_string(), path: reference.path().to_owned() })
            }
            Names::Loaded { .. } => None,
        };
        ImageCommit {
            names,
            config: resolved.manifest.config.digest.clone(),
            manifest: resolved.digest.clone(),
            index: resolved.index.clone(),
            platform: config.platform().to_string(),
            layers: stack.iter().map(|key| key.layer.clone()).collect(),
            source,
        }
    }

    fn shown(&self) -> String {
        match self {
            Names::Reference(reference) => reference.as_typed().to_owned(),
            Names::Loaded { shown, .. } => shown.clone(),
        }
    }
}

fn report(
    names: &Names,
    resolved: &Resolved,
    image: &Image,
    origin: &Origin,
    done: LayersDone,
    warnings: Vec<String>,
    began: Instant,
) -> PullReport {
    PullReport {
        image: names.shown(),
        id: image.id.clone(),
        digest: resolved.root.clone(),
        manifest: resolved.digest.clone(),
        platform: image.platform.clone(),
        outcome: Outcome::Pulled,
        layers: done.distinct,
        layers_already_here: done.already_here,
        size_bytes: done.size_bytes,
        fetched_bytes: done.fetched_bytes,
        source: resolved.source.clone(),
        attempts: origin.attempts(),
        accepted: origin.accepted(),
        requests: origin.requests(),
        took: began.elapsed(),
        warnings: warnings.into_iter().chain(origin.warnings()).collect(),
        notes: done.notes,
    }
}
