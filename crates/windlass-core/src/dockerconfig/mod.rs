//! Docker configuration documents: `config.json`, `.dockercfg`, and the Secrets that carry them.
//!
//! In: the bytes, the layout they claim to have, and whose rules apply. Out: a [`Document`] of entries, the keys
//! that were rejected with the reason, and notes on what a kubelet would do differently.
//! Source of truth: kubernetes `pkg/credentialprovider/config.go`, docker/cli `cli/config`; the vectors
//! `credentials-dockerconfig.json`.
//!
//! Invariants: `nothing_makes_the_decoder_panic`, `no_value_shows_in_errors_or_debug`,
//! `one_bad_entry_costs_only_itself`.

mod entry;
mod json;
mod write;

pub use entry::EntryError;
pub use write::{LoginEntry, write_config_json};

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::keyring::{Credential, Mode};
use crate::reason::Reason;

/// Largest document that is read. The kubelet caps remote ones at the same 10 MiB, Secrets at 1 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 10 * 1024 * 1024;
/// Deepest nesting that is read; real documents have three levels.
pub const MAX_DEPTH: usize = 64;

/// The two shapes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `{"auths": {KEY: ENTRY}}`: `config.json`, `auth.json`, `.dockerconfigjson`.
    ConfigJson,
    /// `{KEY: ENTRY}`: `.dockercfg`.
    DockerCfg,
}

impl Layout {
    /// The key of a Secret's data that holds this layout.
    pub const fn data_key(self) -> &'static str {
        match self {
            Layout::ConfigJson => ".dockerconfigjson",
            Layout::DockerCfg => ".dockercfg",
        }
    }
}

/// One usable entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as it was written.
    pub key: String,
    /// What it holds.
    pub credential: Credential,
    /// The e-mail address, part of the credential hash only.
    pub email: String,
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The key as it was written.
    pub key: String,
    /// What is wrong with it.
    pub why: EntryError,
}

/// Something to tell the user that is no obstacle here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// About the document as a whole.
    Document(DocumentNote),
    /// About one entry.
    Entry {
        /// The key as it was written.
        key: String,
        /// What is odd about it.
        what: EntryNote,
    },
}

/// What is odd about a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentNote {
    /// Entries at the top level of a document that should have them under `auths`.
    LegacyLayout,
    /// `auths` in a document that should have the entries at the top level.
    NewLayout,
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// It has `HttpHeaders`, which are never sent.
    HttpHeaders,
}

impl fmt::Display for DocumentNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DocumentNote::LegacyLayout => {
                "the entries stand at the top level, as in .dockercfg, so none is used: \
                 put them under \"auths\", or use the type kubernetes.io/dockercfg"
            }
            DocumentNote::NewLayout => {
                "the entries stand under \"auths\", as in config.json, so none is used: \
                 use the type kubernetes.io/dockerconfigjson"
            }
            DocumentNote::ByteOrderMark => "it begins with a byte order mark: a kubelet would refuse this secret",
            DocumentNote::HttpHeaders => "HttpHeaders are never sent",
        })
    }
}

/// What is odd about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryNote {
    /// It holds an identity token.
    IdentityToken,
    /// It holds a registry token.
    RegistryToken,
    /// Blanks around `auth`.
    BlanksAroundAuth,
    /// NUL bytes at the ends of the password.
    NulBytes,
}

impl fmt::Display for EntryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryNote::IdentityToken => "a kubelet ignores identitytoken",
            EntryNote::RegistryToken => "a kubelet ignores registrytoken",
            EntryNote::BlanksAroundAuth => "there are blanks around auth: a kubelet would refuse this secret",
            EntryNote::NulBytes => "the password ends in NUL bytes, which a kubelet would send",
        })
    }
}

/// Why a document cannot be used at all. Values are never repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing in it.
    #[error("the document is empty")]
    Empty,
    /// Larger than [`MAX_DOCUMENT_BYTES`].
    #[error("the document is larger than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the document is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not JSON.
    #[error("the document is not JSON: the fault is in line {line}, column {column}")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The top level is neither an object nor `null`.
    #[error("the document is not a JSON object")]
    NotAnObject,
    /// `auths` or `HttpHeaders` has the wrong type.
    #[error("{field} is not an object of the right kind")]
    Field {
        /// The field.
        field: &'static str,
    },
    /// Kubelet rules: one entry spoils the document.
    #[error("the entry {key:?} cannot be used")]
    Entry {
        /// The key as it was written.
        key: String,
        /// What is wrong with it.
        #[source]
        source: EntryError,
    },
}

impl DecodeError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        Reason::InvalidCredentials
    }
}

