//! Everything hostile that the test kit knows, through the real program: `unpack`, `load` and `pull`, as root with
//! layers as directories and as image files, and as an ordinary user.
//!
//! Each case is refused with its class of error, or applied. After each, whatever came of it: a tree outside of the
//! target is as it was, nothing is left beside the target, no panic, no hang, and no more memory than
//! [`MEMORY_BYTES_MAX`]. A store is found clean, and lists the image only if it was accepted.

mod archives;
mod case;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Case, Outcome, cases};
use windlass_core::reason::Reason;
use windlass_e2e::tree::{Tree, read};
use windlass_e2e::world::{Answer, Snapshots, User, World};
use windlass_testkit::hostile::SENTINEL;
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{is_root, run, skipped};

/// What one command may write to: 256 MiB, whatever the image.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// The least number of cases.
const CASES_MIN: usize = 150;
/// Commands at once: they wait for the disk about as long as they compute.
const WORKERS: usize = 4;
/// Where names of the cases would lead if they led outside.
const ESCAPES: [&str; 2] = ["/tmp/windlass-escape", "/windlass-escape"];

/// How a case reaches the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unpack,
    Load,
    Pull,
}

#[test]
#[expect(clippy::print_stdout, reason = "the numbers belong into the report of the test run")]
fn hostile_images_are_refused_or_applied_safely_as_root_and_as_a_user() {
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "{}", cases.len());
    let registry = TestRegistry::open();
    let outside = Outside::set();
    let test = "hostile_images_are_refused_or_applied_safely_as_root_and_as_a_user";
    let mut users: Vec<(User, Snapshots)> = Snapshots::possible(&std::env::temp_dir(), test)
        .into_iter()
        .map(|snapshots| (User::Caller, snapshots))
        .collect();
    if is_root() {
        users.push((User::Nobody, Snapshots::Default));
    } else {
        skipped(test, "as two users: needs root");
    }
    let next = AtomicUsize::new(0);
    let bad = Mutex::new(Vec::new());
    let runs = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let machines: Vec<Machine> = users.iter().map(|(user, form)| Machine::new(*user, *form)).collect();
                while let Some((number, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cases.get(at)?)))
                {
                    let reference = case.place(&registry, number);
                    for machine in &machines {
                        for way in case.ways().iter().filter(|way| machine.goes(**way)) {
                            let wrong = machine.run(case, *way, number, reference.as_deref());
                            let outside = outside.changed();
                            let wrong = wrong.into_iter().chain(outside).map(|why| {
                                format!("{}, {way:?}, {:?}, {:?}: {why}", case.id, machine.user, machine.snapshots)
                            });
                            bad.lock().expect("no panic holds it").extend(wrong);
                            runs.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let bad = bad.into_inner().expect("no panic held it");
    assert!(bad.is_empty(), "{} of {} runs:\n{}", bad.len(), runs.into_inner(), bad.join("\n"));
    println!("hostile corpus: {} cases as {users:?}, {} runs", cases.len(), runs.into_inner());
}

/// What lies outside of every target and must stay as it is.
struct Outside(Tree);

impl Outside {
    fn set() -> Outside {
        let path = Path::new(SENTINEL);
        fs::create_dir_all(path).expect("the sentinel");
        let file = path.join("file");
        if !file.exists() {
            fs::write(&file, "sentinel").expect("the sentinel");
        }
        Outside(read(path))
    }

    fn changed(&self) -> Option<String> {
        if read(Path::new(SENTINEL)) != self.0 {
            return Some(format!("{SENTINEL} is changed"));
        }
        ESCAPES.iter().find(|path| fs::symlink_metadata(path).is_ok()).map(|path| format!("{path} was made"))
    }
}

/// One user with a store.
struct Machine {
    user: User,
    snapshots: Snapshots,
    world: World,
    /// A tree that the user may write to, beside the targets.
    neighbour: Tree,
}

impl Machine {
    fn new(user: User, snapshots: Snapshots) -> Machine {
        let world = World::of(user).keeping(snapshots);
        world.make_dir("neighbour");
        world.write("neighbour/file", "sentinel");
        world.make_dir("cases");
        let neighbour = read(&world.path("neighbour"));
        Machine { user, snapshots, world, neighbour }
    }

    /// Whether a way is another one here: `unpack` makes a plain tree, whatever layers are kept as.
    fn goes(&self, way: Way) -> bool {
        way != Way::Unpack || self.snapshots != Snapshots::ImageFiles
    }

    /// Puts one case through; what was wrong with what came of it.
    fn run(&self, case: &Case, way: Way, number: usize, reference: Option<&str>) -> Vec<String> {
        let place = self.world.make_dir(&format!("cases/{number}"));
        self.world.make_dir(&format!("cases/{number}/in"));
        self.world.make_dir(&format!("cases/{number}/out"));
        let (input, out) = (place.join("in"), place.join("out"));
        let target = out.join("tree");
        let source = case.write(&input, &self.world);
        let name = format!("example.org/cases/load:n{number}");
        // A store that has a layer already does not ask for it again, so each case gets one of its own.
        let root = place.join("store");
        let root_text = root.display().to_string();
        let mut words = vec![
            "--root".to_owned(),
            root_text.clone(),
            "-o".to_owned(),
            "json".to_owned(),
            "--progress".to_owned(),
            "none".to_owned(),
        ];
        words.extend(match way {
            Way::Unpack => ["unpack".to_owned(), source, target.display().to_string()].to_vec(),
            Way::Load => ["load".to_owned(), source, "--tag".to_owned(), name].to_vec(),
            Way::Pull => ["pull".to_owned(), reference.expect("it was placed").to_owned()].to_vec(),
        });
        let answer = self.world.run_within(MEMORY_BYTES_MAX, words);
        let mut wrong: Vec<String> = answer.defect().into_iter().collect();
        wrong.extend(judge(case, way, &answer));
        let is_ok = answer.code() == Some(0);
        match way {
            Way::Unpack if is_ok => wrong.extend(self.look(case, &target)),
            Way::Unpack => {}
            Way::Load | Way::Pull if root.is_dir() => wrong.extend(self.check(&root_text, is_ok)),
            Way::Load | Way::Pull => wrong.extend(is_ok.then(|| "there is no store".to_owned())),
        }
        let left: Vec<_> =
            fs::read_dir(&out).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
        let want = if is_ok && way == Way::Unpack { 1 } else { 0 };
        if left.len() != want {
            wrong.push(format!("left beside the target: {left:?}"));
        }
        if read(&self.world.path("neighbour")) != self.neighbour {
            wrong.push("the neighbour is changed".to_owned());
        }
        remove(&place);
        wrong
    }

    /// The unpacked tree has the names it is meant to have.
    fn look(&self, case: &Case, target: &Path) -> Option<String> {
        let want = case.paths()?;
        let seen: BTreeSet<Vec<u8>> = names(target);
        let missing: Vec<_> =
            want.iter().filter(|path| !seen.contains(*path)).map(|path| path.escape_ascii().to_string()).collect();
        let prefix = |path: &Vec<u8>| [path, &b"/"[..]].concat();
        let leads = |path: &Vec<u8>| want.iter().any(|wanted| wanted.starts_with(&prefix(path)));
        let extra: Vec<_> = seen
            .iter()
            .filter(|path| !want.contains(*path) && !leads(path))
            .map(|path| path.escape_ascii().to_string())
            .collect();
        (!missing.is_empty() || !extra.is_empty()).then(|| format!("missing {missing:?}, too much {extra:?}"))
    }

    /// What is wrong with a store after one image went into it, or did not.
    fn check(&self, root: &str, is_accepted: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let fsck = self.world.run(["--root", root, "fsck"]);
        if fsck.code() != Some(0) {
            wrong.push(fsck.to_string());
        }
        let images = self.world.run(["--root", root, "images", "-o", "json"]);
        let count = images.json()["items"].as_array().map_or(0, Vec::len);
        if count != usize::from(is_accepted) {
            wrong.push(format!("{count} images are listed"));
        }
        if fs::read_dir(Path::new(root).join("ingest")).is_ok_and(|mut entries| entries.next().is_some()) {
            wrong.push("something is left in ingest".to_owned());
        }
        wrong
    }
}

/// Whether a case came to what it should.
fn judge(case: &Case, way: Way, answer: &Answer) -> Option<String> {
    let class = answer.class();
    let is_ok = answer.code() == Some(0);
    // What never is the answer to a bad image: a bug of ours, or the blame on the disk.
    let misjudged = [Reason::Internal.class(), Reason::IoError.class()];
    if !is_ok && class.as_deref().is_none_or(|class| misjudged.contains(&class)) {
        return Some(format!("an error without a good class: {answer}"));
    }
    match case.outcome(way) {
        Outcome::Accepted if !is_ok => Some(format!("refused: {answer}")),
        Outcome::Refused(classes) if is_ok => Some(format!("accepted instead of {classes:?}: {answer}")),
        Outcome::Refused(classes) if !class.as_deref().is_some_and(|class| classes.contains(&class)) => {
            Some(format!("wanted {classes:?}: {answer}"))
        }
        Outcome::Accepted | Outcome::Refused(_) | Outcome::Safe => None,
    }
}

/// Every name below a directory, however deep.
fn names(root: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        // Names that are too long for a path are those of cases that list no names.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                open.push(path.clone());
            }
            found.insert(path.strip_prefix(root).expect("below it").as_os_str().as_bytes().to_vec());
        }
    }
    found
}

/// Removes a tree however deep it is, which the standard library does not.
fn remove(path: &Path) {
    run(Command::new("rm").args(["--recursive", "--force", "--one-file-system"]).arg(path));
}
