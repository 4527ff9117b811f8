//! Pull records and intents, in the kubelet's file format.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::keyring::{Candidate, Origin};
use crate::manifest::{DocumentLimits, json};
use crate::reason::Reason;

/// Longest record or intent that is read. A secret takes some 250 bytes.
pub const RECORD_MAX_BYTES: usize = 1024 * 1024;
/// The version written.
const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// What Kubernetes 1.33 and 1.34 wrote, with the same fields.
const OLD_VERSION: &str = "kubelet.config.k8s.io/v1alpha1";
const PULLED: &str = "ImagePulledRecord";
const INTENT: &str = "ImagePullIntent";

/// A pull secret that once worked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretProof {
    /// UID of the secret; empty for one that came from a file.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// SHA-256 over the credential, lower-case hexadecimal; empty where none could be made.
    pub credential_hash: String,
}

/// A service account whose token once worked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountProof {
    /// UID of the account; empty for one that came from a file.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What one repository name gives access to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RepositoryAccess {
    /// Secrets that worked, ordered by namespace, name, UID.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub kubernetes_secrets: Vec<SecretProof>,
    /// Service accounts whose tokens worked, ordered likewise.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub kubernetes_service_accounts: Vec<AccountProof>,
    /// Every pod of the node may use the image; both lists are then empty.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub node_pods_accessible: bool,
}

/// What made a pull succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// No credential, or one of the node: every pod of the node may use the image.
    NodePods,
    /// A pull secret.
    Secret(SecretProof),
    /// A token of a service account.
    ServiceAccount(AccountProof),
}

impl Grant {
    /// What the accepted candidate proves; `None` is an anonymous pull.
    pub fn of(accepted: Option<&Candidate>) -> Grant {
        match accepted.map(|candidate| (&candidate.origin, &candidate.hash)) {
            Some((Origin::PullSecret { namespace, name, uid }, hash)) => Grant::Secret(SecretProof {
                uid: uid.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                credential_hash: hash.clone(),
            }),
            Some((Origin::ServiceAccount { namespace, name, uid }, _)) => Grant::ServiceAccount(AccountProof {
                uid: uid.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            None
            | Some((
                Origin::File { .. }
                | Origin::Helper { .. }
                | Origin::Plugin { .. }
                | Origin::Cloud { .. }
                | Origin::Given,
                _,
            )) => Grant::NodePods,
        }
    }
}

/// What is on record about one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledRecord {
    /// When it last changed, to the second.
    pub last_updated: Option<Timestamp>,
    /// The image ID it is about.
    pub image_ref: String,
    /// Access by repository name (host and path).
    pub credential_mapping: BTreeMap<String, RepositoryAccess>,
}

/// A note that a pull of this name has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullIntent {
    /// The image exactly as the pod names it.
    pub image: String,
}

/// What looking for a record found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordLookup {
    /// None, or one about another image.
    Absent,
    /// One that cannot be read: it proves nothing and forces a pull.
    Unreadable,
    /// One.
    Found(PulledRecord),
}

/// Why a record or intent cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Longer than [`RECORD_MAX_BYTES`].
    #[error("it has {bytes} bytes, more than {RECORD_MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not JSON, an unknown field, or a field of the wrong type.
    #[error("{problem}")]
    Malformed {
        /// Where and why.
        problem: String,
    },
    /// Another kind or version of object.
    #[error("kind {kind:?} of {api_version:?} is not known")]
    Version {
        /// As written.
        kind: String,
        /// As written.
        api_version: String,
    },
}

