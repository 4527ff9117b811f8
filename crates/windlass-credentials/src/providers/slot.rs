//! One provider: from the cache, from a run that is under way, or from a new one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::keyring::Mode;
use windlass_core::provider::{AccountKey, CacheKey, CacheKeyType, ExecProvider, Hit, Scope};

use super::state::{Fetched, State};
use super::{BuiltIn, Question, Renewals, Told, chance, lock};
use crate::lookup::{Matched, ProviderKind};
use crate::plugin::{ExecPlugin, PluginSettings};
use crate::provider::{Provider, ProviderError, ProviderRequest};

#[derive(Debug)]
pub(super) enum Inner {
    Exec(Box<ExecPlugin>),
    Cloud(BuiltIn),
}

/// One provider with everything that is remembered about it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(super) name: String,
    pub(super) inner: Inner,
    pub(super) began: Instant,
    pub(super) state: Mutex<State>,
}

/// How an answer was come by.
pub(super) enum Got {
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

    pub(super) fn kind(&self) -> ProviderKind {
        match &self.inner {
            Inner::Exec(_) => ProviderKind::Plugin,
            Inner::Cloud(_) => ProviderKind::Cloud,
        }
    }

    fn default_cache(&self) -> Duration {
        self.config().map_or(Duration::ZERO, |config| config.default_cache)
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
}
