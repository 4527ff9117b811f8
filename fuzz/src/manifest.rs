//! Indexes, manifests and image configs, against a loose reading of the same JSON.

use serde_json::Value;
use windlass_core::digest::Digest;
use windlass_core::manifest::{
    Descriptor, Document, DocumentLimits, ImageConfig, Index, Manifest, ManifestError, chain_ids, media_type,
    parse_config, parse_document,
};
use windlass_core::platform::Wanted;
use windlass_core::platform::{Platform, choose, host_platform, judge_config, rank};

/// What the transport may say a document is.
const CONTENT_TYPES: [Option<&str>; 8] = [
    None,
    Some(media_type::OCI_MANIFEST),
    Some(media_type::OCI_INDEX),
    Some(media_type::DOCKER_MANIFEST),
    Some(media_type::DOCKER_LIST),
    Some("application/json; charset=utf-8"),
    Some("Application/VND.OCI.image.manifest.v1+json ; q=1"),
    Some("text/plain"),
];

/// First byte: content type, expected type and which limits; the rest: the document.
pub fn run(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let content_type = CONTENT_TYPES[usize::from(first & 7)];
    let expected = CONTENT_TYPES[usize::from((first >> 3) & 7)].filter(|_| first & 0x40 != 0);
    let limits = if first & 0x80 == 0 { DocumentLimits::default() } else { narrow() };
    match parse_document(body, content_type, expected, &limits) {
        Ok(document) => {
            let loose = loose(body);
            assert!(body.len() as u64 <= limits.manifest_bytes);
            match &document {
                Document::Index(index) => check_index(index, &loose, &limits),
                Document::Manifest(manifest) => check_manifest(manifest, &loose, &limits),
            }
            let (Document::Index(Index { media_type, .. }) | Document::Manifest(Manifest { media_type, .. })) =
                &document;
            for said in [content_type, expected].into_iter().flatten() {
                let known = media_type::DocumentKind::of(&media_type::essence(said));
                if matches!(known, media_type::DocumentKind::Index | media_type::DocumentKind::Manifest) {
                    assert_eq!(media_type::essence(said), *media_type);
                }
            }
            if let Some(Value::String(body)) = loose.get("mediaType") {
                assert_eq!(body, media_type);
            }
            // The same bytes under the type that was found are the same document.
            let again = parse_document(body, Some(media_type), Some(media_type), &limits);
            assert_eq!(again.as_ref(), Ok(&document));
        }
        Err(error) => check_error(&error),
    }
    match parse_config(body, &limits) {
        Ok(config) => check_config(&config, &loose(body), &limits),
        Err(error) => check_error(&error),
    }
}

fn narrow() -> DocumentLimits {
    DocumentLimits {
        manifest_bytes: 1024,
        config_bytes: 1024,
        json_depth: 5,
        json_nodes: 60,
        index_entries: 3,
        layers: 3,
        layer_bytes: 1 << 20,
        embedded_bytes: 16,
        ..DocumentLimits::default()
    }
}

fn loose(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("a document that is no JSON was taken: {error}"))
}

fn check_error(error: &ManifestError) {
    let text = format!("{error}");
    assert!(text.len() < 4_000, "{} bytes of message", text.len());
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    let _ = error.reason();
}

