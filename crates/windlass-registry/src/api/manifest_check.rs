//! What a manifest must be to be accepted. Pure.
//!
//! In: the bytes and the media type they came with. Out: what the manifest needs to be in the repository.
//! Image manifests and indexes are judged by the same code as in a pull; other media types are taken as they are
//! when they are JSON with `schemaVersion` 2.
//!
//! Invariant: `a_manifest_that_a_pull_would_refuse_is_refused`.

use std::collections::BTreeSet;

use serde_json::Value;
use windlass_core::digest::Digest;

/// What a manifest refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Blobs that have to be in the repository.
    pub(super) blobs: BTreeSet<Digest>,
}

/// Media types whose blobs need not be here: they may not be redistributed.
fn is_foreign(media_type: &str) -> bool {
    media_type.contains("nondistributable") || media_type.contains("rootfs.foreign")
}

/// Judges a manifest.
pub(super) fn check(media_type: &str, bytes: &[u8]) -> Result<Needs, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    if document.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err("schemaVersion is not 2".to_owned());
    }
    match document.get("mediaType") {
        None => {}
        Some(Value::String(own)) if own == media_type => {}
        Some(_) => return Err("mediaType and Content-Type differ".to_owned()),
    }
    let has = |key: &str| document.get(key).is_some();
    if has("manifests") && (has("config") || has("layers") || has("fsLayers")) {
        return Err("both an index and a manifest".to_owned());
    }
    let mut needs = Needs::default();
    if let Some(config) = document.get("config") {
        needs.blobs.insert(descriptor(config)?.0);
    }
    for layer in entries(&document, "layers")? {
        let (digest, foreign) = descriptor(layer)?;
        if !foreign {
            needs.blobs.insert(digest);
        }
    }
    // Children of an index need not be here: mirrors carry some platforms only.
    for child in entries(&document, "manifests")? {
        descriptor(child)?;
    }
    if let Some(subject) = document.get("subject") {
        descriptor(subject)?;
    }
    Ok(needs)
}

fn entries<'a>(document: &'a Value, key: &str) -> Result<&'a [Value], String> {
    match document.get(key) {
        None => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => Err(format!("{key} is not a list")),
    }
}

fn descriptor(value: &Value) -> Result<(Digest, bool), String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let media_type = text("mediaType").ok_or("a descriptor has no mediaType")?;
    let digest = text("digest").ok_or("a descriptor has no digest")?;
    let digest = Digest::parse(digest).map_err(|error| format!("a descriptor's digest: {error}"))?;
    match value.get("size").and_then(Value::as_u64) {
        Some(size) if i64::try_from(size).is_ok() => Ok((digest, is_foreign(media_type))),
        Some(_) | None => Err("a descriptor's size is not a number in range".to_owned()),
    }
}
