//! Is a pull secret one that the API server takes, and one that works?
//!
//! In: the type and data of a Secret, or of a document that is to become one. Out: the API server's errors
//! ([`validate`]), or every [`Problem`] a person should know ([`examine`]), never a value.
//! Source of truth: kubernetes `pkg/apis/core/validation/validation.go`, `ValidateSecret`; the vectors
//! `secret-validation.json`.
//!
//! Invariants: `every_problem_has_a_hint_and_shows_no_value`, `a_good_secret_has_no_problems`.

mod key;
mod problem;

pub use problem::{Problem, ProblemKind, Severity};

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::dockerconfig::{DecodeError, DocumentNote, EntryNote, Layout, Note, Rejected, decode, is_json_object};
use crate::keyring::{Credential, DOCKERCFG, DOCKERCONFIGJSON, Mode};
use crate::secret::Secret;

/// Most bytes of all values of a Secret together (kubernetes `MaxSecretSize`).
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;
/// Most bytes of a data key (RFC 1123 subdomain).
const MAX_DATA_KEY_BYTES: usize = 253;

/// Which kind of error the API server reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueTooLong`.
    TooLong,
}

impl FieldErrorKind {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::TooLong => "FieldValueTooLong",
        }
    }
}

/// One error of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldError {
    /// The kind.
    pub kind: FieldErrorKind,
    /// The field, e.g. `data[.dockerconfigjson]`.
    pub field: String,
}

/// Data of a Secret: decoded values by key.
pub type SecretData = BTreeMap<String, Secret<Vec<u8>>>;

/// What the API server says to a Secret of this type. Types without credentials are checked in their keys alone.
pub fn validate(r#type: &str, data: &SecretData) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut error = |kind, field: String| errors.push(FieldError { kind, field });
    for key in data.keys().filter(|key| !is_data_key(key)) {
        error(FieldErrorKind::Invalid, format!("data[{key}]"));
    }
    if data.values().map(|value| value.expose().len()).sum::<usize>() > MAX_SECRET_BYTES {
        error(FieldErrorKind::TooLong, "data".to_owned());
    }
    if let Some(layout) = layout_of(r#type) {
        let field = format!("data[{}]", layout.data_key());
        match data.get(layout.data_key()) {
            None => error(FieldErrorKind::Required, field),
            Some(value) if !is_json_object(value.expose()) => error(FieldErrorKind::Invalid, field),
            Some(_) => {}
        }
    }
    errors
}

