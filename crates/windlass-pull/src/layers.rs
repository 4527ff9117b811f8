//! Fetches and unpacks the layers of one image, several at once, each in one pass.
//!
//! In: the layers that are missing, the lease that protects them. Out: all of them in the store, or the first
//! error. A task drives each download and hands its bytes through a bounded [`pipe`](crate::pipe) to a blocking
//! thread that hashes, inflates and writes. A blob that an image uses twice is fetched once and feeds both.
//!
//! A dropped or canceled call stops its transfers; finished layers stay. Wrong bytes are fetched once more from
//! byte 0, elsewhere if there is another source. Layers that another pull has in work are waited for last, so
//! two pulls never wait for each other.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use windlass_core::digest::Digest;
use windlass_core::manifest::Descriptor;
use windlass_core::plan::{Held, Plan};
use windlass_core::reason::Reason;
use windlass_distribution::{BlobEvent, BlobFetch};
use windlass_store::{
    BlobKind, LayerClaim, LayerKey, LayerWork, Partial, PullLease, StoreError, Threads, Unpacked, Warning,
};

use crate::PullError;
use crate::archive::Archive;
use crate::engine::blocking;
use crate::events::{Events, LayerState};
use crate::image_size::ImageSize;
use crate::origin::Origin;
use crate::pipe::{PipeReader, PipeWriter, READ_BYTES, pipe};
use crate::pump::{Downloading, Pumped, pump};
use crate::slots::{Slot, Slots};

/// Everything the layers of one pull share.
#[derive(Debug)]
pub(crate) struct LayerContext {
    pub(crate) origin: Origin,
    pub(crate) lease: PullLease,
    pub(crate) events: Events,
    pub(crate) cancel: CancellationToken,
    /// Layers in work at once.
    pub(crate) parallel: usize,
    pub(crate) cores: usize,
    pub(crate) slots: Slots,
    /// The registry that all layers come from; `None` for those of an archive, which need no slot.
    pub(crate) registry: Option<Arc<str>>,
    /// Number of each distinct blob, as events call it.
    pub(crate) numbers: BTreeMap<Digest, usize>,
    pub(crate) fetched_bytes: AtomicU64,
    /// What the layers come to together.
    pub(crate) size: ImageSize,
    pub(crate) notes: Notes,
}

/// What is odd about the layers, each thing once.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub(crate) fn add(&self, note: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Remarks of the extractor. The file system is the same for all layers, so what it cannot do is said once.
    pub(crate) fn add_all(&self, blob: &Digest, warnings: &[Warning]) {
        for warning in warnings {
            self.add(match warning {
                Warning::XattrsNotStored => warning.to_string(),
                other => format!("{}: {other}", blob.short()),
            });
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One blob and the layers it becomes.
#[derive(Debug)]
struct Job {
    blob: Descriptor,
    works: Vec<LayerWork>,
}

/// What is left of a job that is done.
type Again = Vec<LayerWork>;

/// A layer that was wanted and how it was found.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) key: LayerKey,
    pub(crate) blob: Descriptor,
}

/// What claiming the layers led to.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// What will be done; its positions are those of the layers.
    pub(crate) plan: Plan,
    layers: Vec<Wanted>,
    /// The work on each layer that is missing.
    works: Vec<Option<LayerWork>>,
}

impl Claimed {
    /// Blobs of layers that are here already.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Descriptor> {
        self.plan.present.iter().map(|at| &self.layers[*at].blob)
    }
}

/// Claims every layer once and plans the rest. Blocks for a few file operations per layer.
pub(crate) fn claim(lease: &PullLease, layers: Vec<Wanted>) -> Result<Claimed, StoreError> {
    let (mut held, mut works) = (Vec::with_capacity(layers.len()), Vec::with_capacity(layers.len()));
    for layer in &layers {
        let (found, work) = match lease.try_claim_layer(&layer.key)? {
            Some(LayerClaim::Present) => (Held::Unpacked, None),
            Some(LayerClaim::Work(work)) => (Held::Nothing, Some(work)),
            None => (Held::InWork, None),
        };
        held.push(found);
        works.push(work);
    }
    let plan = Plan::of(layers.iter().map(|layer| &layer.blob).zip(held));
    Ok(Claimed { plan, layers, works })
}

