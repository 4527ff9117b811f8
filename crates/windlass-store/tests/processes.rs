//! What a store promises to several processes, and to those who come after one that was killed.
//!
//! The child is this binary once more, with [`child`] as its only test.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use support::{TestImage, disk_bytes, open, tar_of};

use windlass_core::reason::Reason;
use windlass_store::{
    Depth, GcRequest, Hold, LayerClaim, LeaseOptions, PullLease, Repair, Store, StoreOptions, Verdict,
};

const JOB: &str = "WINDLASS_TEST_JOB";
const ROOT: &str = "WINDLASS_TEST_ROOT";
const IMAGES: u64 = 3;
const LAYERS: u64 = 4;
const ROUNDS: u64 = 20;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // Knuth, MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// An image of several layers, the same in every process; all images share their lowest layer.
fn image(n: u64) -> TestImage {
    let layer = |at: u64| {
        let seed = if at == 0 { 0 } else { n * LAYERS + at };
        let mut random = Random(seed);
        let files: Vec<(String, Vec<u8>)> = (0..60)
            .map(|file| {
                let bytes = (0..16 * 1024).map(|_| random.next() as u8).collect();
                (format!("usr/share/l{seed}/f{file}"), bytes)
            })
            .collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        tar_of(&files)
    };
    let tars: Vec<Vec<u8>> = (0..LAYERS).map(layer).collect();
    TestImage::of_tars(&format!("registry.example/app:{n}"), &tars)
}

/// Says something to the parent.
fn tell(text: &str) {
    use std::io::Write as _;
    // In one write, past the test harness's own buffering.
    std::io::stdout().lock().write_all(format!("\n@{text}\n").as_bytes()).unwrap();
    std::io::stdout().lock().flush().unwrap();
}

#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let root = std::env::var_os(ROOT).unwrap();
    let root = Path::new(&root);
    match job.as_str() {
        "pull" => {
            let images: Vec<TestImage> = (0..IMAGES).map(image).collect();
            tell("ready");
            let store = open(root);
            for image in &images {
                pull_loudly(&store, image);
            }
        }
        "hold" => {
            let mut options = StoreOptions::default();
            options.hold = Hold::Life;
            let _store = Store::open(root, options).unwrap();
            tell("held");
            std::thread::park();
        }
        "layer" => {
            let store = open(root);
            let image = image(0);
            let lease = store.begin(LeaseOptions::pull("child")).unwrap();
            let LayerClaim::Work(_work) = lease.claim_layer(&image.keys[0], &|| false).unwrap() else {
                panic!("there")
            };
            tell("claimed");
            std::thread::park();
        }
        "layers" => {
            let image = image(0);
            let lease = open(root).begin(LeaseOptions::pull("child")).unwrap();
            image.put_documents(&lease).unwrap();
            image.bring_layers(&lease, false).unwrap();
            tell("brought");
            // A scope that ended may have left a permit.
            loop {
                std::thread::park();
            }
        }
        other => panic!("no job {other}"),
    }
}

/// Pulls with two threads, the upper layers first, and says which layers were fetched and which images are done.
fn pull_loudly(store: &Store, image: &TestImage) {
    let lease = store.begin(LeaseOptions::pull(&image.name())).unwrap();
    image.put_documents(&lease).unwrap();
    let (send, receive) = mpsc::channel();
    (0..image.keys.len()).rev().for_each(|at| send.send(at).unwrap());
    drop(send);
    let queue = std::sync::Mutex::new(receive);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Ok(at) = queue.lock().unwrap().recv() else { return };
                    bring(&lease, image, at);
                }
            });
        }
    });
    lease.commit(image.commit()).unwrap();
    tell(&format!("done {}", image.name()));
}

