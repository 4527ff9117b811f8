//! Indexes and manifests, and which of the two a document is.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::descriptor::{Parsed, parse, parse_needed};
use super::error::shown;
use super::fields::Fields;
use super::media_type::{self, DocumentKind, LayerType, essence};
use super::{Descriptor, DocumentLimits, Expected, ManifestError, UnverifiableEntry, json};

const KNOWN: [&str; 10] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
    "signatures",
];

/// What a registry serves under `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are a handful of documents per pull, none of them in a list")]
pub enum Document {
    /// A list of manifests, usually one per platform.
    Index(Index),
    /// One image, or an artifact in an image's clothes.
    Manifest(Manifest),
}

/// A list of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// What the document is, as agreed between transport and body.
    pub media_type: String,
    /// The entries in their order, of any type, save those in `unverifiable`.
    pub entries: Vec<Descriptor>,
    /// Entries whose digest's algorithm is unknown; harmless as long as none of them is chosen.
    pub unverifiable: Vec<UnverifiableEntry>,
    /// The type of an artifact.
    pub artifact_type: Option<String>,
    /// What it refers to; ignored on pull. Absent too where its digest could not be verified.
    pub subject: Option<Descriptor>,
    /// Free notes.
    pub annotations: BTreeMap<String, String>,
}

/// One image, or an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the document is, as agreed between transport and body.
    pub media_type: String,
    /// The image's config; its digest is the image ID.
    pub config: Descriptor,
    /// The layers, lowest first. Equal ones are listed as often as they are applied.
    pub layers: Vec<Descriptor>,
    /// The type of an artifact as written, see [`Manifest::artifact_type`].
    pub artifact_type: Option<String>,
    /// What it refers to; ignored on pull. Absent too where its digest could not be verified.
    pub subject: Option<Descriptor>,
    /// Free notes.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// What kind of artifact it is: `artifactType`, else the type of its config.
    pub fn artifact_type(&self) -> &str {
        self.artifact_type.as_deref().unwrap_or(&self.config.media_type)
    }

    /// What each layer's type says, for a manifest that is an image which can run.
    ///
    /// # Errors
    /// [`ManifestError::Artifact`] if its config is no image config; [`ManifestError::Encrypted`] and
    /// [`ManifestError::Layer`] for layers that cannot be unpacked; [`ManifestError::Limit`] for `configBytes`,
    /// `layers` and `layerBytes`.
    pub fn layer_types(&self, limits: &DocumentLimits) -> Result<Vec<LayerType>, ManifestError> {
        if !media_type::is_image_config(&self.config.media_type) {
            return Err(ManifestError::Artifact { media_type: shown(self.artifact_type()) });
        }
        ManifestError::check_limit("configBytes", self.config.size_bytes, limits.config_bytes)?;
        ManifestError::check_limit("layers", self.layers.len() as u64, limits.layers as u64)?;
        let layer_type = |(at, layer): (usize, &Descriptor)| {
            ManifestError::check_limit("layerBytes", layer.size_bytes, limits.layer_bytes)?;
            LayerType::of(&layer.media_type).ok_or_else(|| {
                let media_type = shown(&layer.media_type);
                match media_type::is_encrypted(&layer.media_type) {
                    true => ManifestError::Encrypted { at, media_type },
                    false => ManifestError::Layer { at, media_type },
                }
            })
        };
        self.layers.iter().enumerate().map(layer_type).collect()
    }
}

/// Reads an index or a manifest.
///
/// `content_type` is the header of the answer (parameters are ignored), `None` where there is none, as in a layout on
/// disk; `expected_media_type` is that of the descriptor that led here. What they say must agree with the document.
/// The caller has compared the bytes with their digest.
///
/// # Errors
/// [`ManifestError`] names the field or the disagreement; nothing of a refused document is returned.
pub fn parse_document(
    bytes: &[u8],
    content_type: Option<&str>,
    expected_media_type: Option<&str>,
    limits: &DocumentLimits,
) -> Result<Document, ManifestError> {
    ManifestError::check_limit("manifestBytes", bytes.len() as u64, limits.manifest_bytes)?;
    let said = content_type.map(essence).unwrap_or_default();
    let is_page = bytes.trim_ascii_start().starts_with(b"<");
    if is_page || matches!(said.as_str(), "text/html" | "application/xhtml+xml") {
        return Err(ManifestError::Html);
    }
    match DocumentKind::of(&said) {
        DocumentKind::SchemaOne => return Err(ManifestError::SchemaOne),
        DocumentKind::Other => return Err(not_a_document(&said)),
        DocumentKind::Index | DocumentKind::Manifest | DocumentKind::Unsaid => {}
    }
    let value = json::parse(bytes, limits)?;
    let fields = Fields::new(&value, "", &KNOWN)?;
    let (kind, media_type) = agree(&fields, &said, expected_media_type)?;
    let annotations = fields.text_map("annotations")?;
    let artifact_type = fields.text("artifactType")?.map(str::to_owned);
    let subject = fields.get("subject").map(|value| parse(value, "subject", limits)).transpose()?;
    let subject = match subject {
        Some(Parsed::Descriptor(subject)) => Some(*subject),
        // Never fetched, so it does no harm that it could not be verified.
        Some(Parsed::Unverifiable(_)) | None => None,
    };
    match kind {
        Kind::Index => {
            let (entries, unverifiable) = entries(fields.required_list("manifests")?, limits)?;
            Ok(Document::Index(Index { media_type, entries, unverifiable, artifact_type, subject, annotations }))
        }
        Kind::Manifest => {
            let config = parse_needed(fields.required("config")?, "config", limits)?;
            let listed = fields.required_list("layers")?;
            ManifestError::check_limit("layers", listed.len() as u64, limits.layers as u64)?;
            let layer = |(at, value)| parse_needed(value, &format!("layers[{at}]"), limits);
            let layers: Vec<Descriptor> = listed.iter().enumerate().map(layer).collect::<Result<_, _>>()?;
            check_sizes(&config, &layers)?;
            Ok(Document::Manifest(Manifest { media_type, config, layers, artifact_type, subject, annotations }))
        }
    }
}

