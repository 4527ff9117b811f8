//! What must always hold of records: whatever is called in whatever order, and whenever the process is killed.
//!
//! The child is this binary once more, with [`child`] as its only test.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::test_runner::Config;
use support::{TestImage, open_as, tar_of};
use windlass_store::{
    Depth, GcRequest, Hold, Labels, Prepared, Repair, SnapshotError, SnapshotFormat, SnapshotKind, Snapshots, Store,
    StoreOptions, Verdict,
};

const REF: &str = "containerd.io/snapshot.ref";
const ROOT: &str = "WINDLASS_TEST_ROOT";
const SEED: &str = "WINDLASS_TEST_SEED";
const ROUNDS: u64 = 20;

/// Names that steps choose from: few, so that they meet.
const NAMES: u8 = 6;

/// One call, names and parents as numbers.
#[derive(Clone, Debug)]
enum Step {
    Prepare(u8, Option<u8>),
    View(u8, Option<u8>),
    Commit(u8, u8),
    Remove(u8),
    /// A layer of an image that is here, on whatever parent fits.
    Adopt(usize),
    Collect,
    Cleanup,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES;
    let step = prop_oneof![
        4 => (name(), proptest::option::of(name())).prop_map(|(key, parent)| Step::Prepare(key, parent)),
        1 => (name(), proptest::option::of(name())).prop_map(|(key, parent)| Step::View(key, parent)),
        4 => (name(), name()).prop_map(|(name, key)| Step::Commit(name, key)),
        3 => name().prop_map(Step::Remove),
        1 => (0..2usize).prop_map(Step::Adopt),
        1 => Just(Step::Collect),
        1 => Just(Step::Cleanup),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What the records must be: kind and parent of each name.
type Model = BTreeMap<String, (SnapshotKind, Option<String>)>;

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Exists,
    NotFound,
    Invalid,
    Refused,
}

fn answer<T>(result: Result<T, SnapshotError>) -> Answer {
    match result {
        Ok(_) => Answer::Done,
        Err(SnapshotError::AlreadyExists { .. }) => Answer::Exists,
        Err(SnapshotError::NotFound { .. }) => Answer::NotFound,
        Err(SnapshotError::InvalidArgument { .. }) => Answer::Invalid,
        Err(SnapshotError::FailedPrecondition { .. }) => Answer::Refused,
        Err(other) => panic!("{other:?}"),
    }
}

/// The rules, as short as they can be said.
fn expected(model: &mut Model, step: &Step, image: &TestImage) -> Answer {
    let name = |n: &u8| format!("n{n}");
    match step {
        Step::Prepare(key, parent) | Step::View(key, parent) => {
            let parent = parent.as_ref().map(name);
            if model.contains_key(&name(key)) {
                return Answer::Exists;
            }
            match parent.as_ref().map(|parent| model.get(parent)) {
                Some(None) => return Answer::NotFound,
                Some(Some((SnapshotKind::Active | SnapshotKind::View, _))) => return Answer::Invalid,
                Some(Some((SnapshotKind::Committed, _))) | None => {}
            }
            let kind = match step {
                Step::View(..) => SnapshotKind::View,
                _ => SnapshotKind::Active,
            };
            model.insert(name(key), (kind, parent));
            Answer::Done
        }
        Step::Commit(to, key) => {
            if model.contains_key(&name(to)) {
                return Answer::Exists;
            }
            match model.get(&name(key)) {
                None => Answer::NotFound,
                Some((SnapshotKind::Active, parent)) => {
                    let parent = parent.clone();
                    model.remove(&name(key));
                    model.insert(name(to), (SnapshotKind::Committed, parent));
                    Answer::Done
                }
                Some((SnapshotKind::View | SnapshotKind::Committed, _)) => Answer::Refused,
            }
        }
        Step::Remove(key) => {
            let key = name(key);
            if !model.contains_key(&key) {
                return Answer::NotFound;
            }
            if model.values().any(|(_, parent)| parent.as_ref() == Some(&key)) {
                return Answer::Refused;
            }
            model.remove(&key);
            Answer::Done
        }
        Step::Adopt(at) => {
            let record = |at: usize| format!("wl/{}", image.keys[at].layer.chain_id);
            let parent = at.checked_sub(1).map(record);
            if parent.as_ref().is_some_and(|parent| !model.contains_key(parent)) {
                return Answer::NotFound;
            }
            model.insert(record(*at), (SnapshotKind::Committed, parent));
            Answer::Done
        }
        Step::Collect | Step::Cleanup => Answer::Done,
    }
}

fn run(store: &Store, step: &Step, image: &TestImage) -> Answer {
    let snapshots = store.snapshots();
    let name = |n: &u8| format!("n{n}");
    match step {
        Step::Prepare(key, parent) => {
            answer(snapshots.prepare(&name(key), parent.as_ref().map(name).as_deref(), &Labels::new()))
        }
        Step::View(key, parent) => {
            answer(snapshots.view(&name(key), parent.as_ref().map(name).as_deref(), &Labels::new()))
        }
        Step::Commit(to, key) => answer(snapshots.commit(&name(to), &name(key), &Labels::new())),
        Step::Remove(key) => answer(snapshots.remove(&name(key))),
        Step::Adopt(at) => {
            let chain = image.keys[*at].layer.chain_id.to_string();
            let parent = at.checked_sub(1).map(|at| format!("wl/{}", image.keys[at].layer.chain_id));
            let held = snapshots.prepare("extract", parent.as_deref(), &Labels::from([(REF.to_owned(), chain)]));
            assert!(!matches!(held, Ok(Prepared::Mounts(_))), "it is held: {held:?}");
            answer(held)
        }
        Step::Collect => answer(store.gc(&GcRequest::sweep()).map_err(SnapshotError::from)),
        Step::Cleanup => answer(snapshots.cleanup()),
    }
}

fn two_layers() -> TestImage {
    TestImage::of_tars("registry.example/app:1", &[tar_of(&[("a", b"a")]), tar_of(&[("b", b"b")])])
}

/// What must hold whenever nothing is under way.
fn is_sound(snapshots: &Snapshots, root: &Path) {
    let all = snapshots.list().unwrap();
    let names: BTreeSet<&str> = all.iter().map(|info| info.name.as_str()).collect();
    for info in &all {
        assert_eq!(snapshots.stat(&info.name).unwrap(), *info);
        assert!(info.parent.as_deref().is_none_or(|parent| names.contains(parent)), "{info:?}");
        let mounts = snapshots.mounts(&info.name);
        match info.kind {
            SnapshotKind::Committed => assert_eq!(answer(mounts), Answer::Refused),
            SnapshotKind::Active | SnapshotKind::View => {
                for option in &mounts.unwrap()[0].options {
                    let (_, paths) = option.split_once('=').unwrap_or(("", ""));
                    let paths = paths.split(':').filter(|path| path.starts_with('/'));
                    paths.for_each(|path| assert!(Path::new(path).is_dir(), "{info:?}: {path}"));
                }
            }
        }
        snapshots.usage(&info.name).unwrap();
    }
    let dirs = fs::read_dir(root.join("upper")).map_or(0, Iterator::count);
    assert!(dirs <= all.len(), "{dirs} directories for {} records", all.len());
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn records_follow_a_simple_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let store = open_as(&dir.path().join("store"), SnapshotFormat::Overlay);
        let image = two_layers();
        image.pull(&store).unwrap();
        let mut model = Model::new();
        for step in &steps {
            prop_assert_eq!(run(&store, step, &image), expected(&mut model, step, &image), "{:?}", step);
            let listed: Model = store.snapshots().list().unwrap().into_iter()
                .map(|info| (info.name, (info.kind, info.parent))).collect();
            prop_assert_eq!(&listed, &model, "after {:?}", step);
        }
        is_sound(&store.snapshots(), store.root());
        // Children before parents, as containerd's collector does it.
        while !model.is_empty() {
            let parents: BTreeSet<String> = model.values().filter_map(|(_, parent)| parent.clone()).collect();
            let leaves: Vec<String> = model.keys().filter(|name| !parents.contains(*name)).cloned().collect();
            for leaf in leaves {
                store.snapshots().remove(&leaf).unwrap();
                model.remove(&leaf);
            }
        }
        store.snapshots().cleanup().unwrap();
        for name in ["upper", "l", "stage"] {
            prop_assert_eq!(fs::read_dir(store.root().join(name)).map_or(0, Iterator::count), 0, "{}", name);
        }
        let report = store.fsck(Depth::Quick, Repair::No).unwrap();
        prop_assert_eq!(report.findings, []);
    }
}

