//! The rules of documents, one row each.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;
use crate::reason::Reason;

/// `sha256` of `{}`, the empty descriptor of image-spec `manifest.md`.
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": EMPTY, "size": 2})
}

/// Some blob that is not the empty one.
fn other(media_type: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(b"other"), "size": size})
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG),
        "layers": [descriptor(media_type::OCI_LAYER_GZIP)],
    })
}

fn index() -> Value {
    let mut entry = descriptor(media_type::OCI_MANIFEST);
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]})
}

fn config() -> Value {
    json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [EMPTY]},
        "config": {"Env": ["A=b"], "Cmd": null, "Labels": {"Os": "x"}}, "history": [{"created_by": "x", "empty_layer": true}]})
}

/// `base` with the value at `pointer` replaced (or, for null, the key removed where `with` is `Value::Null`).
fn edited(base: Value, pointer: &str, with: Value) -> Vec<u8> {
    let mut document = base;
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match document.pointer_mut(parent).expect("the parent exists") {
        Value::Object(map) => drop(map.insert(key.to_owned(), with)),
        Value::Array(list) => list[key.parse::<usize>().expect("a position")] = with,
        other => panic!("{other} has no fields"),
    }
    document.to_string().into_bytes()
}

fn without(mut base: Value, key: &str) -> Vec<u8> {
    base.as_object_mut().expect("an object").remove(key);
    base.to_string().into_bytes()
}

fn read(bytes: &[u8]) -> Result<Document, ManifestError> {
    parse_document(bytes, None, None, &DocumentLimits::default())
}

#[test]
fn good_documents_are_read() {
    let Ok(Document::Manifest(read_manifest)) = read(manifest().to_string().as_bytes()) else { panic!("a manifest") };
    assert_eq!(read_manifest.config.digest.as_str(), EMPTY);
    let types = read_manifest.layer_types(&DocumentLimits::default()).expect("an image");
    assert_eq!(types, [LayerType { compression: Compression::Gzip, foreign: false }]);
    let Ok(Document::Index(read_index)) = read(index().to_string().as_bytes()) else { panic!("an index") };
    assert_eq!(read_index.entries[0].platform.as_ref().map(ToString::to_string), Some("linux/amd64".to_owned()));
    let read_config = parse_config(config().to_string().as_bytes(), &DocumentLimits::default()).expect("a config");
    assert_eq!(read_config.run.env, ["A=b"]);
    assert_eq!(read_config.check_layers(&read_manifest), Ok(()));
}

