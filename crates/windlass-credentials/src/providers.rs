//! Around every provider, program or cloud, the same: cache, single flight, back-off, renewal ahead of time, figures.
//!
//! In: an image, for whom, by whose rules. Out: an answer from the cache or from the provider, and a note for people. The
//! rules are in `windlass_core::provider`; here they meet the clock and the tasks. By the kubelet's rules failures are not
//! remembered and nothing is asked for ahead of time.
//!
//! Invariants (`tests/providers.rs`): `concurrent_calls_share_one_run`, `a_registry_s_images_share_one_run_once_that_is_known`,
//! `failures_are_waited_out`, `an_answer_is_renewed_ahead_of_time`, `a_refused_answer_is_asked_for_again`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;
use windlass_core::keyring::{Candidate, Mode, Origin, credential_hash};
use windlass_core::matchimage::{Verdict, explain};
use windlass_core::provider::{
    AccountDecision, AccountKey, AnswerCache, CacheKey, CacheKeyType, ExecProvider, Failures, Hit, ProviderAnswer,
    Scope, TokenAttributes, TokenCacheType, judge_account,
};
use windlass_core::reason::chain;
use windlass_core::reference::Reference;

use crate::accounts::{ServiceAccount, TokenDirectory};
use crate::lookup::{Asked, CachedLogin, Matched, ProviderKind, ProviderNote, ProviderState, RefusedOutcome};
use crate::plugin::{ExecPlugin, PluginSettings};
use crate::provider::{Provider, ProviderError, ProviderRequest, ServiceAccountToken};

/// An answer younger than this is not asked for again when a registry refuses it.
const FRESH: Duration = Duration::from_secs(1);
/// Most logins remembered that were given out and not kept.
const GIVEN_MAX: usize = 256;

/// A cloud that is asked in this process.
#[derive(Clone)]
pub struct BuiltIn {
    /// Its short name: `ecr`, `gcp` or `acr`.
    pub name: String,
    /// Whether an image is one of the cloud's.
    pub matches: Arc<dyn Fn(&Reference) -> bool + Send + Sync>,
    /// What is asked.
    pub provider: Arc<dyn Provider>,
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltIn").field("name", &self.name).field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What a provider is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) image: &'a Reference,
    pub(crate) account: Option<&'a ServiceAccount>,
    pub(crate) tokens: Option<&'a TokenDirectory>,
    pub(crate) mode: Mode,
}

/// Tasks that renew answers; dropped, they end.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<JoinSet<()>>);

impl Renewals {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

#[derive(Debug)]
enum Inner {
    Exec(Box<ExecPlugin>),
    Cloud(BuiltIn),
}

/// One provider with everything that is remembered about it.
#[derive(Debug)]
pub(crate) struct Slot {
    name: String,
    inner: Inner,
    began: Instant,
    state: Mutex<State>,
}

type Fetched = Result<Arc<ProviderAnswer>, Arc<ProviderError>>;
type Flight = Arc<OnceCell<Fetched>>;

#[derive(Debug, Default)]
struct State {
    cache: AnswerCache,
    failures: Failures<CacheKey, Arc<ProviderError>>,
    flights: HashMap<CacheKey, Flight>,
    renewing: HashSet<CacheKey>,
    /// What the last answer was good for: from then on calls for a registry share a run.
    learned: Option<CacheKeyType>,
    /// Logins of answers that were not kept, by hash, and when they came.
    given: VecDeque<(String, Duration)>,
    calls: u64,
    errors: u64,
    total: Duration,
}

/// An answer with where it came from and what is to be told.
pub(crate) struct Told {
    pub(crate) note: ProviderNote,
    pub(crate) answer: Option<(Arc<ProviderAnswer>, Origin)>,
}

/// How an answer was come by.
enum Got {
    Cached(Hit),
    Fetched(Fetched),
    Waiting { error: Arc<ProviderError>, again_in: Duration },
}

impl Slot {
    pub(crate) fn plugin(config: ExecProvider, settings: &PluginSettings) -> Slot {
        Slot::new(config.name.clone(), Inner::Exec(Box::new(ExecPlugin::new(config, settings))))
    }

    pub(crate) fn cloud(built_in: BuiltIn) -> Slot {
        let slot = Slot::new(built_in.name.clone(), Inner::Cloud(built_in));
        // Known before the first answer: a cloud's login is for a whole registry, so one question does for all its images.
        lock(&slot.state).learned = Some(CacheKeyType::Registry);
        slot
    }

