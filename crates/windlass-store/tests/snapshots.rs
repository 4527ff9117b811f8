//! Snapshots of a container runtime as records and directories: what needs no right to mount.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use support::{TestImage, open_as, small};
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;
use windlass_store::{
    Depth, FindingClass, GcRequest, LabelMask, Labels, Outcome, Prepared, Repair, SnapshotError, SnapshotFormat,
    SnapshotInfo, SnapshotKind, SnapshotMount, Snapshots, Store,
};

const NAME: &str = "registry.example/team/app:1";
const REF: &str = "containerd.io/snapshot.ref";

struct Scene {
    _dir: tempfile::TempDir,
    store: Store,
    snapshots: Snapshots,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let store = open_as(&dir.path().join("store"), SnapshotFormat::Overlay);
        Scene { snapshots: store.snapshots(), store, _dir: dir }
    }

    fn root(&self) -> &Path {
        self.store.root()
    }

    /// Adopts every layer of an image as containerd does; says the name of the topmost record.
    fn adopt(&self, image: &TestImage) -> String {
        let mut parent: Option<String> = None;
        for key in &image.keys {
            let chain = &key.layer.chain_id;
            let labels = labels(chain);
            let held =
                self.snapshots.prepare(&format!("k8s.io/1/extract {chain}"), parent.as_deref(), &labels).unwrap();
            assert_eq!(held, Prepared::Held);
            parent = Some(found(&self.snapshots, chain, parent.as_deref()));
        }
        parent.unwrap()
    }

    /// What containerd does with a layer that it unpacks itself.
    fn unpack(&self, name: &str, parent: Option<&str>, file: &str, labels: &Labels) {
        let key = format!("extract {name}");
        let mounts = active(&self.snapshots, &key, parent);
        fs::write(Path::new(&upper(&mounts)).join(file), name).unwrap();
        self.snapshots.commit(name, &key, labels).unwrap();
    }

    fn dirs(&self, name: &str) -> usize {
        fs::read_dir(self.root().join(name)).map_or(0, Iterator::count)
    }
}

fn labels(chain: &Digest) -> Labels {
    Labels::from([(REF.to_owned(), chain.to_string())])
}

/// The record that containerd looks for after it was told that a layer is held.
fn found(snapshots: &Snapshots, chain: &Digest, parent: Option<&str>) -> String {
    let all = snapshots.list().unwrap();
    let fits = all.into_iter().find(|info| {
        info.kind == SnapshotKind::Committed
            && info.labels.get(REF).map(String::as_str) == Some(chain.as_str())
            && info.parent.as_deref() == parent
    });
    fits.expect("a record with this label and parent").name
}

fn active(snapshots: &Snapshots, key: &str, parent: Option<&str>) -> Vec<SnapshotMount> {
    match snapshots.prepare(key, parent, &Labels::new()).unwrap() {
        Prepared::Mounts(mounts) => mounts,
        Prepared::Held => panic!("{key} was not asked for as a layer"),
    }
}

/// The directory that a mount writes to.
fn upper(mounts: &[SnapshotMount]) -> String {
    let [mount] = mounts else { panic!("{mounts:?}") };
    let option = mount.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    option.map_or_else(|| mount.source.clone(), str::to_owned)
}

fn none() -> Labels {
    Labels::new()
}

#[test]
fn a_layer_of_ours_is_adopted_and_never_copied() {
    let scene = Scene::new();
    let image = small(NAME);
    image.pull(&scene.store).unwrap();
    assert_eq!(scene.snapshots.list().unwrap(), [], "nobody has adopted a layer yet");
    let top = scene.adopt(&image);
    assert_eq!(top, format!("wl/{}", image.keys[1].layer.chain_id));
    assert_eq!(scene.snapshots.list().unwrap().len(), 2);
    assert_eq!(scene.adopt(&image), top, "asked for again, it is the same record");
    assert_eq!(scene.snapshots.list().unwrap().len(), 2);
    assert_eq!(scene.dirs("upper"), 0, "nothing was made to unpack into");
    let usage = |name: &str| scene.snapshots.usage(name).unwrap().used_bytes;
    let bottom = format!("wl/{}", image.keys[0].layer.chain_id);
    assert_eq!(usage(&bottom) + usage(&top), scene.store.images().unwrap()[0].unpacked_bytes, "as it was recorded");
}

