//! What a store promises to one process.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use support::{TestImage, disk_bytes, open, open_as, small, usual_formats};
use windlass_core::digest::Digest;
use windlass_core::pin::PinSource;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_store::{
    Access, BlobKind, Depth, Dry, GcRequest, KeepLayers, LayerClaim, LeaseOptions, Repair, Reserve, SetUserId,
    SnapshotFormat, Store, StoreError, StoreOptions, Verdict, VictimKind,
};
use windlass_testkit::hostile::raw::{Header, Tar};

const NAME: &str = "registry.example/team/app:1";

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn an_image_is_visible_only_after_its_commit() {
    for format in usual_formats() {
        visible_only_after_its_commit(format);
    }
}

fn visible_only_after_its_commit(format: SnapshotFormat) {
    let root = tempfile::tempdir().unwrap();
    let store = open_as(root.path(), format);
    let image = small(NAME);
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    image.put_documents(&lease).unwrap();
    image.bring_layers(&lease, false).unwrap();
    assert_eq!(store.find(NAME).unwrap(), None);
    assert!(store.images().unwrap().is_empty());
    let committed = lease.commit(image.commit()).unwrap();
    assert_eq!(store.find(NAME).unwrap().as_ref(), Some(&committed));
    assert_eq!((committed.id.clone(), committed.damage.clone()), (image.id(), None));
    assert_eq!(store.images().unwrap(), [committed]);
    let trees = fs::read_dir(root.path().join("snapshots")).unwrap().count();
    assert_eq!(trees, 2);
    let (here, other) = if format == SnapshotFormat::Erofs { ("image", "fs") } else { ("fs", "image") };
    for n in 1..=2 {
        let snapshot = root.path().join("snapshots").join(n.to_string());
        assert!(snapshot.join(here).exists() && !snapshot.join(other).exists(), "{format:?}");
    }
    drop(lease);
    for empty in ["ingest", "stage", "meta/intents"] {
        assert_eq!(fs::read_dir(root.path().join(empty)).unwrap().count(), 0, "{empty}");
    }
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
}

#[test]
fn a_commit_without_all_parts_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    let missing = |part: &str| match lease.commit(image.commit()) {
        Err(StoreError::Incomplete { part: found, .. }) => assert_eq!(found, part),
        other => panic!("{other:?}"),
    };
    missing("config");
    lease.put_blob(BlobKind::Config, &image.id(), &image.config).unwrap();
    missing("manifest");
    image.put_documents(&lease).unwrap();
    missing("layer");
    let LayerClaim::Work(work) = lease.claim_layer(&image.keys[0], &|| false).unwrap() else { panic!("present") };
    missing("layer");
    drop(work);
    image.bring_layers(&lease, false).unwrap();
    lease.commit(image.commit()).unwrap();
}

#[test]
fn layers_out_of_order_are_settled_when_their_parents_are() {
    for format in usual_formats() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let store = open_as(&root, format);
        // The upper layers have no entry for `etc`, so its owner and mode come from below.
        let lowest = Tar::new()
            .head(Header::new(b'5', "etc").mode(0o751).uid(7).gid(8).mtime(9))
            .file("etc/a", "a")
            .file("etc/c", "c")
            .end();
        let upper = [Tar::new().file("etc/b", "b").end(), Tar::new().file("etc/.wh.a", "").file("etc/.wh.x", "").end()];
        // A hard link into a layer below cannot be made without it.
        let highest = Tar::new().link("etc/d", "etc/c").end();
        let image = TestImage::of_tars(NAME, &[&[lowest], &upper[..], &[highest]].concat());
        let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
        image.put_documents(&lease).unwrap();
        let fetched = image.bring_layers(&lease, true).unwrap();
        // The tar of an image file is here and needs no second transfer.
        assert_eq!(fetched, if format == SnapshotFormat::Erofs { 4 } else { 5 }, "{format:?}");
        lease.commit(image.commit()).unwrap();
        drop(lease);
        assert_eq!(fs::read_dir(root.join("stage")).unwrap().count(), 0);
        assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, [], "{format:?}");
        if !rustix::process::geteuid().is_root() {
            support::skipped("what settled layers look like: only root can mount");
            continue;
        }
        let at = dir.path().join("at");
        fs::create_dir(&at).unwrap();
        store.mount(NAME, &at, SetUserId::Honoured).unwrap();
        let etc = fs::metadata(at.join("etc")).unwrap();
        let seen = (etc.mode() & 0o7777, etc.uid(), etc.gid(), etc.mtime(), names(&at.join("etc")));
        let linked = fs::read_to_string(at.join("etc/d")).unwrap();
        store.unmount(&at).unwrap();
        assert_eq!(seen, (0o751, 7, 8, 9, vec!["b".into(), "c".into(), "d".into()]), "{format:?}");
        assert_eq!(linked, "c");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_leases_share_a_layer() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let base: support::Files<'_> = &[("etc/", b""), ("etc/shared", b"shared")];
    let images: Vec<TestImage> = (0..8)
        .map(|n| TestImage::new(&format!("registry.example/app:{n}"), &[base, &[("own", format!("{n}").as_bytes())]]))
        .collect();
    let fetched: usize = std::thread::scope(|scope| {
        let pulls: Vec<_> = images.iter().map(|image| scope.spawn(|| image.pull(&store).unwrap().1)).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).sum()
    });
    assert_eq!(fetched, 8 + 1, "the base once, each image's own layer once");
    assert_eq!(store.images().unwrap().len(), 8);
    assert_eq!(images[0].pull(&store).unwrap().1, 0, "all of it is here");
}

