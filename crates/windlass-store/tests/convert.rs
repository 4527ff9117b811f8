//! Stored layers rewritten into the other form: exact, safe against kills, and only those that nobody uses.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use std::io::Read as _;

use support::{TestImage, open_as};
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;
use windlass_store::{
    Conversion, ConvertReport, Depth, GcRequest, KeepLayers, LeaseOptions, Repair, SetUserId, SnapshotFormat, Store,
    StoreError, StoreOptions, TarIs, Verdict,
};

const NAME: &str = "registry.example/team/app:1";

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED store::convert: {what}");
}

/// Whether image files can be mounted where these tests run; if not, says so.
fn has_image_files() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let store = open_as(dir.path(), SnapshotFormat::Erofs);
    match image().pull(&store) {
        Ok(_) => true,
        Err(error @ StoreError::NoImageFiles { .. }) => {
            skipped(&error.to_string());
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn entry(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(u64::from(mode % 97));
    header.set_gid(u64::from(mode % 89));
    header.set_mtime(1_600_000_000 + u64::from(mode));
    header.set_size(data.len() as u64);
    match link.is_empty() {
        true => builder.append_data(&mut header, path, data).unwrap(),
        false => builder.append_link(&mut header, path, link).unwrap(),
    }
}

/// Three layers in which everything is that makes a layer depend on those below: whiteouts, opaque directories, parents
/// without an entry, a parent that is a link below, links to files below.
fn image() -> TestImage {
    use tar::EntryType as T;
    let long = "directory/".repeat(20) + "file";
    let mut low = tar::Builder::new(Vec::new());
    entry(&mut low, T::Directory, "./", "", 0o750, b"");
    entry(&mut low, T::Directory, "real/", "", 0o711, b"");
    entry(&mut low, T::Symlink, "link", "real", 0o777, b"");
    entry(&mut low, T::Regular, "real/a", "", 0o4755, b"below");
    entry(&mut low, T::Regular, "real/gone", "", 0o644, b"x");
    entry(&mut low, T::Directory, "cleared/", "", 0o700, b"");
    entry(&mut low, T::Regular, "cleared/old", "", 0o600, b"old");
    entry(&mut low, T::Regular, &long, "", 0o640, &vec![7; 300_000]);
    let mut middle = tar::Builder::new(Vec::new());
    entry(&mut middle, T::Regular, "link/through", "", 0o600, b"through a link below");
    entry(&mut middle, T::Regular, "real/.wh.gone", "", 0o644, b"");
    entry(&mut middle, T::Regular, "nowhere/.wh.nothing", "", 0o644, b"");
    entry(&mut middle, T::Link, "real/b", "real/a", 0o755, b"");
    entry(&mut middle, T::Regular, "cleared/.wh..wh..opq", "", 0o644, b"");
    entry(&mut middle, T::Regular, "cleared/new", "", 0o604, b"new");
    let mut top = tar::Builder::new(Vec::new());
    entry(&mut top, T::Regular, "real/twice", "", 0o600, b"first");
    entry(&mut top, T::Regular, "real/twice", "", 0o602, b"second");
    entry(&mut top, T::Fifo, "pipe", "", 0o622, b"");
    entry(&mut top, T::Symlink, "dangling", "/nowhere/at/all", 0o777, b"");
    let tars = [low, middle, top].map(|builder| builder.into_inner().unwrap());
    TestImage::of_tars(NAME, &tars)
}

/// Kind, mode, owner, time, link count of files, content or link text.
type Seen = (u32, u32, u32, i64, u64, Vec<u8>);

/// What the mounted image shows.
fn tree(store: &Store) -> BTreeMap<Vec<u8>, Seen> {
    let place = tempfile::tempdir().unwrap();
    let at = place.path().join("at");
    fs::create_dir(&at).unwrap();
    store.mount(NAME, &at, SetUserId::Honoured).unwrap();
    let mut seen = BTreeMap::new();
    let mut left = vec![at.clone()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let bytes = match found.file_type() {
            kind if kind.is_dir() => {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            kind if kind.is_file() => fs::read(&path).unwrap(),
            _ => Vec::new(),
        };
        let links = if found.is_dir() { 0 } else { found.nlink() };
        let what = (found.mode(), found.uid(), found.gid(), found.mtime(), links, bytes);
        seen.insert(path.strip_prefix(&at).unwrap().as_os_str().as_bytes().to_vec(), what);
    }
    store.unmount(&at).unwrap();
    seen
}

fn convert(store: &Store) -> ConvertReport {
    let mut heard = Vec::new();
    let report = store.convert(&mut |layer, of| heard.push((layer.clone(), of))).unwrap();
    assert!(heard.iter().map(|(layer, _)| layer).eq(&report.layers), "each is told as it is done");
    assert!(heard.iter().all(|(_, of)| *of == report.layers.len()));
    report
}

fn outcomes(store: &Store) -> Vec<Conversion> {
    convert(store).layers.into_iter().map(|layer| layer.outcome).collect()
}

/// The layers in `snapshots/`: number and whether it is an image file.
fn snapshots(root: &Path) -> BTreeMap<String, bool> {
    let entries = fs::read_dir(root.join("snapshots")).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path().join("image").exists())).collect()
}

#[track_caller]
fn assert_clean(store: &Store) {
    let report = store.fsck(Depth::Full, Repair::No).unwrap();
    assert_eq!((report.verdict(), report.findings), (Verdict::Clean, Vec::new()));
}

fn open_keeping(root: &Path, format: SnapshotFormat) -> Store {
    let mut options = StoreOptions::default();
    options.snapshot_format = format;
    options.keep_layers = KeepLayers::Yes;
    Store::open(root, options).unwrap()
}

#[test]
fn layers_are_converted_there_and_back() {
    if !has_image_files() {
        return;
    }
    let exact = || Conversion::Converted(Some(TarIs::Exact));
    let read_back = || Conversion::Converted(Some(TarIs::ReadBack));
    let table = [
        // pulled as                with blobs      once converted, and then back
        (SnapshotFormat::Overlay, KeepLayers::No, [read_back(), Conversion::Converted(None)]),
        (SnapshotFormat::Overlay, KeepLayers::Yes, [exact(), Conversion::Converted(None)]),
        (SnapshotFormat::Erofs, KeepLayers::No, [Conversion::Converted(None), read_back()]),
        (SnapshotFormat::Erofs, KeepLayers::Yes, [Conversion::Converted(None), exact()]),
    ];
    for (format, keep, want) in table {
        let dir = tempfile::tempdir().unwrap();
        let other = match format {
            SnapshotFormat::Overlay => SnapshotFormat::Erofs,
            SnapshotFormat::Erofs | SnapshotFormat::Auto => SnapshotFormat::Overlay,
        };
        let open = |format| match keep {
            KeepLayers::Yes => open_keeping(dir.path(), format),
            KeepLayers::No => open_as(dir.path(), format),
        };
        let store = open(format);
        image().pull(&store).unwrap();
        assert_eq!(outcomes(&store), vec![Conversion::Already; 3], "{format:?}");
        let before = tree(&store);
        assert!(before.len() > 20 && before.contains_key(&b"real/through"[..]), "{before:?}");
        for (at, want) in [other, format].into_iter().zip(want) {
            let store = open(at);
            assert_eq!(outcomes(&store), vec![want; 3], "{format:?} {keep:?} to {at:?}");
            assert_clean(&store);
            let is_image = at == SnapshotFormat::Erofs;
            assert_eq!(snapshots(dir.path()).into_values().collect::<Vec<_>>(), [is_image; 3]);
            assert_eq!(tree(&store), before, "{format:?} {keep:?} to {at:?}");
            assert_eq!(outcomes(&store), vec![Conversion::Already; 3], "once is enough");
            assert_eq!(store.gc(&GcRequest::sweep()).unwrap().victims, Vec::new());
            assert_eq!(snapshots(dir.path()).len(), 3, "a collection leaves layers alone");
        }
        let store = open(format);
        store.remove(NAME).unwrap();
        assert_eq!(snapshots(dir.path()).len(), 0);
    }
}

#[test]
fn a_tar_that_was_read_back_is_never_the_layers_own() {
    if !has_image_files() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    image.pull(&open_as(dir.path(), SnapshotFormat::Overlay)).unwrap();
    let store = open_as(dir.path(), SnapshotFormat::Erofs);
    assert_eq!(outcomes(&store), vec![Conversion::Converted(Some(TarIs::ReadBack)); 3]);
    for key in &image.keys {
        assert!(store.layer_tar(&key.layer.chain_id).unwrap().is_none(), "it is not offered");
    }
    // A check is a check: the bytes are compared with what was written.
    let (n, _) = snapshots(dir.path()).pop_last().unwrap();
    let path = dir.path().join("snapshots").join(n).join("image");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096 + 700).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 4096 + 700).unwrap();
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Damaged);
    file.write_all_at(&byte, 4096 + 700).unwrap();
    assert_clean(&store);
    // With the blobs here it becomes exact.
    let lease = store.begin(LeaseOptions::load("again")).unwrap();
    for (key, blob) in image.keys.iter().zip(&image.blobs) {
        lease.put_blob(windlass_store::BlobKind::Layer, &key.layer.blob, blob).unwrap();
    }
    image.put_documents(&lease).unwrap();
    image.bring_layers(&lease, false).unwrap();
    lease.commit(image.commit()).unwrap();
    drop(lease);
    assert_eq!(outcomes(&store), vec![Conversion::Converted(Some(TarIs::Exact)); 3]);
    for key in &image.keys {
        let mut tar = store.layer_tar(&key.layer.chain_id).unwrap().unwrap();
        let (mut bytes, left) = (Vec::new(), tar.left_bytes());
        tar.read_to_end(&mut bytes).unwrap();
        assert_eq!((Digest::sha256(&bytes), bytes.len() as u64), (key.layer.diff_id.clone(), left));
    }
    assert_clean(&store);
}

