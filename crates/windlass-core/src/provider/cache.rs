//! Answers that are used again: for what, for whom, and until when.
//!
//! Times are durations on the caller's clock; randomness is an argument. Source of truth: kubernetes
//! `pkg/credentialprovider/plugin/plugin.go` (`perPodPluginProvider`, `getCachedCredentials`). Ours alone: renewal ahead of
//! time. Invariants: `an_entry_is_used_until_its_time_is_over`, `accounts_do_not_share_answers`, `the_cache_is_bounded`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::answer::lifetime;
use super::{CacheKeyType, ProviderAnswer, TokenCacheType};
use crate::digest::Digest;
use crate::secret::Secret;

/// Share of its life after which an answer is asked for anew, in the background; up to a tenth more by chance, so that
/// the nodes of a cluster do not all ask in the same second.
pub const REFRESH_AFTER: f64 = 0.8;
const REFRESH_SPREAD: f64 = 0.1;
/// How often what is over is thrown away. Kubelet: 15 minutes.
pub const SWEEP_EVERY: Duration = Duration::from_secs(15 * 60);
/// Most answers of one provider; a node uses some hundred images.
pub const CACHED_ANSWERS_MAX: usize = 1024;

/// What an answer is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One repository.
    Image(String),
    /// Every repository of a host.
    Registry(String),
    /// Everything.
    Global,
}

impl Scope {
    /// The scope of an answer to a request for `image`, a repository with its host.
    pub fn of(kind: CacheKeyType, image: &str) -> Scope {
        match kind {
            CacheKeyType::Image => Scope::Image(image.to_owned()),
            CacheKeyType::Registry => Scope::Registry(image.split('/').next().unwrap_or_default().to_owned()),
            CacheKeyType::Global => Scope::Global,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Image(image) => write!(f, "image {image}"),
            Scope::Registry(host) => write!(f, "registry {host}"),
            Scope::Global => f.write_str("global"),
        }
    }
}

/// The service account that an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, or empty.
    pub uid: String,
    /// The annotations that were passed on.
    pub annotations: BTreeMap<String, String>,
    /// The sum of the token, where an answer is bound to it.
    pub token: Option<Digest>,
}

impl AccountKey {
    /// Binds to the token too where the provider wants that.
    pub fn with_token(mut self, token: &Secret<String>, cache_type: TokenCacheType) -> AccountKey {
        self.token = match cache_type {
            TokenCacheType::Token => Some(Digest::sha256(token.expose().as_bytes())),
            TokenCacheType::ServiceAccount => None,
        };
        self
    }
}

/// Where an answer is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey {
    /// What it is good for.
    pub scope: Scope,
    /// For whom; `None`: for everybody.
    pub account: Option<AccountKey>,
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.account {
            None => write!(f, "{}", self.scope),
            Some(account) => write!(f, "{} for {}/{}", self.scope, account.namespace, account.name),
        }
    }
}

/// An answer with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedAnswer {
    /// The answer.
    pub answer: Arc<ProviderAnswer>,
    /// When it came.
    pub stored: Duration,
    /// Until when it is used.
    pub expires: Duration,
    /// From when a new one is asked for.
    pub refresh: Duration,
}

/// An answer that may be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where it was.
    pub key: CacheKey,
    /// The answer.
    pub answer: Arc<ProviderAnswer>,
    /// How long yet.
    pub expires_in: Duration,
    /// Whether a new one should be asked for in the background.
    pub refresh: bool,
}

/// The answers of one provider.
#[derive(Clone, Debug, Default)]
pub struct AnswerCache {
    entries: HashMap<CacheKey, CachedAnswer>,
    swept: Duration,
}