#[test]
fn documents_that_break_a_rule_are_refused() {
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let text = manifest().to_string();
    let bom = [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat();
    let table: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("empty body", Vec::new(), Reason::BadManifest),
        ("not JSON", b"{".to_vec(), Reason::BadManifest),
        ("empty object", b"{}".to_vec(), Reason::NotAnImage),
        ("registry error", br#"{"errors":[{"code":"DENIED"}]}"#.to_vec(), Reason::NotAnImage),
        ("null", b"null".to_vec(), Reason::BadManifest),
        ("array", b"[]".to_vec(), Reason::BadManifest),
        ("web page", b"\n <!DOCTYPE html><html>".to_vec(), Reason::NotAnImage),
        ("byte-order mark", bom, Reason::BadManifest),
        ("trailing text", format!("{text} x").into_bytes(), Reason::BadManifest),
        ("trailing value", format!("{text}{text}").into_bytes(), Reason::BadManifest),
        ("not UTF-8", b"{\"schemaVersion\":2,\"mediaType\":\"\xff\"}".to_vec(), Reason::BadManifest),
        ("twice layers", text.replacen('{', "{\"layers\":[],", 1).into_bytes(), Reason::BadManifest),
        ("twice deep", text.replacen("\"size\":2", "\"size\":2,\"size\":2", 1).into_bytes(), Reason::BadManifest),
        ("twice escaped", text.replacen('{', "{\"l\\u0061yers\":[],", 1).into_bytes(), Reason::BadManifest),
        ("other case", edited(manifest(), "/Layers", json!([])), Reason::BadManifest),
        ("other case deep", edited(manifest(), "/config/Digest", json!(EMPTY)), Reason::BadManifest),
        ("long s", edited(manifest(), "/layer\u{17f}", json!([])), Reason::BadManifest),
        ("schema 1", edited(manifest(), "/schemaVersion", json!(1)), Reason::UnsupportedMediaType),
        ("schema 1 type", edited(manifest(), "/mediaType", json!(media_type::SCHEMA_1)), Reason::UnsupportedMediaType),
        ("schema 3", edited(manifest(), "/schemaVersion", json!(3)), Reason::BadManifest),
        ("schema text", edited(manifest(), "/schemaVersion", json!("2")), Reason::BadManifest),
        (
            "schema 2.0",
            text.replacen(":2", ":2.0", 1).replace("\"schemaVersion\":2,", "\"schemaVersion\":2.0,").into_bytes(),
            Reason::BadManifest,
        ),
        ("no schema", without(manifest(), "schemaVersion"), Reason::BadManifest),
        ("both kinds", edited(manifest(), "/manifests", json!([])), Reason::BadManifest),
        ("both kinds, null", edited(index(), "/config", Value::Null), Reason::BadManifest),
        ("both kinds, fsLayers", edited(index(), "/fsLayers", json!([])), Reason::BadManifest),
        ("type lie", edited(manifest(), "/mediaType", json!(media_type::OCI_INDEX)), Reason::BadManifest),
        ("odd type", edited(manifest(), "/mediaType", json!("application/x")), Reason::NotAnImage),
        ("null config", edited(manifest(), "/config", Value::Null), Reason::BadManifest),
        ("no config", without(manifest(), "config"), Reason::BadManifest),
        ("null layers", edited(manifest(), "/layers", Value::Null), Reason::BadManifest),
        ("layers object", edited(manifest(), "/layers", json!({})), Reason::BadManifest),
        ("null layer", edited(manifest(), "/layers/0", Value::Null), Reason::BadManifest),
        ("null entry", edited(index(), "/manifests/0", Value::Null), Reason::BadManifest),
        ("null manifests", edited(index(), "/manifests", Value::Null), Reason::BadManifest),
        ("no digest", edited(manifest(), "/config/digest", Value::Null), Reason::BadManifest),
        ("empty digest", edited(manifest(), "/config/digest", json!("")), Reason::BadManifest),
        ("upper digest", edited(manifest(), "/config/digest", json!(EMPTY.to_uppercase())), Reason::BadManifest),
        ("traversal", edited(manifest(), "/layers/0/digest", json!("sha256:../../etc/passwd")), Reason::BadManifest),
        ("traversal entry", edited(index(), "/manifests/0/digest", json!("x:../../etc/passwd")), Reason::BadManifest),
        ("unknown hash", edited(manifest(), "/layers/0/digest", json!("md5:abc")), Reason::BadManifest),
        (
            "sha384",
            edited(manifest(), "/layers/0/digest", json!(format!("sha384:{}", "a".repeat(96)))),
            Reason::BadManifest,
        ),
        ("negative size", edited(manifest(), "/layers/0/size", json!(-1)), Reason::BadManifest),
        ("float size", edited(manifest(), "/layers/0/size", json!(2.0)), Reason::BadManifest),
        ("text size", edited(manifest(), "/layers/0/size", json!("2")), Reason::BadManifest),
        ("null size", edited(manifest(), "/layers/0/size", Value::Null), Reason::BadManifest),
        ("size 2^63", edited(manifest(), "/layers/0/size", json!(1_u64 << 63)), Reason::BadManifest),
        ("two sizes of one blob", edited(manifest(), "/layers/0/size", json!(3)), Reason::BadManifest),
        ("exponent", text.replacen("\"size\":2", "\"size\":1e3", 1).into_bytes(), Reason::BadManifest),
        ("huge number", text.replacen("\"size\":2", "\"size\":1e999", 1).into_bytes(), Reason::BadManifest),
        ("annotation", edited(manifest(), "/annotations", json!({"a": 1})), Reason::BadManifest),
        ("urls", edited(manifest(), "/layers/0/urls", json!("https://x")), Reason::BadManifest),
        ("platform text", edited(index(), "/manifests/0/platform", json!("linux/amd64")), Reason::BadManifest),
        ("data, wrong bytes", edited(manifest(), "/config/data", json!("e3s=")), Reason::BadManifest),
        ("data, wrong size", edited(manifest(), "/config/data", json!("e30K")), Reason::BadManifest),
        ("data, not base64", edited(manifest(), "/config/data", json!("e3")), Reason::BadManifest),
        ("subject", edited(manifest(), "/subject", json!({"digest": EMPTY})), Reason::BadManifest),
    ];
    for (name, bytes, reason) in table {
        match read(&bytes) {
            Err(error) => assert_eq!(error.reason(), reason, "{name}: {error}"),
            Ok(document) => panic!("{name} was accepted: {document:?}"),
        }
    }
    // Well formed, but nothing that can run.
    let table = [
        ("encrypted", edited(manifest(), "/layers/0/mediaType", json!(encrypted)), "encrypted"),
        ("unknown layer", edited(manifest(), "/layers/0/mediaType", json!("application/x")), "application/x"),
        ("helm", edited(manifest(), "/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json")), "Helm"),
        ("empty config", edited(manifest(), "/config/mediaType", json!(media_type::OCI_EMPTY)), "artifact"),
        ("huge layer", edited(manifest(), "/layers/0", other(media_type::OCI_LAYER, 1 << 62)), "layerBytes"),
        ("huge config", edited(manifest(), "/config", other(media_type::OCI_CONFIG, 9 << 20)), "configBytes"),
    ];
    for (name, bytes, word) in table {
        let Ok(Document::Manifest(manifest)) = read(&bytes) else { panic!("{name} is a manifest") };
        let error = manifest.layer_types(&DocumentLimits::default()).expect_err(name);
        assert!(error.to_string().contains(word), "{name}: {error}");
        assert_ne!(error.reason(), Reason::BadManifest, "{name}");
    }
}

