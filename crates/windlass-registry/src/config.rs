//! Everything that can be set about the registry.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::secret::Secret;

use crate::access::Rules;
use crate::auth::LiveUsers;
use crate::log::AccessLog;

/// Configuration of one registry.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory of all content. Made when missing, with mode 0700.
    pub root: PathBuf,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsConfig>,
    /// How callers prove who they are.
    pub auth: Auth,
    /// Who there is.
    pub users: Users,
    /// Who may do what. Not looked at with [`Auth::Open`].
    pub rules: Rules,
    /// Whether DELETE works on tags, manifests and blobs.
    pub deletes: Deletes,
    /// Whether content survives a power cut once it was accepted.
    pub durability: Durability,
    /// Bounds.
    pub limits: Limits,
    /// Told about every request.
    pub access_log: Option<Arc<dyn AccessLog>>,
}

impl RegistryConfig {
    /// An open registry on a free loopback port with its content below `root`.
    pub fn open(root: impl Into<PathBuf>) -> RegistryConfig {
        RegistryConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            root: root.into(),
            tls: None,
            auth: Auth::Open,
            users: Users::Memory(Vec::new()),
            rules: Rules::default(),
            deletes: Deletes::Off,
            durability: Durability::Synced,
            limits: Limits::default(),
            access_log: None,
        }
    }
}

/// Certificate and key of the listener.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Certificate chain, PEM, leaf first.
    pub certificate_pem: Vec<u8>,
    /// Private key, PEM.
    pub key_pem: Secret<Vec<u8>>,
}

/// How callers prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all: everybody may do everything.
    Open,
    /// User and password with every request.
    Basic,
    /// A token from `/token` with every request.
    Bearer(BearerConfig),
}

/// The token service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BearerConfig {
    /// Name of this registry in tokens and challenges.
    pub service: String,
    /// URL of the token service; `None`: this registry's own `/token`, at the host the client asked.
    pub realm: Option<String>,
    /// Life of a token. At least 60 s by the token specification; at most 300 s, so that changed rights take effect.
    pub token_life: Duration,
}

impl Default for BearerConfig {
    fn default() -> BearerConfig {
        BearerConfig { service: "windlass".to_owned(), realm: None, token_life: Duration::from_secs(300) }
    }
}

/// Where users come from.
#[derive(Clone, Debug)]
pub enum Users {
    /// These, name and password.
    Memory(Vec<(String, Secret<String>)>),
    /// A file with `name:bcrypt` lines, read again when it changes.
    Htpasswd(PathBuf),
    /// Whoever is let in at the moment.
    Live(LiveUsers),
}

/// Whether content can be deleted by clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// DELETE is answered 405.
    Off,
    /// DELETE works for those who have the right.
    On,
}

/// Whether accepted content is synced before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// File and directory are synced before a name is given.
    Synced,
    /// Left to the kernel. For tests and `demo`, which throw it away.
    Relaxed,
}

/// Bounds of one registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest manifest. 4 MiB must be accepted by the distribution specification, and is what clients take.
    pub manifest_bytes: u64,
    /// Largest blob.
    pub blob_bytes: u64,
    /// Entries of a tag list when the client does not say.
    pub tags_page: usize,
    /// Most entries of a tag list.
    pub tags_page_max: usize,
    /// Entries of a catalog when the client does not say.
    pub catalog_page: usize,
    /// Most entries of a catalog.
    pub catalog_page_max: usize,
    /// Open upload sessions.
    pub uploads: usize,
    /// An upload without a byte for this long is dropped.
    pub upload_idle: Duration,
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Longest wait for the head of a request, and for the next bytes of an upload.
    pub idle: Duration,
    /// Longest wait for requests in work when shutting down.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            manifest_bytes: 4 << 20,
            blob_bytes: 100 << 30,
            tags_page: 1000,
            tags_page_max: 10_000,
            catalog_page: 100,
            catalog_page_max: 1000,
            uploads: 1000,
            upload_idle: Duration::from_secs(24 * 3600),
            connections: 1024,
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(20),
        }
    }
}
