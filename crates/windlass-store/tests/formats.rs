//! Which form layers are kept in, and that images of both forms, and of mixed ones, are the same.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use support::{Disk, TestImage, open_as, skipped, small, usual_formats};
use windlass_core::reason::Reason;
use windlass_store::{
    Depth, GcRequest, LayerClaim, LeaseOptions, Repair, SetUserId, SnapshotFormat, Store, StoreError, Verdict,
};
use windlass_testkit::hostile::raw::{Header, Tar};

const NAME: &str = "registry.example/team/app:1";
const OTHER: &str = "registry.example/team/other:1";
/// What the log says where image files cannot be used.
const SAID: &str = "layers are kept as directories, not as image files";

/// What a store has: `fs` for each directory, `image` for each image file.
fn forms(store: &Store) -> Vec<&'static str> {
    let mut snapshots: Vec<_> =
        fs::read_dir(store.root().join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    snapshots.sort();
    let form = |path: &Path| ["fs", "image"].into_iter().find(|name| path.join(name).exists()).unwrap();
    snapshots.iter().map(|path| form(path)).collect()
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs something and returns its warnings, line by line.
fn warnings_of(work: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap())).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A place where image files cannot be used: `auto` says so once and keeps directories, asking for them is an error.
fn directories_are_used(at: &Path, why: &str) {
    let root = at.join("auto");
    let pull = |name: &str| {
        warnings_of(|| {
            let store = open_as(&root, SnapshotFormat::Auto);
            small(name).pull(&store).unwrap();
            assert!(forms(&store).iter().all(|form| *form == "fs"));
            assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
        })
    };
    let said = pull(NAME);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(SAID) && said[0].contains(why), "{said:?}");
    assert_eq!(pull(OTHER), [""; 0], "it is said once");

    let store = open_as(&at.join("forced"), SnapshotFormat::Erofs);
    for _ in 0..2 {
        let error = small(NAME).pull(&store).unwrap_err();
        assert!(matches!(error, StoreError::NoImageFiles { .. }), "{error:?}");
        assert_eq!(error.reason(), Reason::InvalidConfig);
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("use snapshot format auto or overlay"), "{text}");
        assert_eq!(store.find(NAME).unwrap(), None);
    }
    for empty in ["snapshots", "stage", "ingest"] {
        assert_eq!(fs::read_dir(at.join("forced").join(empty)).unwrap().count(), 0, "{empty}");
    }
    assert_eq!(store.gc(&GcRequest::sweep()).unwrap().kept, []);
    // What was asked for is in the way, not the store.
    small(NAME).pull(&open_as(&at.join("forced"), SnapshotFormat::Overlay)).unwrap();
}

/// The words of the kernel for a file that it cannot mount without a loop device.
const NOT_A_BLOCK_DEVICE: &str = "Block device required";

#[test]
fn image_files_are_used_where_they_can_be() {
    if usual_formats().contains(&SnapshotFormat::Erofs) {
        let root = tempfile::tempdir().unwrap();
        let said = warnings_of(|| {
            let store = open_as(root.path(), SnapshotFormat::Auto);
            small(NAME).pull(&store).unwrap();
            assert_eq!(forms(&store), ["image", "image"]);
        });
        assert_eq!(said, [""; 0], "nothing is wrong");
        assert_eq!(fs::read_dir(root.path().join("e")).unwrap().count(), 0, "nothing of the trial is left");
    }
    if let Some(disk) = Disk::ext4(24 << 20, 4096) {
        let store = open_as(&disk.at.join("store"), SnapshotFormat::Auto);
        small(NAME).pull(&store).unwrap();
        assert_eq!(forms(&store), ["image", "image"]);
    }
}

#[test]
fn forcing_image_files_where_they_cannot_be_is_an_error() {
    for disk in [Disk::tmpfs("size=32m,mode=0700"), Disk::overlay()].into_iter().flatten() {
        directories_are_used(&disk.at, NOT_A_BLOCK_DEVICE);
    }
}

