//! One entry: which of its fields count, and what is wrong with it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{EntryNote, json};
use crate::keyring::{Credential, Mode};
use crate::reason::Reason;
use crate::secret::Secret;

/// Why an entry cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// It is neither an object nor `null`.
    #[error("the entry is not an object")]
    NotAnObject,
    /// A field is not a string.
    #[error("{field} is not a string")]
    FieldType {
        /// The field.
        field: &'static str,
    },
    /// `auth` is not standard base64.
    #[error("auth is not base64 of user:password")]
    Base64,
    /// `auth` has no colon.
    #[error("auth decodes to a text without a colon between user and password")]
    NoColon,
    /// User or password is not UTF-8.
    #[error("the user name or password is not UTF-8")]
    NotUtf8,
}

impl EntryError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        Reason::InvalidCredentials
    }
}

/// A usable entry.
pub(super) struct Read {
    pub(super) credential: Credential,
    pub(super) email: String,
    pub(super) notes: Vec<EntryNote>,
}

#[derive(Default)]
struct Fields {
    username: Zeroizing<String>,
    password: Zeroizing<String>,
    auth: Zeroizing<String>,
    email: Zeroizing<String>,
    identity_token: Zeroizing<String>,
    registry_token: Zeroizing<String>,
}

/// Reads an entry by the rules of `mode`.
pub(super) fn read(value: &RawValue, mode: Mode) -> Result<Read, EntryError> {
    let fields = fields(value, mode)?;
    match mode {
        Mode::Kubelet => kubelet(&fields),
        Mode::Windlass => windlass(&fields),
    }
}

/// Whether a value has at least one of the fields that make an entry.
pub(super) fn looks_like_entry(value: &RawValue) -> bool {
    const TELLING: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];
    let telling = |name: &str| TELLING.iter().any(|field| json::same_field(name, field));
    json::members(value).ok().flatten().is_some_and(|members| members.iter().any(|(name, _)| telling(name)))
}

fn fields(value: &RawValue, mode: Mode) -> Result<Fields, EntryError> {
    let mut fields = Fields::default();
    for (name, value) in json::members(value).map_err(|_| EntryError::NotAnObject)?.unwrap_or_default() {
        let known: [(&'static str, &mut Zeroizing<String>); 6] = [
            ("username", &mut fields.username),
            ("password", &mut fields.password),
            ("auth", &mut fields.auth),
            ("email", &mut fields.email),
            ("identitytoken", &mut fields.identity_token),
            ("registrytoken", &mut fields.registry_token),
        ];
        // The kubelet does not know the last two, so their type does not matter to it.
        let count = match mode {
            Mode::Kubelet => 4,
            Mode::Windlass => 6,
        };
        for (field, slot) in known.into_iter().take(count) {
            if json::same_field(&name, field) && value.get() != "null" {
                *slot = json::string(value).ok_or(EntryError::FieldType { field })?;
            }
        }
    }
    Ok(fields)
}

fn kubelet(fields: &Fields) -> Result<Read, EntryError> {
    let credential = if fields.auth.is_empty() {
        Credential::basic(fields.username.as_str(), fields.password.as_str())
    } else {
        let decoded = decode_auth(&fields.auth)?;
        let (user, password) = split(&decoded)?;
        Credential::basic(String::from_utf8_lossy(user), String::from_utf8_lossy(password))
    };
    Ok(Read { credential, email: fields.email.to_string(), notes: Vec::new() })
}

fn windlass(fields: &Fields) -> Result<Read, EntryError> {
    let mut notes = Vec::new();
    let email = fields.email.to_string();
    let token = |text: &Zeroizing<String>| Secret::new(text.to_string());
    if !fields.registry_token.is_empty() {
        notes.push(EntryNote::RegistryToken);
        let credential = Credential::RegistryToken { token: token(&fields.registry_token) };
        return Ok(Read { credential, email, notes });
    }
    let basic = basic(fields, &mut notes);
    if !fields.identity_token.is_empty() {
        notes.push(EntryNote::IdentityToken);
        let username = basic.ok().and_then(|c| c.username().map(str::to_owned)).filter(|name| !name.is_empty());
        let credential = Credential::IdentityToken { username, token: token(&fields.identity_token) };
        return Ok(Read { credential, email, notes });
    }
    let credential = basic?;
    // A replacement character can only come from bytes that were no text; such a password never works.
    if fields.username.contains('\u{fffd}') || fields.password.contains('\u{fffd}') {
        return Err(EntryError::NotUtf8);
    }
    Ok(Read { credential, email, notes })
}

fn basic(fields: &Fields, notes: &mut Vec<EntryNote>) -> Result<Credential, EntryError> {
    if fields.auth.is_empty() {
        return Ok(Credential::basic(fields.username.as_str(), fields.password.as_str()));
    }
    let trimmed = fields.auth.trim_matches([' ', '\t']);
    if trimmed.len() != fields.auth.len() {
        notes.push(EntryNote::BlanksAroundAuth);
    }
    let decoded = decode_auth(trimmed)?;
    let (user, password) = split(&decoded)?;
    let user = std::str::from_utf8(user).map_err(|_| EntryError::NotUtf8)?;
    let password = std::str::from_utf8(password).map_err(|_| EntryError::NotUtf8)?;
    let bare = password.trim_matches('\0');
    if bare.len() != password.len() {
        notes.push(EntryNote::NulBytes);
    }
    Ok(Credential::basic(user, bare))
}

fn split(decoded: &[u8]) -> Result<(&[u8], &[u8]), EntryError> {
    let colon = decoded.iter().position(|b| *b == b':').ok_or(EntryError::NoColon)?;
    Ok((&decoded[..colon], &decoded[colon + 1..]))
}

/// Go's `StdEncoding` for texts that end in `=`, else `RawStdEncoding`; both skip line ends.
fn decode_auth(text: &str) -> Result<Zeroizing<Vec<u8>>, EntryError> {
    const LAX: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    const PADDED: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, LAX.with_decode_padding_mode(DecodePaddingMode::RequireCanonical));
    const BARE: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, LAX.with_decode_padding_mode(DecodePaddingMode::RequireNone));
    let padded = text.trim().ends_with('=');
    let dense: Zeroizing<Vec<u8>> = Zeroizing::new(text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect());
    let engine = if padded { &PADDED } else { &BARE };
    engine.decode(dense.as_slice()).map(Zeroizing::new).map_err(|_| EntryError::Base64)
}
