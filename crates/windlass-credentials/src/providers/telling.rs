//! What people are told about one provider.

use std::sync::Arc;

use windlass_core::keyring::normalise_key;
use windlass_core::matchimage::{Verdict, explain, matches, trap};
use windlass_core::provider::{AccountKey, ProviderAnswer, TokenCacheType};
use windlass_core::reason::chain;
use windlass_core::reference::Reference;

use super::lock;
use super::slot::{Got, Inner, Slot};
use crate::lookup::{Asked, Matched, ProviderNote};

impl Slot {
    pub(super) fn matched(&self, image: &Reference) -> Matched {
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

    pub(super) fn note(&self, matched: Matched) -> ProviderNote {
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
            advice: self.advice(),
        }
    }

    /// What the configuration says that may not be what is meant.
    fn advice(&self) -> String {
        let Some(config) = self.config() else { return String::new() };
        let traps = config.match_images.iter().filter_map(|pattern| Some(format!("{pattern}: {}", trap(pattern)?)));
        let binds = config.token.as_ref().and_then(|token| match token.cache_type {
            TokenCacheType::Token => {
                Some("cacheType Token keeps an answer for one token only; each new token asks anew".to_owned())
            }
            TokenCacheType::ServiceAccount => None,
        });
        traps.chain(binds).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn tell(
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
            let covers = |key: &String| normalise_key(key).is_some_and(|key| matches(&key, image).unwrap_or(false));
            if !note.keys.is_empty() && !note.keys.iter().any(covers) {
                let separator = if note.advice.is_empty() { "" } else { "; " };
                note.advice.push_str(separator);
                note.advice.push_str("none of the keys that it answered with covers the image");
            }
            if let Some(hit) = lock(&self.state).cache.find(image, account, self.began.elapsed()) {
                note.cache_key = hit.key.to_string();
                note.expires_in = Some(hit.expires_in);
            }
        }
        answer
    }
}
