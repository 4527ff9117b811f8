//! Images out of archives and into them: load, save, and fetching dropped layers again.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::Rig;
use windlass_core::keyring::Mode;
use windlass_core::manifest::media_type;
use windlass_core::reason::Reason;
use windlass_pull::events::Silent;
use windlass_pull::{
    ImageSource, LoadRequest, PullError, PullOptions, PullReport, Recompress, SaveFormat, SaveRequest,
};
use windlass_registry::route::RouteKind;
use windlass_store::SnapshotFormat;
use windlass_testkit::images::{Compression, Entry, Image, Index, Layer, incompressible, small, small_for};
use windlass_testkit::registry::TestRegistry;

async fn load(rig: &Rig, path: &Path, name: Option<&str>) -> Result<Vec<PullReport>, PullError> {
    let source = ImageSource::Detect { path: path.to_owned() };
    let request = LoadRequest { source, name: name.map(str::to_owned), options: PullOptions::default() };
    rig.engine.load(request, Arc::new(Silent)).await
}

fn save(images: &[&str], format: SaveFormat, path: &Path) -> SaveRequest {
    let images = images.iter().map(|image| (*image).to_owned()).collect();
    SaveRequest {
        images,
        format,
        path: path.to_owned(),
        mode: Mode::Windlass,
        recompress: Recompress::No,
        options: PullOptions::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_and_docker_archives_are_loaded() {
    let rig = Rig::new();
    let image = small("one");
    image.bundle().write_layout(&rig.path("layout"), "1.4");
    image.bundle().write_layout_tar(&rig.path("layout.tar"), "1.4");
    image.write_docker_archive(&rig.path("docker.tar"), "registry.example/team/app:2");
    let error = load(&rig, &rig.path("layout"), None).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidReference, "a bare tag needs a name from the caller: {error}");
    for (file, name) in [("layout", Some("team/app:1")), ("layout.tar", Some("team/app:2")), ("docker.tar", None)] {
        let reports = load(&rig, &rig.path(file), name).await.unwrap();
        assert_eq!(&reports[0].id, image.id(), "{file}");
        assert_eq!(reports[0].requests, 0);
    }
    for name in ["team/app:1", "docker.io/team/app:2", "registry.example/team/app:2"] {
        let found = rig.engine.store().find(name).unwrap().unwrap();
        assert_eq!((&found.id, found.damage.clone()), (image.id(), None), "{name}");
        assert!(found.sources.is_empty(), "an archive cannot serve it again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_the_entry_for_the_platform_is_loaded() {
    let rig = Rig::new();
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "amd64", None)]);
    index.bundle().write_layout(&rig.path("layout"), "1");
    let reports = load(&rig, &rig.path("layout"), Some("app:1")).await.unwrap();
    assert_eq!(reports[0].platform, "linux/amd64");
    assert_ne!(reports[0].digest, reports[0].manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_pass_the_same_checks_as_pulls() {
    let image = small("one");
    let layer = image.layers[0].blob.digest.clone();
    let blob = |dir: &Path, hex: &str| dir.join("blobs/sha256").join(hex);
    type Spoil = Box<dyn Fn(&Path)>;
    let table: [(&str, Spoil, Reason); 3] = [
        (
            "missing layer",
            Box::new(move |dir| std::fs::remove_file(blob(dir, layer.hex())).unwrap()),
            Reason::BlobMissing,
        ),
        (
            "other layer",
            Box::new({
                let layer = image.layers[1].blob.digest.clone();
                move |dir| {
                    let path = blob(dir, layer.hex());
                    let mut bytes = std::fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(path, bytes).unwrap();
                }
            }),
            Reason::DigestMismatch,
        ),
        (
            "config of another image",
            Box::new({
                let config = image.config.digest.clone();
                move |dir| std::fs::write(blob(dir, config.hex()), b"{}").unwrap()
            }),
            Reason::SizeMismatch,
        ),
    ];
    for (what, spoil, want) in table {
        let rig = Rig::new();
        let dir = rig.path(what);
        image.bundle().write_layout(&dir, "1");
        spoil(&dir);
        let error = load(&rig, &dir, Some("app:1")).await.unwrap_err();
        assert_eq!(error.reason(), want, "{what}: {error:?}");
        assert!(rig.engine.store().find("app:1").unwrap().is_none(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_image_is_the_saved_one() {
    let registry = TestRegistry::open();
    let image = Image::build()
        .layer(Layer::new([Entry::file("a", incompressible(100_000, 1))]))
        .layer(Layer::new([Entry::file("b", "b")]).compression(Compression::Zstd))
        .layer(Layer::new([Entry::file("c", "c")]).compression(Compression::None))
        .finish();
    let index = Index::of([small_for("other", "arm64", Some("v8")), image.clone()]);
    let reference = registry.place(&index.bundle(), "team/app", "1.4");
    let rig = Rig::of_format(SnapshotFormat::Overlay).unwrap();
    let pulled = rig.pull(&reference).await.unwrap();
    registry.take_requests();
    for (file, format) in
        [("dir", SaveFormat::OciDir), ("oci.tar", SaveFormat::OciArchive), ("docker.tar", SaveFormat::DockerArchive)]
    {
        let path = rig.path(file);
        let report = rig.engine.save(save(&[&reference], format, &path)).await.unwrap();
        assert_eq!(report.fetched_again, 3, "{file}: the store dropped the layers");
        assert_eq!(registry.count("GET", RouteKind::Blob), 3, "{file}");
        registry.take_requests();
        let fresh = Rig::new();
        let loaded = load(&fresh, &path, None).await.unwrap();
        assert_eq!(loaded[0].id, pulled.id, "{file}");
        if format != SaveFormat::DockerArchive {
            assert_eq!((&loaded[0].digest, &loaded[0].manifest), (&pulled.digest, &pulled.manifest), "{file}");
        }
        let found = fresh.engine.store().find(&reference).unwrap().unwrap();
        assert_eq!(found.damage, None);
        // Loaded layers are kept: saving needs nobody.
        let report = fresh.engine.save(save(&[&reference], SaveFormat::OciArchive, &fresh.path("again.tar"))).await;
        assert_eq!(report.unwrap().fetched_again, 0, "{file}");
        assert!(registry.take_requests().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_nobody_has_is_named_with_its_source() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let rig = Rig::new();
    let pulled = rig.pull(&reference).await.unwrap();
    let image = small("one");
    let layer = image.layers[0].blob.digest.hex();
    let mut found = Vec::new();
    find(registry.root(), layer, &mut found);
    assert!(!found.is_empty(), "the registry keeps the layer somewhere");
    for path in found {
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    let path = rig.path("x.tar");
    let error = rig.engine.save(save(&[pulled.id.as_str()], SaveFormat::OciArchive, &path)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::BlobMissing, "{error:?}");
    let said = error.chain();
    assert!(said.contains(layer) && said.contains(&registry.host()), "{said}");
    assert!(!path.exists());
}

fn find(dir: &Path, part: &str, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(part) {
            found.push(path);
        } else if path.is_dir() {
            find(&path, part, found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_keeps_layers_that_a_pull_had_dropped() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "app", "1");
    let rig = Rig::new();
    rig.pull(&reference).await.unwrap();
    image.bundle().write_layout(&rig.path("layout"), "1");
    load(&rig, &rig.path("layout"), Some(&reference)).await.unwrap();
    drop(registry);
    let report = rig.engine.save(save(&[&reference], SaveFormat::OciArchive, &rig.path("x.tar"))).await.unwrap();
    assert_eq!(report.fetched_again, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_share_one_archive() {
    let registry = TestRegistry::open();
    let rig = Rig::of_format(SnapshotFormat::Overlay).unwrap();
    let one = registry.place(&small("one").bundle(), "app", "1");
    let two = registry.place(&small("two").bundle(), "app", "2");
    rig.pull(&one).await.unwrap();
    rig.pull(&two).await.unwrap();
    for (file, format) in [("oci.tar", SaveFormat::OciArchive), ("docker.tar", SaveFormat::DockerArchive)] {
        let report = rig.engine.save(save(&[&one, &two], format, &rig.path(file))).await.unwrap();
        assert_eq!(report.fetched_again, 3, "{file}: the layer they share is fetched once");
        let fresh = Rig::new();
        assert_eq!(load(&fresh, &rig.path(file), None).await.unwrap().len(), 2);
        for name in [&one, &two] {
            assert!(fresh.engine.store().find(name).unwrap().is_some(), "{file} {name}");
        }
    }
    let unknown = rig.engine.save(save(&["nobody/knows:1"], SaveFormat::OciDir, &rig.path("no"))).await.unwrap_err();
    assert_eq!(unknown.reason(), Reason::ImageUnknown);
}

/// The entries of a layout's `index.json`: media type and digest.
fn entries(dir: &Path) -> Vec<(String, String)> {
    let index = std::fs::read(dir.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = index["manifests"].as_array().unwrap().iter();
    entries.map(|entry| (text(entry, "mediaType"), text(entry, "digest"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_out_of_an_index_is_saved_as_its_manifest() {
    let registry = TestRegistry::open();
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "amd64", None)]);
    let tagged = registry.place(&index.bundle(), "app", "1");
    let rig = Rig::new();
    let pulled = rig.pull(&tagged).await.unwrap();
    let by_digest = format!("{}/app@{}", registry.host(), pulled.digest);
    rig.pull(&by_digest).await.unwrap();
    let table = [
        // asked for, what the entry is
        ("tag", &tagged, media_type::OCI_MANIFEST, &pulled.manifest),
        ("digest", &by_digest, media_type::OCI_INDEX, &pulled.digest),
    ];
    for (dir, name, kind, digest) in table {
        let path = rig.path(dir);
        rig.engine.save(save(&[name], SaveFormat::OciDir, &path)).await.unwrap();
        assert_eq!(entries(&path), [(kind.to_owned(), digest.to_string())], "{dir}");
        let fresh = Rig::new();
        let loaded = load(&fresh, &path, None).await.unwrap();
        assert_eq!((&loaded[0].digest, &loaded[0].manifest), (&pulled.digest, &pulled.manifest), "{dir}");
        assert!(fresh.engine.store().find(&by_digest).unwrap().is_some(), "{dir}: the index's digest names it");
    }
    // An index that does not list the manifest is no index of it.
    let path = rig.path("tag");
    let text = std::fs::read_to_string(path.join("index.json")).unwrap();
    let other = Index::of([small("other")]).index;
    std::fs::write(path.join("blobs/sha256").join(other.digest.hex()), &other.bytes).unwrap();
    let text = text.replace(pulled.digest.as_str(), other.digest.as_str());
    std::fs::write(path.join("index.json"), text).unwrap();
    let loaded = load(&Rig::new(), &path, None).await.unwrap();
    assert_eq!(loaded[0].digest, pulled.manifest);
}

/// Layers of every compression, and one below that two images share.
fn compressed() -> Image {
    Image::build()
        .layer(Layer::new([Entry::file("a", incompressible(100_000, 1))]))
        .layer(Layer::new([Entry::file("b", "b".repeat(50_000))]).compression(Compression::Zstd))
        .layer(Layer::new([Entry::file("c", "c")]).compression(Compression::None))
        .finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_archive_needs_no_registry_for_image_files() {
    let Some(rig) = Rig::of_format(SnapshotFormat::Erofs) else { return };
    let registry = TestRegistry::open();
    let image = compressed();
    let reference = registry.place(&image.bundle(), "app", "1");
    rig.pull(&reference).await.unwrap();
    drop(registry);
    let path = rig.path("docker.tar");
    let report = rig.engine.save(save(&[&reference], SaveFormat::DockerArchive, &path)).await.unwrap();
    assert_eq!((report.fetched_again, report.recompressed), (0, Vec::new()));
    let fresh = Rig::new();
    let loaded = load(&fresh, &path, None).await.unwrap();
    assert_eq!(&loaded[0].id, image.id());
    let found = fresh.engine.store().find(&reference).unwrap().unwrap();
    let diff_ids =
        |layers: &[windlass_store::LayerRecord]| layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>();
    assert_eq!(diff_ids(&found.layers), image.layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncompressed_layer_comes_out_of_its_image_file() {
    let Some(rig) = Rig::of_format(SnapshotFormat::Erofs) else { return };
    let registry = TestRegistry::open();
    let plain = |text: &str| Layer::new([Entry::file(text, text)]).compression(Compression::None);
    let image = Image::build().layer(plain("one")).layer(plain("two")).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let pulled = rig.pull(&reference).await.unwrap();
    drop(registry);
    let path = rig.path("dir");
    let report = rig.engine.save(save(&[&reference], SaveFormat::OciDir, &path)).await.unwrap();
    assert_eq!((report.fetched_again, report.recompressed), (0, Vec::new()));
    assert_eq!(entries(&path), [(media_type::OCI_MANIFEST.to_owned(), pulled.manifest.to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_compressed_anew_when_asked() {
    let Some(rig) = Rig::of_format(SnapshotFormat::Erofs) else { return };
    let registry = TestRegistry::open();
    let image = compressed();
    let index = Index::of([small_for("other", "arm64", Some("v8")), image.clone()]);
    let reference = registry.place(&index.bundle(), "team/app", "1");
    let pulled = rig.pull(&reference).await.unwrap();
    let by_digest = format!("{}/team/app@{}", registry.host(), pulled.digest);
    rig.pull(&by_digest).await.unwrap();
    registry.take_requests();
    let anew = |name: &str, path: &Path| SaveRequest {
        recompress: Recompress::Yes,
        ..save(&[name], SaveFormat::OciDir, path)
    };
    // While the registry serves them, the blobs stay what they are.
    let report = rig.engine.save(anew(&reference, &rig.path("served"))).await.unwrap();
    assert_eq!((report.fetched_again, report.recompressed), (2, Vec::new()));
    assert_eq!(entries(&rig.path("served"))[0].1, pulled.manifest.to_string());
    drop(registry);
    let path = rig.path("refused");
    let error = rig.engine.save(save(&[&reference], SaveFormat::OciDir, &path)).await.unwrap_err();
    assert!(matches!(error, PullError::Recompressible { .. }), "{error:?}");
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    assert!(error.hint().contains("--recompress"), "{}", error.hint());
    assert!(!path.exists());
    for (dir, name) in [("one", &reference), ("two", &by_digest)] {
        let path = rig.path(dir);
        let report = rig.engine.save(anew(name, &path)).await.unwrap();
        let [told] = report.recompressed.as_slice() else { panic!("{report:?}") };
        assert_eq!((&told.image, &told.stored, told.layers), (image.id(), &pulled.manifest, 2), "{dir}");
        assert_eq!(entries(&path), [(media_type::OCI_MANIFEST.to_owned(), told.written.to_string())], "{dir}");
        let index = std::fs::read_to_string(path.join("index.json")).unwrap();
        assert!(!index.contains(pulled.digest.as_str()), "{dir}: neither a name nor a note means the index: {index}");
        let fresh = Rig::new();
        let loaded = load(&fresh, &path, None).await.unwrap();
        assert_eq!((&loaded[0].id, &loaded[0].manifest), (image.id(), &told.written), "{dir}");
        let found = fresh.engine.store().find(image.id().as_str()).unwrap().unwrap();
        for (layer, own) in found.layers.iter().zip(&image.layers) {
            assert_eq!((&layer.diff_id, &layer.media_type), (&own.diff_id, &own.blob.media_type), "{dir}");
        }
        let last = image.layers.last().unwrap();
        assert_eq!(found.layers.last().unwrap().blob, last.blob.digest, "an uncompressed layer needs nothing");
    }
}

/// The image files of a store.
fn image_files(rig: &Rig) -> Vec<std::path::PathBuf> {
    let snapshots = std::fs::read_dir(rig.engine.store().root().join("snapshots")).unwrap();
    snapshots.map(|entry| entry.unwrap().path().join("image")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tar_is_not_compressed_anew() {
    let Some(rig) = Rig::of_format(SnapshotFormat::Erofs) else { return };
    let registry = TestRegistry::open();
    let reference = registry.place(&compressed().bundle(), "app", "1");
    rig.pull(&reference).await.unwrap();
    drop(registry);
    for path in image_files(&rig) {
        use std::os::unix::fs::FileExt as _;
        // In the first header of the tar.
        std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"x", 4096 + 300).unwrap();
    }
    for format in [SaveFormat::OciDir, SaveFormat::DockerArchive] {
        let path = rig.path("out");
        let request = SaveRequest { recompress: Recompress::Yes, ..save(&[&reference], format, &path) };
        let error = rig.engine.save(request).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DigestMismatch, "{format:?} {error:?}");
        assert!(!path.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_read_back_is_not_compressed_anew() {
    let Some(rig) = Rig::of_format(SnapshotFormat::Erofs) else { return };
    let registry = TestRegistry::open();
    let reference = registry.place(&compressed().bundle(), "app", "1");
    // The layers of a directory store, converted: their files are there, their own tars are not.
    let mut options = windlass_store::StoreOptions::default();
    options.snapshot_format = SnapshotFormat::Overlay;
    let root = rig.engine.store().root().to_owned();
    let before = windlass_store::Store::open(&root, options).unwrap();
    rig.pull_into(before, &reference).await.unwrap();
    let report = rig.engine.store().convert(&mut |_, _| {}).unwrap();
    let read_back = windlass_store::Conversion::Converted(Some(windlass_store::TarIs::ReadBack));
    assert!(report.layers.iter().all(|layer| layer.outcome == read_back), "{report:?}");
    drop(registry);
    for format in [SaveFormat::OciDir, SaveFormat::DockerArchive] {
        for recompress in [Recompress::No, Recompress::Yes] {
            let request = SaveRequest { recompress, ..save(&[&reference], format, &rig.path("out")) };
            let error = rig.engine.save(request).await.unwrap_err();
            assert_eq!(error.reason(), Reason::RegistryUnavailable, "{format:?} {recompress:?} {error:?}");
            assert!(!error.hint().contains("--recompress"), "{}", error.hint());
        }
    }
}
