//! `mf-`: manifests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{
    BAD, Case, Expect, LIMIT, NOT_IMAGE, Stage, UNSUPPORTED, good, manifest, manifest_bytes, manifest_text, value,
};
use crate::images::{Family, Image, small};

const PARSE: Stage = Stage::Parse;

/// The manifest as it is, served or written as something else.
fn typed(id: &'static str, what: &'static str, expect: Expect, content_type: &str, body: Option<&str>) -> Case {
    let mut document = value(&good().manifest);
    match body {
        Some(body) => document["mediaType"] = body.into(),
        None => drop(document.as_object_mut().expect("an object").remove("mediaType")),
    }
    manifest_bytes(id, what, expect, PARSE, content_type, document.to_string())
}

fn artifact(id: &'static str, what: &'static str, config_type: &'static str) -> Case {
    manifest(id, what, NOT_IMAGE, PARSE, |m| m["config"]["mediaType"] = config_type.into())
}

fn layer_type(id: &'static str, what: &'static str, expect: Expect, media_type: &'static str) -> Case {
    manifest(id, what, expect, PARSE, |m| m["layers"][0]["mediaType"] = media_type.into())
}

/// A foreign layer that no registry has, with an address nobody may be sent to.
fn foreign(id: &'static str, what: &'static str, url: &'static str) -> Case {
    let expect = Expect::Refused(&[super::Reason::BlobMissing, super::Reason::NotFound]);
    manifest(id, what, expect, Stage::Pull, |m| {
        m["layers"][0] = json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
            "size": 100,
            "urls": [url],
        });
    })
}

