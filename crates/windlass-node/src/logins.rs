//! How the providers of logins fare: for the status, the page and the metrics. Never a login.
//!
//! Invariant: `providers_are_told_without_their_logins`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use windlass_core::reason::chain;
use windlass_credentials::{CredentialSources, ProviderState};

use crate::status::{CachedRow, LoginStatus, ProviderRow};

/// Kept answers that are listed of one provider.
const CACHED_MAX: usize = 50;

/// Every provider, and what is wrong with the configuration of programs.
pub(crate) fn logins(sources: &CredentialSources, now: Timestamp) -> LoginStatus {
    let config = sources.provider_config();
    LoginStatus {
        problem: config.as_ref().and_then(|config| config.refused.as_ref()).map(|error| chain(error.as_ref())),
        config_hash: config.map(|config| config.hash).filter(|hash| !hash.is_empty()),
        providers: sources.provider_states().into_iter().map(|state| row(state, now)).collect(),
    }
}

fn row(state: ProviderState, now: Timestamp) -> ProviderRow {
    let ends = |left: Duration| now.checked_add(SignedDuration::try_from(left).unwrap_or_default()).unwrap_or(now);
    ProviderRow {
        name: state.name,
        kind: state.kind.as_str().to_owned(),
        calls: state.calls,
        errors: state.errors,
        total_seconds: state.total_seconds,
        next_expiry: state.cached.iter().map(|kept| ends(kept.expires_in)).min(),
        cached: state
            .cached
            .iter()
            .take(CACHED_MAX)
            .map(|kept| CachedRow { key: kept.key.clone(), logins: kept.logins, expires: ends(kept.expires_in) })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use windlass_credentials::{CachedLogin, ProviderKind};

    use super::*;

    #[test]
    fn providers_are_told_without_their_logins() {
        let kept = |key: &str, seconds| CachedLogin {
            key: key.to_owned(),
            expires_in: Duration::from_secs(seconds),
            logins: 1,
        };
        let state = ProviderState {
            name: "ecr".to_owned(),
            kind: ProviderKind::Cloud,
            calls: 3,
            errors: 1,
            total_seconds: 0.5,
            cached: vec![kept("registry a", 90), kept("registry b", 30)],
        };
        let now = Timestamp::from_second(1000).unwrap();
        let row = row(state, now);
        assert_eq!((row.kind.as_str(), row.calls, row.errors), ("cloud", 3, 1));
        assert_eq!(row.next_expiry, Some(Timestamp::from_second(1030).unwrap()));
        assert_eq!(row.cached[0].expires, Timestamp::from_second(1090).unwrap());
    }
}
