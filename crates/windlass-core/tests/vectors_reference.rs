//! Every case of `vectors/reference.json`.
mod support;

use serde_json::Value;
use windlass_core::reference::{Reference, ReferenceFault};

#[test]
fn references_read_as_kubernetes_reads_them() {
    support::run("reference.json", |case| {
        let image = case["in"]["image"].as_str().expect("image");
        let out = &case["out"];
        match Reference::parse(image) {
            Ok(reference) => accepted(case, &reference),
            Err(error) => {
                assert_eq!(out["ok"], false, "{case}: {error}");
                assert_eq!(out["error_class"], class(error.fault), "{case}");
                assert_eq!(out["waiting_reason"], error.reason().waiting(), "{case}");
            }
        }
    });
}

fn accepted(case: &Value, reference: &Reference) {
    let out = &case["out"];
    assert_eq!(out["ok"], true, "{case}");
    assert_eq!(out["domain"], reference.host().as_str(), "{case}");
    assert_eq!(out["path"], reference.path(), "{case}");
    assert_eq!(out["repository"], reference.repository(), "{case}");
    assert_eq!(out["tag_explicit"], reference.tag_explicit().unwrap_or(""), "{case}");
    assert_eq!(out["tag"], reference.tag().unwrap_or(""), "{case}");
    assert_eq!(out["digest"], reference.digest().map_or("", |d| d.as_str()), "{case}");
    assert_eq!(out["cri_image"], reference.cri_image(), "{case}");
    assert_eq!(out["runtime_ref"], reference.runtime_ref(), "{case}");
    assert_eq!(out["familiar"], reference.familiar(), "{case}");
}

fn class(fault: ReferenceFault) -> &'static str {
    match fault {
        ReferenceFault::Format => "format",
        ReferenceFault::TooLong => "too_long",
        ReferenceFault::Uppercase => "uppercase",
        ReferenceFault::DigestEncoded => "digest_length_or_case",
        ReferenceFault::DigestAlgorithm => "digest_algorithm",
        ReferenceFault::Identifier => "identifier",
        _ => "unknown",
    }
}
