//! One image's session: which endpoints are asked in which order, and what they said so far.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use tokio::sync::OnceCell;
use windlass_core::host::Host;
use windlass_core::keyring::Candidate;
use windlass_core::manifest::ManifestError;
use windlass_core::mirror::{self, Operation};
use windlass_core::reference::Reference;

use crate::attempt::Attempt;
use crate::client::{ClientInner, CredentialMode};
use crate::counters::{Counters, Tally};
use crate::error::{FetchError, Step};
use crate::renewal::Renewal;
use crate::retry::{Tries, chance};
use crate::session::{Patience, Session, WaitBudget};
use crate::words::{RateLimit, Warnings};

/// One image's session with its registry and mirrors. Cheap to clone; clones share what was learned.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) inner: Arc<RepositoryInner>,
}

#[derive(Debug)]
pub(crate) struct RepositoryInner {
    pub(crate) client: Arc<ClientInner>,
    pub(crate) shared: Arc<Shared>,
    registry: Host,
    given: Vec<Candidate>,
    mode: CredentialMode,
    sessions: OnceCell<Sessions>,
}

/// What all endpoints of a session have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The repository below the registry, `library/nginx`.
    pub(crate) path: String,
    pub(crate) tally: Tally,
    budget: WaitBudget,
    notes: Mutex<Notes>,
    renewal: OnceLock<Renewal>,
}

#[derive(Debug, Default)]
struct Notes {
    warnings: Warnings,
    rate_limit: Option<RateLimit>,
}

#[derive(Debug, Default)]
struct Sessions {
    resolve: Vec<Arc<Session>>,
    pull: Vec<Arc<Session>>,
    push: Vec<Arc<Session>>,
}

impl Shared {
    /// Keeps the rate limit and warnings of an answer.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        let mut notes = self.notes();
        notes.warnings.add(headers);
        if let Some(rate) = RateLimit::from_headers(headers) {
            notes.rate_limit = Some(rate);
        }
    }

    /// Whether the session may still wait this long because a registry asks for it.
    pub(crate) fn grant_wait(&self, wait: std::time::Duration) -> bool {
        self.budget.grant(wait)
    }

    /// A newer credential in the place of a refused one, where one is to be had.
    pub(crate) async fn renewed(&self, refused: &Candidate) -> Option<Candidate> {
        self.renewal.get()?.ask(refused.clone()).await
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository {
    pub(crate) fn new(
        client: Arc<ClientInner>,
        image: &Reference,
        mut given: Vec<Candidate>,
        mode: CredentialMode,
    ) -> Repository {
        match mode {
            CredentialMode::Kubelet => given.truncate(1),
            CredentialMode::Windlass => {}
        }
        let shared = Shared {
            path: image.path().to_owned(),
            tally: Tally::default(),
            budget: WaitBudget::new(client.config.retry.retry_after_total),
            notes: Mutex::default(),
            renewal: OnceLock::new(),
        };
        let inner = RepositoryInner {
            client,
            shared: Arc::new(shared),
            registry: image.host().clone(),
            given,
            mode,
            sessions: OnceCell::new(),
        };
        Repository { inner: Arc::new(inner) }
    }

    /// Asks for a newer credential where the registry refuses one, also one that it took before. Ours is the only mode in
    /// which that happens; said a second time, nothing changes.
    pub fn renew_by(&self, renewal: Renewal) {
        match self.inner.mode {
            CredentialMode::Windlass => drop(self.inner.shared.renewal.set(renewal)),
            CredentialMode::Kubelet => {}
        }
    }

    /// The registry host of the reference.
    pub fn registry(&self) -> &Host {
        &self.inner.registry
    }

    /// The repository below the registry, `library/nginx`.
    pub fn path(&self) -> &str {
        &self.inner.shared.path
    }

    /// Every credential that was refused so far and what was answered to it.
    pub fn attempts(&self) -> Vec<Attempt> {
        let Some(sessions) = self.inner.sessions.get() else { return Vec::new() };
        sessions.all().flat_map(|s| s.attempts()).collect()
    }

    /// The credential the registry itself accepted: `Some(None)` means anonymously, `None` not yet.
    pub fn accepted(&self) -> Option<Option<Candidate>> {
        let sessions = self.inner.sessions.get()?;
        sessions.all().filter(|s| s.is_registry()).find_map(|s| s.accepted())
    }

    /// Requests and bytes of this session.
    pub fn counters(&self) -> Counters {
        self.inner.shared.tally.read()
    }

    /// What the registry last told about its rate limit.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.inner.shared.notes().rate_limit.clone()
    }

    /// Warnings of the registry, each once, at most 4096 bytes; to be shown, never acted on.
    pub fn warnings(&self) -> Vec<String> {
        self.inner.shared.notes().warnings.texts().to_vec()
    }

    /// The endpoints for an operation, in the order in which they are asked now.
    ///
    /// Those that served wrong bytes come last; those that failed a moment ago are left out while another one
    /// is there.
    pub(crate) async fn order(&self, operation: Operation, step: Step) -> Result<Vec<Turn>, FetchError> {
        let sessions = self.inner.sessions.get_or_init(|| self.inner.load()).await;
        let mut list = match operation {
            Operation::Resolve => sessions.resolve.clone(),
            Operation::Pull => sessions.pull.clone(),
            Operation::Push => sessions.push.clone(),
        };
        if list.is_empty() {
            return Err(FetchError::NoEndpoint { host: self.inner.registry.clone(), step });
        }
        let (now, breakers) = (Instant::now(), &self.inner.client.breakers);
        list.sort_by_key(|s| breakers.punished(s.host(), now));
        let shut: Vec<_> =
            list.iter().filter_map(|s| Some((s.host().clone(), breakers.shut_for(s.host(), now)?))).collect();
        list.retain(|s| breakers.shut_for(s.host(), now).is_none());
        if let (true, Some((host, wait))) = (list.is_empty(), shut.into_iter().next_back()) {
            return Err(FetchError::BreakerOpen { host, wait });
        }
        let last = list.len() - 1;
        let turn =
            |(at, session)| Turn { session, patience: if at == last { Patience::Wait } else { Patience::OneTry } };
        Ok(list.into_iter().enumerate().map(turn).collect())
    }

    pub(crate) fn tries(&self) -> Tries {
        Tries::new(self.inner.client.config.retry)
    }
}