fn bring(lease: &PullLease, image: &TestImage, at: usize) {
    let LayerClaim::Work(work) = lease.claim_layer(&image.keys[at], &|| false).unwrap() else {
        // Ours above may have waited for it, and the other process for them.
        assert!(lease.settle().unwrap().is_empty(), "these layers need nothing from below");
        return;
    };
    let chain = work.key().layer.chain_id.clone();
    tell(&format!("fetch {chain}"));
    let unpacked = work.unpack(&mut image.blobs[at].as_slice(), &()).unwrap();
    assert!(unpacked.again.is_empty(), "these layers need nothing from below");
    tell(&format!("unpacked {chain}"));
}

fn spawn(job: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(JOB, job)
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the child said, line by line, until it said `last` or ended.
fn heard(child: &mut Child, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(said) = line.strip_prefix('@') {
            lines.push(said.to_owned());
            if said == last {
                break;
            }
        }
    }
    lines
}

#[test]
fn a_daemon_keeps_commands_out_and_names_itself() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let mut daemon = spawn("hold", root.path());
    assert_eq!(heard(&mut daemon, "held"), ["held"]);
    let mut options = StoreOptions::default();
    options.lock_timeout = Duration::from_millis(50);
    let error = match Store::open(root.path(), options) {
        Ok(store) => store.images().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.reason(), Reason::StoreLocked);
    assert!(error.to_string().contains(&daemon.id().to_string()), "{error}");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(open(root.path()).images().unwrap().is_empty(), "its lock died with it");
}

#[test]
fn a_dead_holder_of_a_layer_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut holder = spawn("layer", root.path());
    assert_eq!(heard(&mut holder, "claimed"), ["claimed"]);
    let image = image(0);
    let lease = store.begin(LeaseOptions::pull("parent")).unwrap();
    assert!(lease.try_claim_layer(&image.keys[0]).unwrap().is_none(), "the child has it in work");
    let claim = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| lease.claim_layer(&image.keys[0], &|| false));
        holder.kill().unwrap();
        holder.wait().unwrap();
        waiter.join().unwrap()
    });
    assert!(matches!(claim.unwrap(), LayerClaim::Work(_)));
}

#[test]
fn two_processes_fetch_each_layer_once() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let mut children = [spawn("pull", root.path()), spawn("pull", root.path())];
    let mut heard: Vec<String> = children.iter_mut().flat_map(|child| heard(child, "")).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    heard.retain(|line| line.starts_with("fetch"));
    let once: BTreeSet<&String> = heard.iter().collect();
    assert_eq!((heard.len() as u64, once.len() as u64), (1 + IMAGES * (LAYERS - 1), 1 + IMAGES * (LAYERS - 1)));
    let store = open(root.path());
    assert_eq!(store.images().unwrap().len() as u64, IMAGES);
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
}

#[test]
fn a_killed_pull_costs_only_the_layers_in_flight() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let seed = std::env::var("WINDLASS_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_120);
    let mut random = Random(seed);
    let (mut unpacked, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut cut = 0;
    for round in 0..ROUNDS {
        let moment = Moment { lines: random.next() as usize % 6, then: Duration::from_micros(random.next() % 8000) };
        let heard = run_and_kill(root.path(), Some(moment));
        cut += usize::from(heard.iter().filter(|line| line.starts_with("done")).count() as u64 != IMAGES);
        for line in heard {
            match line.split_once(' ') {
                Some(("fetch", chain)) => assert!(!unpacked.contains(chain), "round {round}: {chain} fetched again"),
                Some(("unpacked", chain)) => drop(unpacked.insert(chain.to_owned())),
                Some(("done", name)) => drop(done.insert(name.to_owned())),
                Some(_) | None => {}
            }
        }
        let store = open(root.path());
        for name in &done {
            let found = store.find(name).unwrap();
            assert_eq!(found.map(|image| image.damage), Some(None), "round {round}: {name} was done");
        }
        let report = store.fsck(Depth::Full, Repair::No).unwrap();
        assert_eq!(report.verdict(), Verdict::Clean, "round {round}: {report:?}");
        if done.len() as u64 == IMAGES {
            remove_all(&store);
            (unpacked, done) = (BTreeSet::new(), BTreeSet::new());
        }
    }
    assert!(cut >= 5, "only {cut} kills fell before the last commit");
    let heard = run_and_kill(root.path(), None);
    assert!(heard.iter().filter_map(|line| line.strip_prefix("fetch ")).all(|chain| !unpacked.contains(chain)));
    let store = open(root.path());
    assert_eq!(store.images().unwrap().len() as u64, IMAGES);
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    remove_all(&store);
    let left = disk_bytes(root.path());
    assert!(left < 1 << 20, "{left} bytes left");
}

fn remove_all(store: &Store) {
    for image in store.images().unwrap() {
        store.remove(image.id.as_str()).unwrap();
    }
    store.gc(&GcRequest::sweep()).unwrap();
}

/// When to kill: after so many lines, and this much later.
struct Moment {
    lines: usize,
    then: Duration,
}

/// Runs a pull of all images, to its end or to a moment at which it is killed. Returns what it said.
fn run_and_kill(root: &Path, moment: Option<Moment>) -> Vec<String> {
    let mut child = spawn("pull", root);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "@ready"));
    let mut lines = lines.filter_map(|line| line.strip_prefix('@').map(str::to_owned));
    let mut heard = Vec::new();
    if let Some(moment) = moment {
        heard.extend(lines.by_ref().take(moment.lines));
        std::thread::sleep(moment.then);
        child.kill().unwrap();
    }
    heard.extend(lines);
    child.wait().unwrap();
    heard
}

