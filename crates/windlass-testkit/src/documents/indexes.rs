//! `ix-`: indexes.

use serde_json::{Value, json};
use windlass_core::reason::Reason;

use super::{BAD, Case, Expect, LIMIT, NO_PLATFORM, SIZE, Stage, good, index_bytes};
use crate::images::{Bundle, Content, Family, small_for};

fn index_of(entries: Vec<Value>) -> Value {
    json!({ "schemaVersion": 2, "mediaType": Family::Oci.index(), "manifests": entries })
}

fn content(index: &Value) -> Content {
    Content::json(Family::Oci.index(), index)
}

/// An index over the good image after a change.
fn changed(
    id: &'static str,
    what: &'static str,
    expect: Expect,
    stage: Stage,
    change: impl FnOnce(&mut Value),
) -> Case {
    let mut index = index_of(vec![good().index_entry()]);
    change(&mut index);
    index_bytes(id, what, expect, stage, index.to_string(), Vec::new())
}

fn entry(platform: Value) -> Value {
    let mut entry = good().manifest.descriptor();
    entry["platform"] = platform;
    entry
}

/// Index in index, `levels` of them above the manifest.
fn nested(levels: usize) -> (Value, Vec<Content>) {
    let mut index = index_of(vec![good().index_entry()]);
    let mut below = Vec::new();
    for _ in 1..levels {
        let child = content(&index);
        index = index_of(vec![child.descriptor()]);
        below.push(child);
    }
    (index, below)
}

/// Levels of `width` entries each, all of them the same child but for an annotation: `width` to the power of `levels`
/// ways down.
fn fan(levels: usize, width: usize) -> (Value, Vec<Content>) {
    let mut index = index_of(vec![entry(json!({ "os": "linux", "architecture": "s390x" }))]);
    let mut below = Vec::new();
    for level in 0..levels {
        let children: Vec<Content> = (0..width)
            .map(|n| {
                let mut child = index.clone();
                child["annotations"] = json!({ "n": format!("{level}-{n}") });
                content(&child)
            })
            .collect();
        index = index_of(children.iter().map(Content::descriptor).collect());
        below.extend(children);
    }
    (index, below)
}

fn tree(id: &'static str, what: &'static str, expect: Expect, (index, below): (Value, Vec<Content>)) -> Case {
    index_bytes(id, what, expect, Stage::Pull, index.to_string(), below)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = shapes();
    cases.extend(choices());
    cases.extend(trees());
    cases.push(chosen_for_another_machine());
    cases
}

fn shapes() -> Vec<Case> {
    const PARSE: Stage = Stage::Parse;
    let size = good().manifest.bytes.len();
    let many = |count: usize| vec![good().index_entry(); count];
    let (most, too_many) = (many(4096), many(4097));
    vec![
        changed("ix-many", "4097 entries", LIMIT, PARSE, |i| i["manifests"] = Value::Array(too_many)),
        changed("ix-many-4096", "4096 entries", Expect::Accepted, PARSE, |i| i["manifests"] = Value::Array(most)),
        changed("ix-null", "null as entries", BAD, PARSE, |i| i["manifests"] = Value::Null),
        changed("ix-null-entry", "null as an entry", BAD, PARSE, |i| i["manifests"][0] = Value::Null),
        changed("ix-object", "an object as entries", BAD, PARSE, |i| i["manifests"] = json!({})),
        changed("ix-ambiguous-layers", "layers in an index", BAD, PARSE, |i| i["layers"] = json!([])),
        changed("ix-ambiguous-config", "a config in an index", BAD, PARSE, |i| i["config"] = Value::Null),
        changed("ix-case", "Manifests beside manifests", BAD, PARSE, |i| i["Manifests"] = json!([])),
        changed("ix-platform-text", "text as platform", BAD, PARSE, |i| {
            i["manifests"][0]["platform"] = json!("linux/amd64");
        }),
        changed("ix-platform-number", "a number as architecture", BAD, PARSE, |i| {
            i["manifests"][0]["platform"]["architecture"] = json!(64);
        }),
        changed("ix-traversal", "an entry's digest climbs out", BAD, PARSE, |i| {
            i["manifests"][0]["digest"] = json!("sha256:../../../../etc/passwd");
        }),
        changed("ix-size-negative", "a negative size", BAD, PARSE, |i| i["manifests"][0]["size"] = json!(-1)),
        changed("ix-child-longer", "the chosen manifest is longer than its size", SIZE, Stage::Pull, |i| {
            i["manifests"][0]["size"] = json!(size - 1);
        }),
        changed("ix-child-shorter", "the chosen manifest is shorter than its size", SIZE, Stage::Pull, |i| {
            i["manifests"][0]["size"] = json!(size + 1);
        }),
        changed(
            "ix-child-huge",
            "the chosen manifest claims 2^62 bytes",
            Expect::Refused(&[Reason::LimitExceeded, Reason::SizeMismatch]),
            Stage::Pull,
            |i| i["manifests"][0]["size"] = json!(1_u64 << 62),
        ),
        changed(
            "ix-child-missing",
            "the chosen manifest is not here",
            Expect::Refused(&[Reason::BlobMissing, Reason::NotFound]),
            Stage::Pull,
            |i| {
                i["manifests"][0]["digest"] = json!(format!("sha256:{}", "2".repeat(64)));
            },
        ),
        changed("ix-child-type-lie", "an entry says docker's manifest, the manifest OCI's", BAD, Stage::Pull, |i| {
            i["manifests"][0]["mediaType"] = json!(Family::Docker.manifest());
        }),
        changed("ix-child-type-index", "an entry says index, it is a manifest", BAD, Stage::Pull, |i| {
            i["manifests"][0]["mediaType"] = json!(Family::Oci.index());
        }),
    ]
}