#[test]
fn what_is_not_held_is_an_ordinary_snapshot_and_what_does_not_fit_is_refused() {
    let scene = Scene::new();
    let image = small(NAME);
    image.pull(&scene.store).unwrap();
    let [lower, upper] = [0, 1].map(|at| image.keys[at].layer.chain_id.clone());
    let elsewhere = Digest::sha256(b"elsewhere");
    assert!(matches!(scene.snapshots.prepare("a", None, &labels(&elsewhere)).unwrap(), Prepared::Mounts(_)));
    scene.unpack("foreign", None, "f", &none());
    let invalid = |result: Result<Prepared, SnapshotError>| {
        assert!(matches!(result, Err(SnapshotError::InvalidArgument { .. })), "{result:?}");
    };
    invalid(scene.snapshots.prepare("b", None, &labels(&upper)));
    invalid(scene.snapshots.prepare("b", Some("foreign"), &labels(&upper)));
    invalid(scene.snapshots.prepare("b", Some("foreign"), &labels(&lower)));
    invalid(scene.snapshots.prepare("b", Some("a"), &labels(&upper)));
    let absent = scene.snapshots.prepare("b", Some("wl/none"), &labels(&upper));
    assert!(matches!(absent, Err(SnapshotError::NotFound { .. })), "{absent:?}");
    assert_eq!(scene.snapshots.list().unwrap().len(), 2);
}

#[test]
fn one_layer_has_a_record_for_each_parent_name() {
    let scene = Scene::new();
    let image = small(NAME);
    let [lower, upper] = [0, 1].map(|at| image.keys[at].layer.chain_id.clone());
    // containerd was first with the lower layer, in two namespaces.
    for name in ["k8s.io/3", "default/9"] {
        scene.unpack(&format!("{name}/{lower}"), None, "f", &labels(&lower));
    }
    image.pull(&scene.store).unwrap();
    assert_eq!(scene.snapshots.prepare("x", None, &labels(&lower)).unwrap(), Prepared::Held);
    let mut names = Vec::new();
    for parent in [format!("k8s.io/3/{lower}"), format!("default/9/{lower}")] {
        let held = scene.snapshots.prepare("x", Some(&parent), &labels(&upper)).unwrap();
        assert_eq!(held, Prepared::Held);
        names.push(found(&scene.snapshots, &upper, Some(&parent)));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2, "{names:?}");
    let third = scene.snapshots.prepare("x", Some(&format!("wl/{lower}")), &labels(&upper)).unwrap();
    assert_eq!(third, Prepared::Held);
    assert_eq!(scene.snapshots.list().unwrap().len(), 6);
}

#[test]
fn a_committed_copy_of_a_layer_of_ours_is_dropped() {
    let scene = Scene::new();
    let image = small(NAME);
    let [lower, top] = [0, 1].map(|at| image.keys[at].layer.chain_id.clone());
    // No label: the chain ID is in the name alone.
    let keys: Vec<_> = [&lower, &top].map(|chain| format!("k8s.io/1/{chain}")).into();
    active(&scene.snapshots, "first", None);
    image.pull(&scene.store).unwrap();
    scene.snapshots.commit(&keys[0], "first", &none()).unwrap();
    assert_eq!(scene.dirs("upper"), 0);
    let mounts = active(&scene.snapshots, "second", Some(&keys[0]));
    scene.snapshots.commit(&keys[1], "second", &none()).unwrap();
    assert!(!Path::new(&upper(&mounts)).exists());
    let over = active(&scene.snapshots, "container", Some(&keys[1]));
    let lowers = over[0].options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap();
    let seen: Vec<bool> = lowers.split(':').map(|lower| Path::new(lower).join("usr/text").exists()).collect();
    assert_eq!(seen, [true, false], "topmost first, and the store's own");
    // On another parent it is something else, and stays.
    scene.unpack(&format!("k8s.io/2/{top}"), None, "f", &none());
    assert_eq!(scene.dirs("upper"), 2);
}