impl AnswerCache {
    /// Keeps an answer to a request for `image`; returns where and until when, or `None` if it is not to be kept.
    pub fn store(
        &mut self,
        image: &str,
        account: Option<&AccountKey>,
        answer: Arc<ProviderAnswer>,
        default: Duration,
        now: Duration,
        random: f64,
    ) -> Option<(CacheKey, Duration)> {
        let life = lifetime(&answer, default);
        let key = CacheKey { scope: Scope::of(answer.cache_key_type, image), account: account.cloned() };
        if life.is_zero() {
            // What is kept from before is older than this answer, which nobody may keep.
            self.entries.remove(&key);
            return None;
        }
        if self.entries.len() >= CACHED_ANSWERS_MAX && !self.entries.contains_key(&key) {
            let first = self.entries.iter().min_by_key(|(_, kept)| kept.expires).map(|(key, _)| key.clone());
            first.map(|first| self.entries.remove(&first));
        }
        let share = REFRESH_AFTER + REFRESH_SPREAD * random.clamp(0.0, 1.0);
        let (expires, refresh) = (now.saturating_add(life), now.saturating_add(life.mul_f64(share)));
        self.entries.insert(key.clone(), CachedAnswer { answer, stored: now, expires, refresh });
        Some((key, expires))
    }

    /// The answer for an image: one for it alone first, then one for its registry, then one for everything.
    pub fn find(&mut self, image: &str, account: Option<&AccountKey>, now: Duration) -> Option<Hit> {
        if now.saturating_sub(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.entries.retain(|_, kept| now <= kept.expires);
        }
        for kind in [CacheKeyType::Image, CacheKeyType::Registry, CacheKeyType::Global] {
            let key = CacheKey { scope: Scope::of(kind, image), account: account.cloned() };
            if let Some(kept) = self.entries.get(&key).filter(|kept| now <= kept.expires) {
                let (answer, expires_in) = (Arc::clone(&kept.answer), kept.expires.saturating_sub(now));
                return Some(Hit { refresh: now >= kept.refresh, key, answer, expires_in });
            }
        }
        None
    }

    /// Throws away what `gone` says.
    pub fn drop_where(&mut self, mut gone: impl FnMut(&CachedAnswer) -> bool) {
        self.entries.retain(|_, kept| !gone(kept));
    }

