//! The engine: one value that every surface holds and asks.
//!
//! In: a store, a registry client and a few settings. Out: [`Engine`], a cheap clone whose calls may run at the
//! same time; equal work is done once. All control is async, all heavy work runs on blocking threads.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use windlass_core::backoff::Backoff;
use windlass_core::keyring::{Candidate, Mode, PullSecret, Skipped};
use windlass_core::manifest::DocumentLimits;
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_credentials::{Asker, CredentialSources, Lookup, RefusedOutcome, ServiceAccount};
use windlass_distribution::{Client, Renewal, Repository};
use windlass_store::{PullRecords, Store};

use crate::PullError;
use crate::attempt::Attempt;
use crate::board::Board;
use crate::flight::Flights;
use crate::image_size::ImageLimits;
use crate::slots::{Slots, TransferLimits};

/// Fewest layers of one image in work at once: the network is kept busy while one of them is unpacked.
const LAYERS_IN_WORK_MIN: usize = 3;

/// Images pulled at once by `ensure`: enough to hide one slow registry, few enough to keep each pull fast.
const PULLS_AT_ONCE: usize = 3;

/// What an engine is made of.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Where images are kept.
    pub store: Store,
    /// How registries are reached.
    pub client: Client,
    /// What this machine is.
    pub host_platform: Platform,
    /// Where credentials come from beside the pods' secrets.
    pub credentials: Arc<CredentialSources>,
    /// Bounds on manifests, indexes and configs.
    pub limits: DocumentLimits,
    /// Bounds on an image over all its layers.
    pub image_limits: ImageLimits,
    /// Layers of one image that are fetched and unpacked at once; 0: as many as cores, at least 3.
    pub layers_in_work: usize,
    /// Images that `ensure` pulls at the same time.
    pub pulls_at_once: usize,
    /// Layers in transfer at once over all images; `None`: by the number of cores.
    pub transfers: Option<TransferLimits>,
    /// Pull records: the store's own, or a kubelet's.
    pub records: PullRecords,
}

impl EngineConfig {
    /// The defaults around a store, a client and the credentials at hand.
    pub fn new(
        store: Store,
        client: Client,
        credentials: Arc<CredentialSources>,
        host_platform: Platform,
    ) -> EngineConfig {
        let records = store.records().clone();
        EngineConfig {
            store,
            client,
            host_platform,
            credentials,
            limits: DocumentLimits::default(),
            image_limits: ImageLimits::default(),
            layers_in_work: 0,
            pulls_at_once: PULLS_AT_ONCE,
            transfers: None,
            records,
        }
    }
}

/// Pulls, ensures, copies, saves and loads images. Clones share everything.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// A pod's image whose next try has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedOff {
    /// The pod's UID, or namespace and name.
    pub pod: String,
    /// The image as the pod names it.
    pub image: String,
    /// Why the last try failed; empty where that is not known.
    pub previous: String,
    /// How long it has to wait yet.
    pub left: std::time::Duration,
}

/// What the clones of an engine share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) host_platform: Platform,
    pub(crate) credentials: Arc<CredentialSources>,
    pub(crate) limits: DocumentLimits,
    pub(crate) image_limits: ImageLimits,
    pub(crate) layers_in_work: usize,
    pub(crate) cores: usize,
    /// Configs being fetched, by digest.
    pub(crate) flights: Flights,
    pub(crate) records: PullRecords,
    /// Failed pulls of pods; in memory only, as in the kubelet.
    pub(crate) backoff: Mutex<Backoff>,
    /// The moment the back-off's times count from.
    pub(crate) began: Instant,
    /// Pulls of one `ensure` at the same time.
    pub(crate) pulls_at_once: usize,
    /// Who may transfer.
    pub(crate) slots: Slots,
    /// What is under way.
    pub(crate) board: Board,
}

/// For whom an image is pulled: what a pod brings, or nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForWhom {
    pub(crate) secrets: Vec<PullSecret>,
    pub(crate) account: Option<ServiceAccount>,
}

impl ForWhom {
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { pull_secrets: &self.secrets, service_account: self.account.as_ref() }
    }
}

/// What is shown to a registry.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// In trying order.
    pub(crate) candidates: Vec<Candidate>,
    /// Where a newer one comes from; nowhere for what a caller gave.
    pub(crate) renewal: Option<Renewal>,
    /// Sources that gave none, for the error of a pull that fails for lack of one.
    pub(crate) passed_over: Vec<Attempt>,
}

