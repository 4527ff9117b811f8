//! Credentials that a command found for its person, on their way to the daemon.
//!
//! Invariant: `secrets_are_on_the_wire_and_nowhere_else`.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use windlass_core::keyring::{Candidate, Credential, Origin, Skipped};
use windlass_core::secret::Secret;
use windlass_credentials::Lookup;

/// A credential to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenCandidate {
    credential: CredentialWire,
    origin: OriginWire,
    key: String,
    hash: String,
}

/// Everything that was found for an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenLookup {
    candidates: Vec<GivenCandidate>,
    skipped: Vec<SkippedWire>,
    exposed_files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum CredentialWire {
    Basic { username: String, password: Exposed },
    IdentityToken { username: Option<String>, token: Exposed },
    RegistryToken { token: Exposed },
    Anonymous,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum OriginWire {
    PullSecret { namespace: String, name: String, uid: String },
    File { path: PathBuf },
    Helper { name: String },
    Plugin { name: String },
    Cloud { name: String },
    ServiceAccount { namespace: String, name: String, uid: String },
    Given,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SkippedWire {
    origin: OriginWire,
    key: String,
    why: String,
}

/// A secret that may be written to this wire.
#[derive(Debug, Clone)]
struct Exposed(Secret<String>);

impl Serialize for Exposed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Exposed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exposed, D::Error> {
        String::deserialize(deserializer).map(|text| Exposed(Secret::new(text)))
    }
}

impl From<&Candidate> for GivenCandidate {
    fn from(candidate: &Candidate) -> GivenCandidate {
        GivenCandidate {
            credential: (&candidate.credential).into(),
            origin: (&candidate.origin).into(),
            key: candidate.key.clone(),
            hash: candidate.hash.clone(),
        }
    }
}

impl From<GivenCandidate> for Candidate {
    fn from(given: GivenCandidate) -> Candidate {
        let GivenCandidate { credential, origin, key, hash } = given;
        Candidate { credential: credential.into(), origin: origin.into(), key, hash }
    }
}

impl From<&Lookup> for GivenLookup {
    fn from(lookup: &Lookup) -> GivenLookup {
        let skipped = |skipped: &Skipped| SkippedWire {
            origin: (&skipped.origin).into(),
            key: skipped.key.clone(),
            why: skipped.why.clone(),
        };
        GivenLookup {
            candidates: lookup.candidates.iter().map(GivenCandidate::from).collect(),
            skipped: lookup.skipped.iter().map(skipped).collect(),
            exposed_files: lookup.exposed_files.clone(),
        }
    }
}

impl From<GivenLookup> for Lookup {
    fn from(given: GivenLookup) -> Lookup {
        let skipped = |wire: SkippedWire| Skipped { origin: wire.origin.into(), key: wire.key, why: wire.why };
        Lookup {
            candidates: given.candidates.into_iter().map(Candidate::from).collect(),
            skipped: given.skipped.into_iter().map(skipped).collect(),
            exposed_files: given.exposed_files,
            providers: Vec::new(),
        }
    }
}

impl From<&Credential> for CredentialWire {
    fn from(credential: &Credential) -> CredentialWire {
        match credential {
            Credential::Basic { username, password } => {
                CredentialWire::Basic { username: username.clone(), password: Exposed(password.clone()) }
            }
            Credential::IdentityToken { username, token } => {
                CredentialWire::IdentityToken { username: username.clone(), token: Exposed(token.clone()) }
            }
            Credential::RegistryToken { token } => CredentialWire::RegistryToken { token: Exposed(token.clone()) },
            // A kind that this version does not know has nothing that could be sent.
            Credential::Anonymous | _ => CredentialWire::Anonymous,
        }
    }
}

impl From<CredentialWire> for Credential {
    fn from(wire: CredentialWire) -> Credential {
        match wire {
            CredentialWire::Basic { username, password } => Credential::Basic { username, password: password.0 },
            CredentialWire::IdentityToken { username, token } => Credential::IdentityToken { username, token: token.0 },
            CredentialWire::RegistryToken { token } => Credential::RegistryToken { token: token.0 },
            CredentialWire::Anonymous => Credential::Anonymous,
        }
    }
}

impl From<&Origin> for OriginWire {
    fn from(origin: &Origin) -> OriginWire {
        match origin.clone() {
            Origin::PullSecret { namespace, name, uid } => OriginWire::PullSecret { namespace, name, uid },
            Origin::File { path } => OriginWire::File { path },
            Origin::Helper { name } => OriginWire::Helper { name },
            Origin::Plugin { name } => OriginWire::Plugin { name },
            Origin::Cloud { name } => OriginWire::Cloud { name },
            Origin::ServiceAccount { namespace, name, uid } => OriginWire::ServiceAccount { namespace, name, uid },
            Origin::Given | _ => OriginWire::Given,
        }
    }
}

impl From<OriginWire> for Origin {
    fn from(wire: OriginWire) -> Origin {
        match wire {
            OriginWire::PullSecret { namespace, name, uid } => Origin::PullSecret { namespace, name, uid },
            OriginWire::File { path } => Origin::File { path },
            OriginWire::Helper { name } => Origin::Helper { name },
            OriginWire::Plugin { name } => Origin::Plugin { name },
            OriginWire::Cloud { name } => Origin::Cloud { name },
            OriginWire::ServiceAccount { namespace, name, uid } => Origin::ServiceAccount { namespace, name, uid },
            OriginWire::Given => Origin::Given,
        }
    }
}
