//! Which credentials to try for a repository, and in which order.
//!
//! In: rings of entries, one ring per source (pull secrets, node files, ...), in the order of the sources.
//! Out: [`Candidate`]s in trying order, each with its origin and the key that matched.
//! Source of truth: kubernetes `pkg/credentialprovider/keyring.go`; the vectors `keyring.json` and
//! `credentials-keyring.json`.
//!
//! Invariants: `equal_keys_keep_the_order_they_came_in`, `hub_credentials_never_go_to_localhost`,
//! `no_secret_shows_in_debug`, `windlass_mode_only_removes_doubles_and_folds_the_image_host`.

mod hash;
mod key;
mod ring;

pub use hash::credential_hash;
pub use key::{HUB_KEY, normalise_key};
pub use ring::{DOCKERCFG, DOCKERCONFIGJSON, KeyringError, PullSecret, Ring, Skipped};

use std::fmt;
use std::path::{Path, PathBuf};

use crate::matchimage::matches;
use crate::secret::Secret;

/// Whose rules apply where ours and the kubelet's differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Exactly what a kubelet does: one malformed secret fails the lookup, tokens in files are ignored.
    Kubelet,
    /// Our own: a bad entry disables only itself, tokens are used, doubles are tried once.
    Windlass,
}

/// What is shown to a registry. The secret part prints as `***`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Credential {
    /// User name and password; either may be empty, not both.
    Basic {
        /// The user name, sent as it is.
        username: String,
        /// The password.
        password: Secret<String>,
    },
    /// An OAuth refresh token, sent only to the token endpoint.
    IdentityToken {
        /// The user it was issued to, where that is known.
        username: Option<String>,
        /// The token.
        token: Secret<String>,
    },
    /// A bearer token, sent as it is and only to the registry itself.
    RegistryToken {
        /// The token.
        token: Secret<String>,
    },
    /// An entry without credentials: an anonymous attempt in its place of the order.
    Anonymous,
}

impl Credential {
    /// User name and password; two empty texts are [`Credential::Anonymous`].
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Credential {
        let (username, password) = (username.into(), Secret::new(password.into()));
        if username.is_empty() && password.expose().is_empty() {
            return Credential::Anonymous;
        }
        Credential::Basic { username, password }
    }

    /// The user name where there is one; a text that may be shown.
    pub fn username(&self) -> Option<&str> {
        match self {
            Credential::Basic { username, .. } => Some(username),
            Credential::IdentityToken { username, .. } => username.as_deref(),
            Credential::RegistryToken { .. } | Credential::Anonymous => None,
        }
    }

    /// One word for people: `basic`, `identity_token`, `registry_token` or `anonymous`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Credential::Basic { .. } => "basic",
            Credential::IdentityToken { .. } => "identity_token",
            Credential::RegistryToken { .. } => "registry_token",
            Credential::Anonymous => "anonymous",
        }
    }
}

/// Where a credential came from. Printed as an operator would name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// A pull secret of the pod; `uid` is empty for one that was read from a manifest file.
    PullSecret {
        /// Namespace of the secret.
        namespace: String,
        /// Name of the secret.
        name: String,
        /// UID the API server gave it, or empty.
        uid: String,
    },
    /// A docker or podman configuration file.
    File {
        /// The file as it was found.
        path: PathBuf,
    },
    /// A docker credential helper.
    Helper {
        /// The part after `docker-credential-`.
        name: String,
    },
    /// An exec credential plugin.
    Plugin {
        /// Its name in the provider configuration.
        name: String,
    },
    /// A cloud that is built in.
    Cloud {
        /// Its short name: `ecr`, `gcp` or `acr`.
        name: String,
    },
    /// A plugin that acted for a service account.
    ServiceAccount {
        /// Namespace of the account.
        namespace: String,
        /// Name of the account.
        name: String,
        /// UID of the account, or empty.
        uid: String,
    },
    /// Given by the caller: flags, standard input, the CRI request.
    Given,
}

impl Origin {
    /// The origin for a file.
    pub fn file(path: impl AsRef<Path>) -> Origin {
        Origin::File { path: path.as_ref().to_owned() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::PullSecret { namespace, name, .. } => write!(f, "secret {namespace}/{name}"),
            Origin::File { path } => write!(f, "file {}", path.display()),
            Origin::Helper { name } => write!(f, "helper docker-credential-{name}"),
            Origin::Plugin { name } => write!(f, "plugin {name}"),
            Origin::Cloud { name } => write!(f, "cloud {name}"),
            Origin::ServiceAccount { namespace, name, .. } => write!(f, "service account {namespace}/{name}"),
            Origin::Given => f.write_str("the command"),
        }
    }
}

/// One credential to try, with what an error message needs to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What to send.
    pub credential: Credential,
    /// Where it came from.
    pub origin: Origin,
    /// The `auths` key that matched, as it was written; empty where there was none.
    pub key: String,
    /// The kubelet's credential hash, 64 lower-case hexadecimal digits, as pull records hold it.
    pub hash: String,
}

impl Candidate {
    /// A candidate whose hash covers the credential alone (no e-mail address).
    pub fn new(credential: Credential, origin: Origin, key: impl Into<String>) -> Candidate {
        let hash = credential_hash(&credential, "");
        Candidate { credential, origin, key: key.into(), hash }
    }
}

/// The rings of all sources, in the order in which the sources are asked.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    rings: Vec<Ring>,
}

impl Keyring {
    /// A keyring that knows nothing.
    pub fn new() -> Keyring {
        Keyring::default()
    }

    /// Adds the next source.
    pub fn push(&mut self, ring: Ring) {
        self.rings.push(ring);
    }

    /// Every credential for `repository` (normalised: host and path, no tag), in trying order.
    ///
    /// The sources are concatenated: a vague match of an earlier source precedes an exact one of a later
    /// source. Empty means that one anonymous attempt is made.
    pub fn lookup(&self, repository: &str, mode: Mode) -> Vec<Candidate> {
        let image = match mode {
            Mode::Kubelet => repository.to_owned(),
            Mode::Windlass => fold_host(repository),
        };
        let mut found: Vec<Candidate> =
            self.rings.iter().flat_map(|ring| ring.lookup(&image, repository, mode)).collect();
        match mode {
            Mode::Kubelet => {}
            Mode::Windlass => keep_first_of_equals(&mut found),
        }
        found
    }
}

/// Whether a key may be used for an image: the glob rules, and in our own mode an image host in any case.
fn covers(key: &str, image: &str, as_written: &str, mode: Mode) -> bool {
    match mode {
        Mode::Kubelet => matches(key, as_written).unwrap_or(false),
        Mode::Windlass => {
            matches(key, image).unwrap_or(false) || (image != as_written && matches(key, as_written).unwrap_or(false))
        }
    }
}

fn fold_host(repository: &str) -> String {
    match repository.split_once('/') {
        Some((host, path)) => format!("{}/{path}", host.to_ascii_lowercase()),
        None => repository.to_owned(),
    }
}

/// A credential that failed once fails again: only its first place in the order counts.
fn keep_first_of_equals(found: &mut Vec<Candidate>) {
    let mut seen = std::collections::HashSet::new();
    found.retain(|candidate| seen.insert(candidate.credential.clone()));
}

#[cfg(test)]
mod tests;
