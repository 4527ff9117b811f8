//! Pulls that are killed at any moment, some hundred times on one store, cost the layers in flight and nothing else.
//!
//! Half of the kills are aimed at a random moment of the pull, half between the end of unpacking and the answer: the
//! store is watched until every layer stands in it. A kill takes nothing from the page cache, so most of them fall on
//! a store in memory, where no sync is waited for, and some on a disk, where the end of a pull is one long sync.
//!
//! In memory layers are directories. On a disk they are image files, or either, another one in each pull, so that a
//! killed pull is gone on with in the other form. Now and then a pull has to find out anew what this kernel can do.
//! `WINDLASS_KILLS` sets another number of kills.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use windlass_core::manifest::chain_ids;
use windlass_e2e::world::{COMMAND_LIMIT, Snapshots, User, World, disk_bytes, end};
use windlass_registry::route::RouteKind;
use windlass_testkit::images::{Entry, Image, Layer, incompressible};
use windlass_testkit::registry::TestRegistry;

const KILLS: usize = 200;
/// The same on a disk, beside those, with image files and again with both forms.
const KILLS_ON_DISK: usize = 40;
/// One in this many pulls tries out whether image files can be mounted.
const TRIAL_SHARE: usize = 5;
/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// One in this many kills falls between the end of unpacking and the answer, at least.
const LATE_SHARE: usize = 5;
/// What may be left when every image is gone.
const LEFT_BYTES_MAX: u64 = 1_000_000;
/// The time after unpacking in which kills are aimed never gets shorter than this.
const SHORTEST_TAIL: Duration = Duration::from_millis(2);
/// Pause between two looks at the store, short where the moment of the last layer counts.
const LOOK_PAUSE: Duration = Duration::from_micros(200);
/// Pause between two looks at a pull that is killed by the clock.
const WAIT_PAUSE: Duration = Duration::from_millis(1);

/// Knuth, MMIX: looks random and is the same in every run.
struct Random(u64);

impl Random {
    /// A part of `whole`.
    fn part_of(&mut self, whole: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (self.0 >> 33) as f64 / f64::from(u32::MAX >> 1);
        whole.mul_f64(share.min(1.0))
    }
}

/// Eight layers of different sizes; some need their lower layers.
fn image() -> Image {
    let layer = |at: u64, files: u64, bytes: usize| {
        let mut entries = vec![Entry::dir(format!("layer-{at}"))];
        for file in 0..files {
            let content = incompressible(bytes, at * 1000 + file);
            entries.push(Entry::file(format!("layer-{at}/file-{file}"), content).owner(at, file));
        }
        if at > 1 {
            entries.push(Entry::file("layer-1/shared", at.to_string()));
            entries.push(Entry::whiteout(format!("layer-{}/file-0", at - 1)));
            entries.push(Entry::hard_link(format!("layer-{at}/link"), "layer-1/file-1").owner(1, 1));
        }
        Layer::new(entries).level(1)
    };
    let sizes =
        [(300, 4_000), (200, 100), (20, 100_000), (400, 500), (3, 1_000_000), (100, 2_000), (250, 10), (50, 50)];
    let layers = (1..).zip(sizes).map(|(at, (files, bytes))| layer(at, files, bytes));
    layers.fold(Image::build(), |image, layer| image.layer(layer)).finish()
}

/// One store, one registry, one image.
struct Scene {
    world: World,
    registry: TestRegistry,
    reference: String,
    /// Chain ID and blob of each layer, lowest first.
    layers: Vec<(String, String)>,
}

/// When a pull is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This long after its start.
    After(Duration),
    /// This long after the last layer was unpacked.
    AfterUnpacking(Duration),
    /// Never.
    Never,
}

/// What came of a pull.
struct Outcome {
    is_killed: bool,
    /// Killed after the last layer was unpacked by it, and before it answered.
    is_late: bool,
    /// From its start until every layer was unpacked, and to its end.
    unpacked: Duration,
    ended: Duration,
}