#[test]
fn dropped_work_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    let LayerClaim::Work(work) = lease.claim_layer(&image.keys[0], &|| false).unwrap() else { panic!("present") };
    assert!(lease.try_claim_layer(&image.keys[0]).unwrap().is_none(), "it is in work");
    drop(work);
    let mut wrong = image.blobs[0].clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    let LayerClaim::Work(work) = lease.claim_layer(&image.keys[0], &|| false).unwrap() else { panic!("present") };
    let error = work.unpack(&mut wrong.as_slice(), &()).unwrap_err();
    assert_eq!(error.reason(), Reason::DigestMismatch, "{error}");
    assert_eq!(fs::read_dir(root.path().join("stage")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.path().join("snapshots")).unwrap().count(), 0);
}

#[test]
fn a_canceled_wait_ends() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    let first = store.begin(LeaseOptions::pull(NAME)).unwrap();
    let LayerClaim::Work(_work) = first.claim_layer(&image.keys[0], &|| false).unwrap() else { panic!("present") };
    let second = store.begin(LeaseOptions::pull(NAME)).unwrap();
    assert!(matches!(second.claim_layer(&image.keys[0], &|| true), Err(StoreError::Canceled)));
}

#[test]
fn what_does_not_hash_never_leaves_ingest() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    let digest = Digest::sha256(b"promised");
    let error = lease.put_blob(BlobKind::Config, &digest, b"pr0mised").unwrap_err();
    assert_eq!(error.reason(), Reason::DigestMismatch);
    let table: [(u64, &[u8]); 2] = [(8, b"promised and more"), (8, b"prom")];
    for (size_bytes, bytes) in table {
        let error = lease.put_blob_from(BlobKind::Config, &digest, size_bytes, &mut { bytes }).unwrap_err();
        assert_eq!(error.reason(), Reason::SizeMismatch);
    }
    assert_eq!(fs::read_dir(root.path().join("blobs/sha256")).unwrap().count(), 0);
    lease.put_blob(BlobKind::Config, &digest, b"promised").unwrap();
    let path = root.path().join("blobs/sha256").join(digest.hex());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(store.read_blob(&digest, 8).unwrap().unwrap(), b"promised");
    assert!(store.read_blob(&digest, 7).is_err());
}

#[test]
fn one_byte_too_many_stops_the_reading() {
    /// Gives pieces of 100 bytes without end, and counts them.
    struct Endless(usize);

    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            let count = buffer.len().min(100);
            buffer[..count].fill(0);
            Ok(count)
        }
    }

    let root = tempfile::tempdir().unwrap();
    let lease = open(root.path()).begin(LeaseOptions::pull(NAME)).unwrap();
    let mut endless = Endless(0);
    let digest = Digest::sha256(b"promised");
    let error = lease.put_blob_from(BlobKind::Config, &digest, 1000, &mut endless).unwrap_err();
    assert_eq!((error.reason(), endless.0), (Reason::SizeMismatch, 11));
}

#[test]
fn a_store_that_was_moved_is_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    small(NAME).pull(&open(&here)).unwrap();
    fs::rename(&here, &there).unwrap();
    let store = open(&there);
    assert_eq!(store.find(NAME).unwrap().unwrap().damage, None);
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    small("registry.example/team/next:1").pull(&store).unwrap();
}