/// Several threads start and stop containers while a command collects beside the daemon.
#[test]
fn many_containers_come_and_go_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::default();
    options.hold = Hold::Burst;
    let store = Store::open(&dir.path().join("store"), options).unwrap();
    let image = two_layers();
    image.pull(&store).unwrap();
    if rustix::process::geteuid().is_root() {
        for at in 0..2 {
            run(&store, &Step::Adopt(at), &image);
        }
    }
    let top = format!("wl/{}", image.keys[1].layer.chain_id);
    let parent = rustix::process::geteuid().is_root().then_some(top);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let command = open_as(store.root(), SnapshotFormat::Auto);
            let mut collections = 0;
            while !done.load(Ordering::SeqCst) || collections == 0 {
                command.gc(&GcRequest::sweep()).unwrap();
                collections += 1;
            }
        });
        let containers: Vec<_> = (0..4)
            .map(|thread| {
                let (snapshots, parent) = (store.snapshots(), parent.as_deref());
                scope.spawn(move || {
                    for n in 0..8 {
                        let key = format!("{thread}-{n}");
                        let mounts = snapshots.prepare(&key, parent, &Labels::new()).unwrap();
                        assert_eq!(Prepared::Mounts(snapshots.mounts(&key).unwrap()), mounts);
                        if n % 2 == 0 {
                            snapshots.remove(&key).unwrap();
                            snapshots.cleanup().unwrap();
                        }
                    }
                })
            })
            .collect();
        containers.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::SeqCst);
        beside.join().unwrap();
    });
    is_sound(&store.snapshots(), store.root());
    for info in store.snapshots().list().unwrap().iter().rev().filter(|info| info.kind == SnapshotKind::Active) {
        store.snapshots().remove(&info.name).unwrap();
    }
    store.snapshots().cleanup().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "no layer stays mounted");
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        // Knuth, MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Says something to the parent.
fn tell(text: &str) {
    use std::io::Write as _;
    // In one write, past the test harness's own buffering.
    std::io::stdout().lock().write_all(format!("\n@{text}\n").as_bytes()).unwrap();
    std::io::stdout().lock().flush().unwrap();
}