    fn new(name: String, inner: Inner) -> Slot {
        Slot { name, inner, began: Instant::now(), state: Mutex::default() }
    }

    /// The configuration, where it is a program.
    pub(crate) fn config(&self) -> Option<&ExecProvider> {
        match &self.inner {
            Inner::Exec(plugin) => Some(plugin.config()),
            Inner::Cloud(_) => None,
        }
    }

    fn kind(&self) -> ProviderKind {
        match &self.inner {
            Inner::Exec(_) => ProviderKind::Plugin,
            Inner::Cloud(_) => ProviderKind::Cloud,
        }
    }

    fn default_cache(&self) -> Duration {
        self.config().map_or(Duration::ZERO, |config| config.default_cache)
    }

    fn matched(&self, image: &Reference) -> Matched {
        match &self.inner {
            Inner::Cloud(built_in) if (built_in.matches)(image) => Matched::Cloud,
            Inner::Cloud(_) => Matched::ForeignHost,
            Inner::Exec(plugin) => {
                let (repository, mut misses) = (image.repository(), Vec::new());
                for pattern in &plugin.config().match_images {
                    match explain(pattern, &repository) {
                        Ok(Verdict::Covers) => return Matched::Pattern(pattern.clone()),
                        Ok(miss) => misses.push((pattern.clone(), miss.to_string())),
                        Err(error) => misses.push((pattern.clone(), error.to_string())),
                    }
                }
                Matched::None(misses)
            }
        }
    }

    /// Asks, if it is a provider for the image.
    pub(crate) async fn ask(self: &Arc<Slot>, question: Question<'_>, renewals: &Renewals) -> Told {
        let matched = self.matched(question.image);
        let mut note = self.note(matched);
        if matches!(note.matched, Matched::None(_) | Matched::ForeignHost) {
            return Told { note, answer: None };
        }
        let (request, account, origin) = match self.for_whom(question).await {
            Ok(found) => found,
            Err(asked) => {
                note.asked = asked;
                return Told { note, answer: None };
            }
        };
        let got = self.get(request, account.as_ref(), question.mode, renewals).await;
        let answer = self.tell(&mut note, got, &question.image.repository(), account.as_ref());
        Told { note, answer: answer.map(|answer| (answer, origin)) }
    }

    fn note(&self, matched: Matched) -> ProviderNote {
        ProviderNote {
            name: self.name.clone(),
            kind: self.kind(),
            matched,
            asked: Asked::No,
            cache_key: String::new(),
            expires_in: None,
            keys: Vec::new(),
            exit_status: String::new(),
            stderr: String::new(),
            advice: self.advice().to_owned(),
        }
    }

    fn advice(&self) -> &'static str {
        match self.config().and_then(|config| config.token.as_ref()).map(|token| token.cache_type) {
            Some(TokenCacheType::Token) => {
                "cacheType Token keeps an answer for one token only; each new token asks anew"
            }
            Some(TokenCacheType::ServiceAccount) | None => "",
        }
    }

    /// Everything of a request that depends on the pod; an error says why the provider is left alone.
    async fn for_whom(&self, question: Question<'_>) -> Result<(ProviderRequest, Option<AccountKey>, Origin), Asked> {
        let request = |service_account| ProviderRequest { image: question.image.clone(), service_account };
        let plain = match &self.inner {
            Inner::Exec(_) => Origin::Plugin { name: self.name.clone() },
            Inner::Cloud(_) => Origin::Cloud { name: self.name.clone() },
        };
        let Some(wants) = self.config().and_then(|config| config.token.as_ref()) else {
            return Ok((request(None), None, plain));
        };
        match judge_account(wants, question.account.map(|account| &account.annotations)) {
            AccountDecision::Skip { why } => Err(Asked::Skipped { why }),
            AccountDecision::WithoutToken => Ok((request(None), None, plain)),
            AccountDecision::WithToken { annotations } => {
                let none = || Asked::Skipped { why: "there is no service account".to_owned() };
                let account = question.account.ok_or_else(none)?;
                self.with_token(wants, account, annotations, question).await
            }
        }
    }