#[test]
fn whatever_names_an_image_finds_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small("docker.io/library/busybox:1.36");
    image.pull(&store).unwrap();
    let id = image.id();
    let digest = image.manifest_digest();
    let names = [
        "busybox:1.36".to_owned(),
        "docker.io/library/busybox:1.36".to_owned(),
        format!("busybox@{digest}"),
        format!("busybox:other@{digest}"),
        id.to_string(),
        id.hex().to_owned(),
        id.short().to_owned(),
        format!("sha256:{}", id.short()),
    ];
    for name in names {
        assert_eq!(store.find(&name).unwrap().map(|image| image.id), Some(id.clone()), "{name}");
    }
    for name in ["busybox", "busybox:2", "registry.example/busybox:1.36", "0000000000", &format!("busybox@{id}")] {
        assert_eq!(store.find(name).unwrap(), None, "{name}");
    }
    assert_eq!(store.find("NOT A NAME").unwrap_err().reason(), Reason::InvalidReference);
    assert_eq!(store.find_reference(&reference("busybox:1.36")).unwrap().unwrap().id, id);
    assert_eq!(store.resolved(&reference("busybox:1.36")).unwrap(), Some((digest, None)));
}

#[test]
fn a_tag_that_moves_leaves_the_digest_name() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let old = small(NAME);
    old.pull(&store).unwrap();
    let new = TestImage::new(NAME, &[&[("new", b"new")]]);
    new.pull(&store).unwrap();
    assert_eq!(store.find(NAME).unwrap().unwrap().id, new.id());
    let found = store.find_id(&old.id()).unwrap().unwrap();
    assert_eq!((found.repo_tags.len(), found.repo_digests.len()), (0, 1));
}

#[test]
fn the_last_name_takes_the_image_along() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    store.tag(NAME, &reference("registry.example/other:2")).unwrap();
    let removed = store.remove(NAME).unwrap();
    assert_eq!((removed.names.len(), removed.image), (2, None), "tag and implied digest name");
    assert_eq!(store.find("registry.example/other:2").unwrap().unwrap().id, image.id());
    let removed = store.remove("registry.example/other:2").unwrap();
    assert_eq!(removed.image, Some(image.id()));
    assert_eq!(removed.swept.victims.iter().filter(|victim| victim.kind == VictimKind::Layer).count(), 2);
    assert!(store.images().unwrap().is_empty());
    assert_eq!(fs::read_dir(root.path().join("snapshots")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.path().join("blobs/sha256")).unwrap().count(), 0);
    assert_eq!(store.remove(NAME).unwrap_err().reason(), Reason::ImageUnknown);
}

#[test]
fn a_digest_name_that_was_asked_for_stays_without_its_tag() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    let by_digest = store.find(NAME).unwrap().unwrap().repo_digests[0].to_string();
    store.ask_for(&reference("absent.example/x")).unwrap();
    store.ask_for(&reference(&by_digest)).unwrap();
    assert!(store.implied_names().unwrap().is_empty());
    image.pull(&store).unwrap();
    let removed = store.remove(NAME).unwrap();
    assert_eq!((removed.names.len(), removed.image), (1, None));
    assert_eq!(store.find(&by_digest).unwrap().unwrap().id, image.id());
}

#[test]
fn a_forgotten_image_is_gone_with_names_and_pins_and_its_room_at_the_next_collection() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    let implied = store.implied_names().unwrap();
    let found = store.find(NAME).unwrap().unwrap();
    assert_eq!(implied.iter().collect::<Vec<_>>(), found.repo_digests.iter().collect::<Vec<_>>());
    store.tag(NAME, &reference("registry.example/other:2")).unwrap();
    store.pin(NAME, &PinSource::user(), "mine").unwrap();
    assert!(store.forget_image(&image.id()).unwrap());
    assert!(!store.forget_image(&image.id()).unwrap(), "it is gone already");
    assert_eq!((store.images().unwrap().len(), store.find(NAME).unwrap()), (0, None));
    assert!(store.usage().unwrap().used_bytes > 0);
    store.gc(&GcRequest::sweep()).unwrap();
    assert_eq!(store.usage().unwrap().used_bytes, 0);
    image.pull(&store).unwrap();
    assert!(store.find(NAME).unwrap().unwrap().pins.is_empty());
}

