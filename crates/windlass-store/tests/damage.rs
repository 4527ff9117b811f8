//! Damage of every kind is found, told, put aside and healed by pulling again.

mod support;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use redb::{Database, TableDefinition};
use support::{TestImage, open, open_as, small, sparse_tar, tar_of, usual_formats};
use windlass_erofs::{DATA_START, Head, Image};
use windlass_store::{
    Access, Depth, Finding, FindingClass, Outcome, Repair, SnapshotFormat, Store, StoreOptions, Verdict,
};

const NAME: &str = "registry.example/team/app:1";
const OTHER: &str = "registry.example/team/other:1";

struct Case {
    what: &'static str,
    damage: fn(&Path, &TestImage),
    /// What a full check finds.
    class: FindingClass,
    /// Whether a quick check finds it too.
    quick: bool,
    /// Whether the image is absent after the repair, and pulled again.
    absent: bool,
}

fn blob(root: &Path, digest: &windlass_core::digest::Digest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path) {
    rewrite(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

fn drop_record(root: &Path, table: &'static str, key: &str) {
    let database = Database::open(root.join("meta/store.redb")).unwrap();
    let tx = database.begin_write().unwrap();
    let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
    assert!(tx.open_table(definition).unwrap().remove(key).unwrap().is_some(), "{table} has {key}");
    tx.commit().unwrap();
}

fn spoil_record(root: &Path, table: &'static str, key: &str) {
    let database = Database::open(root.join("meta/store.redb")).unwrap();
    let tx = database.begin_write().unwrap();
    let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
    tx.open_table(definition).unwrap().insert(key, b"{\"spoilt\":1}".as_slice()).unwrap();
    tx.commit().unwrap();
}

/// A file of the upper layer, kept as a directory; snapshots are numbered in the order of unpacking.
const TEXT: &str = "snapshots/2/fs/usr/text";
/// The upper layer, kept as an image file.
const IMAGE: &str = "snapshots/2/image";

/// Two layers; the upper one has a file that an image file has to keep behind its tar.
fn image() -> TestImage {
    let lower = tar_of(&[("etc/", b""), ("etc/name", NAME.as_bytes())]);
    let mut upper = tar_of(&[("usr/", b""), ("usr/text", b"upper")]);
    // Without the two blocks of zeros that end it.
    upper.truncate(upper.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(512));
    upper.extend(sparse_tar("usr/holes", 100_000, &[(0, b"begin"), (90_000, b"end")]));
    TestImage::of_tars(NAME, &[lower, upper])
}

/// Flips a bit in the middle of a part of the upper layer's image file.
fn flip_part(root: &Path, part: impl FnOnce(&Head) -> Range<u64>) {
    let file = fs::File::open(root.join(IMAGE)).unwrap();
    let head = Image::open(&file, file.metadata().unwrap().len()).unwrap().head().clone();
    let part = part(&head);
    assert!(!part.is_empty(), "{head:?}");
    rewrite(&root.join(IMAGE), |bytes| bytes[usize::try_from(part.start.midpoint(part.end)).unwrap()] ^= 1);
}

fn cases(format: SnapshotFormat) -> Vec<Case> {
    let of_form = match format {
        SnapshotFormat::Overlay => cases_of_directories(),
        SnapshotFormat::Erofs => cases_of_image_files(),
        SnapshotFormat::Auto => panic!("which one?"),
    };
    of_form.into_iter().chain(cases_of_both()).collect()
}

const fn case(
    what: &'static str,
    damage: fn(&Path, &TestImage),
    class: FindingClass,
    quick: bool,
    absent: bool,
) -> Case {
    Case { what, damage, class, quick, absent }
}

fn cases_of_both() -> Vec<Case> {
    use FindingClass as Class;
    vec![
        case("flipped bit in the config", |root, image| flip(&blob(root, &image.id())), Class::BlobDigest, false, true),
        case(
            "truncated manifest",
            |root, image| rewrite(&blob(root, &image.manifest_digest()), |bytes| bytes.truncate(9)),
            Class::BlobSize,
            true,
            true,
        ),
        case(
            "deleted config",
            |root, image| fs::remove_file(blob(root, &image.id())).unwrap(),
            Class::BlobMissing,
            true,
            true,
        ),
        case(
            "swapped blobs",
            |root, image| {
                let (one, two, aside) = (blob(root, &image.id()), blob(root, &image.manifest_digest()), root.join("x"));
                fs::rename(&one, &aside).unwrap();
                fs::rename(&two, &one).unwrap();
                fs::rename(&aside, &two).unwrap();
            },
            Class::BlobSize,
            true,
            true,
        ),
        case(
            "deleted layer",
            |root, _| fs::remove_dir_all(root.join("snapshots/1")).unwrap(),
            Class::LayerMissing,
            true,
            true,
        ),
        case(
            "lost record of a layer",
            |root, image| drop_record(root, "snapshots", image.keys[0].layer.chain_id.as_str()),
            Class::RecordMissing,
            true,
            false,
        ),
        case(
            "lost record of a blob",
            |root, image| drop_record(root, "blobs", image.id().as_str()),
            Class::RecordMissing,
            true,
            false,
        ),
        case(
            "lost record of the image",
            |root, image| drop_record(root, "images", image.id().as_str()),
            Class::NameDangling,
            true,
            true,
        ),
        case(
            "spoilt record of the image",
            |root, image| spoil_record(root, "images", image.id().as_str()),
            Class::RecordUnreadable,
            true,
            true,
        ),
        case(
            "spoilt name",
            |root, image| spoil_record(root, "names", &image.name()),
            Class::RecordUnreadable,
            true,
            true,
        ),
    ]
}

fn cases_of_directories() -> Vec<Case> {
    use FindingClass as Class;
    vec![
        case("flipped bit in a file", |root, _| flip(&root.join(TEXT)), Class::LayerContent, false, true),
        case(
            "truncated file",
            |root, _| rewrite(&root.join(TEXT), |bytes| bytes.truncate(1)),
            Class::LayerContent,
            true,
            true,
        ),
        case("deleted file", |root, _| fs::remove_file(root.join(TEXT)).unwrap(), Class::LayerContent, true, true),
        case(
            "file made a link",
            |root, _| {
                fs::remove_file(root.join(TEXT)).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", root.join(TEXT)).unwrap();
            },
            Class::LayerContent,
            true,
            true,
        ),
        case(
            "flipped bit in the sums",
            |root, _| flip(&root.join("snapshots/1/sums")),
            Class::LayerContent,
            true,
            true,
        ),
    ]
}

fn cases_of_image_files() -> Vec<Case> {
    use FindingClass as Class;
    vec![
        case("flipped bit in the head", |root, _| flip_part(root, |_| 0..128), Class::LayerContent, true, true),
        case(
            "flipped bit in the superblock",
            |root, _| flip_part(root, |_| 1024..1152),
            Class::LayerContent,
            true,
            true,
        ),
        case(
            "flipped bit in the tar",
            |root, _| flip_part(root, |head| DATA_START..DATA_START + head.tar_bytes),
            Class::LayerContent,
            false,
            true,
        ),
        case(
            "flipped bit behind the tar",
            |root, _| flip_part(root, |head| DATA_START + head.tar_bytes..head.metadata_offset),
            Class::LayerContent,
            false,
            true,
        ),
        case(
            "flipped bit in the metadata",
            |root, _| flip_part(root, |head| head.metadata_offset..head.total_bytes),
            Class::LayerContent,
            false,
            true,
        ),
        case(
            "truncated image file",
            |root, _| rewrite(&root.join(IMAGE), |bytes| bytes.truncate(bytes.len() - 512)),
            Class::LayerContent,
            true,
            true,
        ),
        case("empty image file", |root, _| rewrite(&root.join(IMAGE), Vec::clear), Class::LayerContent, true, true),
        case(
            "longer image file",
            |root, _| rewrite(&root.join(IMAGE), |bytes| bytes.extend([0; 512])),
            Class::LayerContent,
            true,
            true,
        ),
        case(
            "deleted image file",
            |root, _| fs::remove_file(root.join(IMAGE)).unwrap(),
            Class::LayerMissing,
            true,
            true,
        ),
        case(
            "image file made a link",
            |root, _| {
                let aside = root.join("quarantine/aside");
                fs::rename(root.join(IMAGE), &aside).unwrap();
                std::os::unix::fs::symlink(&aside, root.join(IMAGE)).unwrap();
            },
            Class::LayerMissing,
            true,
            true,
        ),
        case(
            "image file of another layer",
            |root, _| {
                fs::remove_file(root.join(IMAGE)).unwrap();
                fs::copy(root.join("snapshots/1/image"), root.join(IMAGE)).unwrap();
            },
            Class::LayerContent,
            true,
            true,
        ),
    ]
}

fn classes(findings: &[Finding]) -> Vec<FindingClass> {
    findings.iter().filter(|finding| finding.outcome != Outcome::Harmless).map(|finding| finding.class).collect()
}

fn present(store: &Store, name: &str) -> bool {
    store.find(name).unwrap().is_some_and(|image| image.damage.is_none())
}

#[test]
fn every_kind_of_damage_is_found_and_healed() {
    for format in usual_formats() {
        for case in cases(format) {
            found_and_healed(format, &case);
        }
    }
}

fn found_and_healed(format: SnapshotFormat, case: &Case) {
    let what = format!("{format:?}: {}", case.what);
    let root = tempfile::tempdir().unwrap();
    let image = image();
    let store = open_as(root.path(), format);
    image.pull(&store).unwrap();
    let other = TestImage::new(OTHER, &[&[("other", b"other")]]);
    other.pull(&store).unwrap();
    assert_eq!(store.fsck(Depth::Full, Repair::Yes).unwrap().findings, [], "{what}: before");

    (case.damage)(root.path(), &image);
    let quick = store.fsck(Depth::Quick, Repair::No).unwrap();
    assert_eq!(quick.verdict() == Verdict::Damaged, case.quick, "{what}: quick {quick:?}");
    let full = store.fsck(Depth::Full, Repair::No).unwrap();
    assert_eq!(full.verdict(), Verdict::Damaged, "{what}: full");
    assert!(classes(&full.findings).contains(&case.class), "{what}: {full:?}");

    let repaired = store.fsck(Depth::Full, Repair::Yes).unwrap();
    assert_eq!(repaired.verdict(), Verdict::Repaired, "{what}: {repaired:?}");
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean, "{what}: after");
    assert_eq!(present(&store, NAME), !case.absent, "{what}");
    assert!(present(&store, OTHER), "{what}: the other image is untouched");

    image.pull(&store).unwrap();
    assert!(present(&store, NAME), "{what}: healed");
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean, "{what}: healed");
}