/// Brings every claimed layer into the store.
pub(crate) async fn bring(context: &Arc<LayerContext>, claimed: Claimed) -> Result<(), PullError> {
    let Claimed { plan, layers, works } = claimed;
    let mut queue = jobs(&plan, works, context.cores);
    // A layer that a killed pull had unpacked counts as here, and may still have to be unpacked once more.
    let blobs: BTreeMap<_, _> = layers.iter().map(|layer| (layer.blob.digest.clone(), layer.blob.clone())).collect();
    count_present(context, plan.present.iter().map(|at| &layers[*at].key)).await?;
    for at in &plan.present {
        keep_from_archive(context, layers[*at].blob.clone()).await?;
    }
    let mut layers: Vec<Option<Wanted>> = layers.into_iter().map(Some).collect();
    let mut busy: VecDeque<Wanted> = plan.in_work.iter().filter_map(|at| layers[*at].take()).collect();
    let mut running = JoinSet::new();
    loop {
        while running.len() < context.parallel
            && let Some(job) = queue.pop_front()
        {
            running.spawn(run(context.clone(), job));
        }
        let Some(done) = running.join_next().await else {
            let Some(layer) = busy.pop_front() else { return Ok(()) };
            queue.extend(with_blobs(wait_for(context, layer).await?, &blobs));
            continue;
        };
        match done.unwrap_or(Err(PullError::Internal("a layer's task panicked"))) {
            Ok(again) => queue.extend(with_blobs(again, &blobs)),
            Err(error) => {
                // The others stop at once and are waited for, so that nothing of this pull runs on behind it.
                let error = context.size.why(error);
                context.cancel.cancel();
                while running.join_next().await.is_some() {}
                return Err(error);
            }
        }
    }
}

/// What the plan says to fetch, with the work on the layers it feeds.
fn jobs(plan: &Plan, mut works: Vec<Option<LayerWork>>, cores: usize) -> VecDeque<Job> {
    let job = |fetch: &windlass_core::plan::Fetch| {
        let pays = plan.pays_second_thread(fetch.blob.size_bytes, cores);
        let threads = if pays { Threads::Two } else { Threads::One };
        let works = fetch.layers.iter().filter_map(|at| works[*at].take());
        Job { blob: fetch.blob.clone(), works: works.map(|work| work.on(threads)).collect() }
    };
    plan.fetches.iter().map(job).collect()
}

/// Jobs for layers that are to be fetched (again).
fn with_blobs(works: Vec<LayerWork>, blobs: &BTreeMap<Digest, Descriptor>) -> VecDeque<Job> {
    let known = works.into_iter().filter_map(|work| Some((blobs.get(&work.key().layer.blob)?, work)));
    let (blobs, works): (Vec<&Descriptor>, Vec<Option<LayerWork>>) =
        known.map(|(blob, work)| (blob, Some(work))).unzip();
    let plan = Plan::of(blobs.into_iter().map(|blob| (blob, Held::Nothing)));
    jobs(&plan, works, SINGLE)
}

/// Layers that are unpacked again are few and late; one thread each will do.
const SINGLE: usize = 1;

/// Counts layers that were here, or that another pull brought.
async fn count_present(
    context: &Arc<LayerContext>,
    keys: impl IntoIterator<Item = &LayerKey>,
) -> Result<(), PullError> {
    let chains: Vec<Digest> = keys.into_iter().map(|key| key.layer.chain_id.clone()).collect();
    let context = context.clone();
    blocking(move || {
        chains.iter().try_for_each(|chain| match context.lease.layer_size(chain)? {
            Some(size) => context.size.put(chain, size),
            None => Ok(()),
        })
    })
    .await
}

/// Waits for a layer that another pull has in work; its work if that one gave up, and that of layers which can be
/// settled only with it at hand.
async fn wait_for(context: &Arc<LayerContext>, layer: Wanted) -> Result<Vec<LayerWork>, PullError> {
    let number = context.numbers.get(&layer.blob.digest).copied().unwrap_or_default();
    context.events.layer(number, LayerState::Waiting);
    let (lease, cancel, key) = (context.lease.clone(), context.cancel.clone(), layer.key.clone());
    let claim = blocking(move || match lease.claim_layer(&key, &|| cancel.is_cancelled())? {
        LayerClaim::Work(work) => Ok::<_, StoreError>((vec![work], Here::No)),
        // Our own layers above may have waited for it, and the other pull for them.
        LayerClaim::Present => Ok((lease.settle()?, Here::Yes)),
    });
    let (works, here) = claim.await.map_err(canceled)?;
    if here == Here::Yes {
        count_present(context, [&layer.key]).await?;
        keep_from_archive(context, layer.blob).await?;
        context.events.layer(number, LayerState::Done);
    }
    Ok(works)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    Yes,
    No,
}

/// A wait that ended because the caller gave up.
fn canceled(error: PullError) -> PullError {
    if error.reason() == Reason::Canceled { PullError::Canceled } else { error }
}

