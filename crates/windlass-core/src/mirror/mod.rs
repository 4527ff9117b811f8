//! Where a registry's content is asked for: the registry itself, or the mirrors that stand before it.
//!
//! In: the registry host of a reference, the text of its `hosts.toml`, and our own settings for that registry.
//! Out: [`Endpoint`]s in the order in which they are asked; no IO, names and paths only.
//! Source of truth: containerd `docs/hosts.md` and `core/remotes/docker/config/hosts.go`.
//!
//! Invariants: `mirrors_come_first_and_the_registry_last`, `credentials_of_the_registry_stay_with_it`,
//! `pushes_never_go_to_a_mirror`, `the_same_place_is_asked_once`.

mod endpoints;
mod hosts_toml;

pub use endpoints::{endpoints, hub_names_are_one, registry_endpoint_host};
pub use hosts_toml::{Capabilities, HostEntry, HostsFile, MAX_FILE_BYTES, MAX_HOSTS, MirrorError, UnknownKey};

use std::path::PathBuf;
use std::time::Duration;

use crate::host::Host;
use crate::httpurl::{HttpUrl, HttpUrlError, UrlScheme};
use crate::keyring::Credential;
use crate::secret::Secret;

/// What an endpoint is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Turn a tag into a digest.
    Resolve,
    /// Fetch a manifest or blob by digest.
    Pull,
    /// Upload. Only the registry itself is asked.
    Push,
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS, and an error is an error.
    Https,
    /// Plain text, since the administrator said so or the port is 80 on this machine.
    Http,
    /// A TLS handshake first, plain http when the peer does not speak TLS. A certificate that fails is an error.
    Probe,
}

/// Whom an endpoint stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The registry itself; it gets the registry's credentials.
    Registry,
    /// Somebody else who may have the content.
    Mirror,
}

/// Whose credentials an endpoint is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialPolicy {
    /// The candidates that were found for the image.
    Registry,
    /// This one, configured for the host.
    Own(Credential),
    /// None at all.
    Anonymous,
}

/// Whether a host's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Against the system's roots and the configured CAs.
    #[default]
    Yes,
    /// Not at all; only ever for one configured host.
    Skip,
}

/// Whether HTTP/2 may be spoken with a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Http2 {
    /// By ALPN.
    #[default]
    Allowed,
    /// HTTP/1.1 only.
    Off,
}

/// Whether the registry itself is asked when its mirrors have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// Last of all.
    #[default]
    Registry,
    /// Never, for nodes that must not reach it. Pushes still go there.
    Never,
}

/// Fetch large blobs of this host in several ranges at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParallelRanges {
    /// Streams at once, 2 to [`ParallelRanges::MAX_STREAMS`].
    pub streams: u8,
    /// Blobs up to this size come in one stream.
    pub above_bytes: u64,
}

impl ParallelRanges {
    /// Most streams for one blob.
    pub const MAX_STREAMS: u8 = 4;
    /// Below this a second connection costs more than it gives.
    pub const DEFAULT_ABOVE_BYTES: u64 = 32 * 1024 * 1024;
}

impl Default for ParallelRanges {
    fn default() -> ParallelRanges {
        ParallelRanges { streams: ParallelRanges::MAX_STREAMS, above_bytes: ParallelRanges::DEFAULT_ABOVE_BYTES }
    }
}

/// A client certificate and where its key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the key; the same file where absent.
    pub key: Option<PathBuf>,
}

/// How to talk to one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// PEM files with CAs that count beside the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates to offer.
    pub client: Vec<ClientCertificate>,
    /// Whether the server's certificate is checked.
    pub verify: Verify,
    /// Headers for every request to this host, and only to it.
    pub headers: Vec<(String, Secret<String>)>,
    /// Longest wait for a connection; the client's own default where absent.
    pub dial_timeout: Option<Duration>,
    /// Whether HTTP/2 may be spoken.
    pub http2: Http2,
    /// Whether blobs come in several ranges.
    pub ranges: Option<ParallelRanges>,
    /// Token endpoints on other hosts that may get this host's credentials.
    pub allowed_realms: Vec<Host>,
}

/// What our own configuration says about one host, beyond `hosts.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostOverride {
    /// The host may be shown the registry's credentials, although it is a mirror.
    pub trusted: bool,
    /// A credential for this host alone.
    pub credential: Option<Credential>,
    /// Speak plain http with it.
    pub plain_http: bool,
    /// Added to, or in place of, what `hosts.toml` says: lists are joined, the rest replaces where it is set.
    pub settings: Settings,
}

/// A mirror of our own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorOverride {
    /// Where it is; a path before `/v2` is kept.
    pub url: HttpUrl,
    /// The URL's path is the whole API root: `/v2` is not added.
    pub override_path: bool,
    /// It may also say which digest a tag has. Off by default: a stale mirror would answer with an old image.
    pub resolve_tags: bool,
    /// How to talk to it.
    pub host: HostOverride,
}

/// What our own configuration says about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryOverride {
    /// The registry itself.
    pub own: HostOverride,
    /// Mirrors that are asked before those of `hosts.toml`.
    pub mirrors: Vec<MirrorOverride>,
    /// More about `[host]` tables of `hosts.toml`, by host and port as written there.
    pub hosts: Vec<(Host, HostOverride)>,
    /// Whether the registry is asked after its mirrors.
    pub fallback: Fallback,
}

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whom it stands for.
    pub role: Role,
    /// How to connect.
    pub scheme: Scheme,
    /// Whom to connect to, with the port where it is not the scheme's own.
    pub host: Host,
    /// API root without a final slash, usually `/v2`.
    pub base_path: String,
    /// Value of the `ns` query parameter, for places that serve several registries.
    pub namespace: Option<Host>,
    /// What to answer to a 401.
    pub credentials: CredentialPolicy,
    /// How to talk to it.
    pub settings: Settings,
}

/// Scheme, host and API root of a mirror or server as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    /// The scheme as written.
    pub scheme: UrlScheme,
    /// Host and port.
    pub host: Host,
    /// API root without a final slash.
    pub base_path: String,
}

impl EndpointUrl {
    /// Reads a URL as containerd does: `https` where no scheme is written, `/v2` appended unless the path ends in
    /// it or `override_path` says that the path is complete.
    ///
    /// # Errors
    /// The URL is malformed, or holds user info or a fragment.
    pub fn parse(text: &str, override_path: bool) -> Result<EndpointUrl, HttpUrlError> {
        let url = if text.starts_with("http://") || text.starts_with("https://") {
            HttpUrl::parse(text)?
        } else {
            HttpUrl::parse(&format!("https://{text}"))?
        };
        Ok(EndpointUrl::from_url(&url, override_path))
    }

    /// The same for a URL that was read before.
    pub fn from_url(url: &HttpUrl, override_path: bool) -> EndpointUrl {
        let mut base_path = clean_path(url.path());
        if !override_path && !base_path.ends_with("/v2") {
            base_path.push_str("/v2");
        }
        EndpointUrl { scheme: url.origin().scheme, host: url.authority(), base_path }
    }
}

/// Go's `path.Clean` for absolute paths, with the root as an empty text.
fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().map(|part| format!("/{part}")).collect()
}

#[cfg(test)]
mod tests;