#[test]
fn transport_parent_and_body_must_agree() {
    use media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, SCHEMA_1_SIGNED};
    let limits = DocumentLimits::default();
    let typed = manifest().to_string().into_bytes();
    let untyped = without(manifest(), "mediaType");
    let untyped_index = without(index(), "mediaType");
    type Row<'a> = (&'a str, &'a [u8], Option<&'a str>, Option<&'a str>, Result<&'a str, Reason>);
    // name, bytes, Content-Type, type in the parent, media type agreed
    let table: [Row<'_>; 17] = [
        ("all agree", &typed, Some(OCI_MANIFEST), Some(OCI_MANIFEST), Ok(OCI_MANIFEST)),
        (
            "parameters",
            &typed,
            Some("Application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            None,
            Ok(OCI_MANIFEST),
        ),
        ("neutral", &typed, Some("application/json"), None, Ok(OCI_MANIFEST)),
        ("plain text", &typed, Some("text/plain"), None, Ok(OCI_MANIFEST)),
        ("empty type", &typed, Some(""), None, Ok(OCI_MANIFEST)),
        ("by the header", &untyped, Some(DOCKER_MANIFEST), None, Ok(DOCKER_MANIFEST)),
        ("by the fields", &untyped, None, None, Ok(OCI_MANIFEST)),
        ("by fields and parent", &untyped, None, Some(DOCKER_MANIFEST), Ok(DOCKER_MANIFEST)),
        ("index by the fields", &untyped_index, None, None, Ok(OCI_INDEX)),
        ("header lies", &typed, Some(OCI_INDEX), None, Err(Reason::BadManifest)),
        ("header of a relative", &typed, Some(DOCKER_MANIFEST), None, Err(Reason::BadManifest)),
        ("parent lies", &typed, Some(OCI_MANIFEST), Some(DOCKER_LIST), Err(Reason::BadManifest)),
        ("fields against the header", &untyped, Some(OCI_INDEX), None, Err(Reason::BadManifest)),
        ("fields against the parent", &untyped, None, Some(OCI_INDEX), Err(Reason::BadManifest)),
        ("page", &typed, Some("text/html; charset=utf-8"), None, Err(Reason::NotAnImage)),
        ("schema 1 header", &untyped, Some(SCHEMA_1_SIGNED), None, Err(Reason::UnsupportedMediaType)),
        ("other header", &typed, Some("image/png"), None, Err(Reason::NotAnImage)),
    ];
    for (name, bytes, content_type, expected, want) in table {
        let found = match parse_document(bytes, content_type, expected, &limits) {
            Ok(Document::Index(index)) => Ok(index.media_type),
            Ok(Document::Manifest(manifest)) => Ok(manifest.media_type),
            Err(error) => Err(error.reason()),
        };
        assert_eq!(found, want.map(str::to_owned), "{name}");
    }
}