/// Everything worth telling about a Secret: the API server's errors and what it does not look at.
pub fn examine(r#type: &str, data: &SecretData) -> Vec<Problem> {
    let Some(layout) = layout_of(r#type) else {
        return vec![Problem::of_document(ProblemKind::OtherType { r#type: r#type.to_owned() })];
    };
    let mut problems = Vec::new();
    for error in validate(r#type, data) {
        match error.kind {
            FieldErrorKind::Required => {
                let found = [Layout::ConfigJson, Layout::DockerCfg]
                    .into_iter()
                    .map(Layout::data_key)
                    .find(|key| data.contains_key(*key));
                problems.push(Problem::of_document(ProblemKind::MissingKey { want: layout.data_key(), found }));
            }
            FieldErrorKind::TooLong => problems.push(Problem::of_document(ProblemKind::TooLarge)),
            // The content is examined below, with more to say about it.
            FieldErrorKind::Invalid if error.field == format!("data[{}]", layout.data_key()) => {}
            FieldErrorKind::Invalid => {
                problems.push(Problem::of_document(ProblemKind::BadDataKey { field: error.field }))
            }
        }
    }
    if let Some(value) = data.get(layout.data_key()) {
        problems.extend(examine_document(value.expose(), layout));
    }
    problems
}

/// Everything worth telling about a document alone, e.g. a `config.json` that is to become a Secret.
pub fn examine_document(bytes: &[u8], layout: Layout) -> Vec<Problem> {
    let mut problems = Vec::new();
    let document = match decode(bytes, layout, Mode::Windlass) {
        Ok(document) => document,
        Err(DecodeError::NotJson { .. } | DecodeError::NotAnObject) if is_still_base64(bytes) => {
            return vec![Problem::of_document(ProblemKind::StillBase64)];
        }
        Err(error) => return vec![Problem::of_document(ProblemKind::Undecodable(error))],
    };
    for note in &document.notes {
        let (entry, kind) = match note {
            Note::Document(DocumentNote::LegacyLayout) => ("", ProblemKind::LegacyLayout),
            Note::Document(DocumentNote::NewLayout) => ("", ProblemKind::NewLayout),
            Note::Document(DocumentNote::ByteOrderMark) => ("", ProblemKind::ByteOrderMark),
            Note::Document(DocumentNote::HttpHeaders) => ("", ProblemKind::HttpHeaders),
            Note::Entry { key, what: EntryNote::IdentityToken | EntryNote::RegistryToken } => {
                (key.as_str(), ProblemKind::TokenIgnored)
            }
            Note::Entry { key, what: EntryNote::BlanksAroundAuth } => (key.as_str(), ProblemKind::BlanksAroundAuth),
            Note::Entry { key, what: EntryNote::NulBytes } => (key.as_str(), ProblemKind::OddPasswordEnd),
        };
        problems.push(Problem::of_entry(entry, kind));
    }
    if document.creds_store.is_some() || !document.cred_helpers.is_empty() {
        problems.push(Problem::of_document(ProblemKind::Helpers));
    }
    for Rejected { key, why } in &document.rejected {
        problems.push(Problem::of_entry(key, ProblemKind::BadEntry(why.clone())));
    }
    for entry in &document.entries {
        if layout == Layout::DockerCfg && entry.key == "auths" {
            continue;
        }
        match &entry.credential {
            Credential::Anonymous => problems.push(Problem::of_entry(&entry.key, ProblemKind::EmptyEntry)),
            Credential::Basic { username, password } => {
                if username.is_empty() || password.expose().is_empty() {
                    problems.push(Problem::of_entry(&entry.key, ProblemKind::HalfEmpty));
                }
                if password.expose().ends_with(['\n', '\r', ' ', '\t']) || username.trim() != username {
                    problems.push(Problem::of_entry(&entry.key, ProblemKind::OddPasswordEnd));
                }
            }
            Credential::IdentityToken { .. } | Credential::RegistryToken { .. } => {}
        }
        problems.extend(key::problems(&entry.key).into_iter().map(|kind| Problem::of_entry(&entry.key, kind)));
    }
    let wrong_layout = |p: &Problem| matches!(p.kind, ProblemKind::LegacyLayout | ProblemKind::NewLayout);
    if document.entries.is_empty() && document.rejected.is_empty() && !problems.iter().any(wrong_layout) {
        problems.push(Problem::of_document(ProblemKind::NoEntries));
    }
    problems
}

/// The layout that a type's data has; `None` for a type without credentials.
fn layout_of(r#type: &str) -> Option<Layout> {
    match r#type {
        DOCKERCONFIGJSON => Some(Layout::ConfigJson),
        DOCKERCFG => Some(Layout::DockerCfg),
        _ => None,
    }
}

/// kubernetes `IsConfigMapKey`.
fn is_data_key(key: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !key.is_empty() && key.len() <= MAX_DATA_KEY_BYTES && key != "." && !key.starts_with("..") && key.bytes().all(fits)
}

/// Encoding twice is the usual mistake when a manifest is made by hand.
fn is_still_base64(bytes: &[u8]) -> bool {
    let dense: Zeroizing<Vec<u8>> =
        Zeroizing::new(bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect());
    match STANDARD.decode(dense.as_slice()).map(Zeroizing::new) {
        Ok(inner) => is_json_object(&inner),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