impl Scene {
    fn new(folder: &Path) -> Scene {
        let registry = TestRegistry::open();
        let image = image();
        let reference = registry.place(&image.bundle(), "kills", "v1");
        let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let chains = chain_ids(&diff_ids).into_iter().map(|chain| chain.to_string());
        let blobs = image.layers.iter().map(|layer| layer.blob.digest.to_string());
        Scene { world: World::below(folder, User::Caller), registry, reference, layers: chains.zip(blobs).collect() }
    }

    /// Chain IDs of the layers that are finished.
    fn finished(&self) -> BTreeSet<String> {
        let Ok(snapshots) = fs::read_dir(self.world.root().join("snapshots")) else { return BTreeSet::new() };
        let notes = snapshots.filter_map(|entry| fs::read(entry.ok()?.path().join("note")).ok());
        let chain = |note: Vec<u8>| {
            let note: serde_json::Value = serde_json::from_slice(&note).ok()?;
            Some(note["chain_id"].as_str()?.to_owned())
        };
        notes.filter_map(chain).collect()
    }

    fn has_every_layer(&self) -> bool {
        // Directories appear whole, by a rename; counting them is quicker than reading their notes.
        let count = fs::read_dir(self.world.root().join("snapshots")).map_or(0, Iterator::count);
        count >= self.layers.len()
    }

    /// Runs a pull, to its end or to a moment; no layer that was finished before may be fetched.
    fn pull(&self, moment: Moment, snapshots: Snapshots) -> Outcome {
        let finished = self.finished();
        self.registry.take_requests();
        let mut command = self.world.command(["pull", "--quiet", &self.reference]);
        snapshots.tell(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the program starts");
        let is_at_work = |child: &mut std::process::Child| child.try_wait().expect("a state").is_none();
        let mut unpacked = None;
        let deadline = started + COMMAND_LIMIT;
        let (mut kill_at, pause) = match moment {
            Moment::After(wait) => (Some(started + wait), WAIT_PAUSE),
            Moment::AfterUnpacking(_) => (None, LOOK_PAUSE),
            Moment::Never => (None, WAIT_PAUSE),
        };
        while is_at_work(&mut child) {
            let now = Instant::now();
            if unpacked.is_none() && self.has_every_layer() {
                unpacked = Some(now - started);
                if let Moment::AfterUnpacking(wait) = moment {
                    kill_at = Some(now + wait);
                }
            }
            if kill_at.is_some_and(|at| now >= at) || now > deadline {
                child.kill().expect("a child of ours");
                break;
            }
            std::thread::sleep(pause);
        }
        let status = end(&mut child, deadline);
        let ended = started.elapsed();
        let output = child.wait_with_output().expect("its output");
        let said = String::from_utf8_lossy(&output.stderr);
        let is_killed = status.signal() == Some(9);
        assert!(is_killed || status.success(), "{moment:?}: {status}\n{said}");
        assert!(ended < COMMAND_LIMIT, "{moment:?}: a pull hung\n{said}");
        for request in self.registry.take_requests() {
            let fetched = request.reference.filter(|_| request.route == RouteKind::Blob).unwrap_or_default();
            let layer = self.layers.iter().find(|(chain, blob)| *blob == fetched && finished.contains(chain));
            assert!(layer.is_none(), "{moment:?}: the finished layer {fetched} was fetched again");
        }
        let has_answered = !output.stdout.is_empty();
        if has_answered {
            self.world.ok(["inspect", &self.reference]);
        }
        let is_new = finished.len() < self.layers.len();
        let is_late = is_killed && is_new && !has_answered && self.finished().len() == self.layers.len();
        Outcome { is_killed, is_late, unpacked: unpacked.unwrap_or(ended), ended }
    }

    fn check(&self) {
        self.world.ok(["fsck"]);
    }

    /// How many layers are directories, and how many image files.
    fn forms(&self) -> [usize; 2] {
        ["fs", "image"].map(|name| {
            let snapshots = fs::read_dir(self.world.root().join("snapshots")).expect("a store");
            snapshots.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().join(name).exists())).count()
        })
    }

    /// The next pull does not know whether image files can be mounted.
    fn forget_trial(&self) {
        // There is none where only directories were asked for.
        let _gone = fs::remove_file(self.world.root().join("meta/erofs"));
    }

    fn mounts(&self) -> Vec<String> {
        let root = self.world.root().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the kernel's list");
        mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect()
    }
}

