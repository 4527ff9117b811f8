use super::*;
use std::io::{Read as _, Write as _};
use windlass_core::manifest::media_type;

fn limits() -> DocumentLimits {
    DocumentLimits::default()
}

fn put(dir: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join(blob_name(&digest)), bytes).unwrap();
    digest
}

/// A layout whose index names one (made-up) manifest three times, by the given annotations.
fn layout(dir: &Path, annotations: &[(&str, &str)]) {
    let manifest = br#"{"schemaVersion":2}"#;
    let digest = put(dir, manifest);
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let entries: Vec<_> = annotations
        .iter()
        .map(|(key, value)| {
            serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.as_str(), "size": manifest.len(), "annotations": {*key: value}})
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

fn open(path: &Path) -> Result<Archive, PullError> {
    Archive::open(&ImageSource::Detect { path: path.to_owned() }, Path::new("/tmp"), &limits())
}

#[test]
fn sources_are_told_apart() {
    let table = [
        ("busybox", ImageSource::Registry("busybox".into())),
        ("localhost:5000/a", ImageSource::Registry("localhost:5000/a".into())),
        ("oci:/x/y", ImageSource::OciDir { path: "/x/y".into(), name: None }),
        ("oci:/x:1.4", ImageSource::OciDir { path: "/x".into(), name: Some("1.4".into()) }),
        ("oci-archive:a.tar:", ImageSource::OciArchive { path: "a.tar".into(), name: None }),
        (
            "docker-archive:a.tar:r.io/a:1",
            ImageSource::DockerArchive { path: "a.tar".into(), name: Some("r.io/a:1".into()) },
        ),
    ];
    for (text, want) in table {
        assert_eq!(ImageSource::parse(text), want, "{text}");
    }
}

#[test]
fn names_come_from_annotations_and_must_be_references() {
    let dir = tempfile::tempdir().unwrap();
    let annotations = [
        (index::REF_NAME, "1.4"),
        (index::REF_NAME, "registry.example/team/app:1.4"),
        (index::IMAGE_NAME, "docker.io/library/busybox:latest"),
        (index::REF_NAME, "../../etc/passwd"),
        (index::REF_NAME, "not a tag"),
    ];
    layout(dir.path(), &annotations);
    let archive = open(dir.path()).unwrap();
    let [image] = archive.images.as_slice() else { panic!("{:?}", archive.images) };
    assert_eq!(image.tags, ["1.4"]);
    let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
    assert_eq!(names, ["registry.example/team/app:1.4", "busybox:latest"]);
    for name in ["1.4", "busybox", "busybox:latest", "registry.example/team/app:1.4"] {
        assert!(archive.select(Some(name)).is_ok(), "{name}");
    }
    assert_eq!(archive.select(Some("other")).unwrap_err().reason(), Reason::NotFound);
    assert!(archive.select(None).is_ok());
}

#[test]
fn a_layout_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), &[(index::REF_NAME, "1")]);
    for bad in [r#"{"imageLayoutVersion":"2.0.0"}"#, "{}", "", "[]"] {
        std::fs::write(dir.path().join("oci-layout"), bad).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().reason(), Reason::BadManifest, "{bad}");
    }
    std::fs::remove_file(dir.path().join("oci-layout")).unwrap();
    assert_eq!(open(dir.path()).unwrap_err().reason(), Reason::BadManifest);
}

#[test]
fn documents_are_verified_when_read() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), &[(index::REF_NAME, "1")]);
    let archive = open(dir.path()).unwrap();
    let root = archive.images[0].root.clone();
    assert!(archive.document(&root, 1000).is_ok());
    let path = dir.path().join(blob_name(&root.digest));
    for (bytes, want) in [(&b"{\"schemaVersion\":3}"[..], Reason::DigestMismatch), (b"{}", Reason::SizeMismatch)] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(archive.document(&root, 1000).unwrap_err().reason(), want);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(archive.document(&root, 1000).unwrap_err().reason(), Reason::BlobMissing);
}

#[test]
fn both_forms_list_their_images() {
    let dir = tempfile::tempdir().unwrap();
    let plain = vec![0; 10240];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let packed = gzip.finish().unwrap();
    let diff_id = Digest::sha256(&plain);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str(), diff_id.as_str()]},
    })
    .to_string();
    let item = serde_json::json!([{
        "Config": "c.json", "RepoTags": ["busybox:1", "BAD NAME"], "Layers": ["a/layer.tar", "b/layer.tar"],
    }]);
    for (name, bytes) in [
        ("c.json", config.as_bytes()),
        ("a/layer.tar", &plain),
        ("b/layer.tar", &packed),
        ("manifest.json", item.to_string().as_bytes()),
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let archive = open(dir.path()).unwrap();
    let image = archive.select(Some("busybox:1")).unwrap();
    assert_eq!(image.names.len(), 1);
    let manifest = archive.document(&image.root, 1 << 20).unwrap();
    let Ok(windlass_core::manifest::Document::Manifest(manifest)) =
        windlass_core::manifest::parse_document(&manifest, None, Some(&image.root.media_type), &limits())
    else {
        panic!("the manifest made is not one")
    };
    let kinds: Vec<_> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
    assert_eq!(kinds, [media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP]);
    assert_eq!(manifest.layers[0].digest, diff_id);
    for (layer, want) in manifest.layers.iter().zip([&plain, &packed]) {
        let mut bytes = Vec::new();
        archive.blob(&layer.digest).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(&bytes, want);
        assert!(layer.digest.matches(&bytes) && layer.size_bytes == bytes.len() as u64);
    }
    assert_eq!(manifest.config.digest, Digest::sha256(config.as_bytes()));
}
