//! `dg-`: digests and sizes in descriptors.

use serde_json::{Value, json};

use super::{BAD, Case, Expect, LIMIT, SIZE, Stage, good, manifest, manifest_text};

/// A digest that fits nothing here.
const OTHER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn layer(id: &'static str, what: &'static str, digest: impl Into<Value>) -> Case {
    let digest = digest.into();
    manifest(id, what, BAD, Stage::Parse, |m| m["layers"][0]["digest"] = digest)
}

fn config(id: &'static str, what: &'static str, digest: impl Into<Value>) -> Case {
    let digest = digest.into();
    manifest(id, what, BAD, Stage::Parse, |m| m["config"]["digest"] = digest)
}

fn size(id: &'static str, what: &'static str, expect: Expect, size: Value) -> Case {
    manifest(id, what, expect, Stage::Parse, |m| m["layers"][0]["size"] = size)
}

/// A size written in a way that JSON values cannot hold.
fn size_text(id: &'static str, what: &'static str, text: &'static str) -> Case {
    let honest = format!("\"size\":{}", good().layers[0].blob.bytes.len());
    manifest_text(id, what, BAD, move |m| m.replacen(&honest, &format!("\"size\":{text}"), 1))
}

pub(super) fn cases() -> Vec<Case> {
    let image = good();
    let hex = image.layers[0].blob.digest.hex().to_owned();
    let layer_len = image.layers[0].blob.bytes.len() as u64;
    let config_len = image.config.bytes.len() as u64;
    vec![
        layer("dg-traversal-layer", "a layer's digest climbs out", "sha256:../../../../etc/passwd"),
        config("dg-traversal-config", "the config's digest climbs out", "sha256:../../../../etc/passwd"),
        layer("dg-traversal-algorithm", "the algorithm climbs out", format!("../../etc:{hex}")),
        layer("dg-traversal-absolute", "an absolute path as hex", "sha256:/etc/passwd"),
        layer("dg-traversal-padded", "64 characters that climb", format!("sha256:{:/<64}", "../../../etc/cron.d/x")),
        layer("dg-traversal-slash", "a slash within 64 characters", format!("sha256:{}/{}", &hex[..31], &hex[32..])),
        layer("dg-traversal-encoded", "a percent-encoded path", "sha256:..%2f..%2f..%2fetc%2fpasswd"),
        layer("dg-empty", "an empty digest", ""),
        layer("dg-empty-hex", "no hex", "sha256:"),
        layer("dg-empty-algorithm", "no algorithm", format!(":{hex}")),
        config("dg-empty-config", "an empty digest of the config", ""),
        layer("dg-upper", "upper-case hex", format!("sha256:{}", hex.to_uppercase())),
        layer("dg-upper-algorithm", "upper-case algorithm", format!("SHA256:{hex}")),
        layer("dg-short", "63 hex digits", format!("sha256:{}", &hex[1..])),
        layer("dg-long", "65 hex digits", format!("sha256:{hex}0")),
        layer("dg-megabyte", "a million hex digits", format!("sha256:{}", "a".repeat(1_000_000))),
        layer("dg-not-hex", "letters beyond f", format!("sha256:{}", "g".repeat(64))),
        layer("dg-newline", "a line break after the hex", format!("sha256:{hex}\n")),
        layer("dg-nul", "a NUL within the hex", format!("sha256:{}\0{}", &hex[..31], &hex[32..])),
        layer("dg-blank", "a blank before it", format!(" sha256:{hex}")),
        layer("dg-unicode", "full-width digits", format!("sha256:{}", "\u{ff11}".repeat(64))),
        layer("dg-unknown", "an algorithm nobody can verify", format!("sha3-256:{hex}")),
        layer("dg-md5", "md5", format!("md5:{}", &hex[..32])),
        layer("dg-sha512-short", "sha512 with 64 digits", format!("sha512:{hex}")),
        layer("dg-number", "a number", json!(7)),
        layer("dg-null", "null", Value::Null),
        layer("dg-list", "a list", json!([format!("sha256:{hex}")])),
        manifest("dg-missing", "no digest at all", BAD, Stage::Parse, |m| {
            m["layers"][0].as_object_mut().expect("an object").remove("digest");
        }),
        manifest(
            "dg-other-layer",
            "a digest of nothing that is here",
            Expect::Refused(&[super::Reason::BlobMissing, super::Reason::NotFound]),
            Stage::Pull,
            |m| m["layers"][0]["digest"] = json!(OTHER),
        ),
        size("dg-size-negative", "a negative size", BAD, json!(-1)),
        size("dg-size-float", "a size with a fraction", BAD, json!(12.5)),
        size("dg-size-text", "a size as text", BAD, json!("12")),
        size("dg-size-null", "no size", BAD, Value::Null),
        size("dg-size-true", "true as size", BAD, json!(true)),
        size("dg-size-2-63", "2^63", BAD, json!(1_u64 << 63)),
        size("dg-size-2-62", "2^62, which once crashed a client", LIMIT, json!(1_u64 << 62)),
        size("dg-size-64gib", "one byte above the limit of a layer", LIMIT, json!((64_u64 << 30) + 1)),
        size_text("dg-size-2-64", "2^64", "18446744073709551616"),
        size_text("dg-size-exponent", "an exponent", "1e3"),
        size_text("dg-size-hex", "a hexadecimal number", "0x10"),
        size_text("dg-size-plus", "a plus sign", "+12"),
        size_text("dg-size-zeros", "leading zeros", "0012"),
        manifest("dg-size-config", "a config above its limit", LIMIT, Stage::Parse, |m| {
            m["config"]["size"] = json!((8_u64 << 20) + 1);
        }),
        manifest("dg-size-layer-less", "a layer one byte longer than its size", SIZE, Stage::Pull, |m| {
            m["layers"][0]["size"] = json!(layer_len - 1);
        }),
        manifest("dg-size-layer-more", "a layer one byte shorter than its size", SIZE, Stage::Pull, |m| {
            m["layers"][0]["size"] = json!(layer_len + 1);
        }),
        manifest("dg-size-layer-zero", "a layer of size 0", SIZE, Stage::Pull, |m| m["layers"][0]["size"] = json!(0)),
        manifest("dg-size-config-less", "a config longer than its size", SIZE, Stage::Pull, |m| {
            m["config"]["size"] = json!(config_len - 1);
        }),
        manifest("dg-size-config-more", "a config shorter than its size", SIZE, Stage::Pull, |m| {
            m["config"]["size"] = json!(config_len + 1);
        }),
    ]
}