/// A decoded document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The usable entries in the order of the document; of equal keys the last counts.
    pub entries: Vec<Entry>,
    /// Entries that were dropped (our own rules only).
    pub rejected: Vec<Rejected>,
    /// What to tell the user.
    pub notes: Vec<Note>,
    /// `credHelpers`: host to helper name. Never honoured from a Secret.
    pub cred_helpers: BTreeMap<String, String>,
    /// `credsStore`: the helper for all other hosts. Never honoured from a Secret.
    pub creds_store: Option<String>,
}

/// Decodes a document.
///
/// # Errors
/// Kubelet mode fails on any malformed entry; our own mode only where no entry could be read at all.
pub fn decode(bytes: &[u8], layout: Layout, mode: Mode) -> Result<Document, DecodeError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let mut document = Document::default();
    let bytes = match (bytes.strip_prefix(b"\xef\xbb\xbf"), mode) {
        (Some(rest), Mode::Windlass) => {
            document.notes.push(Note::Document(DocumentNote::ByteOrderMark));
            rest
        }
        (Some(_), Mode::Kubelet) | (None, Mode::Kubelet | Mode::Windlass) => bytes,
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(DecodeError::Empty);
    }
    // Go reads bytes that are not UTF-8 as replacement characters.
    let owned: Zeroizing<String>;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            owned = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
            &owned
        }
    };
    if json::depth(text) > MAX_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    let root = json::parse(text)?;
    let Some(members) = json::members(root).map_err(|_| DecodeError::NotAnObject)? else { return Ok(document) };
    let pairs = match layout {
        Layout::ConfigJson => read_config(&members, mode, &mut document)?,
        Layout::DockerCfg => {
            note_new_layout(&members, &mut document);
            members
        }
    };
    read_entries(pairs, mode, &mut document)?;
    Ok(document)
}

/// Whether the bytes are a JSON object or `null`: all that the API server asks of a pull secret.
pub fn is_json_object(bytes: &[u8]) -> bool {
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    bytes.len() <= MAX_DOCUMENT_BYTES && json::parse(&text).is_ok_and(|root| json::members(root).is_ok())
}

/// The fields of the new layout; returns the members of `auths`.
fn read_config<'a>(
    members: &[json::Member<'a>],
    mode: Mode,
    document: &mut Document,
) -> Result<Vec<json::Member<'a>>, DecodeError> {
    let mut pairs = Vec::new();
    let mut seen_auths = false;
    for (name, value) in members {
        if json::same_field(name, "auths") {
            seen_auths = true;
            match json::members(value).map_err(|_| DecodeError::Field { field: "auths" })? {
                // Go decodes a second `auths` into the same map, and null empties it.
                Some(more) => pairs.extend(more),
                None => pairs.clear(),
            }
        } else if json::same_field(name, "HttpHeaders") {
            match mode {
                Mode::Kubelet => {
                    json::string_map(value).map(|_| ()).ok_or(DecodeError::Field { field: "HttpHeaders" })?
                }
                Mode::Windlass => document.notes.push(Note::Document(DocumentNote::HttpHeaders)),
            }
        } else if json::same_field(name, "credHelpers") {
            document.cred_helpers.extend(json::string_map(value).unwrap_or_default());
        } else if json::same_field(name, "credsStore") {
            document.creds_store = json::string(value).map(|name| name.to_string()).filter(|name| !name.is_empty());
        }
    }
    let looks_like_entry = |(_, value): &json::Member<'_>| entry::looks_like_entry(value);
    if !seen_auths && members.iter().any(looks_like_entry) {
        document.notes.push(Note::Document(DocumentNote::LegacyLayout));
    }
    Ok(pairs)
}

fn note_new_layout(members: &[json::Member<'_>], document: &mut Document) {
    let holds_entries = |value| {
        json::members(value).ok().flatten().is_some_and(|inner| inner.iter().any(|(_, v)| entry::looks_like_entry(v)))
    };
    if members.iter().any(|(name, value)| json::same_field(name, "auths") && holds_entries(value)) {
        document.notes.push(Note::Document(DocumentNote::NewLayout));
    }
}

/// Entry by entry, in order. A later double replaces an earlier one, in its place.
fn read_entries(pairs: Vec<json::Member<'_>>, mode: Mode, document: &mut Document) -> Result<(), DecodeError> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut read: Vec<(String, Result<entry::Read, EntryError>)> = Vec::new();
    for (key, value) in pairs {
        let key = key.into_owned();
        let result = entry::read(value, mode);
        if let (Mode::Kubelet, Err(source)) = (mode, &result) {
            return Err(DecodeError::Entry { key, source: source.clone() });
        }
        match places.get(&key) {
            Some(at) => read[*at].1 = result,
            None => {
                places.insert(key.clone(), read.len());
                read.push((key, result));
            }
        }
    }
    for (key, result) in read {
        match result {
            Ok(entry::Read { credential, email, notes }) => {
                document.notes.extend(notes.into_iter().map(|what| Note::Entry { key: key.clone(), what }));
                document.entries.push(Entry { key, credential, email });
            }
            Err(why) => document.rejected.push(Rejected { key, why }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