#[test]
fn an_image_goes_by_its_id_with_all_names() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    store.tag(NAME, &reference("registry.example/other:2")).unwrap();
    let removed = store.remove(image.id().short()).unwrap();
    assert_eq!((removed.names.len(), removed.image), (3, Some(image.id())));
}

#[test]
fn a_pinned_image_stays() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    let user = PinSource::user();
    assert_eq!(store.pin(NAME, &user, "two\nlines").unwrap_err().reason(), Reason::InvalidConfig);
    store.pin(NAME, &user, "keep it").unwrap();
    assert_eq!(store.find(NAME).unwrap().unwrap().pins[0].reason, "keep it");
    assert_eq!(store.remove(NAME).unwrap_err().reason(), Reason::InUse);
    let request = GcRequest { images: vec![(image.id(), "disk pressure".to_owned())], ..GcRequest::sweep() };
    let report = store.gc(&request).unwrap();
    assert_eq!((report.victims.len(), report.kept.len()), (0, 1));
    assert!(store.unpin(NAME, &user).unwrap() && !store.unpin(NAME, &user).unwrap());
    assert_eq!(store.gc(&request).unwrap().victims.iter().filter(|v| v.kind == VictimKind::Image).count(), 1);
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn a_dry_run_explains_and_deletes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    let mut request = GcRequest { images: vec![(image.id(), "it is old".to_owned())], ..GcRequest::sweep() };
    request.dry = Dry::Run;
    let told = store.gc(&request).unwrap();
    assert!(store.find(NAME).unwrap().unwrap().damage.is_none());
    assert_eq!(told.victims[0].why, "it is old");
    request.dry = Dry::No;
    assert_eq!(store.gc(&request).unwrap(), told, "the same victims for the same reasons");
    assert!(told.freed_bytes > 0);
}

#[test]
fn what_a_lease_needs_survives_collection() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    image.put_documents(&lease).unwrap();
    assert_eq!(image.bring_layers(&lease, false).unwrap(), 0);
    // Another terminal removes the image between claim and commit.
    store.remove(NAME).unwrap();
    let fresh = small("registry.example/team/fresh:1");
    let other = store.begin(LeaseOptions::pull("fresh")).unwrap();
    fresh.put_documents(&other).unwrap();
    fresh.bring_layers(&other, false).unwrap();
    assert_eq!(store.gc(&GcRequest::sweep()).unwrap().victims, []);
    lease.commit(image.commit()).unwrap();
    other.commit(fresh.commit()).unwrap();
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
}

#[test]
fn after_removing_all_images_less_than_one_mebibyte_is_left() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let content = vec![7; 200_000];
    let images: Vec<TestImage> = (0..40)
        .map(|n| TestImage::new(&format!("registry.example/app:{n}"), &[&[(&format!("f{n}"), &content)]]))
        .collect();
    for image in &images {
        image.pull(&store).unwrap();
    }
    assert!(disk_bytes(root.path()) > 8 << 20);
    for image in &images {
        store.remove(&image.name()).unwrap();
    }
    store.gc(&GcRequest::sweep()).unwrap();
    let left = disk_bytes(root.path());
    assert!(left < 1 << 20, "{left} bytes left");
}

#[test]
fn layers_are_kept_where_that_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let dropped = small(NAME);
    dropped.pull(&store).unwrap();
    assert!(store.open_blob(&dropped.keys[0].layer.blob).unwrap().is_none());
    let kept = small("registry.example/team/loaded:1");
    let lease = store.begin(LeaseOptions::load("loaded")).unwrap();
    assert_eq!(lease.keep_layers(), KeepLayers::Yes);
    kept.put_documents(&lease).unwrap();
    kept.bring_layers(&lease, false).unwrap();
    lease.commit(kept.commit()).unwrap();
    let first = store.read_blob(&kept.keys[0].layer.blob, 1 << 20).unwrap().unwrap();
    assert_eq!(first, kept.blobs[0]);
    assert_eq!(store.gc(&GcRequest::sweep()).unwrap().victims, []);
    store.remove("registry.example/team/loaded:1").unwrap();
    assert!(store.open_blob(&kept.keys[0].layer.blob).unwrap().is_none());
}

/// Gives the bytes it has and then fails, as a connection that is cut does.
struct CutOff<'a>(&'a [u8]);

impl std::io::Read for CutOff<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match std::io::Read::read(&mut self.0, buffer)? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            count => Ok(count),
        }
    }
}

