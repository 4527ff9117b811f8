//! Unpacking what the store has: without a registry, in every form that a layer is kept in.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Recorder, Rig};
use windlass_core::keyring::Mode;
use windlass_core::platform::Platform;
use windlass_core::reason::Reason;
use windlass_pull::events::{Event, Outcome};
use windlass_pull::{ImageSource, PullError, PullOptions, UnpackReport, UnpackRequest, UnpackedFrom};
use windlass_store::{Depth, Repair, SnapshotFormat, Store, StoreOptions};
use windlass_testkit::images::{Compression, Entry, Image, Index, Layer, small, small_for, text};
use windlass_testkit::registry::TestRegistry;

const FORMATS: [SnapshotFormat; 2] = [SnapshotFormat::Overlay, SnapshotFormat::Erofs];

async fn unpack_for(
    rig: &Rig,
    source: &str,
    to: &str,
    platform: Option<Platform>,
) -> (Result<UnpackReport, PullError>, Vec<Event>) {
    let recorder = Recorder::default();
    let request = UnpackRequest {
        source: ImageSource::parse(source),
        directory: rig.path(to),
        mode: Mode::Windlass,
        options: PullOptions { platform, ..PullOptions::default() },
    };
    let result = rig.engine.unpack(request, Arc::new(recorder.clone())).await;
    let events = recorder.0.lock().unwrap().clone();
    (result, events)
}

async fn unpack(rig: &Rig, source: &str, to: &str) -> Result<UnpackReport, PullError> {
    unpack_for(rig, source, to, None).await.0
}

fn warnings(events: &[Event]) -> Vec<&str> {
    let told =
        events.iter().map(|event| if let Event::Warning { text, .. } = event { Some(text.as_str()) } else { None });
    told.flatten().collect()
}

/// Layers of every compression, with a whiteout and a file that is written again.
fn image() -> Image {
    Image::build()
        .layer(Layer::new([
            Entry::dir("etc"),
            Entry::file("etc/gone", "x"),
            Entry::file("etc/kept", text(300_000, 1)).mode(0o640),
            Entry::hard_link("etc/same", "etc/kept").mode(0o640),
            Entry::symlink("link", "etc/kept"),
        ]))
        .layer(Layer::new([Entry::whiteout("etc/gone"), Entry::file("b", "b")]).compression(Compression::Zstd))
        .layer(Layer::new([Entry::file("b", "again").mode(0o4755)]).compression(Compression::None))
        .finish()
}

/// What stands below a directory: mode, size or target, and content by path.
fn listed(root: &Path) -> BTreeMap<PathBuf, String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut open = vec![root.to_owned()];
    let mut found = BTreeMap::new();
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut text = format!("{:o} {} {}", meta.mode(), meta.uid(), meta.gid());
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_symlink() {
            text.push_str(&fs::read_link(&path).unwrap().display().to_string());
        } else {
            text.push_str(&format!(" {} {}", meta.nlink(), fs::read_to_string(&path).unwrap()));
        }
        found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
    }
    found
}

