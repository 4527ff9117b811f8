//! Push and copy between registries, and unpacking without a store.

mod common;

use std::sync::Arc;

use common::Rig;
use windlass_core::keyring::Mode;
use windlass_core::reason::Reason;
use windlass_pull::events::Silent;
use windlass_pull::{
    CopyRequest, ImageSource, Platforms, PullOptions, PushRequest, Recompress, UnpackReport, UnpackRequest,
};
use windlass_registry::route::RouteKind;
use windlass_store::SnapshotFormat;
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::{Compression, Entry, Image, Index, Layer, incompressible, small, small_for};
use windlass_testkit::registry::TestRegistry;

fn push(image: &str, target: &str) -> PushRequest {
    PushRequest {
        image: image.to_owned(),
        target: Some(target.to_owned()),
        mode: Mode::Windlass,
        recompress: Recompress::No,
        options: PullOptions::default(),
    }
}

fn copy(source: &str, target: &str, platforms: Platforms) -> CopyRequest {
    CopyRequest {
        source: source.to_owned(),
        target: target.to_owned(),
        platforms,
        mode: Mode::Windlass,
        options: PullOptions::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_is_the_stored_one() {
    let (from, to) = (TestRegistry::open(), TestRegistry::open());
    let image = Image::build()
        .layer(Layer::new([Entry::file("a", incompressible(3 << 20, 1))]))
        .layer(Layer::new([Entry::file("b", "b")]).compression(Compression::Zstd))
        .finish();
    let reference = from.place(&image.bundle(), "team/app", "1");
    let rig = Rig::new();
    let pulled = rig.pull(&reference).await.unwrap();
    let target = to.reference("other/app", "2");
    let report = rig.engine.push(push(&reference, &target)).await.unwrap();
    assert_eq!((report.digest, report.uploaded, report.already_there), (pulled.manifest, 3, 0));
    let report = rig.engine.push(push(&reference, &target)).await.unwrap();
    assert_eq!((report.uploaded, report.already_there), (0, 3));
    let fresh = Rig::new();
    assert_eq!(&fresh.pull(&target).await.unwrap().id, image.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_the_same_registry_are_mounted() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let rig = Rig::new();
    rig.pull(&reference).await.unwrap();
    let report = rig.engine.push(push(&reference, &registry.reference("team/pushed", "1"))).await.unwrap();
    assert_eq!((report.mounted, report.uploaded), (3, 0));
    registry.take_requests();
    let request = copy(&reference, &registry.reference("team/copied", "1"), Platforms::All);
    let report = rig.engine.copy(request).await.unwrap();
    assert_eq!((report.mounted, report.uploaded), (3, 0));
    assert_eq!(registry.count("GET", RouteKind::Blob), 0, "no blob passes through here");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_takes_the_whole_index_or_one_platform() {
    let (from, to) = (TestRegistry::open(), TestRegistry::open());
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "amd64", None)]);
    let reference = from.place(&index.bundle(), "app", "1");
    let rig = Rig::new();
    let all = to.reference("mirror/app", "all");
    let report = rig.engine.copy(copy(&reference, &all, Platforms::All)).await.unwrap();
    assert_eq!(report.documents, 3);
    assert_eq!(rig.pull(&all).await.unwrap().digest, report.digest);
    assert_eq!(rig.pull(&reference).await.unwrap().digest, report.digest, "a copy has the digest of its source");
    let one = to.reference("mirror/app", "one");
    let report = rig.engine.copy(copy(&reference, &one, Platforms::One)).await.unwrap();
    assert_eq!((report.documents, report.uploaded), (1, 0), "its blobs are there already");
    assert_eq!(rig.pull(&one).await.unwrap().platform, "linux/amd64");
    let error = rig.engine.copy(copy(&from.reference("app", "no"), &one, Platforms::All)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_name_that_nothing_can_be_checked_against() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let rig = Rig::new();
    rig.pull(&reference).await.unwrap();
    registry.take_requests();
    let name = format!("{}/other/app@sha384:{}", registry.host(), "0".repeat(96));
    let pushed = rig.engine.push(push(&reference, &name)).await.unwrap_err();
    let copied = rig.engine.copy(copy(&reference, &name, Platforms::One)).await.unwrap_err();
    let pulled = rig.pull(&name).await.unwrap_err();
    let unpacked = unpack(&rig, ImageSource::parse(&name), "root").await.unwrap_err();
    for error in [pushed, copied, pulled, unpacked] {
        assert_eq!(error.reason(), Reason::InvalidReference, "{error:?}");
        assert!(error.to_string().contains("sha256 and sha512 are supported"), "{error}");
    }
    assert_eq!(registry.take_requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_one_more_name() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let rig = Rig::new();
    let pulled = rig.pull(&reference).await.unwrap();
    rig.engine.tag(&reference, "local/name:2").await.unwrap();
    assert_eq!(rig.engine.store().find("local/name:2").unwrap().unwrap().id, pulled.id);
}

async fn unpack(rig: &Rig, source: ImageSource, to: &str) -> Result<UnpackReport, windlass_pull::PullError> {
    let directory = rig.path(to);
    let request = UnpackRequest { source, directory, mode: Mode::Windlass, options: PullOptions::default() };
    rig.engine.unpack(request, Arc::new(Silent)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpacked_tree_has_what_the_layers_leave() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "app", "1");
    let rig = Rig::new();
    image.bundle().write_layout(&rig.path("layout"), "1");
    image.bundle().write_layout_tar(&rig.path("layout.tar"), "1");
    image.write_docker_archive(&rig.path("docker.tar"), "app:1");
    let path = |name: &str| rig.path(name).display().to_string();
    let sources = [
        ("a", reference),
        ("b", format!("oci:{}:1", path("layout"))),
        ("c", format!("oci-archive:{}", path("layout.tar"))),
        ("d", format!("docker-archive:{}:app:1", path("docker.tar"))),
    ];
    for (to, source) in sources {
        let report = unpack(&rig, ImageSource::parse(&source), to).await.unwrap();
        assert_eq!((&report.id, report.layers), (image.id(), 2), "{source}");
        let root = rig.path(to);
        assert_eq!(std::fs::read_to_string(root.join("etc/marker")).unwrap(), "one amd64\n");
        assert!(!root.join("etc/hostname").exists(), "the second layer takes it away");
        assert_eq!(std::fs::read_link(root.join("bin")).unwrap().to_str(), Some("usr/bin"));
        let again = unpack(&rig, ImageSource::parse(&source), to).await.unwrap_err();
        assert_eq!(again.reason(), Reason::IoError, "a directory that holds something is left alone");
    }
    assert!(rig.engine.store().images().unwrap().is_empty(), "the store is not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_appears_when_a_layer_is_wrong() {
    let registry = FaultyRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "app", "1");
    registry.inject(When::blob_of(&image.layers[1].blob.digest), Fault::Corrupt);
    let rig = Rig::with(common::plain_http(), &[]);
    let error = unpack(&rig, ImageSource::parse(&reference), "root").await.unwrap_err();
    assert_eq!(error.reason(), Reason::DigestMismatch, "{error:?}");
    let left: Vec<_> = std::fs::read_dir(rig.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "neither the tree nor the stage is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_compressed_anew_for_a_push_when_asked() {
    let Some(rig) = Rig::of_format(SnapshotFormat::Erofs) else { return };
    let (from, to) = (TestRegistry::open(), TestRegistry::open());
    let image = Image::build()
        .layer(Layer::new([Entry::file("a", incompressible(3 << 20, 1))]))
        .layer(Layer::new([Entry::file("b", "b")]).compression(Compression::Zstd))
        .layer(Layer::new([Entry::file("c", "c")]).compression(Compression::None))
        .finish();
    let reference = from.place(&image.bundle(), "team/app", "1");
    let pulled = rig.pull(&reference).await.unwrap();
    drop(from);
    let target = to.reference("other/app", "2");
    let error = rig.engine.push(push(&reference, &target)).await.unwrap_err();
    assert!(error.hint().contains("--recompress"), "{error:?}");
    let by_digest = format!("{}/other/app@{}", to.host(), pulled.manifest);
    let anew = |target: &str| PushRequest { recompress: Recompress::Yes, ..push(&reference, target) };
    let error = rig.engine.push(anew(&by_digest)).await.unwrap_err();
    assert!(matches!(error, windlass_pull::PullError::OtherDigest { .. }), "{error:?}");
    let report = rig.engine.push(anew(&target)).await.unwrap();
    let told = report.recompressed.unwrap();
    assert_eq!((&told.image, &told.stored, told.layers), (image.id(), &pulled.manifest, 2));
    assert_eq!((&report.digest, report.uploaded + report.already_there), (&told.written, 4));
    let again = rig.engine.push(anew(&target)).await.unwrap();
    assert_eq!((&again.digest, again.uploaded), (&report.digest, 0), "the same tar gives the same blob");
    let fresh = Rig::new().pull(&target).await.unwrap();
    assert_eq!((&fresh.id, &fresh.manifest), (image.id(), &told.written));
}