#[test]
fn a_finished_layer_survives_a_kill_but_not_a_reboot() {
    let root = tempfile::tempdir().unwrap();
    let image = image(1);
    let abandon = |store: &Store| {
        let lease = store.begin(LeaseOptions::pull("abandoned")).unwrap();
        image.put_documents(&lease).unwrap();
        let fetched = image.bring_layers(&lease, false).unwrap();
        // As a killed process leaves it, but for the locks, which must go.
        drop(lease);
        fetched
    };
    assert_eq!(abandon(&open(root.path())), 4);
    assert_eq!(abandon(&open(root.path())), 0, "all found again");
    for n in 1..=4 {
        let note = root.path().join(format!("snapshots/{n}/note"));
        let text = std::fs::read_to_string(&note).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let boot = value["boot_id"].as_str().unwrap();
        std::fs::write(&note, text.replace(boot, "of-an-earlier-boot")).unwrap();
    }
    std::fs::write(root.path().join("meta/boot"), "of-an-earlier-boot").unwrap();
    let store = open(root.path());
    assert_eq!((store.recovered().layers_dropped, store.recovered().blobs_dropped), (4, 2));
    assert_eq!(abandon(&store), 4, "what was never synced is fetched again");
}

#[test]
fn a_recovery_that_was_cut_off_is_begun_again() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let mut pull = spawn("layers", root.path());
    assert_eq!(heard(&mut pull, "brought"), ["brought"]);
    pull.kill().unwrap();
    pull.wait().unwrap();
    // The last of the claims that a recovery looks at: it has taken the others away by then.
    let obstacle = root.path().join("stage").join(format!("{}.claim", "f".repeat(64)));
    std::fs::create_dir(&obstacle).unwrap();
    Store::open(root.path(), StoreOptions::default()).unwrap_err();
    std::fs::remove_dir(&obstacle).unwrap();
    let store = open(root.path());
    assert_eq!((store.recovered().dead_pulls, store.recovered().layers_kept), (1, 4));
    assert_eq!(image(0).pull(&store).unwrap().1, 0, "all layers are found");
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    drop(store);
    assert_eq!(open(root.path()).recovered().dead_pulls, 0, "it is done once");
}

#[test]
fn a_database_that_a_killed_process_left_open_is_repaired() {
    let root = tempfile::tempdir().unwrap();
    let image = image(0);
    image.pull(&open(root.path())).unwrap();
    let mut holder = spawn("hold", root.path());
    assert_eq!(heard(&mut holder, "held"), ["held"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let found = open(root.path()).find(&image.name()).unwrap().unwrap();
    assert_eq!((found.id, found.damage), (image.id(), None));
}