#[test]
fn index_entries_that_are_not_needed_do_no_harm() {
    let mut document = index();
    let unknown = json!({"mediaType": media_type::OCI_MANIFEST, "digest": "blake3:abc", "size": 2, "platform": {"os": "plan9", "architecture": "386"}});
    let list = document["manifests"].as_array_mut().expect("a list");
    list.push(unknown);
    list.push(descriptor("application/vnd.example.unknown"));
    list.push(json!({"mediaType": media_type::OCI_MANIFEST, "digest": EMPTY, "size": 2, "platform": {}, "annotations": null, "urls": null}));
    let Ok(Document::Index(index)) = read(document.to_string().as_bytes()) else { panic!("an index") };
    assert_eq!((index.entries.len(), index.unverifiable.len()), (3, 1));
    assert_eq!(index.entries[2].platform, None);
}

#[test]
fn embedded_data_is_verified_and_bounded() {
    let bytes = edited(manifest(), "/config/data", json!("e30="));
    let Ok(Document::Manifest(with_data)) = read(&bytes) else { panic!("a manifest") };
    assert_eq!(with_data.config.data.as_deref(), Some(b"{}".as_slice()));
    let limits = DocumentLimits { embedded_bytes: 1, ..DocumentLimits::default() };
    let Ok(Document::Manifest(ignored)) = parse_document(&bytes, None, None, &limits) else { panic!("a manifest") };
    assert_eq!(ignored.config.data, None);
}

#[test]
fn limits_bind() {
    let default = DocumentLimits::default();
    let nested = |depth: usize| {
        let mut document = manifest().to_string();
        document.insert_str(1, &format!("\"x\":{}{},", "[".repeat(depth), "]".repeat(depth)));
        document.into_bytes()
    };
    // The document itself is one level.
    assert!(read(&nested(63)).is_ok());
    let many = |count: usize| edited(manifest(), "/x", json!(vec![0; count]));
    let layers = |count: usize| edited(manifest(), "/layers", json!(vec![descriptor(media_type::OCI_LAYER); count]));
    let entries =
        |count: usize| edited(index(), "/manifests", json!(vec![descriptor(media_type::OCI_MANIFEST); count]));
    assert!(read(&layers(500)).is_ok() && read(&entries(4096)).is_ok());
    let table = [
        ("jsonDepth", nested(70)),
        ("jsonDepth", nested(100_000)),
        ("jsonNodes", many(200_000)),
        ("layers", layers(501)),
        ("indexEntries", entries(4097)),
        ("manifestBytes", vec![b' '; 4 * 1024 * 1024 + 1]),
    ];
    for (key, bytes) in table {
        let error = read(&bytes).expect_err(key);
        assert!(matches!(error, ManifestError::Limit { what, .. } if what == key), "{key}: {error}");
        assert_eq!(error.reason(), Reason::LimitExceeded);
    }
    let config = parse_config(&vec![b' '; 8 * 1024 * 1024 + 1], &default).expect_err("too long");
    assert!(matches!(config, ManifestError::Limit { what: "configBytes", .. }), "{config}");
}

#[test]
fn a_walk_visits_each_document_once_and_not_for_ever() {
    let limits = DocumentLimits { documents: 2, ..DocumentLimits::default() };
    let mut walk = IndexWalk::default();
    let digests: Vec<Digest> = (0..3_u8).map(|n| Digest::sha256(&[n])).collect();
    assert_eq!(walk.enter(&digests[0], 0, &limits), Ok(true));
    assert_eq!(walk.enter(&digests[0], 1, &limits), Ok(false));
    assert_eq!(walk.enter(&digests[1], 4, &limits), Ok(true));
    assert!(matches!(walk.enter(&digests[2], 5, &limits), Err(ManifestError::Limit { what: "indexDepth", .. })));
    assert!(matches!(walk.enter(&digests[2], 1, &limits), Err(ManifestError::Limit { what: "documents", .. })));
}

