//! Where image files of layers are mounted, and when they go. Needs the right to mount: without it nothing is tested,
//! and that is said aloud.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use support::{TestImage, open_as, usual_formats};
use windlass_store::{Depth, GcRequest, Repair, SetUserId, SnapshotFormat, Store, Verdict};

const FIRST: &str = "registry.example/team/first:1";
const SECOND: &str = "registry.example/team/second:1";

/// A store that keeps image files, two images in it that share two layers of three, and two places to mount at.
struct Scene {
    dir: tempfile::TempDir,
    store: Store,
    first: TestImage,
}

impl Scene {
    /// None where image files cannot be mounted.
    fn new() -> Option<Scene> {
        Scene::at(|dir| dir.join("store"))
    }

    /// The same with a store at another root.
    fn at(root: impl FnOnce(&Path) -> PathBuf) -> Option<Scene> {
        if !usual_formats().contains(&SnapshotFormat::Erofs) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let store = open_as(&root(dir.path()), SnapshotFormat::Erofs);
        let image = |name: &str| {
            TestImage::new(name, &[&[("etc/", b""), ("etc/a", b"a")], &[("etc/b", b"b")], &[("own", name.as_bytes())]])
        };
        let first = image(FIRST);
        first.pull(&store).unwrap();
        assert_eq!(image(SECOND).pull(&store).unwrap().1, 1, "two layers are shared");
        Some(Scene { dir, store, first })
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self, image: &str, place: &str) {
        self.store.mount(image, &self.place(place), SetUserId::Honoured).unwrap();
        assert_eq!(fs::read_to_string(self.place(place).join("own")).unwrap(), image);
        assert_eq!(fs::read_to_string(self.place(place).join("etc/b")).unwrap(), "b");
    }

    fn unmount(&self, place: &str) {
        self.store.unmount(&self.place(place)).unwrap();
    }

    /// As somebody with `umount` does it.
    fn unmount_by_hand(&self, place: &str) {
        rustix::mount::unmount(self.place(place), UnmountFlags::NOFOLLOW).unwrap();
    }

    fn e(&self) -> PathBuf {
        self.store.root().canonicalize().unwrap().join("e")
    }

    /// Where layers are mounted, in the kernel's own words.
    #[track_caller]
    fn layers(&self) -> BTreeSet<PathBuf> {
        let all = self.mounts();
        let once: BTreeSet<PathBuf> = all.iter().cloned().collect();
        assert_eq!(all.len(), once.len(), "each once: {all:?}");
        once
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = text.lines().map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()));
        points.filter(|point| point.starts_with(self.e())).collect()
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.mounts(), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(self.e()).unwrap().count(), 0, "no directory is left either");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed leaves no mounts on the machine.
        let mut mounts = self.mounts();
        mounts.extend(["one", "two"].map(|name| self.place(name)));
        for at in mounts.iter().rev() {
            let _gone = rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
    }
}

#[test]
fn layers_are_mounted_once_and_unmounted_with_their_last_user() {
    let Some(scene) = Scene::new() else { return };
    scene.mount(FIRST, "one");
    let of_first = scene.layers();
    assert_eq!(of_first.len(), 3);
    scene.mount(SECOND, "two");
    let of_both = scene.layers();
    assert_eq!(of_both.len(), 4, "the shared ones serve both");
    scene.unmount("one");
    let of_second = scene.layers();
    assert_eq!(of_second.len(), 3);
    assert_eq!(of_first.intersection(&of_second).count(), 2, "the shared ones stay");
    assert_eq!(fs::read_to_string(scene.place("two").join("etc/a")).unwrap(), "a");
    // One image at two places.
    scene.mount(SECOND, "one");
    assert_eq!(scene.layers(), of_second);
    scene.unmount("two");
    assert_eq!(scene.layers(), of_second);
    scene.unmount("one");
    scene.nothing_is_left();
}

#[test]
fn mounted_layers_are_read_only_and_private_and_have_neither_devices_nor_set_user_id() {
    let Some(scene) = Scene::new() else { return };
    scene.mount(FIRST, "one");
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let e = scene.e();
    for line in text.lines().filter(|line| Path::new(line.split(' ').nth(4).unwrap()).starts_with(&e)) {
        let fields: Vec<&str> = line.split(' ').collect();
        let options: BTreeSet<&str> = fields[5].split(',').collect();
        assert!(["ro", "nosuid", "nodev"].iter().all(|option| options.contains(option)), "{line}");
        // No optional field, so neither shared nor a slave; then the type and the image file itself, no loop device.
        assert_eq!(fields[6..8], ["-", "erofs"], "{line}");
        assert!(fields[8].ends_with("/image"), "{line}");
    }
    scene.unmount("one");
}

#[test]
fn removing_and_collecting_leave_no_mounts() {
    let Some(scene) = Scene::new() else { return };
    scene.mount(FIRST, "one");
    scene.mount(SECOND, "two");
    scene.unmount("one");
    scene.store.remove(FIRST).unwrap();
    assert_eq!(scene.layers().len(), 3, "the other image is mounted");
    assert_eq!(fs::read_to_string(scene.place("two").join("etc/a")).unwrap(), "a");
    scene.unmount("two");
    scene.store.remove(SECOND).unwrap();
    scene.store.gc(&GcRequest::sweep()).unwrap();
    scene.nothing_is_left();
}