fn check_index(index: &Index, loose: &Value, limits: &DocumentLimits) {
    let listed = loose["manifests"].as_array().expect("an index has a list");
    assert!(index.entries.len() + index.unverifiable.len() == listed.len() && listed.len() <= limits.index_entries);
    assert!(loose.get("layers").is_none() && loose.get("config").is_none());
    let mut entries = index.entries.iter();
    let mut others = index.unverifiable.iter();
    for value in listed {
        let text = value["digest"].as_str().expect("a digest is text");
        if Digest::parse(text).is_ok() {
            check_descriptor(entries.next().expect("as many as listed"), value, limits);
        } else {
            // It is kept for messages only, so it may be shortened there.
            let kept = others.next().map(|other| other.digest.chars().count());
            assert!(kept.is_some_and(|kept| kept <= 1_000), "{kept:?} of {text:?}");
        }
    }
    let host = Platform::new("linux", "amd64", Some("v3"));
    for wanted in [
        Wanted::new(&Platform::new("linux", "arm64", None)),
        Wanted::on_host(&Platform::new("linux", "amd64", None), &host).or_thirty_two_bit(),
        Wanted::new(&host_platform("linux", "arm", "CPU architecture: 7\n")),
    ] {
        let ranked = rank(index, &wanted);
        let ranks: Vec<usize> = ranked
            .iter()
            .map(|candidate| {
                candidate.descriptor.platform.as_ref().map_or(usize::MAX, |p| wanted.rank(p).expect("it fits"))
            })
            .collect();
        assert!(ranks.is_sorted());
        match choose(index, &wanted) {
            Ok(best) => assert_eq!(Some(best.descriptor), ranked.first().map(|first| first.descriptor)),
            Err(error) => assert!(ranked.is_empty() && error.to_string().len() < 200_000),
        }
    }
}

fn check_manifest(manifest: &Manifest, loose: &Value, limits: &DocumentLimits) {
    let listed = loose["layers"].as_array().expect("a manifest has a list");
    assert!(manifest.layers.len() == listed.len() && listed.len() <= limits.layers);
    assert!(loose.get("manifests").is_none());
    check_descriptor(&manifest.config, &loose["config"], limits);
    for (layer, value) in manifest.layers.iter().zip(listed) {
        check_descriptor(layer, value, limits);
    }
    for layer in &manifest.layers {
        assert!(
            manifest.layers.iter().all(|other| other.digest != layer.digest || other.size_bytes == layer.size_bytes)
        );
    }
    match manifest.layer_types(limits) {
        Ok(types) => {
            assert_eq!(types.len(), manifest.layers.len());
            assert!(manifest.config.size_bytes <= limits.config_bytes);
            assert!(manifest.layers.iter().all(|layer| layer.size_bytes <= limits.layer_bytes));
        }
        Err(error) => check_error(&error),
    }
}

fn check_descriptor(descriptor: &Descriptor, value: &Value, limits: &DocumentLimits) {
    assert_eq!(value["digest"].as_str(), Some(descriptor.digest.as_str()));
    assert_eq!(value["size"].as_u64(), Some(descriptor.size_bytes));
    assert_eq!(value["mediaType"].as_str(), Some(descriptor.media_type.as_str()));
    assert!(descriptor.size_bytes <= i64::MAX as u64 && descriptor.digest.algorithm().addresses_content());
    if let Some(data) = &descriptor.data {
        assert!(data.len() as u64 == descriptor.size_bytes && data.len() as u64 <= limits.embedded_bytes);
        assert!(descriptor.digest.matches(data));
    }
    let json = serde_json::to_string(descriptor).expect("a descriptor is JSON");
    assert_eq!(&serde_json::from_str::<Descriptor>(&json).expect("we wrote it"), descriptor);
}

fn check_config(config: &ImageConfig, loose: &Value, limits: &DocumentLimits) {
    let listed = match &loose["rootfs"]["diff_ids"] {
        Value::Null => &Vec::new(),
        other => other.as_array().expect("a list or null"),
    };
    assert!(config.diff_ids.len() == listed.len() && listed.len() <= limits.layers);
    assert!(config.diff_ids.iter().zip(listed).all(|(digest, text)| text.as_str() == Some(digest.as_str())));
    let chain = chain_ids(&config.diff_ids);
    assert_eq!(chain.len(), config.diff_ids.len());
    assert_eq!(chain.first(), config.diff_ids.first());
    for (at, diff_id) in config.diff_ids.iter().enumerate().skip(1) {
        assert_eq!(chain[at], Digest::sha256(format!("{} {diff_id}", chain[at - 1]).as_bytes()));
    }
    let platform = config.platform();
    assert_eq!(platform.normalised(), platform);
    let _ = judge_config(&Wanted::new(&Platform::new("linux", "amd64", None)), config);
}
