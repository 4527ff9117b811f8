//! One source of credentials: entries by key, and the rules of looking them up.

use std::collections::BTreeMap;

use super::{Candidate, Credential, HUB_KEY, Mode, Origin, covers, credential_hash, normalise_key};
use crate::dockerconfig::{DecodeError, Document, Layout, Note, decode};
use crate::reason::Reason;
use crate::secret::Secret;

/// Secret type whose key `.dockerconfigjson` holds a `config.json`.
pub const DOCKERCONFIGJSON: &str = "kubernetes.io/dockerconfigjson";
/// Secret type whose key `.dockercfg` holds the old layout.
pub const DOCKERCFG: &str = "kubernetes.io/dockercfg";

/// A pull secret as it was read from the API server or from a manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The UID the API server gave it; empty for one from a file.
    pub uid: String,
    /// Its type, e.g. [`DOCKERCONFIGJSON`]; others hold no credentials.
    pub r#type: String,
    /// The decoded content of the type's data key; empty where the key is missing.
    pub data: Secret<Vec<u8>>,
}

impl PullSecret {
    /// How candidates from this secret name it.
    pub fn origin(&self) -> Origin {
        Origin::PullSecret { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// The layout of its data; `None` for a type that holds no credentials.
    pub fn layout(&self) -> Option<Layout> {
        match self.r#type.as_str() {
            DOCKERCONFIGJSON => Some(Layout::ConfigJson),
            DOCKERCFG => Some(Layout::DockerCfg),
            _ => None,
        }
    }
}

/// Something that was passed over or accepted although a kubelet would not; to be reported, never an obstacle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub origin: Origin,
    /// The `auths` key concerned, or empty for the whole document.
    pub key: String,
    /// What is wrong, without any value.
    pub why: String,
}

/// Why a lookup fails as a whole; in our own mode it never does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// A pull secret of the pod cannot be decoded, and the kubelet's rules are asked for.
    #[error("{origin} cannot be decoded")]
    MalformedSecret {
        /// The secret.
        origin: Box<Origin>,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

impl KeyringError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            KeyringError::MalformedSecret { .. } => Reason::InvalidCredentials,
        }
    }
}

/// The credentials of one source.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// By normalised key, in the order in which they were added.
    entries: BTreeMap<String, Vec<Candidate>>,
}

impl Ring {
    /// A ring without entries.
    pub fn new() -> Ring {
        Ring::default()
    }

    /// Adds an entry. Returns whether the key can match anything; one that is no URL is passed over.
    pub fn add(&mut self, key: &str, credential: Credential, email: &str, origin: Origin) -> bool {
        let Some(normalised) = normalise_key(key) else { return false };
        let hash = credential_hash(&credential, email);
        let candidate = Candidate { credential, origin, key: key.to_owned(), hash };
        self.entries.entry(normalised).or_default().push(candidate);
        true
    }

    /// Adds every entry of a document. What was not usable, or not as a kubelet would use it, goes to `skipped`.
    ///
    /// # Errors
    /// The document cannot be decoded at all; nothing was added.
    pub fn add_document(
        &mut self,
        bytes: &[u8],
        layout: Layout,
        mode: Mode,
        origin: &Origin,
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), DecodeError> {
        let document = decode(bytes, layout, mode)?;
        self.add_decoded(&document, origin, skipped);
        Ok(())
    }

    /// Adds every entry of a document that was decoded before, e.g. one that is kept.
    pub fn add_decoded(&mut self, document: &Document, origin: &Origin, skipped: &mut Vec<Skipped>) {
        let mut report = |key: &str, why: String| {
            skipped.push(Skipped { origin: origin.clone(), key: key.to_owned(), why });
        };
        for rejected in &document.rejected {
            report(&rejected.key, rejected.why.to_string());
        }
        for note in &document.notes {
            match note {
                Note::Entry { key, what } => report(key, what.to_string()),
                Note::Document(what) => report("", what.to_string()),
            }
        }
        for entry in &document.entries {
            if !self.add(&entry.key, entry.credential.clone(), &entry.email, origin.clone()) {
                report(&entry.key, "the key is not a registry host with an optional path".to_owned());
            }
        }
    }

    /// The ring of a pod's pull secrets, in the order of the pod.
    ///
    /// Secrets of other types and empty ones are passed over, as the kubelet does; in our own mode so is one that
    /// cannot be decoded.
    ///
    /// # Errors
    /// Kubelet mode: the first secret that cannot be decoded fails all of them.
    pub fn of_secrets(secrets: &[PullSecret], mode: Mode, skipped: &mut Vec<Skipped>) -> Result<Ring, KeyringError> {
        let mut ring = Ring::new();
        for secret in secrets {
            let origin = secret.origin();
            let mut report = |why: String| skipped.push(Skipped { origin: secret.origin(), key: String::new(), why });
            let Some(layout) = secret.layout() else {
                report(format!("secrets of type {:?} hold no registry credentials", secret.r#type));
                continue;
            };
            if secret.data.expose().is_empty() {
                report(format!("data[{}] is missing or empty", layout.data_key()));
                continue;
            }
            match ring.add_document(secret.data.expose(), layout, mode, &origin, skipped) {
                Ok(()) => {}
                Err(source) => match mode {
                    Mode::Kubelet => return Err(KeyringError::MalformedSecret { origin: Box::new(origin), source }),
                    Mode::Windlass => skipped.push(Skipped { origin, key: String::new(), why: source.to_string() }),
                },
            }
        }
        Ok(ring)
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Matches in reverse byte order of the keys; the entry of Docker Hub only where nothing else matches.
    pub(super) fn lookup(&self, image: &str, as_written: &str, mode: Mode) -> Vec<Candidate> {
        let matching = self.entries.iter().rev().filter(|(key, _)| covers(key, image, as_written, mode));
        let found: Vec<Candidate> = matching.flat_map(|(_, entries)| entries.iter().cloned()).collect();
        if found.is_empty() && is_hub(image, mode) {
            return self.entries.get(HUB_KEY).cloned().unwrap_or_default();
        }
        found
    }
}

/// Whether an image is one of Docker Hub, so that its fallback entry applies.
///
/// The kubelet takes any first component without dot and colon for a name on Docker Hub, `localhost` too; we do
/// not hand Hub credentials to this machine.
fn is_hub(image: &str, mode: Mode) -> bool {
    let Some((first, _)) = image.split_once('/') else { return !image.is_empty() };
    match first {
        "" => false,
        "docker.io" | "index.docker.io" => true,
        "localhost" => mode == Mode::Kubelet,
        _ => !first.contains(['.', ':']),
    }
}