#[test]
fn mounts_are_those_that_containerd_expects() {
    let scene = Scene::new();
    let root = scene.root().canonicalize().unwrap().display().to_string();
    let bottom = active(&scene.snapshots, "bottom", None);
    assert_eq!(bottom[0].fs_type, "bind");
    assert_eq!(bottom[0].source, format!("{root}/upper/1/fs"));
    assert_eq!(bottom[0].options, ["rw", "rbind"]);
    assert_eq!(fs::metadata(&bottom[0].source).unwrap().permissions().mode() & 0o7777, 0o755);
    fs::set_permissions(&bottom[0].source, fs::Permissions::from_mode(0o1711)).unwrap();
    scene.snapshots.commit("one", "bottom", &none()).unwrap();
    scene.unpack("two", Some("one"), "f", &none());

    let top = active(&scene.snapshots, "top", Some("two"));
    assert_eq!((top[0].fs_type.as_str(), top[0].source.as_str()), ("overlay", "overlay"));
    let options: Vec<&str> =
        top[0].options.iter().map(String::as_str).filter(|option| *option != "index=off").collect();
    let want = [
        format!("workdir={root}/upper/3/work"),
        format!("upperdir={root}/upper/3/fs"),
        format!("lowerdir={root}/l/C2:{root}/l/C1"),
    ];
    assert_eq!(options, want);
    assert_eq!(scene.snapshots.mounts("top").unwrap(), top);
    let own = fs::metadata(upper(&top)).unwrap();
    assert_eq!(own.permissions().mode() & 0o7777, 0o1711, "as the root below");

    let view = scene.snapshots.view("view", Some("two"), &none()).unwrap();
    let options: Vec<&str> =
        view[0].options.iter().map(String::as_str).filter(|option| *option != "index=off").collect();
    assert_eq!(options, [format!("lowerdir={root}/l/C2:{root}/l/C1")]);
    let single = scene.snapshots.view("single", Some("one"), &none()).unwrap();
    assert_eq!(single[0].source, format!("{root}/upper/1/fs"));
    assert_eq!(single[0].options, ["ro", "rbind"]);
    let empty = scene.snapshots.view("empty", None, &none()).unwrap();
    assert_eq!(empty[0].options, ["ro", "rbind"]);
    assert_eq!(fs::read_dir(&empty[0].source).unwrap().count(), 0);
    for (key, want) in [("view", &view), ("single", &single), ("empty", &empty)] {
        assert_eq!(scene.snapshots.mounts(key).unwrap(), *want, "{key}");
    }
    let error = scene.snapshots.mounts("one").unwrap_err();
    assert!(matches!(error, SnapshotError::FailedPrecondition { .. }), "{error}");
}

#[test]
fn a_new_upper_directory_takes_mode_and_owner_of_the_root_below() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("only root gives directories away");
    }
    let scene = Scene::new();
    let bottom = active(&scene.snapshots, "bottom", None);
    std::os::unix::fs::chown(&bottom[0].source, Some(1234), Some(567)).unwrap();
    fs::set_permissions(&bottom[0].source, fs::Permissions::from_mode(0o2750)).unwrap();
    scene.snapshots.commit("one", "bottom", &none()).unwrap();
    let own = fs::metadata(upper(&active(&scene.snapshots, "top", Some("one")))).unwrap();
    assert_eq!((own.uid(), own.gid(), own.mode() & 0o7777), (1234, 567, 0o2750));
}