/// Keeps the compressed bytes of a loaded layer whose unpacked form was here before, perhaps from a pull that
/// dropped them: no registry may be able to give them again.
async fn keep_from_archive(context: &Arc<LayerContext>, blob: Descriptor) -> Result<(), PullError> {
    let Origin::Archive { archive, .. } = &context.origin else { return Ok(()) };
    let (lease, archive) = (context.lease.clone(), archive.clone());
    blocking(move || {
        let mut bytes = archive.blob(&blob.digest)?.ok_or_else(|| archive.missing(&blob.digest))?;
        Ok::<_, PullError>(lease.put_blob_from(BlobKind::Layer, &blob.digest, blob.size_bytes, &mut bytes)?)
    })
    .await
}

/// One blob, from its first byte to its layers in the store; wrong bytes are fetched afresh as long as the client
/// knows whom to ask.
async fn run(context: Arc<LayerContext>, job: Job) -> Result<Again, PullError> {
    let number = context.numbers.get(&job.blob.digest).copied().unwrap_or_default();
    let _slot = match &context.registry {
        Some(registry) => Some(slot(&context, registry).await?),
        None => None,
    };
    let again = match &context.origin {
        Origin::Archive { archive, .. } => read(&context, archive, &job.blob, job.works).await?,
        Origin::Registry { repository, .. } => {
            let keys: Vec<LayerKey> = job.works.iter().map(|work| work.key().clone()).collect();
            let mut works = job.works;
            let mut beginning = beginning(&job.blob, &works);
            let have_bytes = beginning.as_ref().map_or(0, |beginning| beginning.size_bytes);
            let mut fetch = repository.blob_from(&job.blob, have_bytes);
            loop {
                let error = match transfer(&context, &mut fetch, &job.blob, works, beginning.take(), number).await {
                    Ok(again) => break again,
                    Err(Failed { error, wrong_bytes }) if wrong_bytes && fetch.reject_source() => error,
                    Err(Failed { error, .. }) => return Err(error),
                };
                context.events.warning(format!("layer {} is fetched again: {error}", job.blob.digest.short()));
                works = claim_again(&context, &keys).await?;
                if works.is_empty() {
                    break Vec::new();
                }
            }
        }
    };
    if again.is_empty() {
        context.events.layer(number, LayerState::Done);
    }
    Ok(again)
}

/// Waits until this pull may transfer one more layer.
async fn slot(context: &LayerContext, registry: &Arc<str>) -> Result<Slot, PullError> {
    tokio::select! {
        slot = context.slots.take(context.events.pull_number(), registry) => Ok(slot),
        () = context.cancel.cancelled() => Err(PullError::Canceled),
    }
}

/// Why a transfer did not end in layers.
struct Failed {
    error: PullError,
    /// The bytes were not what their digest promised.
    wrong_bytes: bool,
}

impl From<PullError> for Failed {
    fn from(error: PullError) -> Failed {
        Failed { error, wrong_bytes: false }
    }
}

async fn claim_again(context: &Arc<LayerContext>, keys: &[LayerKey]) -> Result<Vec<LayerWork>, PullError> {
    let (lease, cancel, keys) = (context.lease.clone(), context.cancel.clone(), keys.to_vec());
    let claims = blocking(move || {
        let claim = |key| lease.claim_layer(key, &|| cancel.is_cancelled());
        keys.iter().map(claim).collect::<Result<Vec<_>, StoreError>>()
    });
    let works = claims.await?.into_iter().filter_map(|claim| match claim {
        LayerClaim::Present => None,
        LayerClaim::Work(work) => Some(work),
    });
    Ok(works.collect())
}

/// Streams a blob from the registry into the threads that unpack it.
async fn transfer(
    context: &Arc<LayerContext>,
    fetch: &mut BlobFetch,
    blob: &Descriptor,
    works: Vec<LayerWork>,
    mut beginning: Option<Partial>,
    number: usize,
) -> Result<Again, Failed> {
    let mut writers = Vec::new();
    let mut readers = Vec::new();
    for work in works {
        let (writer, reader) = pipe();
        let (context, beginning) = (context.clone(), beginning.take());
        readers.push(tokio::task::spawn_blocking(move || unpack_from_pipe(&context, work, beginning, reader)));
        writers.push(writer);
    }
    let driven = tokio::select! {
        driven = drive(context, fetch, &writers, number) => driven,
        () = context.cancel.cancelled() => Err(PullError::Canceled),
    };
    match driven {
        Ok(Pumped::Complete) => {
            context.events.layer(number, LayerState::Unpacking);
            for writer in writers {
                // A reader that has gone says itself why.
                let _ = writer.finish().await;
            }
        }
        Ok(Pumped::ReaderGone) | Err(_) => drop(writers),
    }
    let unpacked = join(readers).await;
    match (driven, unpacked) {
        (Err(error), _) => Err(error.into()),
        (Ok(_), Ok(again)) => Ok(again),
        (Ok(_), Err(error)) => {
            let wrong_bytes = are_wrong_bytes(&error);
            Err(Failed { error: layer_error(blob, error), wrong_bytes })
        }
    }
}

