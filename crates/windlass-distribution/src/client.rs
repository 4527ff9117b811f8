//! The client: what all sessions share.

use std::sync::Arc;

use http::HeaderValue;
use windlass_core::host::Host;
use windlass_core::keyring::Candidate;
pub use windlass_core::keyring::Mode as CredentialMode;
use windlass_core::mirror::{RegistryOverride, hub_names_are_one};
use windlass_core::reference::Reference;

use crate::auth::Tokens;
use crate::breaker::Breakers;
use crate::config::ClientConfig;
use crate::counters::{Counters, Tally};
use crate::error::ClientError;
use crate::net::Network;
use crate::net::dial::Dialler;
use crate::net::proxy::Proxies;
use crate::net::tls::TlsSettings;
use crate::repository::Repository;

/// A registry client: connections, tokens and what is known of hosts. Cheap to clone; clones share all of it.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<ClientInner>,
}

#[derive(Debug)]
pub(crate) struct ClientInner {
    pub(crate) config: ClientConfig,
    pub(crate) network: Network,
    pub(crate) tokens: Tokens,
    pub(crate) breakers: Breakers,
    pub(crate) tally: Tally,
    pub(crate) user_agent: HeaderValue,
}

impl Client {
    /// A client that has not connected to anything yet.
    ///
    /// # Errors
    /// [`ClientError`] names the setting that cannot be used.
    pub fn new(config: ClientConfig) -> Result<Client, ClientError> {
        let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| ClientError::UserAgent)?;
        let dialler = Dialler {
            tls: Arc::new(TlsSettings::new(config.ca_files.clone())),
            proxies: Proxies::new(&config.proxy)?,
            timeouts: config.timeouts,
        };
        let network = Network::new(dialler, config.limits.connections_per_host);
        let inner = ClientInner {
            network,
            tokens: Tokens::default(),
            breakers: Breakers::default(),
            tally: Tally::default(),
            user_agent,
            config,
        };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// A session for one image: its endpoints and credentials, and what came of them.
    ///
    /// `candidates` are tried in order; none means anonymously. In [`CredentialMode::Kubelet`] exactly the first
    /// one is tried and nothing follows it; in [`CredentialMode::Windlass`] the next one follows on 401, 403 and
    /// 404, and an anonymous attempt at the end unless that is disabled. Nothing is sent before the first request.
    pub fn repository(&self, image: &Reference, candidates: Vec<Candidate>, mode: CredentialMode) -> Repository {
        Repository::new(self.inner.clone(), image, candidates, mode)
    }

    /// Requests and bytes since the client was made.
    pub fn counters(&self) -> Counters {
        self.inner.tally.read()
    }
}

impl ClientInner {
    /// What our own configuration says about a registry.
    pub(crate) fn overrides(&self, registry: &Host) -> RegistryOverride {
        let found = self.config.registries.iter().find(|(host, _)| hub_names_are_one(host, registry));
        let mut overrides = found.map(|(_, overrides)| overrides.clone()).unwrap_or_default();
        let listed = self.config.plain_http.iter().any(|host| host.as_str().eq_ignore_ascii_case(registry.as_str()));
        overrides.own.plain_http |= listed || self.config.plain_http_everywhere;
        overrides
    }
}