/// What stands in a rig's own directory beside the store.
fn beside_the_store(rig: &Rig) -> Vec<String> {
    let entries = fs::read_dir(rig.dir.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "store");
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_unpacked_without_a_registry() {
    let image = image();
    for format in FORMATS {
        let Some(rig) = Rig::of_format(format) else { continue };
        let registry = TestRegistry::open();
        let index = Index::of([small_for("other", "arm64", Some("v8")), image.clone()]);
        let reference = registry.place(&index.bundle(), "team/app", "1");
        let report = unpack(&rig, &reference, "fetched").await.unwrap();
        assert_eq!(report.from, UnpackedFrom::Registry);
        rig.pull(&reference).await.unwrap();
        rig.engine.tag(&reference, "local/name:2").await.unwrap();
        drop(registry);
        let want = listed(&rig.path("fetched"));
        assert!(want.contains_key(Path::new("link")) && !want.contains_key(Path::new("etc/gone")), "{want:?}");
        let id = image.id().to_string();
        for (to, name) in [("a", &*reference), ("b", "local/name:2"), ("c", &id), ("d", &id[7..19])] {
            let (report, events) = unpack_for(&rig, name, to, None).await;
            let report = report.unwrap();
            assert_eq!((report.from, &report.id, report.layers), (UnpackedFrom::Store, image.id(), 3), "{name}");
            assert_eq!(report.manifest, image.manifest.digest, "{name}");
            assert_eq!((report.warnings, warnings(&events)), (Vec::new(), Vec::new()), "{name}");
            let Some(Event::Finished { outcome, .. }) = events.last() else { panic!("{events:?}") };
            assert_eq!(*outcome, Outcome::AlreadyHere, "{name}");
            assert_eq!(listed(&rig.path(to)), want, "{format:?} {name}");
        }
        let unknown = windlass_core::digest::Digest::sha256(b"nobody").to_string();
        assert_eq!(unpack(&rig, &unknown, "e").await.unwrap_err().reason(), Reason::ImageUnknown);
        assert_eq!(beside_the_store(&rig), ["a", "b", "c", "d", "fetched"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_only_read_is_enough() {
    let rig = Rig::new();
    let registry = TestRegistry::open();
    let reference = registry.place(&image().bundle(), "app", "1");
    rig.pull(&reference).await.unwrap();
    drop(registry);
    let mut options = StoreOptions::default();
    options.access = windlass_store::Access::Read;
    let store = Store::open(rig.engine.store().root(), options).unwrap();
    let reader = rig.around(store);
    let request = UnpackRequest {
        source: ImageSource::parse(&reference),
        directory: rig.path("root"),
        mode: Mode::Windlass,
        options: PullOptions::default(),
    };
    let report = reader.unpack(request, Arc::new(Recorder::default())).await.unwrap();
    assert_eq!(report.from, UnpackedFrom::Store);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_platform_is_not_the_image_that_is_here() {
    let rig = Rig::new();
    let registry = TestRegistry::open();
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "amd64", None)]);
    let reference = registry.place(&index.bundle(), "app", "1");
    rig.pull(&reference).await.unwrap();
    let arm = || Some(Platform::new("linux", "arm64", Some("v8")));
    let report = unpack_for(&rig, &reference, "arm", arm()).await.0.unwrap();
    assert_eq!(report.from, UnpackedFrom::Registry);
    assert_eq!(fs::read_to_string(rig.path("arm/etc/marker")).unwrap(), "i arm64\n");
    assert_eq!(unpack(&rig, &reference, "amd").await.unwrap().from, UnpackedFrom::Store);
    assert_eq!(fs::read_to_string(rig.path("amd/etc/marker")).unwrap(), "i amd64\n");
    drop(registry);
    let error = unpack_for(&rig, &reference, "none", arm()).await.0.unwrap_err();
    assert_eq!(error.reason(), Reason::RegistryUnavailable, "{error:?}");
    assert!(!rig.path("none").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_whole_comes_from_its_registry() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "app", "1");
    let manifest = |rig: &Rig| rig.path("store/blobs").join(image.manifest.digest.to_string().replace(':', "/"));
    type Damage<'a> = (&'a str, &'a dyn Fn(&Rig));
    let table: [Damage<'_>; 2] = [
        ("is missing", &|rig| {
            let snapshots = fs::read_dir(rig.path("store/snapshots")).unwrap();
            snapshots.for_each(|entry| fs::remove_dir_all(entry.unwrap().path()).unwrap());
        }),
        ("hashed to", &|rig| {
            let path = manifest(rig);
            let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, vec![b' '; length]).unwrap();
        }),
    ];
    for (what, damage) in table {
        let rig = Rig::new();
        rig.pull(&reference).await.unwrap();
        damage(&rig);
        let (report, events) = unpack_for(&rig, &reference, "root", None).await;
        assert_eq!(report.unwrap().from, UnpackedFrom::Registry, "{what}");
        let told = warnings(&events);
        assert!(told.len() == 1 && told[0].contains(what), "{told:?}");
        let error = unpack(&rig, image.id().as_str(), "by-id").await.unwrap_err();
        assert!(error.chain().contains(what), "no registry knows an ID: {error:?}");
        assert_eq!(beside_the_store(&rig), ["root"], "{what}");
    }
}

/// Changes a byte in the middle of what a layer holds of `etc/kept`; says whether it found it.
fn flip(snapshot: &Path) -> bool {
    let (tree, file) = (snapshot.join("fs/etc/kept"), snapshot.join("image"));
    let path = if tree.exists() { tree } else { file };
    let Ok(bytes) = fs::read(&path) else { return false };
    let inside = text(300_000, 1)[100_000..100_100].to_vec();
    let Some(at) = bytes.windows(inside.len()).position(|part| part == inside) else { return false };
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_layer_of_the_store_is_told_and_nothing_appears() {
    for format in FORMATS {
        let Some(rig) = Rig::of_format(format) else { continue };
        let registry = TestRegistry::open();
        let reference = registry.place(&image().bundle(), "app", "1");
        rig.pull(&reference).await.unwrap();
        let snapshots: Vec<_> =
            fs::read_dir(rig.path("store/snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(snapshots.iter().filter(|path| flip(path)).count(), 1, "{format:?}");
        let error = unpack(&rig, &reference, "root").await.unwrap_err();
        assert!(matches!(error, PullError::StoredLayer { .. }), "{format:?} {error:?}");
        assert_eq!(error.reason(), Reason::InspectFailed);
        let diff_id = image().layers[0].diff_id.to_string();
        assert!(error.chain().contains(&diff_id), "{}", error.chain());
        assert!(error.hint().contains("windlass fsck --repair") && error.hint().contains("windlass pull"));
        assert_eq!(beside_the_store(&rig), [""; 0], "{format:?}: neither the tree nor the stage is left");
        // What the hint says helps.
        rig.engine.store().fsck(Depth::Full, Repair::Yes).unwrap();
        rig.pull(&reference).await.unwrap();
        assert_eq!(unpack(&rig, &reference, "root").await.unwrap().from, UnpackedFrom::Store, "{format:?}");
    }
}
