//! What a container sees: snapshots mounted as containerd mounts them. Needs the right to mount: without it nothing is
//! tested, and that is said aloud.
//!
//! containerd calls `mount(2)` with one string of options, and where that is nearly a page it goes to the common directory
//! of the lower ones first (containerd `core/mount/mount_linux.go`, `compactLowerdirOption`). A process has one working
//! directory, so that is done by a child: this binary once more, with [`child`] as its only test.

mod support;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use support::{TestImage, open_as, tar_of, usual_formats};
use windlass_core::digest::Digest;
use windlass_store::{
    Conversion, Depth, GcRequest, Hold, Labels, Prepared, Repair, SetUserId, SnapshotFormat, SnapshotMount, Snapshots,
    Store, StoreOptions, Verdict,
};

const NAME: &str = "registry.example/team/app:1";
const REF: &str = "containerd.io/snapshot.ref";

const MOUNT: &str = "WINDLASS_TEST_MOUNT";
/// A page, which is what `mount(2)` copies of its options.
const PAGE: usize = 4096;

/// Run by [`mount_as_containerd`]: type, source, options and target, one on a line.
#[test]
fn child() {
    let Ok(text) = std::env::var(MOUNT) else { return };
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap();
    let (fs_type, source, options, target) = (next(), next(), next(), next());
    let mut options: Vec<String> = options.split(',').map(str::to_owned).collect();
    let size: usize = options.iter().map(|option| option.len() + 1).sum();
    if fs_type == "overlay" && size >= PAGE - 512 {
        compact(&mut options);
    }
    let mut flags = MountFlags::empty();
    options.retain(|option| match option.as_str() {
        "rbind" => {
            flags |= MountFlags::BIND | MountFlags::REC;
            false
        }
        "ro" => {
            flags |= MountFlags::RDONLY;
            false
        }
        "rw" => false,
        _ => true,
    });
    let data = options.join(",");
    assert!(data.len() < PAGE, "mount options is too long: {} bytes", data.len());
    let data = CString::new(data).unwrap();
    if flags.contains(MountFlags::BIND) {
        rustix::mount::mount_bind_recursive(source, target).unwrap();
        if flags.contains(MountFlags::RDONLY) {
            rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        }
    } else {
        rustix::mount::mount(source, target, fs_type, flags, data.as_c_str()).unwrap();
    }
}

/// As containerd does it: the common beginning of first and last in their order, up to its last slash.
fn compact(options: &mut [String]) {
    let option = options.iter_mut().find(|option| option.starts_with("lowerdir=")).unwrap();
    let dirs: Vec<&str> = option.strip_prefix("lowerdir=").unwrap().split(':').collect();
    let (first, last) = (dirs.iter().min().unwrap(), dirs.iter().max().unwrap());
    let common = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    let common = first[..common].rfind('/').unwrap();
    assert!(common > 0, "nothing in common: {first} {last}");
    std::env::set_current_dir(&first[..common]).unwrap();
    let rest: Vec<&str> = dirs.iter().map(|dir| &dir[common + 1..]).collect();
    *option = format!("lowerdir={}", rest.join(":"));
}

/// The same with a working directory that nobody else has.
fn mount_as_containerd(mounts: &[SnapshotMount], target: &Path) {
    let [mount] = mounts else { panic!("one mount: {mounts:?}") };
    fs::create_dir_all(target).unwrap();
    let text = [mount.fs_type.as_str(), &mount.source, &mount.options.join(","), target.to_str().unwrap()].join("\n");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "child"]).env(MOUNT, text).output().unwrap();
    assert!(output.status.success(), "{mounts:?}: {}", String::from_utf8_lossy(&output.stdout));
}

struct Scene {
    dir: tempfile::TempDir,
    store: Store,
    snapshots: Snapshots,
}

impl Scene {
    fn new(format: SnapshotFormat) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        // As the daemon has it; whoever else opens the store here is a command beside it.
        let mut options = StoreOptions::default();
        options.snapshot_format = format;
        options.hold = Hold::Burst;
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        Scene { snapshots: store.snapshots(), store, dir }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Adopts every layer of an image, bottom first; says the name of the topmost record.
    fn adopt(&self, image: &TestImage) -> String {
        let mut parent: Option<String> = None;
        for key in &image.keys {
            let chain = &key.layer.chain_id;
            let labels = Labels::from([(REF.to_owned(), chain.to_string())]);
            assert_eq!(self.snapshots.prepare("extract", parent.as_deref(), &labels).unwrap(), Prepared::Held);
            parent = Some(format!("wl/{chain}"));
        }
        parent.unwrap()
    }