#[test]
fn pulls_killed_at_any_moment_cost_only_the_layers_in_flight() {
    let memory = Path::new(MEMORY);
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let wanted = std::env::var("WINDLASS_KILLS").ok().and_then(|text| text.parse().ok());
    kill_loop(&folder, wanted.unwrap_or(KILLS), &[Snapshots::Default]);
}

#[test]
fn pulls_killed_at_any_moment_on_a_disk_cost_only_the_layers_in_flight() {
    let folder = std::env::temp_dir();
    let possible = Snapshots::possible(&folder, "pulls_killed_at_any_moment_on_a_disk_cost_only_the_layers_in_flight");
    let last = possible.last().expect("directories at least");
    kill_loop(&folder, KILLS_ON_DISK, &[*last]);
}

#[test]
fn pulls_killed_at_any_moment_may_go_on_in_another_form() {
    let folder = std::env::temp_dir();
    let possible = Snapshots::possible(&folder, "pulls_killed_at_any_moment_may_go_on_in_another_form");
    if possible.len() > 1 {
        kill_loop(&folder, KILLS_ON_DISK, &possible);
    }
}

/// Kills pulls, whose layers are kept in these forms by turns.
#[expect(clippy::print_stdout, reason = "the numbers belong into the report of the test run")]
fn kill_loop(folder: &Path, wanted: usize, snapshots: &[Snapshots]) {
    let scene = Scene::new(folder);
    let mut random = Random(20_261_120);
    let mut turns = snapshots.iter().copied().cycle();
    let mut turn = || turns.next().expect("some form");
    // What a whole pull takes, and its end.
    let (mut whole, mut tail) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let outcome = scene.pull(Moment::Never, turn());
        whole = whole.min(outcome.ended);
        tail = tail.min(outcome.ended - outcome.unpacked);
        scene.check();
        scene.world.ok(["rmi", &scene.reference]);
    }
    let (mut rounds, mut kills, mut late, mut whole_pulls) = (0, 0, 0, 0);
    let mut forms = [0; 2];
    while kills < wanted || late < wanted / LATE_SHARE {
        rounds += 1;
        assert!(rounds < wanted * 4 + 20, "{kills} kills, {late} of them late, in {rounds} rounds");
        let moment = if rounds % 2 == 0 {
            Moment::AfterUnpacking(random.part_of(tail))
        } else {
            Moment::After(random.part_of(whole))
        };
        if rounds % TRIAL_SHARE == 0 {
            scene.forget_trial();
        }
        let outcome = scene.pull(moment, turn());
        kills += usize::from(outcome.is_killed);
        late += usize::from(outcome.is_late);
        if let (Moment::AfterUnpacking(_), false) = (moment, outcome.is_late) {
            // Missed: the machine is quicker now than when it was measured.
            tail = tail.mul_f64(0.8).max(SHORTEST_TAIL);
        }
        scene.check();
        // One in eight is followed by another kill at once, the others by a pull that must succeed.
        if rounds % 8 != 0 {
            scene.pull(Moment::Never, turn());
            whole_pulls += 1;
            forms.iter_mut().zip(scene.forms()).for_each(|(sum, count)| *sum += count);
            scene.world.ok(["rmi", &scene.reference]);
        }
    }
    scene.pull(Moment::Never, turn());
    scene.check();
    scene.world.ok(["rmi", &scene.reference]);
    scene.world.ok(["gc"]);
    let left = disk_bytes(&scene.world.root());
    assert!(left < LEFT_BYTES_MAX, "{left} bytes are left");
    assert_eq!(scene.mounts(), [""; 0], "nothing is left mounted");
    let [directories, image_files] = forms;
    for (count, form) in [(directories, Snapshots::Directories), (image_files, Snapshots::ImageFiles)] {
        assert!(count > 0 || !snapshots.contains(&form), "{form:?} were asked for");
    }
    println!(
        "kill loop in {}: {kills} kills, {late} between unpacking and the answer, {whole_pulls} pulls after them of \
         {directories} directories and {image_files} image files, {left} bytes left",
        folder.display()
    );
}
