//! The ordered list of endpoints.

use super::{
    CredentialPolicy, Endpoint, EndpointUrl, Fallback, HostOverride, HostsFile, Http2, Operation, RegistryOverride,
    Role, Scheme, Settings, Verify,
};
use crate::host::Host;
use crate::httpurl::UrlScheme;

/// Name in references that stands for Docker Hub.
const HUB: &str = "docker.io";
/// Where Docker Hub really answers.
const HUB_ENDPOINT: &str = "registry-1.docker.io";

/// The host that serves a registry's API: for Docker Hub not the one in the reference.
pub fn registry_endpoint_host(registry: &Host) -> Host {
    if registry.as_str() == HUB { Host::new(HUB_ENDPOINT) } else { registry.clone() }
}

/// Whether two hosts are the same registry: equal, or both names of Docker Hub.
pub fn hub_names_are_one(a: &Host, b: &Host) -> bool {
    let hub = |host: &Host| [HUB, HUB_ENDPOINT, "index.docker.io"].contains(&host.as_str());
    a.as_str().eq_ignore_ascii_case(b.as_str()) || (hub(a) && hub(b))
}

/// Every place to ask for `operation` on an image of `registry` (the host of a normalised reference), in order.
///
/// Empty if the configuration leaves none, e.g. a push where `server` lacks the capability.
pub fn endpoints(
    registry: &Host,
    file: Option<&HostsFile>,
    overrides: &RegistryOverride,
    operation: Operation,
) -> Vec<Endpoint> {
    let mut list: Vec<Endpoint> = Vec::new();
    let server = file.and_then(|file| file.server.url.clone()).unwrap_or_else(|| default_server(registry));
    let is_registry = |host: &Host| hub_names_are_one(host, registry) || same_place(host, &server.host, server.scheme);

    for mirror in &overrides.mirrors {
        let allowed = match operation {
            Operation::Resolve => mirror.resolve_tags,
            Operation::Pull => true,
            Operation::Push => false,
        };
        if allowed {
            let url = EndpointUrl::from_url(&mirror.url, mirror.override_path);
            let role = if is_registry(&url.host) { Role::Registry } else { Role::Mirror };
            push_once(&mut list, build(registry, role, &url, &Settings::default(), TlsAsked::No, &mirror.host));
        }
    }
    for entry in file.map(|file| file.hosts.as_slice()).unwrap_or_default() {
        let Some(url) = &entry.url else { continue };
        let role = if is_registry(&url.host) { Role::Registry } else { Role::Mirror };
        if entry.capabilities.allow(operation) && (operation != Operation::Push || role == Role::Registry) {
            let more = host_override(overrides, role, &url.host);
            push_once(&mut list, build(registry, role, url, &entry.settings, entry.tls_asked(), more));
        }
    }
    let wanted = match operation {
        Operation::Resolve | Operation::Pull => overrides.fallback == Fallback::Registry,
        Operation::Push => true,
    };
    let own = file.map(|file| &file.server);
    if wanted && own.is_none_or(|own| own.capabilities.allow(operation)) {
        let settings = own.map(|own| own.settings.clone()).unwrap_or_default();
        let asked = own.map_or(TlsAsked::No, |own| own.tls_asked());
        let mut endpoint = build(registry, Role::Registry, &server, &settings, asked, &overrides.own);
        if own.is_none_or(|own| own.url.is_none()) && !overrides.own.plain_http {
            endpoint.scheme = default_scheme(registry);
        }
        push_once(&mut list, endpoint);
    }
    list
}

/// Whether the configuration of a host names anything of TLS: then an `http` URL is tried with TLS first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsAsked {
    Yes,
    No,
}

fn host_override<'a>(overrides: &'a RegistryOverride, role: Role, host: &Host) -> &'a HostOverride {
    static NOTHING: std::sync::LazyLock<HostOverride> = std::sync::LazyLock::new(HostOverride::default);
    match overrides.hosts.iter().find(|(name, _)| name.as_str().eq_ignore_ascii_case(host.as_str())) {
        Some((_, found)) => found,
        None if role == Role::Registry => &overrides.own,
        None => &NOTHING,
    }
}

fn default_server(registry: &Host) -> EndpointUrl {
    let scheme = match default_scheme(registry) {
        Scheme::Https | Scheme::Probe => UrlScheme::Https,
        Scheme::Http => UrlScheme::Http,
    };
    EndpointUrl { scheme, host: registry_endpoint_host(registry), base_path: "/v2".to_owned() }
}

/// Without configuration: https, but on this machine the port decides (containerd does the same).
fn default_scheme(registry: &Host) -> Scheme {
    if !registry.is_loopback() {
        return Scheme::Https;
    }
    match registry.port() {
        None | Some(443) => Scheme::Https,
        Some(80) => Scheme::Http,
        Some(_) => Scheme::Probe,
    }
}

fn same_place(a: &Host, b: &Host, scheme: UrlScheme) -> bool {
    a.same_origin(b, scheme.default_port())
}

fn build(
    registry: &Host,
    role: Role,
    url: &EndpointUrl,
    settings: &Settings,
    asked: TlsAsked,
    more: &HostOverride,
) -> Endpoint {
    let scheme = match url.scheme {
        _ if more.plain_http => Scheme::Http,
        UrlScheme::Https => Scheme::Https,
        UrlScheme::Http if asked == TlsAsked::Yes && url.host.port().is_some_and(|port| port != 80) => Scheme::Probe,
        UrlScheme::Http => Scheme::Http,
    };
    let credentials = match (&more.credential, role) {
        (Some(own), _) => CredentialPolicy::Own(own.clone()),
        (None, Role::Registry) => CredentialPolicy::Registry,
        (None, Role::Mirror) if more.trusted => CredentialPolicy::Registry,
        (None, Role::Mirror) => CredentialPolicy::Anonymous,
    };
    Endpoint {
        role,
        scheme,
        host: url.host.clone(),
        base_path: url.base_path.clone(),
        namespace: (!hub_names_are_one(&url.host, registry) && !same_place(&url.host, registry, url.scheme))
            .then(|| registry.clone()),
        credentials,
        settings: merge(settings, &more.settings),
    }
}

/// What our own configuration adds to `hosts.toml`.
fn merge(file: &Settings, own: &Settings) -> Settings {
    Settings {
        ca: file.ca.iter().chain(&own.ca).cloned().collect(),
        client: file.client.iter().chain(&own.client).cloned().collect(),
        verify: match (file.verify, own.verify) {
            (Verify::Yes, Verify::Yes) => Verify::Yes,
            (Verify::Skip, Verify::Yes | Verify::Skip) | (Verify::Yes, Verify::Skip) => Verify::Skip,
        },
        headers: file.headers.iter().chain(&own.headers).cloned().collect(),
        dial_timeout: own.dial_timeout.or(file.dial_timeout),
        http2: match (file.http2, own.http2) {
            (Http2::Allowed, Http2::Allowed) => Http2::Allowed,
            (Http2::Off, Http2::Allowed | Http2::Off) | (Http2::Allowed, Http2::Off) => Http2::Off,
        },
        ranges: own.ranges.or(file.ranges),
        allowed_realms: file.allowed_realms.iter().chain(&own.allowed_realms).cloned().collect(),
    }
}

/// The same place twice (often a `[host]` that repeats `server`) would only fail twice.
fn push_once(list: &mut Vec<Endpoint>, endpoint: Endpoint) {
    let same =
        |e: &Endpoint| e.scheme == endpoint.scheme && e.host == endpoint.host && e.base_path == endpoint.base_path;
    if !list.iter().any(same) {
        list.push(endpoint);
    }
}