#[test]
fn a_mount_that_somebody_made_away_is_made_again() {
    let Some(scene) = Scene::new() else { return };
    scene.mount(FIRST, "one");
    for point in scene.layers() {
        rustix::mount::unmount(point, UnmountFlags::NOFOLLOW).unwrap();
    }
    assert_eq!(fs::read_to_string(scene.place("one").join("etc/a")).unwrap(), "a", "the overlay has them still");
    scene.mount(SECOND, "two");
    assert_eq!(scene.layers().len(), 3);
    scene.unmount("one");
    assert_eq!(scene.layers().len(), 3);
    scene.unmount("two");
    scene.nothing_is_left();
}

#[test]
fn layers_of_a_mount_that_never_came_to_be_go_with_the_next_collection() {
    let Some(scene) = Scene::new() else { return };
    // A process that is killed between mounting layers and their overlay leaves its note and the layers: so does this.
    scene.mount(FIRST, "one");
    scene.unmount_by_hand("one");
    assert_eq!(scene.layers().len(), 3);
    scene.mount(SECOND, "two");
    assert_eq!(scene.layers().len(), 4);
    scene.store.gc(&GcRequest::sweep()).unwrap();
    assert_eq!(scene.layers().len(), 3, "only what is in use");
    scene.unmount_by_hand("two");
    scene.store.gc(&GcRequest::sweep()).unwrap();
    scene.nothing_is_left();
    scene.mount(FIRST, "one");
    scene.unmount("one");
    scene.nothing_is_left();
}

#[test]
fn a_busy_layer_stays_mounted_until_it_is_free() {
    let Some(scene) = Scene::new() else { return };
    scene.mount(FIRST, "one");
    let open = fs::File::open(scene.layers().first().unwrap()).unwrap();
    scene.unmount("one");
    assert_eq!(scene.layers().len(), 1);
    drop(open);
    scene.store.gc(&GcRequest::sweep()).unwrap();
    scene.nothing_is_left();
}

#[test]
fn a_root_that_is_named_over_a_link_or_with_dots_is_the_same() {
    let over_a_link = |dir: &Path| {
        fs::create_dir(dir.join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        dir.join("link/../link/./store")
    };
    let Some(scene) = Scene::at(over_a_link) else { return };
    scene.mount(FIRST, "one");
    scene.mount(SECOND, "two");
    assert_eq!(scene.layers().len(), 4);
    let direct = open_as(&scene.place("real/store"), SnapshotFormat::Erofs);
    direct.unmount(&scene.place("one")).unwrap();
    assert_eq!(scene.layers().len(), 3);
    scene.unmount("two");
    scene.nothing_is_left();
}

#[test]
fn what_a_killed_probe_left_is_gone_after_the_next() {
    let Some(scene) = Scene::new() else { return };
    let left = scene.e().join("probe/m");
    fs::create_dir_all(&left).unwrap();
    rustix::mount::mount("none", &left, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    fs::write(left.join("file"), "x").unwrap();
    fs::write(scene.e().join("probe/image"), "half of one").unwrap();
    // It was killed before it could note what it found.
    fs::remove_file(scene.store.root().join("meta/erofs")).unwrap();
    let again = open_as(scene.store.root(), SnapshotFormat::Erofs);
    support::small("registry.example/team/other:1").pull(&again).unwrap();
    scene.nothing_is_left();
}

#[test]
fn a_damaged_layer_that_is_mounted_is_put_aside_and_healed() {
    let Some(scene) = Scene::new() else { return };
    scene.mount(FIRST, "one");
    let image = scene.store.root().join("snapshots/1/image");
    let mut bytes = fs::read(&image).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&image, bytes).unwrap();
    let report = scene.store.fsck(Depth::Full, Repair::Yes).unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(scene.store.find(FIRST).unwrap(), None);
    scene.first.pull(&scene.store).unwrap();
    scene.mount(FIRST, "two");
    scene.unmount("two");
    assert_eq!(scene.store.fsck(Depth::Full, Repair::No).unwrap().verdict(), Verdict::Clean);
    scene.unmount_by_hand("one");
    scene.store.gc(&GcRequest::sweep()).unwrap();
    scene.nothing_is_left();
}

#[test]
fn a_collection_gives_the_page_cache_of_mounted_layers_back() {
    let Some(scene) = Scene::new() else { return };
    let large = TestImage::new("registry.example/team/large:1", &[&[("large", &vec![7; 4 << 20])]]);
    large.pull(&scene.store).unwrap();
    let target = scene.place("one");
    scene.store.mount("registry.example/team/large:1", &target, SetUserId::Honoured).unwrap();
    assert_eq!(fs::read(target.join("large")).unwrap().len(), 4 << 20);
    let snapshots = scene.store.root().join("snapshots");
    let images: Vec<PathBuf> = fs::read_dir(&snapshots).unwrap().map(|n| n.unwrap().path().join("image")).collect();
    let image = images.iter().max_by_key(|image| fs::metadata(image).unwrap().len()).unwrap();
    let cached = || {
        let output = Command::new("fincore").args(["-n", "-b", "-o", "RES"]).arg(image).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse::<u64>().ok()
    };
    let Some(before) = cached() else { return skipped("no fincore here") };
    assert!(before > 1 << 20, "{before} bytes of the file are cached");
    scene.store.gc(&GcRequest::sweep()).unwrap();
    let after = cached().unwrap();
    assert!(after < before / 8, "{after} of {before} bytes of the file are cached still");
    assert_eq!(fs::read(target.join("large")).unwrap().len(), 4 << 20);
    scene.unmount("one");
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED store::image_mounts: {what}");
}