    /// Makes a container's root and mounts it.
    fn start(&self, key: &str, parent: &str) -> PathBuf {
        let mounts = self.prepare(key, Some(parent));
        assert_eq!(self.snapshots.mounts(key).unwrap(), mounts);
        mount_as_containerd(&mounts, &self.place(key));
        self.place(key)
    }

    fn prepare(&self, key: &str, parent: Option<&str>) -> Vec<SnapshotMount> {
        match self.snapshots.prepare(key, parent, &Labels::new()).unwrap() {
            Prepared::Mounts(mounts) => mounts,
            Prepared::Held => panic!("nothing was asked for by label"),
        }
    }

    fn stop(&self, key: &str) {
        rustix::mount::unmount(self.place(key), UnmountFlags::NOFOLLOW).unwrap();
    }

    /// Where layers are mounted.
    fn layer_mounts(&self) -> BTreeSet<PathBuf> {
        let e = self.store.root().canonicalize().unwrap().join("e");
        self.mounts().into_iter().filter(|point| point.starts_with(&e)).collect()
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = text.lines().map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()));
        let dir = self.dir.path().canonicalize().unwrap();
        points.filter(|point| point.starts_with(&dir)).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed leaves no mounts on the machine.
        for at in self.mounts().iter().rev() {
            let _gone = rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
    }
}

/// Whether this process may mount overlays; that it may not is said aloud.
fn may_mount() -> bool {
    support::Disk::overlay().is_some()
}

/// Every form that layers can have here.
fn forms() -> Vec<SnapshotFormat> {
    if may_mount() { usual_formats() } else { Vec::new() }
}

/// Two layers, with a whiteout, an opaque directory and a root that is not everybody's.
fn image() -> TestImage {
    TestImage::new(
        NAME,
        &[
            &[("./", b""), ("etc/", b""), ("etc/a", b"below"), ("etc/gone", b"x"), ("old/", b""), ("old/x", b"x")],
            &[("etc/a", b"above"), ("etc/.wh.gone", b""), ("old/", b""), ("old/.wh..wh..opq", b""), ("old/y", b"y")],
        ],
    )
}

#[track_caller]
fn is_the_image(root: &Path) {
    assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "above");
    assert!(!root.join("etc/gone").exists());
    let names: Vec<_> = fs::read_dir(root.join("old")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["y"]);
}

#[test]
fn a_container_sees_its_image_and_what_it_writes_stays_its_own() {
    for form in forms() {
        let scene = Scene::new(form);
        image().pull(&scene.store).unwrap();
        let top = scene.adopt(&image());
        let one = scene.start("one", &top);
        is_the_image(&one);
        fs::write(one.join("etc/a"), "mine").unwrap();
        fs::remove_file(one.join("old/y")).unwrap();
        fs::create_dir(one.join("new")).unwrap();
        let two = scene.start("two", &top);
        is_the_image(&two);
        assert_eq!(fs::metadata(&one).unwrap().mode(), fs::metadata(&two).unwrap().mode());
        // Mounted a second time, as containerd does for a look at the users.
        scene.stop("one");
        mount_as_containerd(&scene.snapshots.mounts("one").unwrap(), &one);
        assert_eq!(fs::read_to_string(one.join("etc/a")).unwrap(), "mine");
        assert!(scene.snapshots.usage("one").unwrap().inodes > scene.snapshots.usage("two").unwrap().inodes);
        scene.stop("one");
        scene.stop("two");
        assert_eq!(scene.store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean);
    }
}

#[test]
fn a_view_is_read_only_whatever_it_stands_on() {
    for form in forms() {
        let scene = Scene::new(form);
        image().pull(&scene.store).unwrap();
        let top = scene.adopt(&image());
        let bottom = scene.snapshots.stat(&top).unwrap().parent.unwrap();
        for (key, parent) in [("two layers", Some(top.as_str())), ("one layer", Some(bottom.as_str())), ("none", None)]
        {
            let mounts = scene.snapshots.view(key, parent, &Labels::new()).unwrap();
            let at = scene.place(key);
            mount_as_containerd(&mounts, &at);
            assert!(fs::write(at.join("new"), "x").is_err(), "{key}");
            assert_eq!(at.join("etc/a").exists(), parent.is_some(), "{key}");
            scene.stop(key);
        }
    }
}