fn schema_1() -> Value {
    json!({
        "schemaVersion": 1,
        "name": "cases",
        "tag": "v1",
        "architecture": "amd64",
        "fsLayers": [{ "blobSum": good().layers[0].blob.digest.as_str() }],
        "history": [{ "v1Compatibility": "{}" }],
    })
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

fn insert(text: &str, key: &str, value: &str) -> String {
    text.replacen('{', &format!("{{\"{key}\":{value},"), 1)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = shapes();
    cases.extend(types());
    cases.extend(texts());
    cases.extend(accepted());
    cases
}

/// Fields that are there twice, missing or of the wrong kind.
fn shapes() -> Vec<Case> {
    let layer = value(&good().manifest)["layers"][0].clone();
    let many = |count: usize| Value::Array(vec![layer.clone(); count]);
    let too_many = many(501);
    vec![
        manifest("mf-ambiguous", "a manifest that is also an index", BAD, PARSE, |m| m["manifests"] = json!([])),
        manifest("mf-ambiguous-entry", "a manifest with an entry of an index", BAD, PARSE, |m| {
            m["manifests"] = json!([small("other").index_entry()]);
        }),
        manifest("mf-ambiguous-schema1", "a manifest with layers of schema 1", BAD, PARSE, |m| {
            m["fsLayers"] = json!([]);
        }),
        manifest_text("mf-dup-layers", "layers twice", BAD, |m| insert(&m, "layers", "[]")),
        manifest_text("mf-dup-config", "config twice", BAD, |m| insert(&m, "config", "{}")),
        manifest_text("mf-dup-type", "mediaType twice", BAD, |m| insert(&m, "mediaType", "\"x\"")),
        manifest_text("mf-dup-escaped", "layers twice, once with an escape", BAD, |m| insert(&m, "l\\u0061yers", "[]")),
        manifest("mf-case-keys", "Layers beside layers", BAD, PARSE, |m| m["Layers"] = json!([])),
        manifest("mf-case-config", "CONFIG beside config", BAD, PARSE, |m| m["CONFIG"] = json!({})),
        manifest("mf-case-only", "mediatype instead of mediaType", BAD, PARSE, |m| {
            m.as_object_mut().expect("an object").remove("mediaType");
            m["mediatype"] = json!(Family::Oci.manifest());
        }),
        manifest("mf-case-deep", "Digest beside digest in a layer", BAD, PARSE, |m| {
            m["layers"][0]["Digest"] = json!("sha256:x");
        }),
        manifest("mf-config-null", "no config", BAD, PARSE, |m| m["config"] = Value::Null),
        manifest("mf-config-list", "a list as config", BAD, PARSE, |m| m["config"] = json!([])),
        manifest("mf-config-text", "a digest as config", BAD, PARSE, |m| m["config"] = m["config"]["digest"].clone()),
        manifest("mf-layers-null", "null as layers", BAD, PARSE, |m| m["layers"] = Value::Null),
        manifest("mf-layers-object", "an object as layers", BAD, PARSE, |m| m["layers"] = json!({ "0": {} })),
        manifest("mf-layer-null", "null as a layer", BAD, PARSE, |m| m["layers"][0] = Value::Null),
        manifest("mf-layer-text", "a digest as a layer", BAD, PARSE, |m| {
            m["layers"][0] = m["layers"][0]["digest"].clone();
        }),
        manifest("mf-layers-501", "one layer more than the limit", LIMIT, PARSE, |m| m["layers"] = too_many),
        manifest("mf-subject-bad", "a subject without a digest", BAD, PARSE, |m| m["subject"] = json!({ "size": 1 })),
        manifest("mf-annotation-number", "a number as annotation", BAD, PARSE, |m| {
            m["annotations"] = json!({ "a": 1 })
        }),
        manifest("mf-annotations-list", "a list of annotations", BAD, PARSE, |m| m["annotations"] = json!(["a"])),
        manifest("mf-urls-text", "text as urls", BAD, PARSE, |m| m["layers"][0]["urls"] = json!("https://a")),
        manifest("mf-data-lie", "embedded config of other bytes", BAD, PARSE, |m| {
            m["config"]["data"] = json!(STANDARD.encode("{}"));
        }),
        manifest("mf-data-odd", "embedded config that is not base64", BAD, PARSE, |m| {
            m["config"]["data"] = json!("%%%")
        }),
        manifest("mf-layer-extra", "a layer more than the config knows", BAD, Stage::Pull, |m| {
            let first = m["layers"][0].clone();
            m["layers"].as_array_mut().expect("a list").push(first);
        }),
        manifest("mf-layer-less", "a layer less than the config knows", BAD, Stage::Pull, |m| {
            m["layers"].as_array_mut().expect("a list").pop();
        }),
    ]
}

/// What it says it is.
fn types() -> Vec<Case> {
    let oci = Family::Oci.manifest();
    let schema_1_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    vec![
        typed("mf-type-lie", "served as manifest, says it is an index", BAD, oci, Some(Family::Oci.index())),
        typed("mf-type-lie-docker", "served as OCI, says it is docker's", BAD, oci, Some(Family::Docker.manifest())),
        typed("mf-type-lie-index", "served as index, says it is a manifest", BAD, Family::Oci.index(), Some(oci)),
        typed("mf-type-lie-untyped", "served as index, says nothing", BAD, Family::Oci.index(), None),
        typed(
            "mf-type-odd",
            "says it is something unheard of",
            Expect::Refused(&[super::Reason::BadManifest, super::Reason::NotAnImage]),
            oci,
            Some("application/x-odd"),
        ),
        typed("mf-type-html", "a manifest served as a web page", NOT_IMAGE, "text/html", Some(oci)),
        typed("mf-type-png", "a manifest served as a picture", NOT_IMAGE, "image/png", Some(oci)),
        manifest("mf-type-number", "a number as mediaType", BAD, PARSE, |m| m["mediaType"] = json!(2)),
        artifact("mf-artifact-helm", "a Helm chart", "application/vnd.cncf.helm.config.v1+json"),
        artifact("mf-artifact-wasm", "a WebAssembly module", "application/vnd.wasm.config.v0+json"),
        artifact("mf-artifact-empty", "an artifact with the empty config", "application/vnd.oci.empty.v1+json"),
        artifact("mf-artifact-case", "an image config's type in capitals", "APPLICATION/VND.OCI.IMAGE.CONFIG.V1+JSON"),
        artifact("mf-artifact-plugin", "a Docker plugin", "application/vnd.docker.plugin.v1+json"),
        layer_type(
            "mf-encrypted",
            "an encrypted layer",
            UNSUPPORTED,
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        ),
        layer_type("mf-layer-type", "a layer of an unheard-of type", UNSUPPORTED, "application/x-layer"),
        layer_type("mf-layer-bzip2", "a layer in bzip2", UNSUPPORTED, "application/vnd.oci.image.layer.v1.tar+bzip2"),
        layer_type("mf-layer-squashfs", "a layer as squashfs", UNSUPPORTED, "application/vnd.sylabs.sif.layer.v1.sif"),
        layer_type("mf-layer-type-empty", "a layer without a type", BAD, ""),
        manifest_bytes("mf-schema1", "schema 1", UNSUPPORTED, PARSE, "application/json", schema_1().to_string()),
        manifest_bytes(
            "mf-schema1-signed",
            "schema 1 with signatures",
            UNSUPPORTED,
            PARSE,
            schema_1_type,
            schema_1().to_string(),
        ),
        manifest("mf-schema3", "schemaVersion 3", BAD, PARSE, |m| m["schemaVersion"] = json!(3)),
        manifest("mf-schema-text", "schemaVersion as text", BAD, PARSE, |m| m["schemaVersion"] = json!("2")),
        manifest("mf-schema-missing", "no schemaVersion", BAD, PARSE, |m| {
            m.as_object_mut().expect("an object").remove("schemaVersion");
        }),
        foreign("mf-foreign-file", "a foreign layer in a local file", "file:///etc/passwd"),
        foreign("mf-foreign-metadata", "a foreign layer at the metadata service", "http://169.254.169.254/latest/"),
        foreign("mf-foreign-http", "a foreign layer over plain http", "http://127.0.0.1:1/layer"),
        foreign("mf-foreign-https", "a foreign layer elsewhere", "https://127.0.0.1:1/layer"),
    ]
}

/// Bytes that are no JSON document, or one that is too much.
fn texts() -> Vec<Case> {
    let oci = Family::Oci.manifest();
    let bytes = |id, what, bytes: Vec<u8>| manifest_bytes(id, what, BAD, PARSE, oci, bytes);
    let honest = good().manifest.bytes.to_vec();
    let half = honest.len() / 2;
    vec![
        bytes("mf-empty", "no bytes", Vec::new()),
        bytes("mf-cut", "the first half", honest[..half].to_vec()),
        bytes("mf-nul", "a NUL after it", [&honest[..], b"\0"].concat()),
        bytes("mf-bom", "a byte-order mark before it", [b"\xef\xbb\xbf", &honest[..]].concat()),
        bytes("mf-utf16", "UTF-16", honest.iter().flat_map(|b| [*b, 0]).collect()),
        bytes("mf-utf8-bad", "a byte that is not UTF-8", [b"{\"x\":\"\xff\",", &honest[1..]].concat()),
        manifest_text("mf-trailing", "text after it", BAD, |m| format!("{m} x")),
        manifest_text("mf-twice", "the same again after it", BAD, |m| format!("{m}\n{m}")),
        manifest_text("mf-comment", "a comment", BAD, |m| format!("// hello\n{m}")),
        manifest_text("mf-comma", "a comma too many", BAD, |m| m.replacen('}', ",}", 1)),
        manifest_text("mf-quotes", "single quotes", BAD, |m| m.replace('"', "'")),
        manifest_text("mf-surrogate", "half of a surrogate pair", BAD, |m| insert(&m, "x", "\"\\ud800\"")),
        bytes("mf-null", "null", b"null".to_vec()),
        bytes("mf-list", "a list", b"[]".to_vec()),
        bytes("mf-string", "a text", b"\"manifest\"".to_vec()),
        manifest_bytes("mf-object", "an empty object", NOT_IMAGE, PARSE, "application/json", "{}"),
        manifest_bytes(
            "mf-error",
            "a registry's error with status 200",
            NOT_IMAGE,
            PARSE,
            "application/json",
            r#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
        ),
        manifest_bytes("mf-html", "a web page", NOT_IMAGE, PARSE, "text/html", "<!doctype html><p>Log in"),
        manifest_bytes("mf-html-lie", "a web page served as a manifest", NOT_IMAGE, PARSE, oci, "\n<html></html>"),
        manifest_text("mf-deep", "65 levels", LIMIT, |m| insert(&m, "x", &nested(65))),
        manifest_text("mf-deep-100000", "100 000 levels", LIMIT, |m| insert(&m, "x", &nested(100_000))),
        manifest_text("mf-nodes", "300 000 values", LIMIT, |m| {
            insert(&m, "x", &format!("[{}0]", "0,".repeat(300_000)))
        }),
        manifest_text("mf-large", "one byte more than 4 MiB", LIMIT, |m| {
            let blanks = (4 << 20) + 1 - m.len();
            format!("{m}{}", " ".repeat(blanks))
        }),
    ]
}

/// Odd, and still images.
fn accepted() -> Vec<Case> {
    let oci = Family::Oci.manifest();
    let ok = Expect::Accepted;
    let config = STANDARD.encode(&good().config.bytes);
    let twice = same_layer_twice();
    let mut cases = vec![
        typed("mf-ok-untyped", "no mediaType in the body", ok, oci, None),
        typed("mf-ok-neutral", "served as JSON", ok, "application/json", Some(oci)),
        typed("mf-ok-parameters", "served with parameters", ok, &format!("{oci}; charset=utf-8"), Some(oci)),
        manifest("mf-ok-data", "the config embedded", ok, PARSE, |m| m["config"]["data"] = json!(config)),
        manifest("mf-ok-unknown-keys", "keys of the future", ok, PARSE, |m| m["x-new"] = json!({ "a": [1, 2] })),
        manifest_text("mf-ok-blanks", "blanks and line breaks", ok, |m| {
            format!("\n  {}\r\n\t", m.replace(',', ",\n  "))
        }),
        manifest("mf-ok-subject", "a subject that is not here", ok, PARSE, |m| m["subject"] = m["config"].clone()),
    ];
    cases.push(Case {
        bundle: twice.bundle(),
        ..manifest_bytes("mf-ok-same-layer", "one layer twice", ok, PARSE, oci, twice.manifest.bytes.clone())
    });
    cases
}

fn same_layer_twice() -> Image {
    use crate::images::{Entry, Layer};
    let layer = || Layer::new([Entry::file("a", "a")]);
    Image::build().layer(layer()).layer(layer()).finish()
}