#[test]
fn a_full_disk_makes_no_snapshot_and_breaks_none() {
    let Some(disk) = support::Disk::tmpfs("size=64m,nr_inodes=80") else { return };
    let store = open_as(&disk.at.join("store"), SnapshotFormat::Overlay);
    let snapshots = store.snapshots();
    let mut made = 0;
    let error = loop {
        match snapshots.prepare(&format!("k{made}"), None, &none()) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Reason::NoSpace, "{error}");
    assert!(made > 3, "{made} were made");
    assert_eq!(snapshots.list().unwrap().len(), made);
    snapshots.remove("k0").unwrap();
    snapshots.cleanup().unwrap();
    active(&snapshots, "again", None);
    assert_eq!(store.fsck(Depth::Quick, Repair::No).unwrap().findings, []);
}

#[test]
fn labels_change_as_the_mask_says_and_nothing_else_does() {
    let scene = Scene::new();
    active(&scene.snapshots, "a", None);
    let before = scene.snapshots.stat("a").unwrap();
    let given = Labels::from([("x".to_owned(), "1".to_owned()), ("y".to_owned(), "2".to_owned())]);
    let after = scene.snapshots.update("a", &given, &LabelMask::Keys(vec!["x".to_owned()])).unwrap();
    assert_eq!(after.labels, Labels::from([("x".to_owned(), "1".to_owned())]));
    assert_eq!((after.created, after.kind), (before.created, before.kind));
    assert!(after.updated > before.updated);
    assert_eq!(scene.snapshots.stat("a").unwrap(), after);
    let large = Labels::from([("k".to_owned(), "v".repeat(4096))]);
    let refused = scene.snapshots.update("a", &large, &LabelMask::All).unwrap_err();
    assert!(matches!(refused, SnapshotError::InvalidArgument { .. }), "{refused}");
    assert_eq!(scene.snapshots.update("a", &none(), &LabelMask::All).unwrap().labels, none());
    let absent = scene.snapshots.update("b", &none(), &LabelMask::All).unwrap_err();
    assert!(matches!(absent, SnapshotError::NotFound { .. }), "{absent}");
}

#[test]
fn a_layer_under_a_record_is_never_collected() {
    let scene = Scene::new();
    let image = small(NAME);
    image.pull(&scene.store).unwrap();
    let top = scene.adopt(&image);
    let container = active(&scene.snapshots, "container", Some(&top));
    scene.store.remove(NAME).unwrap();
    assert_eq!(scene.store.images().unwrap(), []);
    scene.store.gc(&GcRequest::sweep()).unwrap();
    assert_eq!(scene.dirs("snapshots"), 2, "both layers are there");
    assert_eq!(scene.snapshots.mounts("container").unwrap(), container);
    let report = scene.store.fsck(Depth::Full, Repair::No).unwrap();
    assert_eq!(report.findings, [], "and they are no garbage");
    assert_eq!(image.pull(&scene.store).unwrap().1, 0, "they serve the next pull");
    scene.store.remove(NAME).unwrap();

    scene.snapshots.remove("container").unwrap();
    scene.snapshots.remove(&top).unwrap();
    scene.snapshots.cleanup().unwrap();
    assert_eq!(scene.dirs("snapshots"), 1, "the lower one has a record still");
    scene.snapshots.remove(&format!("wl/{}", image.keys[0].layer.chain_id)).unwrap();
    scene.snapshots.cleanup().unwrap();
    assert_eq!((scene.dirs("snapshots"), scene.dirs("upper"), scene.dirs("l"), scene.dirs("stage")), (0, 0, 0, 0));
}

#[test]
fn lost_records_are_written_anew_under_the_names_they_had() {
    let scene = Scene::new();
    let image = small(NAME);
    image.pull(&scene.store).unwrap();
    let top = &image.keys[1].layer.chain_id;
    assert_eq!(scene.snapshots.rebuild(&Digest::sha256(b"nobody's")).unwrap(), 0);
    let name = scene.adopt(&image);
    let before = scene.snapshots.list().unwrap();
    assert_eq!(scene.snapshots.rebuild(top).unwrap(), 0, "none was lost");
    for info in before.iter().filter(|info| info.name == name).chain(&before) {
        // Children first; the second try finds it gone.
        let _gone = scene.snapshots.remove(&info.name);
    }
    assert_eq!(scene.snapshots.list().unwrap(), []);
    assert_eq!(scene.snapshots.rebuild(top).unwrap(), 2);
    let after = scene.snapshots.list().unwrap();
    let same = |infos: &[SnapshotInfo]| -> Vec<_> {
        infos.iter().map(|info| (info.name.clone(), info.parent.clone(), info.kind, info.labels.clone())).collect()
    };
    assert_eq!(same(&after), same(&before));
    active(&scene.snapshots, "container", Some(&name));
}

