//! `imagePullPolicy`: its values and what an empty one becomes.
//!
//! In: the image as written, the field as written. Out: the policy the API server would store.
//! Source of truth: kubernetes `pkg/apis/core/v1/defaults.go`, `SetDefaults_Container` and `SetDefaults_Volume`.
//!
//! Invariant: `the_tag_decides_even_beside_a_digest`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::reference::{DEFAULT_TAG, Reference};

/// When the kubelet pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// At every start; what is on the node is not even looked at.
    Always,
    /// When it is absent, or present but not proven to be this pod's to use.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// The value as Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A policy that the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("imagePullPolicy {written:?} is none of Always, IfNotPresent, Never")]
pub struct UnknownPolicy {
    /// The text, shortened.
    pub written: String,
}

impl UnknownPolicy {
    /// Always [`Reason::InvalidConfig`].
    pub fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

impl FromStr for PullPolicy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<PullPolicy, UnknownPolicy> {
        match text {
            "Always" => Ok(PullPolicy::Always),
            "IfNotPresent" => Ok(PullPolicy::IfNotPresent),
            "Never" => Ok(PullPolicy::Never),
            _ => Err(UnknownPolicy { written: text.chars().take(64).collect() }),
        }
    }
}

/// What an empty field becomes for this image: `Always` for the tag `latest`, written or implied, also beside a digest.
/// Names that do not parse get `IfNotPresent`.
pub fn default_policy(image: &str) -> PullPolicy {
    match Reference::parse(image) {
        Ok(reference) if reference.tag() == Some(DEFAULT_TAG) => PullPolicy::Always,
        Ok(_) | Err(_) => PullPolicy::IfNotPresent,
    }
}

/// What a request says about the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// A whole object was sent, or a patch that names the field; empty where it is absent or null.
    Field(&'a str),
    /// A patch does not name it; this is what is stored.
    Untouched(&'a str),
}

/// What the API server stores: nothing is recomputed for a stored value, an empty field is filled from the image, and
/// unknown values are kept (and refused later, by validation).
pub fn stored<'a>(image: &str, written: Written<'a>) -> Cow<'a, str> {
    match written {
        Written::Untouched(stored) => stored.into(),
        Written::Field("") => default_policy(image).as_str().into(),
        Written::Field(written) => written.into(),
    }
}

/// The policy in force for a container or image volume of a manifest.
///
/// # Errors
/// [`UnknownPolicy`], where the API server would refuse the object.
pub fn effective_policy(image: &str, written: Option<&str>) -> Result<PullPolicy, UnknownPolicy> {
    stored(image, Written::Field(written.unwrap_or(""))).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_even_beside_a_digest() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let table = [
            ("app".to_owned(), PullPolicy::Always),
            ("app:1".to_owned(), PullPolicy::IfNotPresent),
            (format!("app@{digest}"), PullPolicy::IfNotPresent),
            (format!("app:latest@{digest}"), PullPolicy::Always),
            (format!("app:1@{digest}"), PullPolicy::IfNotPresent),
            ("not an image".to_owned(), PullPolicy::IfNotPresent),
        ];
        for (image, want) in table {
            assert_eq!(default_policy(&image), want, "{image}");
        }
    }

    #[test]
    fn a_written_policy_wins_and_an_unknown_one_is_refused() {
        assert_eq!(effective_policy("app", Some("Never")), Ok(PullPolicy::Never));
        assert_eq!(effective_policy("app", None), Ok(PullPolicy::Always));
        let error = effective_policy("app", Some("always")).expect_err("case matters");
        assert_eq!(error.to_string(), "imagePullPolicy \"always\" is none of Always, IfNotPresent, Never");
    }
}
