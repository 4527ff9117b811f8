//! `df-`: configs and their diff IDs.

use serde_json::{Value, json};
use windlass_core::reason::Reason;

use super::{BAD, Case, Expect, LIMIT, Stage, config, config_bytes, good};

fn diff_id(id: &'static str, what: &'static str, diff_id: impl Into<Value>) -> Case {
    let diff_id = diff_id.into();
    config(id, what, BAD, Stage::Parse, |c| c["rootfs"]["diff_ids"][0] = diff_id)
}

fn text(id: &'static str, what: &'static str, expect: Expect, change: impl FnOnce(String) -> String) -> Case {
    let honest = String::from_utf8(good().config.bytes.to_vec()).expect("JSON is text");
    config_bytes(id, what, expect, Stage::Parse, change(honest))
}

pub(super) fn cases() -> Vec<Case> {
    const PARSE: Stage = Stage::Parse;
    const WRONG: Expect = Expect::Refused(&[Reason::DiffIdMismatch]);
    let hex = good().layers[0].diff_id.hex().to_owned();
    let swap = |c: &mut Value| c["rootfs"]["diff_ids"].as_array_mut().expect("a list").reverse();
    vec![
        diff_id("df-invalid", "a diff ID that climbs out", "sha256:../../../../etc/passwd"),
        diff_id("df-invalid-empty", "an empty diff ID", ""),
        diff_id("df-invalid-upper", "upper-case hex", format!("sha256:{}", hex.to_uppercase())),
        diff_id("df-invalid-short", "63 digits", format!("sha256:{}", &hex[1..])),
        diff_id("df-invalid-unknown", "an algorithm nobody can verify", format!("md5:{}", &hex[..32])),
        diff_id("df-invalid-number", "a number", json!(1)),
        diff_id("df-invalid-null", "null", Value::Null),
        config("df-missing", "no rootfs", BAD, PARSE, |c| drop(c.as_object_mut().expect("an object").remove("rootfs"))),
        config("df-null", "null as diff IDs of two layers", BAD, Stage::Pull, |c| {
            c["rootfs"]["diff_ids"] = Value::Null
        }),
        config("df-object", "an object as diff IDs", BAD, PARSE, |c| c["rootfs"]["diff_ids"] = json!({})),
        config("df-type", "a rootfs of another type", BAD, PARSE, |c| c["rootfs"]["type"] = json!("tree")),
        config("df-fewer", "fewer diff IDs than layers", BAD, Stage::Pull, |c| {
            c["rootfs"]["diff_ids"].as_array_mut().expect("a list").pop();
        }),
        config("df-more", "more diff IDs than layers", BAD, Stage::Pull, |c| {
            c["rootfs"]["diff_ids"].as_array_mut().expect("a list").push(json!(format!("sha256:{hex}")));
        }),
        config("df-none", "no diff IDs", BAD, Stage::Pull, |c| c["rootfs"]["diff_ids"] = json!([])),
        config("df-wrong-first", "another diff ID of the first layer", WRONG, Stage::Pull, |c| {
            c["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "3".repeat(64)));
        }),
        config("df-wrong-last", "another diff ID of the last layer", WRONG, Stage::Pull, |c| {
            c["rootfs"]["diff_ids"][1] = json!(format!("sha256:{}", "3".repeat(64)));
        }),
        config("df-swapped", "the diff IDs in reverse", WRONG, Stage::Pull, swap),
        config("df-compressed", "the blob's digest as diff ID", WRONG, Stage::Pull, |c| {
            c["rootfs"]["diff_ids"][0] = json!(good().layers[0].blob.digest.as_str());
        }),
        config("df-case", "RootFS beside rootfs", BAD, PARSE, |c| c["RootFS"] = json!({})),
        config("df-case-diff-ids", "Diff_IDs beside diff_ids", BAD, PARSE, |c| c["rootfs"]["Diff_IDs"] = json!([])),
        config("df-architecture", "a number as architecture", BAD, PARSE, |c| c["architecture"] = json!(64)),
        config("df-env", "text as environment", BAD, PARSE, |c| c["config"]["Env"] = json!("A=b")),
        config("df-entrypoint", "a number in the entrypoint", BAD, PARSE, |c| c["config"]["Entrypoint"] = json!([1])),
        config("df-config-list", "a list as config", BAD, PARSE, |c| c["config"] = json!([])),
        text("df-dup", "rootfs twice", BAD, |c| {
            c.replacen('{', "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]},", 1)
        }),
        text("df-trailing", "text after it", BAD, |c| format!("{c}x")),
        text("df-cut", "the first half", BAD, |c| c[..c.len() / 2].to_owned()),
        text("df-not-json", "no JSON", BAD, |_| "rootfs: {}".to_owned()),
        text("df-deep", "100 000 levels", LIMIT, |c| {
            c.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000)), 1)
        }),
        text("df-ok-blanks", "blanks and line breaks", Expect::Accepted, |c| format!("\n{}\n", c.replace(',', " ,\n"))),
        config("df-ok-null", "null where a list may be", Expect::Accepted, PARSE, |c| {
            c["config"] = json!({ "Cmd": null, "Env": null, "Labels": null, "ExposedPorts": { "80/tcp": {} } });
        }),
        config("df-ok-labels", "labels that look like our own settings", Expect::Accepted, PARSE, |c| {
            c["config"]["Labels"] =
                json!({ "windlass.dev/pin": "true", "containerd.io/gc.root": "x", "a": "\u{1b}[2J" });
        }),
        config("df-os", "an image of another system", super::NO_PLATFORM, Stage::Pull, |c| c["os"] = json!("windows")),
        config("df-ok-arm", "an architecture that is not this machine's", Expect::Accepted, PARSE, |c| {
            c["architecture"] = json!("s390x");
        }),
    ]
}