impl RepositoryInner {
    async fn load(&self) -> Sessions {
        let (directories, registry) = (self.client.config.hosts_dirs.clone(), self.registry.clone());
        let found = tokio::task::spawn_blocking(move || crate::hosts::find(&directories, &registry)).await;
        let found = found.unwrap_or_default();
        for warning in &found.warnings {
            tracing::warn!(registry = %self.registry, "{warning}");
        }
        let overrides = self.client.overrides(&self.registry);
        let mut known: Vec<Arc<Session>> = Vec::new();
        let mut list = |operation| {
            let endpoints = mirror::endpoints(&self.registry, found.file.as_ref(), &overrides, operation);
            let session = |endpoint: mirror::Endpoint| match known.iter().find(|s| s.endpoint == endpoint) {
                Some(session) => session.clone(),
                None => {
                    let (client, shared) = (self.client.clone(), self.shared.clone());
                    let session = Arc::new(Session::new(client, shared, endpoint, &self.given, self.mode));
                    known.push(session.clone());
                    session
                }
            };
            endpoints.into_iter().map(session).collect::<Vec<_>>()
        };
        Sessions { resolve: list(Operation::Resolve), pull: list(Operation::Pull), push: list(Operation::Push) }
    }
}

impl Sessions {
    /// Each session once, mirrors first.
    fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        let mut seen: Vec<&Arc<Session>> = Vec::new();
        for session in self.pull.iter().chain(&self.resolve).chain(&self.push) {
            if !seen.iter().any(|s| Arc::ptr_eq(s, session)) {
                seen.push(session);
            }
        }
        seen.into_iter()
    }
}

/// One endpoint's turn.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) session: Arc<Session>,
    pub(crate) patience: Patience,
}

/// The failures of the endpoints asked so far.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    errors: Vec<FetchError>,
}

impl Failures {
    /// Takes an endpoint's error; `Err` when no other endpoint may be asked after it.
    pub(crate) fn add(
        &mut self,
        client: &ClientInner,
        turn: &Turn,
        error: FetchError,
        what: &str,
    ) -> Result<(), FetchError> {
        let (session, timeouts) = (&turn.session, &client.config.timeouts);
        let now = Instant::now();
        if error.shuts_out(session.is_registry()) {
            client.breakers.failed(session.host(), now, timeouts.breaker, chance());
        }
        if error.is_wrong_content() {
            client.breakers.punish(session.host(), now, timeouts.penalty);
        }
        let ends = turn.patience == Patience::Wait || !falls_through(&error, session.is_registry());
        if !ends {
            tracing::debug!(host = %session.host(), error = %windlass_core::reason::chain(&error), "asking the next endpoint");
        }
        self.errors.push(error);
        if ends { Err(self.take(what)) } else { Ok(()) }
    }

    /// All failures as one error.
    pub(crate) fn take(&mut self, what: &str) -> FetchError {
        let mut errors = std::mem::take(&mut self.errors);
        match errors.pop() {
            Some(error) if errors.is_empty() => error,
            Some(error) => {
                errors.push(error);
                FetchError::AllEndpoints { what: what.to_owned(), errors }
            }
            None => FetchError::AllEndpoints { what: what.to_owned(), errors },
        }
    }
}

/// Whether another endpoint may have a better answer. What the registry itself says is wrong with its own
/// content is final.
fn falls_through(error: &FetchError, from_registry: bool) -> bool {
    match error {
        FetchError::Manifest { source, .. } => {
            !from_registry && matches!(source, ManifestError::Html | ManifestError::NotADocument { .. })
        }
        FetchError::Source { .. } | FetchError::InlineData { .. } | FetchError::UnverifiableDigest { .. } => false,
        _ => true,
    }
}