impl RecordError {
    /// Always [`Reason::IoError`]: the file is damaged.
    pub fn reason(&self) -> Reason {
        Reason::IoError
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecordFile {
    kind: String,
    api_version: String,
    #[serde(default)]
    last_updated_time: Option<String>,
    #[serde(default)]
    image_ref: String,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    credential_mapping: BTreeMap<String, RepositoryAccess>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IntentFile {
    kind: String,
    api_version: String,
    #[serde(default)]
    image: String,
}

impl PulledRecord {
    /// A record without credentials: known as pulled, to be verified by everybody.
    pub fn new(image_ref: impl Into<String>) -> PulledRecord {
        PulledRecord { last_updated: None, image_ref: image_ref.into(), credential_mapping: BTreeMap::new() }
    }

    /// Reads a record file.
    ///
    /// # Errors
    /// [`RecordError`]; unknown fields and repeated keys are errors.
    pub fn decode(bytes: &[u8]) -> Result<PulledRecord, RecordError> {
        let file: RecordFile = decode(bytes)?;
        check_version(&file.kind, PULLED, &file.api_version)?;
        let last_updated = file.last_updated_time.map(|text| text.parse::<Timestamp>()).transpose();
        let last_updated = last_updated.map_err(|e| RecordError::Malformed { problem: e.to_string() })?;
        Ok(PulledRecord { last_updated, image_ref: file.image_ref, credential_mapping: file.credential_mapping })
    }

    /// The content of the record's file.
    pub fn encode(&self) -> Vec<u8> {
        encode(&RecordFile {
            kind: PULLED.to_owned(),
            api_version: VERSION.to_owned(),
            last_updated_time: self.last_updated.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            image_ref: self.image_ref.clone(),
            credential_mapping: self.credential_mapping.clone(),
        })
    }

    /// The name of the file for an image ID, below `pulled/`.
    pub fn file_name(image_ref: &str) -> String {
        file_name(image_ref)
    }

    /// Whether a directory entry below `pulled/` or `pulling/` is looked at: of this naming, and not a temporary file.
    pub fn is_file_name(name: &str) -> bool {
        name.starts_with("sha256-") && !name.ends_with(".tmp")
    }

    /// Adds what made a pull of `repository` succeed. `false`: nothing changed, and nothing has to be written.
    pub fn grant(&mut self, repository: &str, grant: Grant, now: Timestamp) -> bool {
        let before = self.credential_mapping.get(repository);
        let mut access = before.cloned().unwrap_or_default();
        access.grant(grant);
        if before == Some(&access) {
            return false;
        }
        self.credential_mapping.insert(repository.to_owned(), access);
        self.last_updated = Some(now);
        true
    }

    /// Whether the record may go after images were collected: its image is no longer listed, and it was not touched
    /// since the collection began.
    pub fn is_orphan(&self, listed_image_refs: &BTreeSet<String>, gc_started: Timestamp) -> bool {
        !listed_image_refs.contains(&self.image_ref) && self.last_updated.is_none_or(|time| time < gc_started)
    }
}

impl RepositoryAccess {
    /// Node-wide access erases the lists and never reverts; a secret replaces the one with the same coordinates.
    fn grant(&mut self, grant: Grant) {
        if self.node_pods_accessible {
            return;
        }
        match grant {
            Grant::NodePods => *self = RepositoryAccess { node_pods_accessible: true, ..RepositoryAccess::default() },
            Grant::Secret(secret) => {
                let place = |s: &SecretProof| (s.namespace.clone(), s.name.clone(), s.uid.clone());
                self.kubernetes_secrets.retain(|known| place(known) != place(&secret));
                self.kubernetes_secrets.push(secret);
                self.kubernetes_secrets.sort_by_key(place);
            }
            Grant::ServiceAccount(account) => {
                if !self.kubernetes_service_accounts.contains(&account) {
                    self.kubernetes_service_accounts.push(account);
                    let place = |a: &AccountProof| (a.namespace.clone(), a.name.clone(), a.uid.clone());
                    self.kubernetes_service_accounts.sort_by_key(place);
                }
            }
        }
    }
}

impl PullIntent {
    /// Reads an intent file.
    ///
    /// # Errors
    /// As [`PulledRecord::decode`].
    pub fn decode(bytes: &[u8]) -> Result<PullIntent, RecordError> {
        let file: IntentFile = decode(bytes)?;
        check_version(&file.kind, INTENT, &file.api_version)?;
        Ok(PullIntent { image: file.image })
    }

    /// The content of the intent's file.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, api_version) = (INTENT.to_owned(), VERSION.to_owned());
        encode(&IntentFile { kind, api_version, image: self.image.clone() })
    }

    /// The name of the file for an image as written in the pod, below `pulling/`.
    pub fn file_name(image: &str) -> String {
        file_name(image)
    }
}

impl RecordLookup {
    /// Judges the bytes found under the name for `image_ref`; a record about another image counts as absent.
    pub fn of(found: Option<&[u8]>, image_ref: &str) -> RecordLookup {
        match found.map(PulledRecord::decode) {
            None => RecordLookup::Absent,
            Some(Err(_)) => RecordLookup::Unreadable,
            Some(Ok(record)) if record.image_ref == image_ref => RecordLookup::Found(record),
            Some(Ok(_)) => RecordLookup::Absent,
        }
    }
}

fn file_name(text: &str) -> String {
    format!("sha256-{}", Digest::sha256(text.as_bytes()).hex())
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, RecordError> {
    if bytes.len() > RECORD_MAX_BYTES {
        return Err(RecordError::TooLong { bytes: bytes.len() });
    }
    let malformed = |problem: String| RecordError::Malformed { problem };
    let value = json::parse(bytes, &DocumentLimits::default()).map_err(|e| malformed(e.to_string()))?;
    serde_json::from_value(value).map_err(|e| malformed(e.to_string()))
}

fn encode<T: Serialize>(file: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(file).expect("plain fields and maps with text keys always serialise");
    // The kubelet's encoder ends each object with a line feed.
    bytes.push(b'\n');
    bytes
}

fn check_version(kind: &str, wanted: &str, api_version: &str) -> Result<(), RecordError> {
    if kind == wanted && (api_version == VERSION || api_version == OLD_VERSION) {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(100).collect();
    Err(RecordError::Version { kind: short(kind), api_version: short(api_version) })
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