/// Copies a snapshot as it stands, links, times and owners included.
fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success(), "{} to {}", from.display(), to.display());
}

/// An intent that no process holds, as a killed one leaves it.
fn leave_dead_intent(root: &Path) {
    fs::write(root.join("meta/intents/1-00000000-0"), b"pull conversion\n").unwrap();
}

#[test]
fn a_killed_conversion_leaves_one_whole_layer() {
    if !has_image_files() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [before, after] = ["before", "after"].map(|name| dir.path().join(name));
    image().pull(&open_as(&before, SnapshotFormat::Overlay)).unwrap();
    let want = tree(&open_as(&before, SnapshotFormat::Overlay));
    copy(&before, &after);
    assert_eq!(outcomes(&open_as(&after, SnapshotFormat::Erofs)).len(), 3);
    let (old, new) = (snapshots(&before), snapshots(&after));
    assert!(old.keys().all(|n| !new.contains_key(n)), "every form has a number of its own: {old:?} {new:?}");
    let all = |root: &Path, numbers: &BTreeMap<String, bool>| -> Vec<PathBuf> {
        numbers.keys().map(|n| root.join("snapshots").join(n)).collect()
    };
    let state = |name: &str, store: &Path, extra: Vec<PathBuf>| {
        let root = dir.path().join(name);
        copy(store, &root);
        extra.iter().for_each(|snapshot| copy(snapshot, &root.join("snapshots")));
        root
    };
    let states = [
        // Killed between the move into snapshots and the change of the record, and between that and the removal.
        (state("unrecorded", &before, all(&after, &new)), &old),
        (state("recorded", &after, all(&before, &old)), &new),
        (state("unrecorded-gc", &before, all(&after, &new)), &old),
        (state("recorded-gc", &after, all(&before, &old)), &new),
    ];
    for (root, left) in states {
        let store = if root.ends_with("unrecorded") || root.ends_with("recorded") {
            leave_dead_intent(&root);
            let store = open_as(&root, SnapshotFormat::Erofs);
            assert_eq!(store.recovered().conversions, 3, "{}", root.display());
            store
        } else {
            let store = open_as(&root, SnapshotFormat::Erofs);
            assert_eq!(store.gc(&GcRequest::sweep()).unwrap().victims.len(), 3, "{}", root.display());
            store
        };
        assert_eq!(&snapshots(&root), left, "{}", root.display());
        assert_clean(&store);
        assert_eq!(tree(&store), want, "{}", root.display());
        convert(&store);
        assert_clean(&store);
        assert!(snapshots(&root).into_values().eq([true; 3]));
    }
    // Killed while it wrote: a stage and a claim.
    let root = state("writing", &before, Vec::new());
    let chain = image().keys[1].layer.chain_id.hex().to_owned();
    fs::create_dir(root.join("stage").join(&chain)).unwrap();
    fs::write(root.join("stage").join(&chain).join("image"), b"half").unwrap();
    fs::write(root.join("stage").join(format!("{chain}.claim")), b"working").unwrap();
    leave_dead_intent(&root);
    let store = open_as(&root, SnapshotFormat::Overlay);
    assert_eq!(fs::read_dir(root.join("stage")).unwrap().count(), 0);
    assert_eq!(tree(&store), want);
}