    async fn with_token(
        &self,
        wants: &TokenAttributes,
        account: &ServiceAccount,
        annotations: std::collections::BTreeMap<String, String>,
        question: Question<'_>,
    ) -> Result<(ProviderRequest, Option<AccountKey>, Origin), Asked> {
        let no_token = |why: String| Asked::NoToken { why };
        let none = || no_token("there are no tokens of service accounts here".to_owned());
        let tokens = question.tokens.ok_or_else(none)?;
        let (namespace, name) = (account.namespace.clone(), account.name.clone());
        let found = tokens.token(&namespace, &name, &wants.audience).await.map_err(|error| no_token(chain(&error)))?;
        let uid = if account.uid.is_empty() { found.uid } else { account.uid.clone() };
        let key = AccountKey {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            annotations: annotations.clone(),
            token: None,
        };
        let key = key.with_token(&found.token, wants.cache_type);
        let service_account = Some(ServiceAccountToken { token: found.token, annotations });
        let request = ProviderRequest { image: question.image.clone(), service_account };
        Ok((request, Some(key), Origin::ServiceAccount { namespace, name, uid }))
    }

    /// From the cache, from a run that is under way, or from a new one.
    async fn get(
        self: &Arc<Slot>,
        request: ProviderRequest,
        account: Option<&AccountKey>,
        mode: Mode,
        renewals: &Renewals,
    ) -> Got {
        let image = request.image.repository();
        let request = Arc::new(request);
        loop {
            let (key, flight) = {
                let now = self.began.elapsed();
                let mut state = lock(&self.state);
                if let Some(hit) = state.cache.find(&image, account, now) {
                    if hit.refresh && mode == Mode::Windlass {
                        self.renew(&mut state, &hit, Arc::clone(&request), account, renewals);
                    }
                    return Got::Cached(hit);
                }
                let scope = Scope::of(state.learned.unwrap_or(CacheKeyType::Image), &image);
                let key = CacheKey { scope, account: account.cloned() };
                if mode == Mode::Windlass
                    && let Some((again_in, error)) = state.failures.waiting(&key, now)
                {
                    return Got::Waiting { error, again_in };
                }
                let flight = state.flight(&key);
                (key, flight)
            };
            let mut ours = false;
            let run = || {
                ours = true;
                self.fetch(&key, &request, account)
            };
            let fetched = flight.get_or_init(run).await.clone();
            lock(&self.state).landed(&key, &flight);
            let fits = match (&fetched, &key.scope) {
                (Err(_), _) | (Ok(_), Scope::Image(_)) => true,
                // What was asked for another image of the registry, and answered for that image alone.
                (Ok(answer), Scope::Registry(_) | Scope::Global) => {
                    Scope::of(answer.cache_key_type, &image) == key.scope
                }
            };
            if fits || ours {
                return Got::Fetched(fetched);
            }
        }
    }

    /// One run, whatever waits for it.
    async fn fetch(&self, key: &CacheKey, request: &ProviderRequest, account: Option<&AccountKey>) -> Fetched {
        let began = Instant::now();
        let provider: &dyn Provider = match &self.inner {
            Inner::Exec(plugin) => plugin.as_ref(),
            Inner::Cloud(built_in) => built_in.provider.as_ref(),
        };
        let result = provider.ask(request).await.map(Arc::new).map_err(Arc::new);
        let (now, random) = (self.began.elapsed(), chance());
        let mut state = lock(&self.state);
        state.calls += 1;
        state.total += began.elapsed();
        match &result {
            Ok(answer) => {
                state.failures.succeeded(key);
                state.learned = Some(answer.cache_key_type);
                let image = request.image.repository();
                let kept = state.cache.store(&image, account, Arc::clone(answer), self.default_cache(), now, random);
                if kept.is_none() {
                    state.remember(answer, now);
                }
            }
            Err(error) => {
                state.errors += 1;
                state.failures.failed(key, Arc::clone(error), now);
            }
        }
        result
    }

    /// Asks for a new answer beside the old one, which serves until it comes.
    fn renew(
        self: &Arc<Slot>,
        state: &mut State,
        hit: &Hit,
        request: Arc<ProviderRequest>,
        account: Option<&AccountKey>,
        renewals: &Renewals,
    ) {
        let key = hit.key.clone();
        if state.failures.waiting(&key, self.began.elapsed()).is_some() || !state.renewing.insert(key.clone()) {
            return;
        }
        let flight = state.flight(&key);
        let (slot, account) = (Arc::clone(self), account.cloned());
        renewals.spawn(async move {
            flight.get_or_init(|| slot.fetch(&key, &request, account.as_ref())).await;
            let mut state = lock(&slot.state);
            state.landed(&key, &flight);
            state.renewing.remove(&key);
        });
    }