/// Run by [`a_kill_leaves_no_record_without_its_directory`]: changes snapshots until it is killed, and says what is done.
#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let mut random = Random(std::env::var(SEED).unwrap().parse().unwrap());
    // As the daemon does it: killed, it leaves the database open.
    let mut options = StoreOptions::default();
    options.snapshot_format = SnapshotFormat::Overlay;
    options.hold = Hold::Burst;
    let store = Store::open(Path::new(&root), options).unwrap();
    let image = two_layers();
    tell("ready");
    for n in 0.. {
        let key = format!("{}-{n}", std::process::id());
        let parent = (random.next(2) == 0).then(|| format!("wl/{}", image.keys[1].layer.chain_id));
        store.snapshots().prepare(&key, parent.as_deref(), &Labels::new()).unwrap();
        tell(&format!("+{key}"));
        match random.next(3) {
            0 => {}
            1 => {
                store.snapshots().commit(&format!("c{key}"), &key, &Labels::new()).unwrap();
                tell(&format!("+c{key}"));
            }
            _ => {
                store.snapshots().remove(&key).unwrap();
                tell(&format!("-{key}"));
            }
        }
        if random.next(8) == 0 {
            store.snapshots().cleanup().unwrap();
        }
    }
}

/// What became of a snapshot, by what was said of it last.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Active,
    Committed,
    Removed,
}

#[test]
fn a_kill_leaves_no_record_without_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open_as(&root, SnapshotFormat::Overlay);
    let image = two_layers();
    image.pull(&store).unwrap();
    for at in 0..2 {
        run(&store, &Step::Adopt(at), &image);
    }
    let mut random = Random(7);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROOT, &root)
            .env(SEED, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = lines.map(Result::unwrap).filter_map(|line| line.strip_prefix('@').map(str::to_owned));
        assert_eq!(said.next().unwrap(), "ready");
        let mut last = String::new();
        let mut want: BTreeMap<String, Fate> = BTreeMap::new();
        let mut hear = |what: String| {
            let (fate, key) = match what.split_at(1) {
                ("+", name) if name.starts_with('c') => (Fate::Committed, &name[1..]),
                ("+", name) => (Fate::Active, name),
                (_, name) => (Fate::Removed, name),
            };
            want.insert(key.to_owned(), fate);
            key.clone_into(&mut last);
        };
        for _ in 0..=random.next(6) {
            hear(said.next().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was on its way when it was killed.
        said.for_each(hear);
        // What it did last may have gone further than it could say.
        want.remove(&last);
        let names: BTreeSet<String> = store.snapshots().list().unwrap().into_iter().map(|info| info.name).collect();
        for (key, fate) in &want {
            let found = (names.contains(key), names.contains(&format!("c{key}")));
            let wanted = match fate {
                Fate::Active => (true, false),
                Fate::Committed => (false, true),
                Fate::Removed => (false, false),
            };
            assert_eq!(found, wanted, "round {round}: {key} {fate:?}");
        }
        store.snapshots().cleanup().unwrap();
        is_sound(&store.snapshots(), &root);
        assert_eq!(store.fsck(Depth::Quick, Repair::No).unwrap().verdict(), Verdict::Clean, "round {round}");
    }
}