#[test]
fn layers_of_every_kind_lie_on_each_other() {
    if forms().len() < 2 {
        return;
    }
    let scene = Scene::new(SnapshotFormat::Erofs);
    let layer = |n: usize| tar_of(&[("d/", b""), (&format!("d/f{n}"), b"x"), ("d/last", n.to_string().as_bytes())]);
    let tars: Vec<Vec<u8>> = (0..6).map(layer).collect();
    let whole = TestImage::of_tars(NAME, &tars);
    // The first two become image files, the next two directories, one is unpacked by containerd itself.
    TestImage::of_tars("registry.example/base:1", &tars[..2]).pull(&scene.store).unwrap();
    let directories = open_as(scene.store.root(), SnapshotFormat::Overlay);
    TestImage::of_tars("registry.example/base:2", &tars[..4]).pull(&directories).unwrap();
    let held = TestImage::of_tars("registry.example/base:2", &tars[..4]);
    let below = scene.adopt(&held);
    let chain = &whole.keys[4].layer.chain_id;
    let foreign = format!("k8s.io/7/{chain}");
    let mounts = scene.prepare("extract", Some(&below));
    mount_as_containerd(&mounts, &scene.place("extract"));
    fs::write(scene.place("extract/d/f4"), "x").unwrap();
    fs::write(scene.place("extract/d/last"), "4").unwrap();
    scene.stop("extract");
    scene.snapshots.commit(&foreign, "extract", &Labels::new()).unwrap();
    // Now it comes by a pull, and only the topmost is missing.
    whole.pull(&scene.store).unwrap();
    let top = &whole.keys[5].layer.chain_id;
    let labels = Labels::from([(REF.to_owned(), top.to_string())]);
    assert_eq!(scene.snapshots.prepare("x", Some(&foreign), &labels).unwrap(), Prepared::Held);
    let root = scene.start("container", &format!("wl/{top}"));
    for n in 0..6 {
        assert!(root.join(format!("d/f{n}")).exists(), "layer {n}");
    }
    assert_eq!(fs::read_to_string(root.join("d/last")).unwrap(), "5");
    scene.stop("container");
}

#[test]
fn what_the_runtime_commits_is_a_layer_like_any_other() {
    for form in forms() {
        let scene = Scene::new(form);
        image().pull(&scene.store).unwrap();
        let mut parent = scene.adopt(&image());
        for level in 0..3 {
            let key = format!("key{level}");
            let root = scene.start(&key, &parent);
            fs::write(root.join(format!("level{level}")), "x").unwrap();
            if level == 1 {
                fs::remove_file(root.join("level0")).unwrap();
                fs::remove_dir_all(root.join("old")).unwrap();
                fs::create_dir(root.join("old")).unwrap();
                fs::write(root.join("old/z"), "z").unwrap();
            }
            scene.stop(&key);
            parent = format!("name{level}");
            scene.snapshots.commit(&parent, &key, &Labels::new()).unwrap();
        }
        let upper = scene.store.root().join("upper/2/fs");
        assert!(fs::symlink_metadata(upper.join("level0")).unwrap().file_type().is_char_device(), "a whiteout");
        let root = scene.start("container", &parent);
        assert_eq!([0, 1, 2].map(|level| root.join(format!("level{level}")).exists()), [false, true, true]);
        let names: Vec<_> = fs::read_dir(root.join("old")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["z"]);
        assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "above");
        scene.stop("container");
    }
}

#[test]
fn four_hundred_and_fifty_layers_mount_as_containerd_mounts_them() {
    for form in forms() {
        let scene = Scene::new(form);
        let layer = |n: usize| tar_of(&[(&format!("f{n}"), b"x"), ("last", n.to_string().as_bytes())]);
        let tars: Vec<Vec<u8>> = (0..450).map(layer).collect();
        for count in [200, 450] {
            let image = TestImage::of_tars(&format!("registry.example/deep:{count}"), &tars[..count]);
            image.pull(&scene.store).unwrap();
            let top = scene.adopt(&image);
            let key = format!("container{count}");
            let root = scene.start(&key, &top);
            assert_eq!(fs::read_to_string(root.join("last")).unwrap(), (count - 1).to_string());
            assert_eq!(fs::read_dir(&root).unwrap().count(), count + 1);
            fs::write(root.join("last"), "mine").unwrap();
            scene.stop(&key);
        }
    }
}

#[test]
fn layers_are_mounted_for_containers_and_unmounted_after_the_last() {
    if !forms().contains(&SnapshotFormat::Erofs) {
        return;
    }
    let scene = Scene::new(SnapshotFormat::Erofs);
    image().pull(&scene.store).unwrap();
    let top = scene.adopt(&image());
    assert_eq!(scene.layer_mounts().len(), 0, "a record alone needs no mount");
    let root = scene.start("one", &top);
    assert_eq!(scene.layer_mounts().len(), 2);
    scene.snapshots.view("view", Some(&top), &Labels::new()).unwrap();
    scene.store.gc(&GcRequest::sweep()).unwrap();
    scene.snapshots.cleanup().unwrap();
    assert_eq!(scene.layer_mounts().len(), 2);
    scene.stop("one");
    scene.snapshots.remove("one").unwrap();
    scene.snapshots.cleanup().unwrap();
    assert_eq!(scene.layer_mounts().len(), 2, "the view needs them");
    scene.snapshots.remove("view").unwrap();
    assert_eq!(scene.layer_mounts().len(), 2, "a removal is quick");
    scene.snapshots.cleanup().unwrap();
    assert_eq!(scene.layer_mounts().len(), 0);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    // An image of the store that is mounted shares them.
    let at = scene.place("at");
    fs::create_dir(&at).unwrap();
    scene.store.mount(NAME, &at, SetUserId::Honoured).unwrap();
    scene.start("two", &top);
    scene.store.unmount(&at).unwrap();
    assert_eq!(scene.layer_mounts().len(), 2, "the container needs them");
    scene.stop("two");
}