#[test]
fn configs_that_break_a_rule_are_refused() {
    let table = [
        ("no rootfs", without(config(), "rootfs")),
        ("rootfs type", edited(config(), "/rootfs/type", json!("tree"))),
        ("no diff ids", edited(config(), "/rootfs", json!({"type": "layers"}))),
        ("bad diff id", edited(config(), "/rootfs/diff_ids/0", json!("sha256:xyz"))),
        ("unknown hash", edited(config(), "/rootfs/diff_ids/0", json!("md5:abc"))),
        ("case", edited(config(), "/RootFS", json!({}))),
        ("env", edited(config(), "/config/Env", json!("A=b"))),
        ("entrypoint", edited(config(), "/config/Entrypoint", json!([1]))),
        ("architecture", edited(config(), "/architecture", json!(64))),
        ("history", edited(config(), "/history/0/empty_layer", json!("yes"))),
        ("twice", config().to_string().replacen('{', "{\"os\":\"x\",", 1).into_bytes()),
    ];
    for (name, bytes) in table {
        let error = parse_config(&bytes, &DocumentLimits::default()).expect_err(name);
        assert_eq!(error.reason(), Reason::BadManifest, "{name}: {error}");
    }
    let two = edited(config(), "/rootfs/diff_ids", json!([EMPTY, EMPTY]));
    let two = parse_config(&two, &DocumentLimits::default()).expect("well formed");
    let Ok(Document::Manifest(one)) = read(manifest().to_string().as_bytes()) else { panic!("a manifest") };
    assert_eq!(two.check_layers(&one), Err(ManifestError::LayerCount { diff_ids: 2, layers: 1 }));
}

#[test]
fn chain_ids_follow_the_specification() {
    let ids: Vec<Digest> = [b"a", b"b", b"c"].map(|text| Digest::sha256(text)).to_vec();
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    // From `printf 'sha256:ca97... sha256:3e23...' | sha256sum` with coreutils.
    assert_eq!(chain[1].as_str(), CHAIN_OF_A_AND_B);
    assert_eq!(chain[2], Digest::sha256(format!("{} {}", chain[1], ids[2]).as_bytes()));
    assert!(chain_ids(&[]).is_empty());
}

const CHAIN_OF_A_AND_B: &str = "sha256:51c0c8ace48498d6f5fee6b0592cc06f2da0f3cbe09c5a34a97dce85c3889676";

#[test]
fn a_written_descriptor_reads_back() {
    let Ok(Document::Index(index)) = read(index().to_string().as_bytes()) else { panic!("an index") };
    let mut entry = index.entries[0].clone();
    entry.data = Some(b"{}".to_vec());
    let text = serde_json::to_string(&entry).expect("plain data");
    assert_eq!(serde_json::from_str::<Descriptor>(&text).expect("our own text"), entry);
    let bytes = format!(r#"{{"schemaVersion":2,"manifests":[{text}]}}"#);
    let Ok(Document::Index(again)) = read(bytes.as_bytes()) else { panic!("an index") };
    assert_eq!(again.entries, [entry]);
}

#[test]
fn errors_are_short_and_printable() {
    let long = "\u{1b}[2J".repeat(10_000);
    let error = read(&edited(manifest(), "/mediaType", json!(long))).expect_err("odd type").to_string();
    assert!(error.len() < 2_000 && !error.contains('\u{1b}'), "{error}");
}

fn json_value() -> impl Strategy<Value = Value> {
    let key = "schemaVersion|mediaType|config|layers|manifests|digest|size|platform|data|[a-zA-Z]{1,3}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!(2)),
        Just(json!(EMPTY)),
        Just(json!(media_type::OCI_MANIFEST)),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), value in json_value()) {
        let limits = DocumentLimits::default();
        let text = value.to_string();
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            // Only that they return is promised; most are refused.
            drop((parse_document(bytes, None, None, &limits), parse_config(bytes, &limits)));
        }
    }

    #[test]
    fn a_manifest_cut_short_is_refused(at in 0_usize..300) {
        let text = manifest().to_string();
        prop_assume!(at < text.len());
        prop_assert!(read(&text.as_bytes()[..at]).is_err());
    }
}
