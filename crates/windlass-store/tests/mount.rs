//! Mounting images. Needs the right to mount: without it only the refusal can be tested, and that is said aloud.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use support::{TestImage, open, small};
use windlass_core::reason::Reason;
use windlass_store::{Depth, GcRequest, Repair, SetUserId};

const NAME: &str = "registry.example/team/app:1";

const USER_ROOT: &str = "WINDLASS_TEST_USER_ROOT";
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// Run by [`an_ordinary_user_keeps_a_store_and_cannot_mount`] as an ordinary user.
#[test]
fn as_user() {
    let Some(root) = std::env::var_os(USER_ROOT) else { return };
    let root = Path::new(&root);
    let store = open(&root.join("store"));
    let image = small(NAME);
    image.pull(&store).unwrap();
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    let target = root.join("at");
    fs::create_dir(&target).unwrap();
    let error = store.mount(NAME, &target, SetUserId::Honoured).unwrap_err();
    assert_eq!(error.reason(), Reason::NotPermitted, "{error}");
    assert!(error.to_string().contains("windlass unpack"), "{error}");
    assert_eq!(store.mounted_at(&image.id()).unwrap().len(), 0);
    store.remove(NAME).unwrap();
    assert_eq!(fs::read_dir(root.join("store/snapshots")).unwrap().count(), 0);
}

#[test]
fn an_ordinary_user_keeps_a_store_and_cannot_mount() {
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

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED store::mount: {what}");
}

/// Whether this process may mount an overlay; if not, says so.
fn may_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    small(NAME).pull(&store).unwrap();
    let target = dir.path().join("at");
    fs::create_dir(&target).unwrap();
    match store.mount(NAME, &target, SetUserId::Honoured) {
        Ok(_) => {
            store.unmount(&target).unwrap();
            true
        }
        Err(error) => {
            assert_eq!(error.reason(), Reason::NotPermitted, "{error}");
            assert!(error.to_string().contains("windlass unpack"), "{error}");
            skipped(&format!("no right to mount here ({error})"));
            false
        }
    }
}

#[test]
fn a_mounted_image_is_in_use() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let image = TestImage::new(
        NAME,
        &[&[("etc/", b""), ("etc/a", b"below"), ("etc/gone", b"x")], &[("etc/a", b"above"), ("etc/.wh.gone", b"")]],
    );
    image.pull(&store).unwrap();
    let target = dir.path().join("with a blank");
    fs::create_dir(&target).unwrap();
    store.mount(NAME, &target, SetUserId::Ignored).unwrap();
    assert_eq!(fs::read_to_string(target.join("etc/a")).unwrap(), "above");
    assert!(!target.join("etc/gone").exists());
    assert!(fs::write(target.join("new"), b"").is_err(), "it is read-only");
    assert_eq!(store.mounted_at(&image.id()).unwrap(), [target.canonicalize().unwrap()]);
    assert_eq!(store.remove(NAME).unwrap_err().reason(), Reason::InUse);
    let request = GcRequest { images: vec![(image.id(), "old".to_owned())], ..GcRequest::sweep() };
    assert_eq!(store.gc(&request).unwrap().kept.len(), 1);
    store.unmount(&target).unwrap();
    assert_eq!(store.unmount(&target).unwrap_err().reason(), Reason::ImageUnknown);
    store.remove(NAME).unwrap();
}

#[test]
fn an_image_unmounted_by_other_means_is_free() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    small(NAME).pull(&store).unwrap();
    let target = dir.path().join("at");
    fs::create_dir(&target).unwrap();
    store.mount(NAME, &target, SetUserId::Honoured).unwrap();
    assert!(Command::new("umount").arg(&target).status().unwrap().success());
    store.remove(NAME).unwrap();
}

#[test]
fn five_hundred_layers_mount() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    for count in [1usize, 2, 500] {
        let names: Vec<String> = (0..count).map(|n| format!("f{n}")).collect();
        let layers: Vec<Vec<(&str, &[u8])>> = names.iter().map(|name| vec![(name.as_str(), b"x".as_slice())]).collect();
        let layers: Vec<&[(&str, &[u8])]> = layers.iter().map(Vec::as_slice).collect();
        let name = format!("registry.example/deep:{count}");
        TestImage::new(&name, &layers).pull(&store).unwrap();
        let target = dir.path().join(format!("at{count}"));
        fs::create_dir(&target).unwrap();
        store.mount(&name, &target, SetUserId::Honoured).unwrap();
        let seen = entries(&target);
        store.unmount(&target).unwrap();
        assert_eq!(seen, count);
    }
}

fn entries(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}