fn choices() -> Vec<Case> {
    let arm = json!({ "os": "linux", "architecture": "arm64" });
    let unknown = || entry(json!({ "os": "unknown", "architecture": "unknown" }));
    let linux = |architecture: &str| entry(json!({ "os": "linux", "architecture": architecture }));
    let odd_hash = json!({
        "mediaType": Family::Oci.manifest(), "digest": "blake9:abc", "size": 3,
        "platform": { "os": "plan9", "architecture": "386" },
    });
    let odd_type = json!({ "mediaType": "application/x-odd", "digest": good().config.digest.as_str(), "size": 3 });
    let of = |id, what, expect, entries: Vec<Value>| {
        index_bytes(id, what, expect, Stage::Pull, index_of(entries).to_string(), Vec::new())
    };
    let ok = |id, what, entries: Vec<Value>| of(id, what, Expect::Accepted, entries);
    vec![
        of("ix-empty", "no entries", NO_PLATFORM, Vec::new()),
        of("ix-none", "only other platforms", NO_PLATFORM, vec![entry(arm), linux("s390x")]),
        of(
            "ix-windows",
            "only Windows",
            NO_PLATFORM,
            vec![entry(json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1" }))],
        ),
        of("ix-unknown", "only attestations", NO_PLATFORM, vec![unknown(), unknown()]),
        of(
            "ix-features",
            "an entry that needs unheard-of features",
            NO_PLATFORM,
            vec![entry(json!({ "os": "linux", "architecture": "amd64", "os.features": ["odd"] }))],
        ),
        ok("ix-ok-unknown-first", "an attestation before the image", vec![unknown(), linux("amd64")]),
        ok("ix-ok-duplicate", "two entries that fit", vec![linux("amd64"), linux("amd64")]),
        ok("ix-ok-alias", "x86_64", vec![linux("x86_64")]),
        ok("ix-ok-no-platform", "an entry without platform", vec![good().manifest.descriptor()]),
        ok("ix-ok-odd-hash", "an entry of an unknown hash that is not needed", vec![odd_hash, linux("amd64")]),
        ok("ix-ok-odd-type", "an entry of an unknown type", vec![odd_type, linux("amd64")]),
    ]
}

fn trees() -> Vec<Case> {
    vec![
        tree("ix-ok-nested", "an index in an index", Expect::Accepted, nested(2)),
        tree("ix-deep", "six indexes above the manifest", LIMIT, nested(6)),
        tree("ix-deep-300", "300 indexes above the manifest", LIMIT, nested(300)),
        // Refused for its size, or searched without finding an image for this platform, but within bounds.
        tree(
            "ix-fanout",
            "20 to the power of 3 ways down",
            Expect::Refused(&[Reason::LimitExceeded, Reason::NoMatchingPlatform]),
            fan(3, 20),
        ),
        tree(
            "ix-fanout-wide",
            "one level of 300 indexes",
            Expect::Refused(&[Reason::LimitExceeded, Reason::NoMatchingPlatform]),
            fan(1, 300),
        ),
    ]
}

/// The index says amd64, the config of what it names says otherwise: pulled, with a warning.
fn chosen_for_another_machine() -> Case {
    let image = small_for("lie", "s390x", None);
    let mut entry = image.manifest.descriptor();
    entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let root = content(&index_of(vec![entry]));
    let bundle = Bundle { root: root.clone(), manifests: vec![image.manifest.clone()], ..image.bundle() };
    let what = "the index says amd64, the config s390x";
    let case = index_bytes("ix-platform-lie", what, Expect::Accepted, Stage::Pull, root.bytes, Vec::new());
    Case { bundle, ..case }
}