    fn tell(
        &self,
        note: &mut ProviderNote,
        got: Got,
        image: &str,
        account: Option<&AccountKey>,
    ) -> Option<Arc<ProviderAnswer>> {
        let (asked, answer) = match got {
            Got::Cached(hit) => (Asked::Cached, Some(hit.answer)),
            Got::Fetched(Ok(answer)) => (Asked::Answered, Some(answer)),
            Got::Fetched(Err(error)) => {
                let (reason, hint) = (error.reason(), error.hint().to_owned());
                (Asked::Failed { error: chain(error.as_ref()), reason, hint }, None)
            }
            Got::Waiting { error, again_in } => (Asked::BackingOff { error: chain(error.as_ref()), again_in }, None),
        };
        note.asked = asked;
        if let Inner::Exec(plugin) = &self.inner {
            let last = plugin.last();
            note.exit_status = last.status.map(|status| status.to_string()).unwrap_or_default();
            note.stderr = last.stderr;
        }
        if let Some(answer) = &answer {
            note.keys = answer.auth.iter().map(|(key, _)| key.clone()).collect();
            if let Some(hit) = lock(&self.state).cache.find(image, account, self.began.elapsed()) {
                note.cache_key = hit.key.to_string();
                note.expires_in = Some(hit.expires_in);
            }
        }
        answer
    }

    /// Whether a candidate may have come from here.
    pub(crate) fn may_have_given(&self, origin: &Origin) -> bool {
        match (origin, &self.inner) {
            (Origin::Plugin { name }, Inner::Exec(_)) | (Origin::Cloud { name }, Inner::Cloud(_)) => *name == self.name,
            (Origin::ServiceAccount { .. }, Inner::Exec(plugin)) => plugin.config().token.is_some(),
            _ => false,
        }
    }

    /// Forgets the answer that a refused candidate came from; `None`: it is not known here.
    pub(crate) fn refused(&self, candidate: &Candidate) -> Option<RefusedOutcome> {
        let now = self.began.elapsed();
        let mut state = lock(&self.state);
        let gave = |answer: &ProviderAnswer| answer.auth.iter().any(|(_, login)| *login == candidate.credential);
        let kept = state.cache.entries(now).filter(|(_, kept)| gave(&kept.answer)).map(|(_, kept)| kept.stored).max();
        let given = state.given.iter().rev().find(|(hash, _)| *hash == candidate.hash).map(|(_, at)| *at);
        let came = kept.or(given)?;
        if now.saturating_sub(came) < FRESH {
            return Some(RefusedOutcome::Fresh);
        }
        state.cache.drop_where(|kept| gave(&kept.answer));
        state.given.retain(|(hash, _)| *hash != candidate.hash);
        Some(RefusedOutcome::AskAgain)
    }

    /// How it has fared.
    pub(crate) fn state(&self) -> ProviderState {
        let now = self.began.elapsed();
        let state = lock(&self.state);
        let mut cached: Vec<CachedLogin> = state
            .cache
            .entries(now)
            .map(|(key, kept)| CachedLogin {
                key: key.to_string(),
                expires_in: kept.expires.saturating_sub(now),
                logins: kept.answer.auth.len(),
            })
            .collect();
        cached.sort();
        ProviderState {
            name: self.name.clone(),
            kind: self.kind(),
            calls: state.calls,
            errors: state.errors,
            total_seconds: state.total.as_secs_f64(),
            cached,
        }
    }
}

impl State {
    /// The run under way for a key, or room for one.
    fn flight(&mut self, key: &CacheKey) -> Flight {
        // Those whose callers have all gone away stay behind; they hold nothing.
        self.flights.retain(|_, flight| Arc::strong_count(flight) > 1 || flight.initialized());
        Arc::clone(self.flights.entry(key.clone()).or_default())
    }

    /// A run has ended; the next call begins a new one.
    fn landed(&mut self, key: &CacheKey, flight: &Flight) {
        if self.flights.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            self.flights.remove(key);
        }
    }

    fn remember(&mut self, answer: &ProviderAnswer, now: Duration) {
        for (_, login) in &answer.auth {
            self.given.push_back((credential_hash(login, ""), now));
        }
        let surplus = self.given.len().saturating_sub(GIVEN_MAX);
        self.given.drain(..surplus);
    }
}

/// A number in 0..1 that is good enough to spread renewals.
fn chance() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