impl Login {
    /// Credentials that a caller gave; there are no others.
    pub(crate) fn given(candidates: Vec<Candidate>) -> Login {
        Login { candidates, renewal: None, passed_over: Vec::new() }
    }

    /// The same, with the sources that gave none.
    pub(crate) fn passing_over(mut self, skipped: &[Skipped]) -> Login {
        self.passed_over = skipped.iter().map(Attempt::passed_over).collect();
        self
    }
}

impl Engine {
    /// Makes an engine.
    pub fn new(config: EngineConfig) -> Engine {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let layers_in_work = match config.layers_in_work {
            0 => cores.max(LAYERS_IN_WORK_MIN),
            given => given,
        };
        Engine {
            inner: Arc::new(Inner {
                store: config.store,
                client: config.client,
                host_platform: config.host_platform,
                credentials: config.credentials,
                limits: config.limits,
                image_limits: config.image_limits,
                layers_in_work,
                cores,
                flights: Flights::default(),
                records: config.records,
                backoff: Mutex::new(Backoff::default()),
                began: Instant::now(),
                pulls_at_once: config.pulls_at_once.max(1),
                slots: Slots::new(config.transfers.unwrap_or_else(|| TransferLimits::for_cores(cores))),
                board: Board::new(),
            }),
        }
    }

    /// The store it works on.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Pulls under way and the last that ended.
    pub fn board(&self) -> &Board {
        &self.inner.board
    }

    /// Images of pods whose next try by `ensure` has to wait.
    pub fn back_off(&self) -> Vec<BackedOff> {
        let now = self.inner.began.elapsed();
        let backoff = self.inner.backoff.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waiting = backoff.entries().filter_map(|(key, entry)| {
            let left = (entry.failed_at + entry.delay).checked_sub(now).filter(|left| !left.is_zero())?;
            // Neither a UID nor namespace/name can hold the sign between pod and image.
            let (pod, image) = key.as_str().split_once('_')?;
            let previous = entry.previous.clone().unwrap_or_default();
            Some(BackedOff { pod: pod.to_owned(), image: image.to_owned(), previous, left })
        });
        waiting.collect()
    }

    /// Where its credentials come from.
    pub fn sources(&self) -> &Arc<CredentialSources> {
        &self.inner.credentials
    }

    /// The client it asks registries with.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The platform images are chosen for when nothing else is said.
    pub fn host_platform(&self) -> &Platform {
        &self.inner.host_platform
    }
}

impl Inner {
    /// The credentials for an image, in trying order.
    pub(crate) async fn credentials(
        &self,
        reference: &Reference,
        pod: &ForWhom,
        mode: Mode,
    ) -> Result<Lookup, PullError> {
        let found = self.credentials.candidates_for(reference, pod.asker(), mode).await;
        found.map_err(|source| PullError::Credentials { source: Box::new(source) })
    }

    /// A session with the registry of a reference, with everything this process may show it.
    pub(crate) async fn repository(&self, reference: &Reference, mode: Mode) -> Result<Repository, PullError> {
        let nobody = ForWhom::default();
        let found = self.credentials(reference, &nobody, mode).await?;
        Ok(self.open(reference, self.login(reference, found.candidates, nobody, mode), mode))
    }

    /// These credentials, each of which may be asked for again at its source once the registry refuses it.
    pub(crate) fn login(&self, reference: &Reference, candidates: Vec<Candidate>, pod: ForWhom, mode: Mode) -> Login {
        let (sources, reference) = (self.credentials.clone(), reference.clone());
        let renewal = Renewal::new(move |refused| {
            let (sources, reference, pod) = (sources.clone(), reference.clone(), pod.clone());
            Box::pin(async move {
                if sources.refused(&reference, &refused) != RefusedOutcome::AskAgain {
                    return None;
                }
                let found = sources.candidates_for(&reference, pod.asker(), mode).await.ok()?;
                let same = |other: &Candidate| other.origin == refused.origin && other.key == refused.key;
                found.candidates.into_iter().find(same)
            })
        });
        Login { candidates, renewal: Some(renewal), passed_over: Vec::new() }
    }

    /// A session with the registry of a reference.
    pub(crate) fn open(&self, reference: &Reference, login: Login, mode: Mode) -> Repository {
        let repository = self.client.repository(reference, login.candidates, mode);
        if let Some(renewal) = login.renewal {
            repository.renew_by(renewal);
        }
        repository
    }
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, PullError>
where
    T: Send + 'static,
    E: Send + 'static,
    PullError: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(PullError::from),
        Err(_) => Err(PullError::Internal("a worker thread panicked")),
    }
}
