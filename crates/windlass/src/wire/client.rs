//! The registry client of this run.

use windlass_core::host::Host;
use windlass_core::httpurl::HttpUrl;
use windlass_core::keyring::Credential;
use windlass_core::mirror::{
    Fallback, HostOverride, Http2, MirrorOverride, ParallelRanges, RegistryOverride, Settings,
};
use windlass_core::reason::Reason;
use windlass_core::secret::Secret;
use windlass_distribution::config::ProxyConfig;
use windlass_distribution::{Client, ClientConfig};

use super::engine::document_limits;
use super::{chain, size};
use crate::args::Globals;
use crate::config::node::Node;
use crate::config::registry::{Mirror, Registry, Talk};
use crate::failure::Failure;
use crate::input;

/// Longest password of a mirror.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// A client that has not connected to anything yet.
pub(crate) fn client(node: &Node, globals: &Globals) -> Result<Client, Failure> {
    let config = config(node, globals)?;
    Client::new(config)
        .map_err(|error| Failure::new(Reason::InvalidConfig, "cannot set up the registry client", chain(&error)))
}

fn config(node: &Node, globals: &Globals) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig {
        plain_http_everywhere: globals.plain_http,
        ca_files: node.general.ca_file.clone(),
        hosts_dirs: node.general.hosts_dir.clone(),
        registries: node.general.registries.iter().map(registry).collect::<Result<_, _>>()?,
        proxy: proxy_of_environment(),
        ..ClientConfig::default()
    };
    config.timeouts.connect = node.limits.connect_timeout;
    config.timeouts.header = node.limits.response_timeout;
    config.timeouts.idle = node.limits.idle_timeout;
    config.timeouts.progress = node.limits.progress_timeout;
    config.limits.connections_per_host = size(node.limits.registry_connections.max(1));
    config.limits.documents = document_limits(&node.limits);
    Ok(config)
}

fn registry(registry: &Registry) -> Result<(Host, RegistryOverride), Failure> {
    let own = HostOverride {
        plain_http: registry.own.plain_http,
        settings: settings(&registry.own),
        ..HostOverride::default()
    };
    let trusted = |host: &String| (Host::new(host.as_str()), HostOverride { trusted: true, ..HostOverride::default() });
    let overrides = RegistryOverride {
        own,
        mirrors: registry.mirrors.iter().map(mirror).collect::<Result<_, _>>()?,
        hosts: registry.trusted_mirrors.iter().map(trusted).collect(),
        fallback: if registry.fallback { Fallback::Registry } else { Fallback::Never },
    };
    Ok((Host::new(registry.host.as_str()), overrides))
}

fn mirror(mirror: &Mirror) -> Result<MirrorOverride, Failure> {
    let url = HttpUrl::parse(&mirror.url)
        .map_err(|error| Failure::usage(format!("{} is no URL of a mirror", mirror.url), chain(&error)))?;
    let credential = match (&mirror.username, &mirror.password_file) {
        (Some(username), Some(file)) => {
            let password = Secret::new(input::text(file, PASSWORD_BYTES_MAX)?);
            Some(Credential::basic(username.as_str(), password.expose().trim_end_matches(['\r', '\n'])))
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    Ok(MirrorOverride {
        url,
        override_path: mirror.override_path,
        resolve_tags: mirror.resolve_tags,
        host: HostOverride {
            trusted: mirror.trusted,
            credential,
            plain_http: mirror.talk.plain_http,
            settings: settings(&mirror.talk),
        },
    })
}

fn settings(talk: &Talk) -> Settings {
    let streams = u8::try_from(talk.parallel_ranges).unwrap_or(u8::MAX).min(ParallelRanges::MAX_STREAMS);
    let above_bytes = talk.parallel_ranges_above.map_or(ParallelRanges::DEFAULT_ABOVE_BYTES, |size| size.0);
    Settings {
        ca: talk.ca_file.clone(),
        http2: if talk.http1_only { Http2::Off } else { Http2::Allowed },
        ranges: (streams >= 2).then_some(ParallelRanges { streams, above_bytes }),
        allowed_realms: talk.allowed_realms.iter().map(|host| Host::new(host.as_str())).collect(),
        ..Settings::default()
    }
}

/// The proxies that this process's environment names.
pub(super) fn proxy_of_environment() -> ProxyConfig {
    proxy(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// As curl and Go read them: small letters first; `HTTP_PROXY` in capitals is taken too, since no CGI runs us.
fn proxy(environment: &dyn Fn(&str) -> Option<String>) -> ProxyConfig {
    let either = |small: &str, capital: &str| environment(small).or_else(|| environment(capital));
    ProxyConfig {
        http: either("http_proxy", "HTTP_PROXY").map(Secret::new),
        https: either("https_proxy", "HTTPS_PROXY").map(Secret::new),
        no_proxy: either("no_proxy", "NO_PROXY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_letters_name_the_proxy_first() {
        let environment = |name: &str| match name {
            "https_proxy" => Some("http://a".to_owned()),
            "HTTPS_PROXY" => Some("http://b".to_owned()),
            "NO_PROXY" => Some("x".to_owned()),
            _ => None,
        };
        let proxy = proxy(&environment);
        assert_eq!(proxy.https.map(|url| url.expose().clone()).as_deref(), Some("http://a"));
        assert_eq!((proxy.http.is_none(), proxy.no_proxy.as_deref()), (true, Some("x")));
    }
}
