//! What a manifest must be to be accepted. Pure.
//!
//! In: the bytes and the media type they came with. Out: what the manifest needs to be in the repository.
//! Image manifests and indexes are judged by the same code as in a pull; other media types are taken as they are
//! when they are a JSON object with `schemaVersion` 2.
//!
//! Invariant: `a_manifest_that_a_pull_would_refuse_is_refused`.

use std::collections::BTreeSet;

use serde_json::Value;
use windlass_core::digest::Digest;
use windlass_core::manifest::media_type::DocumentKind;
use windlass_core::manifest::{Document, DocumentLimits, LayerType, Manifest, parse_document};

/// The blobs that a manifest needs in its repository. Children of an index need not be here, since mirrors carry
/// some platforms only, and neither need layers that may not be redistributed.
pub(super) fn needed_blobs(media_type: &str, bytes: &[u8], limit_bytes: u64) -> Result<BTreeSet<Digest>, String> {
    let limits = DocumentLimits { manifest_bytes: limit_bytes, ..DocumentLimits::default() };
    match DocumentKind::of(media_type) {
        DocumentKind::Index | DocumentKind::Manifest | DocumentKind::SchemaOne => {
            match parse_document(bytes, Some(media_type), None, &limits).map_err(|error| error.to_string())? {
                Document::Index(_) => Ok(BTreeSet::new()),
                Document::Manifest(manifest) => Ok(blobs_of(manifest)),
            }
        }
        DocumentKind::Unsaid => Err("Content-Type does not say what this is".to_owned()),
        DocumentKind::Other => opaque(media_type, bytes),
    }
}

fn blobs_of(manifest: Manifest) -> BTreeSet<Digest> {
    let is_foreign = |media_type: &str| LayerType::of(media_type).is_some_and(|layer| layer.foreign);
    let layers = manifest.layers.into_iter().filter(|layer| !is_foreign(&layer.media_type));
    layers.map(|layer| layer.digest).chain([manifest.config.digest]).collect()
}

/// A manifest of a kind we do not know.
fn opaque(media_type: &str, bytes: &[u8]) -> Result<BTreeSet<Digest>, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    if document.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err("schemaVersion is not 2".to_owned());
    }
    match document.get("mediaType") {
        None => Ok(BTreeSet::new()),
        Some(own) if own == media_type => Ok(BTreeSet::new()),
        Some(_) => Err("mediaType and Content-Type differ".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    fn descriptor(media_type: &str, digest: &str) -> Value {
        json!({ "mediaType": media_type, "digest": digest, "size": 2 })
    }

    #[test]
    fn a_manifest_that_a_pull_would_refuse_is_refused() {
        let other = EMPTY.replace('4', "5");
        let config = descriptor("application/vnd.oci.image.config.v1+json", EMPTY);
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar", &other);
        let image = |layers: Value| json!({ "schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers });
        let mut untyped = image(json!([]));
        untyped.as_object_mut().expect("an object").remove("mediaType");
        let both = json!({ "schemaVersion": 2, "config": config, "layers": [], "manifests": [] });
        // media type, document, number of blobs needed or refused
        let table = [
            (OCI, image(json!([layer])), Some(2)),
            (OCI, image(json!([layer, layer])), Some(2)),
            (OCI, image(json!([descriptor(FOREIGN, &other)])), Some(1)),
            (OCI, untyped, Some(1)),
            (OCI, image(json!([descriptor("x/y", "sha256:../../etc/passwd")])), None),
            (OCI, image(json!([{ "mediaType": "x/y", "digest": EMPTY, "size": -1 }])), None),
            (OCI, both, None),
            (INDEX, image(json!([])), None),
            (INDEX, json!({ "schemaVersion": 2, "manifests": [descriptor(OCI, EMPTY)] }), Some(0)),
            (OCI, json!({ "schemaVersion": 1 }), None),
            ("application/json", image(json!([])), None),
            ("application/x-new", json!({ "schemaVersion": 2, "anything": 1 }), Some(0)),
            ("application/x-new", json!({ "schemaVersion": 2, "mediaType": "other" }), None),
            ("application/x-new", json!([]), None),
        ];
        for (media_type, document, want) in table {
            let got = needed_blobs(media_type, document.to_string().as_bytes(), 4 << 20);
            assert_eq!(got.as_ref().ok().map(BTreeSet::len), want, "{media_type} {document}: {got:?}");
        }
        assert!(needed_blobs(OCI, b"not json", 4 << 20).is_err());
        assert!(needed_blobs("application/x-new", b"not json", 4 << 20).is_err());
    }
}