fn keeping_partials(root: &Path) -> Store {
    let mut options = StoreOptions::default();
    options.keep_partial_above_bytes = Some(100_000);
    Store::open(root, options).unwrap()
}

/// A layer whose blob has more than a megabyte.
fn incompressible() -> TestImage {
    let mut state = 1u64;
    let bytes: Vec<u8> = (0..1_200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        })
        .collect();
    TestImage::new(NAME, &[&[("big", &bytes)]])
}

fn claim(store: &Store, image: &TestImage) -> windlass_store::LayerWork {
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    match lease.claim_layer(&image.keys[0], &|| false).unwrap() {
        LayerClaim::Work(work) => work,
        LayerClaim::Present => panic!("present"),
    }
}

fn cut_off(store: &Store, image: &TestImage, at: usize) {
    let mut input = std::io::BufReader::new(CutOff(&image.blobs[0][..at]));
    claim(store, image).unpack(&mut input, &()).unwrap_err();
}

#[test]
fn the_beginning_of_a_large_layer_is_used_again() {
    let root = tempfile::tempdir().unwrap();
    let store = keeping_partials(root.path());
    let image = incompressible();
    assert!(claim(&store, &image).partial().is_none());
    cut_off(&store, &image, 700_000);
    let work = claim(&store, &image);
    let begun = work.partial().unwrap();
    let at = usize::try_from(begun.size_bytes).unwrap();
    assert!((600_000..=700_000).contains(&at), "{at} bytes were kept");
    let rest = &image.blobs[0][at..];
    let mut input = std::io::BufReader::new(std::io::Read::chain(begun.file, rest));
    let unpacked = work.unpack(&mut input, &()).unwrap();
    assert!(unpacked.again.is_empty());
    assert_eq!(fs::read_dir(root.path().join("ingest/partial")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.path().join("blobs/sha256")).unwrap().count(), 0, "the blob itself is not kept");
    cut_off(&open(root.path()), &small("registry.example/other:1"), 20);
    assert_eq!(fs::read_dir(root.path().join("ingest/partial")).unwrap().count(), 0, "too small to keep");
}

#[test]
fn a_wrong_beginning_is_thrown_away() {
    let root = tempfile::tempdir().unwrap();
    let store = keeping_partials(root.path());
    let mut image = incompressible();
    let whole = image.blobs[0].clone();
    image.blobs[0][300_000] ^= 1;
    cut_off(&store, &image, 700_000);
    let work = claim(&store, &image);
    let begun = work.partial().unwrap();
    let rest = &whole[usize::try_from(begun.size_bytes).unwrap()..];
    let mut input = std::io::BufReader::new(std::io::Read::chain(begun.file, rest));
    assert_eq!(work.unpack(&mut input, &()).unwrap_err().reason(), Reason::DigestMismatch);
    assert!(claim(&store, &image).partial().is_none());
}

#[test]
fn a_damaged_image_is_not_present() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    fs::rename(root.path().join("snapshots/2"), root.path().join("aside")).unwrap();
    let found = store.find(NAME).unwrap().unwrap();
    assert!(found.damage.unwrap().contains("layer"), "a missing layer");
    assert_eq!(image.pull(&store).unwrap().1, 1, "only the missing layer is fetched");
    assert_eq!(store.find(NAME).unwrap().unwrap().damage, None);
    let config = root.path().join("blobs/sha256").join(image.id().hex());
    fs::remove_file(&config).unwrap();
    fs::write(&config, b"short").unwrap();
    assert!(store.images().unwrap()[0].damage.is_some());
    image.pull(&store).unwrap();
    assert_eq!(store.find(NAME).unwrap().unwrap().damage, None);
}

#[test]
fn opening_for_reading_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut options = StoreOptions::default();
    options.access = Access::Read;
    let store = Store::open(&root, options.clone()).unwrap();
    assert!(store.images().unwrap().is_empty() && !root.exists());
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean);
    assert_eq!(store.begin(LeaseOptions::pull(NAME)).unwrap_err().reason(), Reason::NotPermitted);
    small(NAME).pull(&open(&root)).unwrap();
    let store = Store::open(&root, options).unwrap();
    assert!(store.find(NAME).unwrap().is_some());
    assert!(matches!(store.remove(NAME), Err(StoreError::ReadOnly { .. })));
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let root = tempfile::tempdir().unwrap();
    small(NAME).pull(&open(root.path())).unwrap();
    fs::write(root.path().join("meta/format"), "2\n").unwrap();
    let before = listing(root.path());
    for access in [Access::Read, Access::Write] {
        let mut options = StoreOptions::default();
        options.access = access;
        let error = Store::open(root.path(), options).unwrap_err();
        assert_eq!(error.reason(), Reason::StoreFormat);
        assert!(error.to_string().contains("format 2"), "{error}");
    }
    assert_eq!(listing(root.path()), before);
    fs::write(root.path().join("meta/format"), "1\n").unwrap();
    assert!(open(root.path()).find(NAME).unwrap().is_some());
}