/// Bytes between two that are flipped, one by one.
const FLIP_STRIDE: usize = 61;

#[test]
fn a_flipped_bit_of_an_image_file_is_found() {
    if !usual_formats().contains(&SnapshotFormat::Erofs) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let store = open_as(root.path(), SnapshotFormat::Erofs);
    image().pull(&store).unwrap();
    let path = root.path().join(IMAGE);
    let whole = fs::read(&path).unwrap();
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    let mut found = 0;
    for at in (0..whole.len()).step_by(FLIP_STRIDE) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, flipped).unwrap();
        let report = store.fsck(Depth::Full, Repair::No).unwrap();
        assert_eq!(classes(&report.findings), [FindingClass::LayerContent], "byte {at} of {}", whole.len());
        found += 1;
    }
    assert!(found > 1000, "{found} of {} bytes", whole.len());
    fs::write(&path, whole).unwrap();
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
}

#[test]
fn evidence_is_kept_in_quarantine() {
    for format in usual_formats() {
        let root = tempfile::tempdir().unwrap();
        let image = image();
        let store = open_as(root.path(), format);
        image.pull(&store).unwrap();
        flip(&blob(root.path(), &image.id()));
        flip(&root.path().join(if format == SnapshotFormat::Erofs { IMAGE } else { TEXT }));
        let report = store.fsck(Depth::Full, Repair::Yes).unwrap();
        assert_eq!(report.findings.iter().filter(|finding| finding.images == [image.id()]).count(), 2, "{report:?}");
        let aside: Vec<String> = fs::read_dir(root.path().join("quarantine/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(aside.len(), 2);
        assert!(aside.iter().any(|name| name.starts_with(image.id().hex())));
        assert!(aside.iter().any(|name| name.starts_with(image.keys[1].layer.chain_id.hex())));
    }
}

#[test]
fn a_destroyed_database_is_put_aside() {
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, Change); 4] = [
        ("overwritten", |bytes| bytes.fill(7)),
        ("header overwritten", |bytes| bytes[..64].fill(0)),
        ("cut", |bytes| bytes.truncate(5000)),
        ("empty", Vec::clear),
    ];
    for (what, change) in table {
        let root = tempfile::tempdir().unwrap();
        let image = small(NAME);
        image.pull(&open(root.path())).unwrap();
        rewrite(&root.path().join("meta/store.redb"), change);
        // As after a restart of the machine, when everything is looked at.
        fs::remove_file(root.path().join("meta/boot")).unwrap();
        let store = open(root.path());
        assert_eq!(store.find(NAME).unwrap_err().reason(), windlass_core::reason::Reason::InspectFailed, "{what}");
        assert_eq!(store.fsck(Depth::Quick, Repair::No).unwrap().verdict(), Verdict::Damaged, "{what}");
        assert_eq!(store.fsck(Depth::Quick, Repair::Yes).unwrap().verdict(), Verdict::Repaired, "{what}");
        assert!(!present(&store, NAME), "{what}");
        assert_eq!(image.pull(&store).unwrap().1, 0, "{what}: layers of this boot are found again");
        assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, [], "{what}");
        assert_eq!(fs::read_dir(root.path().join("quarantine/meta")).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn directories_that_went_missing_are_made_again() {
    for name in ["blobs/sha256", "blobs", "ingest", "snapshots", "stage", "meta/intents", "image_manager/pulled"] {
        let root = tempfile::tempdir().unwrap();
        let image = small(NAME);
        image.pull(&open(root.path())).unwrap();
        fs::remove_dir_all(root.path().join(name)).unwrap();
        let mut options = StoreOptions::default();
        options.access = Access::Read;
        let verdict = Store::open(root.path(), options).unwrap().fsck(Depth::Full, Repair::No).unwrap().verdict();
        let is_lost = name.starts_with("blobs") || name == "snapshots";
        assert_eq!(verdict, if is_lost { Verdict::Damaged } else { Verdict::Clean }, "{name}");
        let store = open(root.path());
        assert_ne!(store.fsck(Depth::Full, Repair::Yes).unwrap().verdict(), Verdict::Damaged, "{name}");
        image.pull(&store).unwrap();
        assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, [], "{name}");
        assert!(present(&store, NAME), "{name}");
    }
}

#[test]
fn a_record_that_does_not_decode_names_its_key() {
    let root = tempfile::tempdir().unwrap();
    let image = small(NAME);
    image.pull(&open(root.path())).unwrap();
    spoil_record(root.path(), "names", NAME);
    let error = open(root.path()).find(NAME).unwrap_err();
    assert!(error.to_string().contains(NAME), "{error}");
    assert_eq!(error.reason(), windlass_core::reason::Reason::InspectFailed);
}

#[test]
fn leftovers_are_garbage_and_no_damage() {
    for format in usual_formats() {
        let root = tempfile::tempdir().unwrap();
        let image = small(NAME);
        let store = open_as(root.path(), format);
        let lease = store.begin(windlass_store::LeaseOptions::pull(NAME)).unwrap();
        image.put_documents(&lease).unwrap();
        image.bring_layers(&lease, false).unwrap();
        drop(lease);
        let report = store.fsck(Depth::Full, Repair::Yes).unwrap();
        assert_eq!((report.verdict(), report.findings.len()), (Verdict::Clean, 4));
        assert!(report.findings.iter().all(|finding| finding.class == FindingClass::Garbage));
        store.gc(&windlass_store::GcRequest::sweep()).unwrap();
        assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    }
}

#[test]
fn a_database_whose_pages_make_no_sense_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    small(NAME).pull(&open(root.path())).unwrap();
    let path = root.path().join("meta/store.redb");
    let whole = fs::read(&path).unwrap();
    let mut unreadable = 0;
    // Every part of every page, each with bytes that are lengths, kinds and checksums of something else.
    for at in (0..whole.len()).step_by(512) {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at..whole.len().min(at + 48)].fill(value);
            fs::write(&path, &bytes).unwrap();
            let mut options = StoreOptions::default();
            options.access = Access::Read;
            let told = Store::open(root.path(), options).and_then(|store| store.images());
            unreadable += usize::from(told.is_err());
        }
    }
    assert!(unreadable > 0, "some of it matters");
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(root.path()).fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean);
}
