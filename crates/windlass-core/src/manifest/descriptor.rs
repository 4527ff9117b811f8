//! Descriptors: type, digest and size of something that can be fetched.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::fields::Fields;
use super::media_type::{DocumentKind, essence};
use super::{DocumentLimits, ManifestError};
use crate::digest::{Digest, DigestError};
use crate::platform::Platform;

const KNOWN: [&str; 8] = ["mediaType", "digest", "size", "platform", "annotations", "urls", "data", "artifactType"];
const KNOWN_PLATFORM: [&str; 5] = ["architecture", "os", "os.version", "os.features", "variant"];

/// What something is, its content's digest and its exact size.
///
/// Serialised as the image-spec writes it. Reading foreign documents goes through
/// [`parse_document`](super::parse_document); `Deserialize` is for our own files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type as written.
    pub media_type: String,
    /// The digest of the bytes, of an algorithm that can be verified.
    pub digest: Digest,
    /// Their exact number, at most `i64::MAX`.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Other places that serve a foreign layer; unchecked text, used only where that is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The bytes themselves, verified against size and digest; `None` also where they were too long to be honoured.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "to_base64",
        deserialize_with = "from_base64"
    )]
    pub data: Option<Vec<u8>>,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In an index: the type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// An index entry whose content could not be verified, because its digest's algorithm is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiableEntry {
    /// The digest as written.
    pub digest: String,
    /// What it is for.
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor with the three required fields.
    pub fn new(media_type: impl Into<String>, digest: Digest, size_bytes: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size_bytes,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// Whether it describes a manifest or an index of a known type.
    pub fn is_document(&self) -> bool {
        matches!(DocumentKind::of(&essence(&self.media_type)), DocumentKind::Manifest | DocumentKind::Index)
    }
}

/// A descriptor, or one that is well formed but cannot be verified.
pub(super) enum Parsed {
    Descriptor(Box<Descriptor>),
    Unverifiable(UnverifiableEntry),
}

/// Reads a descriptor whose content will be needed.
pub(super) fn parse_needed(value: &Value, at: &str, limits: &DocumentLimits) -> Result<Descriptor, ManifestError> {
    match parse(value, at, limits)? {
        Parsed::Descriptor(descriptor) => Ok(*descriptor),
        Parsed::Unverifiable(_) => {
            Err(ManifestError::field(format!("{at}.digest"), "its algorithm is neither sha256 nor sha512"))
        }
    }
}

/// Reads any descriptor.
pub(super) fn parse(value: &Value, at: &str, limits: &DocumentLimits) -> Result<Parsed, ManifestError> {
    let fields = Fields::new(value, at, &KNOWN)?;
    let media_type = fields.required_text("mediaType")?;
    if media_type.is_empty() {
        return Err(ManifestError::field(fields.path("mediaType"), "must not be empty"));
    }
    let size_bytes = size(fields.required("size")?, &fields.path("size"))?;
    let annotations = fields.text_map("annotations")?;
    let urls = fields.texts("urls")?;
    let platform = fields.get("platform").map(|value| platform(value, &fields.path("platform"))).transpose()?;
    let artifact_type = fields.text("artifactType")?.map(str::to_owned);
    let text = fields.required_text("digest")?;
    let platform = platform.flatten();
    let digest = match Digest::parse(text) {
        Ok(digest) => digest,
        Err(DigestError::Algorithm) if has_encoded_part(text) => {
            return Ok(Parsed::Unverifiable(UnverifiableEntry { digest: super::error::shown(text), platform }));
        }
        Err(error) => return Err(ManifestError::field(fields.path("digest"), error.to_string())),
    };
    let data = match fields.text("data")? {
        Some(data) => embedded(data, &digest, size_bytes, &fields.path("data"), limits)?,
        None => None,
    };
    let media_type = media_type.to_owned();
    Ok(Parsed::Descriptor(Box::new(Descriptor {
        media_type,
        digest,
        size_bytes,
        urls,
        annotations,
        data,
        platform,
        artifact_type,
    })))
}

/// image-spec `descriptor.md`: `encoded ::= [a-zA-Z0-9=_-]+`.
fn has_encoded_part(digest: &str) -> bool {
    let is_encoded = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    digest.split_once(':').is_some_and(|(_, encoded)| !encoded.is_empty() && encoded.bytes().all(is_encoded))
}

fn size(value: &Value, at: &str) -> Result<u64, ManifestError> {
    let in_range = value.as_u64().filter(|size| i64::try_from(*size).is_ok());
    in_range.ok_or_else(|| ManifestError::field(at, "must be a whole number from 0 to 2^63-1"))
}

/// `None` for a platform that says nothing.
fn platform(value: &Value, at: &str) -> Result<Option<Platform>, ManifestError> {
    let fields = Fields::new(value, at, &KNOWN_PLATFORM)?;
    let text = |key| fields.text(key).map(|text| text.unwrap_or("").to_owned());
    let platform = Platform {
        architecture: text("architecture")?,
        os: text("os")?,
        os_version: fields.text("os.version")?.map(str::to_owned),
        os_features: fields.texts("os.features")?,
        variant: fields.text("variant")?.filter(|variant| !variant.is_empty()).map(str::to_owned),
    };
    Ok((!platform.architecture.is_empty() || !platform.os.is_empty()).then_some(platform))
}

/// The bytes a descriptor carries itself; `None` where they are too long to be honoured.
fn embedded(
    data: &str,
    digest: &Digest,
    size_bytes: u64,
    at: &str,
    limits: &DocumentLimits,
) -> Result<Option<Vec<u8>>, ManifestError> {
    let bytes = STANDARD.decode(data).map_err(|_| ManifestError::field(at, "is not base64"))?;
    if bytes.len() as u64 != size_bytes {
        return Err(ManifestError::field(at, format!("holds {} bytes, size says {size_bytes}", bytes.len())));
    }
    if bytes.len() as u64 > limits.embedded_bytes {
        return Ok(None);
    }
    if !digest.matches(&bytes) {
        return Err(ManifestError::field(at, "does not hash to the digest"));
    }
    Ok(Some(bytes))
}

// serde hands the field over as it is.
fn to_base64<S: Serializer>(data: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    data.as_deref().map(|bytes| STANDARD.encode(bytes)).serialize(serializer)
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| STANDARD.decode(text).map_err(de::Error::custom)).transpose()
}