async fn drive(
    context: &LayerContext,
    fetch: &mut BlobFetch,
    writers: &[PipeWriter],
    number: usize,
) -> Result<Pumped, PullError> {
    let mut downloading = Downloading::new(&context.events, number, fetch.offset_bytes());
    let heard = |event: &BlobEvent| {
        if let BlobEvent::Bytes(bytes) = event {
            context.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        downloading.hear(event);
    };
    pump(None, fetch, writers, heard).await.map_err(|error| context.origin.fetch_error(error))
}

/// Waits for every thread; the first error wins.
async fn join(readers: Vec<JoinHandle<Result<Again, PullError>>>) -> Result<Again, PullError> {
    let mut again = Vec::new();
    let mut failed = None;
    for reader in readers {
        match reader.await {
            Ok(Ok(more)) => again.extend(more),
            Ok(Err(error)) => {
                failed.get_or_insert(error);
            }
            Err(_) => {
                failed.get_or_insert(PullError::Internal("an unpacking thread panicked"));
            }
        }
    }
    failed.map_or(Ok(again), Err)
}

/// The beginning of a blob that an earlier pull left, where that is configured and one layer alone wants it.
fn beginning(blob: &Descriptor, works: &[LayerWork]) -> Option<Partial> {
    match works {
        [work] if blob.data.is_none() => work.partial(),
        [] | [_] | [_, _, ..] => None,
    }
}

/// Unpacks one layer from its kept beginning and a pipe, again from byte 0 when the transfer starts again.
fn unpack_from_pipe(
    context: &LayerContext,
    mut work: LayerWork,
    mut beginning: Option<Partial>,
    mut reader: PipeReader,
) -> Result<Again, PullError> {
    let key = work.key().clone();
    loop {
        let stop = context.size.watch(&key.layer.chain_id, &context.cancel);
        let unpacked = match beginning.take() {
            None => work.unpack(&mut reader, &stop),
            Some(kept) => {
                let kept_bytes = BufReader::with_capacity(READ_BYTES, kept.file).take(kept.size_bytes);
                let mut input = kept_bytes.chain(reader);
                let unpacked = work.unpack(&mut input, &stop);
                reader = input.into_inner().1;
                unpacked
            }
        };
        match unpacked {
            Ok(unpacked) => return count_unpacked(context, &key, unpacked),
            Err(_) if reader.was_restarted() => {
                reader.begin_again();
                match context.lease.claim_layer(&key, &|| context.cancel.is_cancelled())? {
                    LayerClaim::Present => return Ok(Vec::new()),
                    LayerClaim::Work(again) => work = again,
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes down what a layer came to.
fn count_unpacked(context: &LayerContext, key: &LayerKey, unpacked: Unpacked) -> Result<Again, PullError> {
    context.size.put(&key.layer.chain_id, unpacked.size)?;
    context.notes.add_all(&key.layer.blob, &unpacked.warnings);
    Ok(unpacked.again)
}

/// Unpacks layers from an archive on this machine, one reader each.
async fn read(
    context: &Arc<LayerContext>,
    archive: &Arc<Archive>,
    blob: &Descriptor,
    works: Vec<LayerWork>,
) -> Result<Again, PullError> {
    let threads = works.into_iter().map(|work| {
        let (context, archive, digest) = (context.clone(), archive.clone(), blob.digest.clone());
        tokio::task::spawn_blocking(move || -> Result<Again, PullError> {
            let bytes = archive.blob(&digest)?.ok_or_else(|| archive.missing(&digest))?;
            let mut input = BufReader::with_capacity(READ_BYTES, bytes);
            let key = work.key().clone();
            let stop = context.size.watch(&key.layer.chain_id, &context.cancel);
            count_unpacked(&context, &key, work.unpack(&mut input, &stop)?)
        })
    });
    let mut again = Vec::new();
    for thread in threads.collect::<Vec<_>>() {
        let done = thread.await.map_err(|_| PullError::Internal("an unpacking thread panicked"))?;
        again.extend(done.map_err(|error| layer_error(blob, error))?);
    }
    Ok(again)
}

fn are_wrong_bytes(error: &PullError) -> bool {
    matches!(error.reason(), Reason::DigestMismatch | Reason::SizeMismatch)
}

fn layer_error(blob: &Descriptor, error: PullError) -> PullError {
    match error {
        PullError::Store(source) if source.reason() != Reason::Canceled => {
            PullError::Layer { digest: blob.digest.clone(), source: Box::new(source) }
        }
        PullError::Store(_) => PullError::Canceled,
        other => other,
    }
}