    /// Everything that may be used now.
    pub fn entries(&self, now: Duration) -> impl Iterator<Item = (&CacheKey, &CachedAnswer)> {
        self.entries.iter().filter(move |(_, kept)| now <= kept.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Credential;
    use proptest::prelude::*;

    const IMAGE: &str = "r.io:5000/team/app";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn answer(cache_key_type: CacheKeyType, seconds: Option<u64>) -> Arc<ProviderAnswer> {
        let auth = vec![("r.io".to_owned(), Credential::basic("u", "p"))];
        Arc::new(ProviderAnswer { cache_key_type, cache_duration: seconds.map(at), auth })
    }

    fn account(uid: &str) -> AccountKey {
        let (namespace, name) = ("ns".to_owned(), "sa".to_owned());
        AccountKey { namespace, name, uid: uid.to_owned(), annotations: BTreeMap::new(), token: None }
    }

    #[test]
    fn an_entry_is_used_until_its_time_is_over() {
        // The answer's own time, the default; when it is over, if it is kept at all.
        let table = [(Some(100), 50, Some(1100)), (None, 50, Some(1050)), (Some(0), 50, None), (None, 0, None)];
        for (own, default, want) in table {
            let mut cache = AnswerCache::default();
            let kept = cache.store(IMAGE, None, answer(CacheKeyType::Image, own), at(default), at(1000), 0.0);
            assert_eq!(kept.map(|(_, expires)| expires), want.map(at), "{own:?} {default}");
            let Some(end) = want else { continue };
            assert!(cache.find(IMAGE, None, at(end)).is_some_and(|hit| hit.expires_in.is_zero()));
            assert_eq!(cache.find(IMAGE, None, at(end) + Duration::from_nanos(1)), None);
        }
    }

    #[test]
    fn answers_serve_what_their_key_says() {
        // Kind of key; whether it serves the image itself, another of its registry, another registry.
        let table = [
            (CacheKeyType::Image, [true, false, false]),
            (CacheKeyType::Registry, [true, true, false]),
            (CacheKeyType::Global, [true, true, true]),
        ];
        for (kind, want) in table {
            let mut cache = AnswerCache::default();
            cache.store(IMAGE, None, answer(kind, None), at(10), at(0), 0.0);
            let images = [IMAGE, "r.io:5000/other", "r.io/team/app"];
            assert_eq!(images.map(|image| cache.find(image, None, at(1)).is_some()), want, "{kind:?}");
        }
    }

    #[test]
    fn the_nearest_answer_is_used() {
        let mut cache = AnswerCache::default();
        for kind in [CacheKeyType::Global, CacheKeyType::Registry, CacheKeyType::Image] {
            cache.store(IMAGE, None, answer(kind, None), at(10), at(0), 0.0);
            let hit = cache.find(IMAGE, None, at(1)).expect("a hit");
            assert_eq!(hit.key.scope, Scope::of(kind, IMAGE));
        }
    }

    #[test]
    fn a_new_answer_is_asked_for_ahead_of_time() {
        for (random, want) in [(0.0, 80), (0.5, 85), (1.0, 90), (7.0, 90)] {
            let mut cache = AnswerCache::default();
            cache.store(IMAGE, None, answer(CacheKeyType::Image, Some(100)), at(0), at(0), random);
            let due = |cache: &mut AnswerCache, now| cache.find(IMAGE, None, now).expect("a hit").refresh;
            assert!(!due(&mut cache, at(want) - Duration::from_millis(1)) && due(&mut cache, at(want)), "{random}");
        }
    }

    #[test]
    fn accounts_do_not_share_answers() {
        let mut cache = AnswerCache::default();
        let one = account("1");
        let (a, b) = (Secret::from("a"), Secret::from("b"));
        let noted = AccountKey { annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]), ..one.clone() };
        let keys = [
            one.clone(),
            account("2"),
            noted,
            one.clone().with_token(&a, TokenCacheType::Token),
            one.clone().with_token(&b, TokenCacheType::Token),
        ];
        for key in &keys {
            assert_eq!(cache.find(IMAGE, Some(key), at(1)), None, "{key:?}");
            cache.store(IMAGE, Some(key), answer(CacheKeyType::Registry, None), at(10), at(0), 0.0);
            assert!(cache.find(IMAGE, Some(key), at(1)).is_some());
        }
        assert_eq!(cache.find(IMAGE, None, at(1)), None);
        assert_eq!(one.clone().with_token(&a, TokenCacheType::ServiceAccount), one);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut cache = AnswerCache::default();
        for n in 0..CACHED_ANSWERS_MAX as u64 + 10 {
            cache.store(&format!("r.io/{n}"), None, answer(CacheKeyType::Image, Some(100)), at(0), at(n), 0.0);
        }
        assert_eq!(cache.entries.len(), CACHED_ANSWERS_MAX);
        cache.find(IMAGE, None, SWEEP_EVERY + at(100_000));
        assert!(cache.entries.is_empty(), "what is over is swept");
    }

    #[test]
    fn an_answer_that_may_not_be_kept_ends_an_older_one() {
        let mut cache = AnswerCache::default();
        cache.store(IMAGE, None, answer(CacheKeyType::Image, Some(100)), at(0), at(0), 0.0);
        cache.store(IMAGE, None, answer(CacheKeyType::Image, Some(0)), at(0), at(1), 0.0);
        assert_eq!(cache.find(IMAGE, None, at(1)), None);
    }

    proptest! {
        #[test]
        fn nothing_outlives_its_time(life in 1_u64..1000, later in 0_u64..2000, random in 0.0..1.0_f64) {
            let mut cache = AnswerCache::default();
            cache.store(IMAGE, None, answer(CacheKeyType::Registry, Some(life)), at(5), at(7), random);
            prop_assert_eq!(cache.find(IMAGE, None, at(7 + later)).is_some(), later <= life);
        }
    }
}