#[test]
fn layers_in_use_are_not_converted() {
    if !has_image_files() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let image = image();
    image.pull(&open_as(&root, SnapshotFormat::Overlay)).unwrap();
    let store = open_as(&root, SnapshotFormat::Erofs);
    let at = dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let whys = || -> Vec<String> {
        let why = |outcome| match outcome {
            Conversion::Skipped(why) => why,
            other => panic!("{other:?}"),
        };
        outcomes(&store).into_iter().map(why).collect()
    };
    store.mount(NAME, &at, SetUserId::Honoured).unwrap();
    let said = whys();
    assert!(said.iter().all(|why| why.contains("mounted at") && why.contains(at.to_str().unwrap())), "{said:?}");
    assert_eq!(fs::read_to_string(at.join("real/a")).unwrap(), "below");
    store.unmount(&at).unwrap();
    let lease = store.begin(LeaseOptions::pull("under way")).unwrap();
    image.bring_layers(&lease, false).unwrap();
    let said = whys();
    assert!(said.iter().all(|why| why.contains("a pull under way")), "{said:?}");
    image.put_documents(&lease).unwrap();
    lease.commit(image.commit()).unwrap();
    drop(lease);
    assert_eq!(outcomes(&store), vec![Conversion::Converted(Some(TarIs::ReadBack)); 3]);
    assert_clean(&store);
}