/// One digest has one size.
fn check_sizes(config: &Descriptor, layers: &[Descriptor]) -> Result<(), ManifestError> {
    let mut sizes = HashMap::from([(&config.digest, config.size_bytes)]);
    for (at, layer) in layers.iter().enumerate() {
        if *sizes.entry(&layer.digest).or_insert(layer.size_bytes) != layer.size_bytes {
            return Err(ManifestError::field(
                format!("layers[{at}].size"),
                "differs from that of the same digest above",
            ));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Index,
    Manifest,
}

/// Settles once what the document is: type in the body, type of the answer, descriptor and fields must agree.
fn agree(fields: &Fields<'_>, said: &str, expected: Option<&str>) -> Result<(Kind, String), ManifestError> {
    let body = fields.text("mediaType")?;
    if body.is_some_and(|body| DocumentKind::of(body) == DocumentKind::SchemaOne) {
        return Err(ManifestError::SchemaOne);
    }
    check_fields(fields)?;
    let said_kind = DocumentKind::of(said);
    let found = match (body, said_kind) {
        (Some(body), _) => body.to_owned(),
        (None, DocumentKind::Index | DocumentKind::Manifest) => said.to_owned(),
        (None, DocumentKind::Unsaid | DocumentKind::SchemaOne | DocumentKind::Other) => {
            let by_fields = if fields.has("manifests") {
                media_type::OCI_INDEX
            } else if fields.has("config") && fields.has("layers") {
                media_type::OCI_MANIFEST
            } else {
                return Err(not_a_document(said));
            };
            // A Docker document must name its type in the body; one that does not is OCI's.
            expected.filter(|expected| same_kind(expected, by_fields)).unwrap_or(by_fields).to_owned()
        }
    };
    let mismatch = |by, said: &str| ManifestError::TypeMismatch { by, said: shown(said), found: shown(&found) };
    if said_kind != DocumentKind::Unsaid && said != found {
        return Err(mismatch(Expected::ContentType, said));
    }
    if let Some(expected) = expected
        && essence(expected) != found
    {
        return Err(mismatch(Expected::Descriptor, expected));
    }
    match DocumentKind::of(&found) {
        DocumentKind::Index => Ok((Kind::Index, found)),
        DocumentKind::Manifest => Ok((Kind::Manifest, found)),
        DocumentKind::SchemaOne => Err(ManifestError::SchemaOne),
        DocumentKind::Unsaid | DocumentKind::Other => Err(not_a_document(&found)),
    }
}

/// `schemaVersion` is 2, and the fields of only one kind are present.
fn check_fields(fields: &Fields<'_>) -> Result<(), ManifestError> {
    if fields.has("manifests") {
        let others = ["config", "layers", "fsLayers"];
        if let Some(other) = others.into_iter().find(|other| fields.has(other)) {
            return Err(ManifestError::Ambiguous { other });
        }
    }
    match fields.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) if fields.has("fsLayers") => Err(ManifestError::field("fsLayers", "belongs to schema 1")),
        Some(2) => Ok(()),
        Some(1) => Err(ManifestError::SchemaOne),
        _ if !["manifests", "config", "layers", "mediaType", "schemaVersion"].iter().any(|key| fields.has(key)) => {
            Err(not_a_document(fields.text("mediaType")?.unwrap_or("")))
        }
        _ => Err(ManifestError::field("schemaVersion", "must be 2")),
    }
}

fn same_kind(one: &str, other: &str) -> bool {
    DocumentKind::of(&essence(one)) == DocumentKind::of(other)
}

fn not_a_document(content_type: &str) -> ManifestError {
    let content_type = if content_type.is_empty() { "none".to_owned() } else { shown(content_type) };
    ManifestError::NotADocument { content_type }
}

fn entries(
    listed: &[Value],
    limits: &DocumentLimits,
) -> Result<(Vec<Descriptor>, Vec<UnverifiableEntry>), ManifestError> {
    ManifestError::check_limit("indexEntries", listed.len() as u64, limits.index_entries as u64)?;
    let mut entries = Vec::with_capacity(listed.len());
    let mut unverifiable = Vec::new();
    for (at, value) in listed.iter().enumerate() {
        match parse(value, &format!("manifests[{at}]"), limits)? {
            Parsed::Descriptor(descriptor) => entries.push(*descriptor),
            Parsed::Unverifiable(entry) => unverifiable.push(entry),
        }
    }
    Ok((entries, unverifiable))
}