const USER_ROOT: &str = "WINDLASS_TEST_FORMATS_ROOT";
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// Run by [`an_ordinary_user_is_told_once_and_keeps_directories`] as an ordinary user.
#[test]
fn as_user() {
    if let Some(root) = std::env::var_os(USER_ROOT) {
        directories_are_used(Path::new(&root), "only root can mount");
    }
}

#[test]
fn an_ordinary_user_is_told_once_and_keeps_directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("user");
    fs::create_dir(&root).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "as_user"]).env(USER_ROOT, &root);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&root, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        child.uid(NOBODY).gid(NOBODY);
    }
    match child.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => skipped(&format!("an ordinary user cannot run this test binary: {error}")),
    }
}

#[test]
fn what_an_ordinary_user_was_told_does_not_bind_root() {
    if !usual_formats().contains(&SnapshotFormat::Erofs) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let store = open_as(root.path(), SnapshotFormat::Auto);
    small(NAME).pull(&store).unwrap();
    let note = root.path().join("meta/erofs");
    let mut noted: serde_json::Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
    noted["user"] = NOBODY.into();
    noted["why_not"] = "only root can mount".into();
    fs::write(&note, serde_json::to_vec(&noted).unwrap()).unwrap();
    let store = open_as(root.path(), SnapshotFormat::Auto);
    small(OTHER).pull(&store).unwrap();
    assert_eq!(forms(&store), ["image"; 4]);
}

/// Layers that need what lies below: owners of directories, hard links, whiteouts, opaque directories.
fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .head(Header::new(b'5', "etc").mode(0o751).uid(7).gid(8).mtime(9))
            .file("etc/a", "a of the lowest")
            .file("etc/b", "b of the lowest")
            .dir("opt")
            .file("opt/gone", "hidden above")
            .symlink("way", "etc")
            .end(),
        Tar::new()
            .file("etc/c", "c")
            .file("etc/.wh.b", "")
            .link("etc/a-too", "etc/a")
            .file("opt/new", "hidden above")
            .end(),
        // Through a link of the lowest layer.
        Tar::new()
            .file("way/d", "d")
            .dir("opt")
            .file("opt/.wh..wh..opq", "")
            .pax(&[("SCHILY.xattr.user.colour", b"green")])
            .file("opt/only", "this")
            .end(),
        Tar::new()
            .link("etc/c-too", "etc/c")
            .raw(&support::sparse_tar("holes", 70_000, &[(0, b"begin"), (60_000, b"end")]))
            .end(),
    ]
}

/// Everything a mounted image shows, as one line for each name.
fn shown(store: &Store, image: &str, at: &Path) -> BTreeSet<String> {
    fs::create_dir(at).unwrap();
    store.mount(image, at, SetUserId::Honoured).unwrap();
    let find = ["-printf", "%P %y %m %U %G %n %T@ %s %l\n"];
    let listed = Command::new("find").arg(".").args(find).current_dir(at).output().unwrap();
    let summed = Command::new("sh").arg("-c").arg("find . -type f -exec sha256sum {} +").current_dir(at).output();
    let text = [listed.stdout, summed.unwrap().stdout].concat();
    let colour = {
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(at.join("opt/only"), "user.colour", &mut value).unwrap_or(0);
        format!("{:?}", &value[..length])
    };
    store.unmount(at).unwrap();
    let text = String::from_utf8(text).unwrap();
    // Sizes of directories are the file system's own affair.
    let line = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [path, "d", mode, uid, gid, _, time, _, ..] => format!("{path} d {mode} {uid} {gid} {time}"),
        _ => line.to_owned(),
    };
    text.lines().map(line).chain([colour]).collect()
}