#[test]
fn a_foreign_directory_is_refused_untouched() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("letter.txt"), "dear").unwrap();
    let before = listing(home.path());
    let error = Store::open(home.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert_eq!(listing(home.path()), before);
    // A creation that was cut off is completed, wherever that was.
    for made in [&["blobs"][..], &["lock", "meta", "oci-layout.tmp"]] {
        let cut = tempfile::tempdir().unwrap();
        for name in made {
            match *name {
                "blobs" | "meta" => fs::create_dir(cut.path().join(name)).unwrap(),
                file => fs::write(cut.path().join(file), "").unwrap(),
            }
        }
        small(NAME).pull(&open(cut.path())).unwrap();
        assert!(!cut.path().join("oci-layout.tmp").exists());
    }
}

#[test]
fn several_can_make_one_store_at_a_time() {
    for _ in 0..20 {
        let root = tempfile::tempdir().unwrap();
        let all = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (root, all) = (root.path(), &all);
                scope.spawn(move || {
                    all.wait();
                    small(&format!("registry.example/app:{n}")).pull(&open(root)).unwrap();
                });
            }
        });
        assert_eq!(open(root.path()).images().unwrap().len(), 4);
    }
}

/// Paths with size and modification time.
fn listing(path: &Path) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        all.push((entry.path().display().to_string(), found.len(), found.modified().unwrap()));
        if found.is_dir() {
            all.extend(listing(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_pull_that_does_not_fit_is_refused_before_it_begins() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
    lease.require_space(1).unwrap();
    let free = store.file_system().unwrap().usable_bytes(Reserve::default());
    let error = lease.require_space(free + (1 << 40)).unwrap_err();
    assert_eq!(error.reason(), Reason::NoSpace);
    assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
}

#[test]
fn a_thousand_images_open_and_list_quickly() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let base: support::Files<'_> = &[("etc/", b""), ("etc/shared", b"shared")];
    let lease = store.begin(LeaseOptions::pull("many")).unwrap();
    let images: Vec<TestImage> =
        (0..1000).map(|n| TestImage::new(&format!("registry.example/app:{n}"), &[base])).collect();
    // Committed in one go per image, without 1000 syncs: the metadata is what is measured.
    for image in &images {
        image.put_documents(&lease).unwrap();
    }
    images[0].bring_layers(&lease, false).unwrap();
    lease.commit_all(images.iter().map(TestImage::commit).collect()).unwrap();
    drop(lease);
    drop(store);
    // As after a power cut: everything is looked at.
    fs::remove_file(root.path().join("meta/boot")).unwrap();
    let begin = Instant::now();
    let store = open(root.path());
    let opened = begin.elapsed();
    let begin = Instant::now();
    assert_eq!(store.images().unwrap().len(), 1000);
    let listed = begin.elapsed();
    let begin = Instant::now();
    assert!(store.find("registry.example/app:500").unwrap().is_some());
    let found = begin.elapsed();
    assert!(opened < Duration::from_secs(2) && listed < Duration::from_secs(2), "{opened:?} {listed:?} {found:?}");
}

#[test]
fn a_daemon_reads_while_it_writes_and_collects() {
    let root = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::default();
    options.hold = windlass_store::Hold::Life;
    let store = Store::open(root.path(), options).unwrap();
    let images: Vec<TestImage> = (0..6).map(|n| small(&format!("registry.example/app:{n}"))).collect();
    std::thread::scope(|scope| {
        for image in &images {
            scope.spawn(|| {
                image.pull(&store).unwrap();
                assert!(store.find(&image.name()).unwrap().is_some());
                store.gc(&GcRequest::sweep()).unwrap();
                store.remove(&image.name()).unwrap();
            });
        }
    });
    assert!(store.images().unwrap().is_empty());
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
}