#[test]
fn a_damaged_layer_is_not_converted() {
    if !has_image_files() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    image().pull(&open_as(dir.path(), SnapshotFormat::Overlay)).unwrap();
    let [low, middle, top] = [1, 2, 3].map(|n| dir.path().join(format!("snapshots/{n}/fs")));
    fs::write(low.join("real/a"), b"wrong").unwrap();
    fs::remove_file(top.join("real/twice")).unwrap();
    let store = open_as(dir.path(), SnapshotFormat::Erofs);
    let outcomes = outcomes(&store);
    let failed = |at: usize| matches!(&outcomes[at], Conversion::Failed { reason, .. } if *reason != Reason::Internal);
    assert!(failed(0) && failed(2), "{outcomes:?}");
    assert_eq!(outcomes[1], Conversion::Converted(Some(TarIs::ReadBack)), "the others go on");
    assert!(low.exists() && !middle.exists() && top.exists(), "what is damaged stays for fsck to find");
    let findings = store.fsck(Depth::Full, Repair::No).unwrap().findings;
    assert_eq!(findings.len(), 2, "{findings:?}");
}

#[test]
fn a_full_disk_ends_a_conversion_with_nothing_lost() {
    if !has_image_files() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    image().pull(&open_as(dir.path(), SnapshotFormat::Overlay)).unwrap();
    let mut options = StoreOptions::default();
    options.snapshot_format = SnapshotFormat::Erofs;
    // As if the disk were full: all of it is held back.
    options.reserve = windlass_store::Reserve { percent: 100, bytes: u64::MAX };
    let store = Store::open(dir.path(), options).unwrap();
    let error = store.convert(&mut |_, _| {}).unwrap_err();
    assert_eq!(error.reason(), Reason::NoSpace, "{error}");
    assert_eq!(fs::read_dir(dir.path().join("stage")).unwrap().count(), 0);
    assert_clean(&store);
}