#[test]
fn image_files_and_directories_are_the_same_tree() {
    if !usual_formats().contains(&SnapshotFormat::Erofs) {
        return;
    }
    use SnapshotFormat::{Erofs, Overlay};
    let layers = layers();
    let mut seen = Vec::new();
    // How many of the layers come with another image, in which form, and in which form the rest.
    for (shared, below, above) in [
        (0, Overlay, Overlay),
        (0, Overlay, Erofs),
        (1, Overlay, Erofs),
        (1, Erofs, Overlay),
        (2, Overlay, Erofs),
        (2, Erofs, Overlay),
        (3, Overlay, Erofs),
        (3, Erofs, Overlay),
    ] {
        let what = format!("{shared} of {below:?} below {above:?}");
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let store = open_as(&root, below);
        if shared > 0 {
            TestImage::of_tars(OTHER, &layers[..shared]).pull(&store).unwrap();
        }
        let store = open_as(&root, above);
        let image = TestImage::of_tars(NAME, &layers);
        image.pull(&store).unwrap();
        let count = |form: &str| forms(&store).iter().filter(|found| **found == form).count();
        let of_below = if below == Erofs { count("image") } else { count("fs") };
        if below != above {
            assert_eq!((of_below, forms(&store).len()), (shared, layers.len()), "{what}");
        }
        assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, [], "{what}");
        seen.push((what.clone(), shown(&store, NAME, &dir.path().join("at"))));
        if shared > 0 {
            store.remove(OTHER).unwrap();
            assert_eq!(forms(&store).len(), layers.len(), "{what}: they are in use");
            assert_eq!(store.find(NAME).unwrap().unwrap().damage, None, "{what}");
        }
        store.remove(NAME).unwrap();
        store.gc(&GcRequest::sweep()).unwrap();
        assert_eq!(forms(&store), [""; 0], "{what}");
        assert_eq!(fs::read_dir(root.join("e")).unwrap().count(), 0, "{what}");
        assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, [], "{what}");
    }
    let (_, first) = &seen[0];
    assert!(first.iter().any(|line| line.starts_with("etc/d ")), "the link was followed: {first:#?}");
    assert!(!first.iter().any(|line| line.starts_with("opt/new ")), "it is hidden: {first:#?}");
    assert!(first.contains(&format!("{:?}", b"green")), "it has its attribute: {first:#?}");
    for (what, tree) in &seen[1..] {
        assert_eq!(tree, first, "{what}");
    }
}

#[test]
fn a_pull_goes_on_in_another_form() {
    if !usual_formats().contains(&SnapshotFormat::Erofs) {
        return;
    }
    use SnapshotFormat::{Erofs, Overlay};
    let layers = layers();
    let mut seen = BTreeSet::new();
    for (before, after) in [(Overlay, Overlay), (Overlay, Erofs), (Erofs, Overlay)] {
        for waiting in [&[1, 2, 3][..], &[3], &[2, 0], &[0, 1, 2, 3]] {
            let what = format!("{waiting:?} in {before:?}, then {after:?}");
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store");
            let image = TestImage::of_tars(NAME, &layers);
            let store = open_as(&root, before);
            let lease = store.begin(LeaseOptions::pull(NAME)).unwrap();
            let mut fetched = 0;
            for at in waiting {
                let LayerClaim::Work(work) = lease.claim_layer(&image.keys[*at], &|| false).unwrap() else { continue };
                let again = work.unpack(&mut image.blobs[*at].as_slice(), &()).unwrap().again;
                fetched += usize::from(again.is_empty());
            }
            // As a killed process leaves it, but for the locks, which must go.
            drop(lease);
            drop(store);
            let store = open_as(&root, after);
            let (_, rest) = image.pull(&store).unwrap();
            assert!(rest >= layers.len() - fetched, "{what}: {rest} more");
            assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean, "{what}");
            seen.insert(shown(&store, NAME, &dir.path().join("at")));
            assert_eq!(seen.len(), 1, "{what}");
            store.remove(NAME).unwrap();
            assert_eq!(forms(&store), [""; 0], "{what}");
            assert_eq!(fs::read_dir(root.join("stage")).unwrap().count(), 0, "{what}");
        }
    }
}