#[test]
fn what_stands_below_others_is_not_removed() {
    let scene = Scene::new();
    scene.unpack("one", None, "f", &none());
    active(&scene.snapshots, "two", Some("one"));
    let error = scene.snapshots.remove("one").unwrap_err();
    assert!(matches!(error, SnapshotError::FailedPrecondition { .. }), "{error}");
    scene.snapshots.remove("two").unwrap();
    scene.snapshots.remove("one").unwrap();
    let error = scene.snapshots.remove("one").unwrap_err();
    assert!(matches!(error, SnapshotError::NotFound { .. }), "{error}");
    assert_eq!(scene.dirs("upper"), 0, "out of the way at once");
    scene.snapshots.cleanup().unwrap();
    assert_eq!(scene.dirs("stage"), 0, "and deleted later");
}

#[test]
fn a_directory_without_a_record_is_garbage_and_a_record_without_its_layer_is_damage() {
    let scene = Scene::new();
    let image = small(NAME);
    image.pull(&scene.store).unwrap();
    let top = scene.adopt(&image);
    let stray = scene.root().join("upper/77/fs");
    fs::create_dir_all(&stray).unwrap();
    let findings = scene.store.fsck(Depth::Quick, Repair::Yes).unwrap().findings;
    assert!(matches!(findings.as_slice(), [one] if one.outcome == Outcome::Harmless), "{findings:?}");
    scene.store.gc(&GcRequest::sweep()).unwrap();
    assert!(!stray.exists());

    fs::remove_dir_all(scene.root().join("snapshots/2")).unwrap();
    let findings = scene.store.fsck(Depth::Quick, Repair::Yes).unwrap().findings;
    assert_eq!(findings.len(), 1, "the layer: {findings:?}");
    let mut findings = scene.store.fsck(Depth::Quick, Repair::Yes).unwrap().findings;
    findings.retain(|finding| finding.class != FindingClass::Garbage);
    assert!(matches!(findings.as_slice(), [one] if one.outcome == Outcome::Left && one.what == top), "{findings:?}");
    let error = scene.snapshots.prepare("container", Some(&top), &none()).unwrap_err();
    assert!(matches!(error, SnapshotError::FailedPrecondition { .. }), "{error}");
    image.pull(&scene.store).unwrap();
    assert_eq!(scene.store.fsck(Depth::Quick, Repair::No).unwrap().findings, [], "pulled again, all is well");
    active(&scene.snapshots, "container", Some(&top));
}

#[test]
fn every_change_changes_the_stamp() {
    let scene = Scene::new();
    let mut last = scene.store.stamp();
    assert_eq!(scene.store.stamp(), last);
    let mut changed = |store: &Store, what: &str| {
        let now = store.stamp();
        assert_ne!(now, last, "{what}");
        assert_eq!(store.stamp(), now, "{what}, and then nothing");
        last = now;
    };
    small(NAME).pull(&scene.store).unwrap();
    changed(&scene.store, "a pull");
    for n in 0..20 {
        active(&scene.snapshots, &format!("a{n}"), None);
        changed(&scene.store, "a snapshot");
    }
    scene.store.images().unwrap();
    scene.snapshots.list().unwrap();
    assert_eq!(scene.store.stamp(), last, "reading changes nothing");
    let other = open_as(scene.root(), SnapshotFormat::Overlay);
    other.remove(NAME).unwrap();
    assert_ne!(scene.store.stamp(), last, "a change by other hands");
}
