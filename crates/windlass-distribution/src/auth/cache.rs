//! Tokens by (realm, service, scopes, identity), each fetched once however many ask for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use windlass_core::httpurl::WebOrigin;
use windlass_core::keyring::Credential;
use windlass_core::scope::ScopeSet;
use windlass_core::secret::Secret;

/// Most tokens kept; a node pulls from a few registries with a few identities.
const TOKENS: usize = 1024;
/// Most registries whose way of authentication is remembered.
const KNOWN: usize = 1024;
/// A token is renewed when this share of its life is over.
const RENEW_AT: f64 = 0.8;
/// A token is renewed when less than this is left.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// What a token is good for, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) realm: String,
    pub(crate) service: String,
    pub(crate) scopes: ScopeSet,
    /// The identity; prints as stars.
    pub(crate) credential: Credential,
    /// The registry it is for: its rules decide what the realm may get.
    pub(crate) registry: WebOrigin,
}

/// A bearer token and its life.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: Secret<String>,
    pub(crate) obtained: Instant,
    pub(crate) lives: Duration,
}

impl Token {
    /// Whether it may be used without renewing it.
    pub(crate) fn fresh(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.obtained);
        let left = self.lives.saturating_sub(age);
        age < self.lives.mul_f64(RENEW_AT) && left >= RENEW_BEFORE.min(self.lives / 2)
    }
}

/// How a registry wanted to be asked the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Tokens of this realm and service.
    Bearer { realm: String, service: String },
    /// User name and password.
    Basic,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// All tokens of a client.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<TokenKey, Slot>>,
    known: Mutex<HashMap<WebOrigin, Known>>,
}

impl Tokens {
    /// The token for `key` and whether it was kept from before; `fetch` runs once for all who wait.
    ///
    /// # Errors
    /// Whatever `fetch` answers; then the next caller fetches again.
    pub(crate) async fn get<E>(
        &self,
        key: &TokenKey,
        fetch: impl AsyncFnOnce() -> Result<Token, E>,
    ) -> Result<(Token, Freshness), E> {
        let slot = self.slot(key);
        let mut kept = slot.lock().await;
        if let Some(token) = kept.as_ref().filter(|t| t.fresh(Instant::now())) {
            return Ok((token.clone(), Freshness::Kept));
        }
        let token = fetch().await?;
        *kept = Some(token.clone());
        Ok((token, Freshness::Fetched))
    }

    /// Forgets a token the registry no longer takes, unless another has taken its place.
    pub(crate) async fn discard(&self, key: &TokenKey, refused: &Token) {
        let slot = lock(&self.slots).get(key).cloned();
        let Some(slot) = slot else { return };
        let mut kept = slot.lock().await;
        if kept.as_ref().is_some_and(|t| t.text == refused.text) {
            *kept = None;
        }
    }

    /// How this registry was asked the last time.
    pub(crate) fn known(&self, registry: &WebOrigin) -> Option<Known> {
        lock(&self.known).get(registry).cloned()
    }

    /// Remembers how this registry wants to be asked.
    pub(crate) fn learn(&self, registry: &WebOrigin, known: Known) {
        let mut all = lock(&self.known);
        if all.len() >= KNOWN && !all.contains_key(registry) {
            all.clear();
        }
        all.insert(registry.clone(), known);
    }

    fn slot(&self, key: &TokenKey) -> Slot {
        let mut slots = lock(&self.slots);
        if slots.len() >= TOKENS {
            let now = Instant::now();
            let alive = |slot: &Slot| slot.try_lock().map_or(true, |kept| kept.as_ref().is_some_and(|t| t.fresh(now)));
            slots.retain(|_, slot| alive(slot));
            if slots.len() >= TOKENS {
                slots.clear();
            }
        }
        slots.entry(key.clone()).or_default().clone()
    }
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// From the cache.
    Kept,
    /// From the token endpoint, just now.
    Fetched,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use windlass_core::host::Host;
    use windlass_core::httpurl::UrlScheme;

    fn key(scope: &str, credential: Credential) -> TokenKey {
        TokenKey {
            realm: "https://auth.example/token".into(),
            service: "s".into(),
            scopes: ScopeSet::pull(scope),
            credential,
            registry: WebOrigin::of_host(UrlScheme::Https, &Host::new("r.example")),
        }
    }

    fn token(text: &str, seconds: u64) -> Token {
        Token { text: Secret::from(text), obtained: Instant::now(), lives: Duration::from_secs(seconds) }
    }

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life() {
        let at = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        assert!(token("t", 300).fresh(at(239)));
        assert!(!token("t", 300).fresh(at(241)));
        assert!(token("t", 60).fresh(at(29)));
        assert!(!token("t", 60).fresh(at(31)), "less than 30 s are left");
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_by_many() {
        let (tokens, fetched) = (Arc::new(Tokens::default()), Arc::new(AtomicU32::new(0)));
        let ask = |tokens: Arc<Tokens>, fetched: Arc<AtomicU32>| async move {
            let fetch = async || {
                tokio::task::yield_now().await;
                fetched.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ()>(token("t", 300))
            };
            tokens.get(&key("a", Credential::Anonymous), fetch).await.unwrap().0.text.expose().clone()
        };
        let all: Vec<_> = (0..20).map(|_| tokio::spawn(ask(tokens.clone(), fetched.clone()))).collect();
        for task in all {
            assert_eq!(task.await.unwrap(), "t");
        }
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn identities_and_scopes_never_share_a_token() {
        let tokens = Tokens::default();
        let put = async |key: &TokenKey| tokens.get(key, async || Ok::<_, ()>(token("t", 300))).await.unwrap().1;
        let anonymous = key("a", Credential::Anonymous);
        assert_eq!(put(&anonymous).await, Freshness::Fetched);
        assert_eq!(put(&anonymous).await, Freshness::Kept);
        assert_eq!(put(&key("b", Credential::Anonymous)).await, Freshness::Fetched);
        assert_eq!(put(&key("a", Credential::basic("u", "p"))).await, Freshness::Fetched);
        assert_eq!(put(&key("a", Credential::basic("u", "q"))).await, Freshness::Fetched);
        tokens.discard(&anonymous, &token("other", 1)).await;
        assert_eq!(put(&anonymous).await, Freshness::Kept);
        tokens.discard(&anonymous, &token("t", 1)).await;
        assert_eq!(put(&anonymous).await, Freshness::Fetched);
    }
}