#[test]
fn after_a_restart_of_the_machine_layers_are_mounted_again() {
    if !forms().contains(&SnapshotFormat::Erofs) {
        return;
    }
    let scene = Scene::new(SnapshotFormat::Erofs);
    image().pull(&scene.store).unwrap();
    let top = scene.adopt(&image());
    let restart = || {
        for at in scene.mounts().iter().rev() {
            rustix::mount::unmount(at, UnmountFlags::NOFOLLOW).unwrap();
        }
        assert_eq!(scene.mounts().len(), 0);
    };
    let root = scene.start("one", &top);
    fs::write(root.join("etc/mine"), "x").unwrap();
    restart();
    let again = open_as(scene.store.root(), SnapshotFormat::Erofs);
    mount_as_containerd(&again.snapshots().mounts("one").unwrap(), &root);
    is_the_image(&root);
    assert!(root.join("etc/mine").exists());
    restart();
    assert_eq!(again.restore_mounts().unwrap(), 1);
    assert_eq!(scene.layer_mounts().len(), 2);
    // A directory that was made just before the power went may not be on disk, its record is.
    fs::remove_dir_all(scene.store.root().join("upper/1")).unwrap();
    mount_as_containerd(&again.snapshots().mounts("one").unwrap(), &root);
    is_the_image(&root);
    scene.stop("one");
}

#[test]
fn a_layer_under_a_container_is_not_converted() {
    if !forms().contains(&SnapshotFormat::Erofs) {
        return;
    }
    let scene = Scene::new(SnapshotFormat::Overlay);
    image().pull(&scene.store).unwrap();
    let top = scene.adopt(&image());
    let root = scene.start("one", &top);
    let erofs = open_as(scene.store.root(), SnapshotFormat::Erofs);
    let outcomes = || -> Vec<bool> {
        let layers = erofs.convert(&mut |_, _| ()).unwrap().layers;
        layers.iter().map(|layer| matches!(layer.outcome, Conversion::Converted(_))).collect()
    };
    assert_eq!(outcomes(), [false, false]);
    is_the_image(&root);
    scene.stop("one");
    scene.snapshots.remove("one").unwrap();
    assert_eq!(outcomes(), [true, true], "a record alone keeps no form");
    let root = scene.start("two", &top);
    is_the_image(&root);
    scene.stop("two");
}

#[test]
fn a_container_outlives_the_removal_of_its_image() {
    for form in forms() {
        let scene = Scene::new(form);
        image().pull(&scene.store).unwrap();
        let top = scene.adopt(&image());
        let root = scene.start("one", &top);
        scene.store.remove(NAME).unwrap();
        scene.snapshots.cleanup().unwrap();
        is_the_image(&root);
        scene.stop("one");
        mount_as_containerd(&scene.snapshots.mounts("one").unwrap(), &root);
        is_the_image(&root);
        scene.stop("one");
        let bottom = scene.snapshots.stat(&top).unwrap().parent.unwrap();
        for name in ["one", &top, &bottom] {
            scene.snapshots.remove(name).unwrap();
        }
        scene.snapshots.cleanup().unwrap();
        for name in ["snapshots", "upper", "l", "e", "stage"] {
            let left = fs::read_dir(scene.store.root().join(name)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{name}, {form:?}");
        }
    }
}

#[test]
fn a_digest_is_no_proof_of_a_parent() {
    let Some(form) = forms().into_iter().next() else { return };
    let scene = Scene::new(form);
    image().pull(&scene.store).unwrap();
    let upper = &image().keys[1].layer.chain_id;
    scene.prepare("lie", None);
    scene.snapshots.commit(&format!("k8s.io/1/{}", Digest::sha256(b"other")), "lie", &Labels::new()).unwrap();
    let labels = Labels::from([(REF.to_owned(), upper.to_string())]);
    let parent = format!("k8s.io/1/{}", Digest::sha256(b"other"));
    assert!(scene.snapshots.prepare("x", Some(&parent), &labels).is_err());
}
