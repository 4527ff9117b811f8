//! May this pod use this image?

use super::{AccountProof, Grant, MATCHED_SECRETS_MAX, RecordLookup, RepositoryAccess, SecretProof};
use crate::allowlist::{AllowList, AllowListError};
use crate::keyring::Mode;
use crate::reason::Reason;
use crate::reference::Reference;

/// When a present image has to be proven to be the pod's to use. Kubelet: `imagePullCredentialsVerificationPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VerificationPolicy {
    /// Never.
    NeverVerify,
    /// Only for images that were pulled, not for those that were put on the node by other means.
    #[default]
    NeverVerifyPreloadedImages,
    /// Except for repositories on the list, however they came.
    NeverVerifyAllowlistedImages(AllowList),
    /// Always.
    AlwaysVerify,
}

/// A configuration that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationPolicyError {
    /// No such policy.
    #[error(
        "imagePullCredentialsVerificationPolicy {name:?} is none of NeverVerify, NeverVerifyPreloadedImages, \
         NeverVerifyAllowlistedImages, AlwaysVerify"
    )]
    Name {
        /// As written.
        name: String,
    },
    /// A list beside a policy that does not use it.
    #[error("preloadedImagesVerificationAllowlist may be set only with NeverVerifyAllowlistedImages")]
    ListWithoutPolicy,
    /// A bad list.
    #[error(transparent)]
    List(#[from] AllowListError),
}

impl VerificationPolicyError {
    /// Always [`Reason::InvalidConfig`].
    pub fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

impl VerificationPolicy {
    /// Reads the kubelet's two configuration fields; an empty name is the default policy.
    ///
    /// # Errors
    /// [`VerificationPolicyError`], where a kubelet would not start.
    pub fn parse<S: AsRef<str>>(name: &str, allowlist: &[S]) -> Result<VerificationPolicy, VerificationPolicyError> {
        let list = AllowList::parse(allowlist)?;
        let policy = match name {
            "NeverVerify" => VerificationPolicy::NeverVerify,
            "" | "NeverVerifyPreloadedImages" => VerificationPolicy::NeverVerifyPreloadedImages,
            "NeverVerifyAllowlistedImages" => return Ok(VerificationPolicy::NeverVerifyAllowlistedImages(list)),
            "AlwaysVerify" => VerificationPolicy::AlwaysVerify,
            _ => return Err(VerificationPolicyError::Name { name: name.chars().take(100).collect() }),
        };
        if allowlist.is_empty() { Ok(policy) } else { Err(VerificationPolicyError::ListWithoutPolicy) }
    }

    /// Whether a present image has to be proven. `pulled`: a pull of ours brought it, or may have.
    pub fn requires_proof(&self, image: &Reference, pulled: bool) -> bool {
        match self {
            VerificationPolicy::NeverVerify => false,
            VerificationPolicy::NeverVerifyPreloadedImages => pulled,
            VerificationPolicy::NeverVerifyAllowlistedImages(list) => !list.contains(image),
            VerificationPolicy::AlwaysVerify => true,
        }
    }
}

/// What decided. Kubelet: label `result` of `image_mustpull_checks_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grounds {
    /// The policy asks for no proof.
    PolicyAllowed,
    /// The record proves it.
    RecordFound,
    /// Nothing proves it: the registry has to be asked.
    MustAuthenticate,
    /// The record or the pod's credentials could not be read.
    Error,
}

impl Grounds {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Grounds::PolicyAllowed => "credentialPolicyAllowed",
            Grounds::RecordFound => "credentialRecordFound",
            Grounds::MustAuthenticate => "mustAuthenticate",
            Grounds::Error => "error",
        }
    }
}

/// What can be said without the pod's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It may use the image.
    Allowed(Grounds),
    /// A pull has to prove it.
    Denied(Grounds),
    /// It depends on what the pod can show for this entry of the record; go on with [`check_pod`].
    AskPod(RepositoryAccess),
}

/// What a pod can show for one image: its matching credentials in trying order, hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodProofs {
    /// Its pull secrets.
    pub secrets: Vec<SecretProof>,
    /// Its service account, if that is the source of a plugin's credential.
    pub service_account: Option<AccountProof>,
}

/// What the pod's credentials decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodCheck {
    /// It may use the image; `also` is to be added to the record.
    Allowed {
        /// The combination of place and hash that is not on record yet.
        also: Option<Grant>,
    },
    /// A pull has to prove it.
    Denied,
}

/// First half: record and policy. `intent`: a pull of exactly this image string has begun and not been recorded.
pub fn check(image: &Reference, policy: &VerificationPolicy, record: &RecordLookup, intent: bool) -> Check {
    let record = match record {
        // Before the policy is looked at, so that damage never opens a door.
        RecordLookup::Unreadable => return Check::Denied(Grounds::Error),
        RecordLookup::Absent => None,
        RecordLookup::Found(record) => Some(record),
    };
    if !policy.requires_proof(image, record.is_some() || intent) {
        return Check::Allowed(Grounds::PolicyAllowed);
    }
    let Some(access) = record.and_then(|record| record.credential_mapping.get(&image.repository())) else {
        return Check::Denied(Grounds::MustAuthenticate);
    };
    if access.node_pods_accessible {
        return Check::Allowed(Grounds::RecordFound);
    }
    if access.kubernetes_secrets.is_empty() && access.kubernetes_service_accounts.is_empty() {
        return Check::Denied(Grounds::MustAuthenticate);
    }
    Check::AskPod(access.clone())
}

/// Second half: what the pod shows against what is on record.
///
/// Like a kubelet, [`Mode::Kubelet`] lets a secret in by its coordinates alone, even with a new content;
/// [`Mode::Windlass`] then asks the registry.
pub fn check_pod(access: &RepositoryAccess, pod: &PodProofs, mode: Mode) -> PodCheck {
    let has_room = access.kubernetes_secrets.len() < MATCHED_SECRETS_MAX;
    for shown in &pod.secrets {
        for known in &access.kubernetes_secrets {
            let same_hash = !known.credential_hash.is_empty() && known.credential_hash == shown.credential_hash;
            let same_place = !shown.uid.is_empty()
                && (&shown.uid, &shown.namespace, &shown.name) == (&known.uid, &known.namespace, &known.name);
            match (same_hash, same_place, mode) {
                (true, true, _) => return PodCheck::Allowed { also: None },
                (true, false, _) => {
                    let also = (has_room && !access.kubernetes_secrets.contains(shown)).then(|| shown.clone());
                    return PodCheck::Allowed { also: also.map(Grant::Secret) };
                }
                (false, true, Mode::Kubelet) if has_room => {
                    return PodCheck::Allowed { also: Some(Grant::Secret(shown.clone())) };
                }
                (false, true, Mode::Kubelet | Mode::Windlass) | (false, false, _) => {}
            }
        }
    }
    let is_known =
        |account: &AccountProof| !account.uid.is_empty() && access.kubernetes_service_accounts.contains(account);
    match &pod.service_account {
        Some(account) if is_known(account) => PodCheck::Allowed { also: None },
        Some(_) | None => PodCheck::Denied,
    }
}
