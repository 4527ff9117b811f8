//! Registries that lie, stall, cut, redirect, loop or flood, and a person who gives up, against the real program.

use std::fs;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use windlass_core::reason::Reason;
use windlass_e2e::world::{COMMAND_LIMIT, World, end};
use windlass_testkit::canary::Canary;
use windlass_testkit::faults::{Fault, FaultyRegistry, Outcome, PASSWORD, Plan, USER, When, plans};
use windlass_testkit::images::{Entry, Image, Layer, incompressible};

/// Pulls at once; most of them wait.
const WORKERS: usize = 6;
/// What one pull may write to.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Pause between two looks at a store.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// Where the client does better than the plan asks, or has a more exact word.
const ALSO_RIGHT: [(&str, Option<Reason>); 5] = [
    // Refused by the same rule as a token realm at that address.
    ("redirect-metadata", Some(Reason::RealmNotTrusted)),
    // Ranges of such a server are not believed again: the layer is fetched whole.
    ("range-lie-shift", None),
    ("range-lie-header", None),
    // A registry that takes connections and says nothing is as good as down.
    ("stall-head", Some(Reason::RegistryUnavailable)),
    ("stall-token", Some(Reason::RegistryUnavailable)),
];

/// Time-outs that end a test soon, and the most talkative log.
fn impatient(world: &World, plan: &Plan) -> Vec<String> {
    let setting = plan.set();
    let mut wrong = Vec::new();
    let canary = Canary::new(PASSWORD);
    let host = setting.registry.host();
    let config = serde_json::json!({ "auths": { &host: { "username": USER, "password": PASSWORD } } });
    world.write("auth.json", config.to_string());
    let mut words = vec!["pull", &setting.reference, "-o", "json", "--authfile", "auth.json", "--log-level", "trace"];
    match setting.registry.tls() {
        Some(tls) => {
            world.write("ca.pem", &tls.ca_pem);
            words.extend(["--ca-file", "ca.pem"]);
        }
        None => words.push("--plain-http"),
    }
    let mut command = world.command(words);
    for (name, value) in [("CONNECT", "3s"), ("RESPONSE", "3s"), ("IDLE", "3s"), ("PROGRESS", "15s")] {
        command.env(format!("WINDLASS_LIMITS_{name}_TIMEOUT"), value);
    }
    let answer = windlass_e2e::world::answer(command, Some(MEMORY_BYTES_MAX));
    wrong.extend(answer.defect());
    let is_ok = answer.code() == Some(0);
    let reason = answer.class().and_then(|class| Reason::ALL.iter().copied().find(|reason| reason.class() == class));
    let is_right = match (plan.outcome, reason) {
        (Outcome::Pulled, _) => is_ok,
        (Outcome::Failed(reasons) | Outcome::TimedOut(reasons), Some(reason)) => !is_ok && reasons.contains(&reason),
        (Outcome::Failed(_) | Outcome::TimedOut(_), None) => false,
    };
    let seen = if is_ok { None } else { reason };
    if !is_right && !ALSO_RIGHT.contains(&(plan.id, seen)) {
        wrong.push(format!("wanted {:?}: {answer}", plan.outcome));
    }
    if canary.is_in(answer.stdout.as_bytes()) || canary.is_in(answer.stderr.as_bytes()) {
        wrong.push("the password is shown".to_owned());
    }
    if setting.other.saw_credentials() {
        wrong.push("the other host got credentials".to_owned());
    }
    if world.root().is_dir() {
        let images = world.run(["images", "-o", "json"]);
        let count = images.json()["items"].as_array().map_or(0, Vec::len);
        if count != usize::from(is_ok) {
            wrong.push(format!("{count} images are listed"));
        }
        let fsck = world.run(["fsck"]);
        wrong.extend((fsck.code() != Some(0)).then(|| fsck.to_string()));
        wrong.extend((!canary.files_with(&world.root()).is_empty()).then(|| "the password is in the store".to_owned()));
    }
    wrong
}

#[test]
#[expect(clippy::print_stdout, reason = "the number of faults belongs into the report of the test run")]
fn every_named_fault_comes_to_its_outcome_and_shows_no_password() {
    let plans = plans();
    let next = AtomicUsize::new(0);
    let bad = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wrong = impatient(&World::new(), plan);
                    let lines = wrong.into_iter().map(|why| format!("{} ({}): {why}", plan.id, plan.what));
                    bad.lock().expect("no panic holds it").extend(lines);
                }
            });
        }
    });
    let bad = bad.into_inner().expect("no panic held it");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    println!("faults of registries: {}", plans.len());
}

#[test]
fn an_interrupted_pull_ends_at_once_and_keeps_finished_layers() {
    for (signal, codes) in [(Signal::INT, &[130][..]), (Signal::TERM, &[130, 143])] {
        let registry = FaultyRegistry::open();
        let image = Image::build()
            .layer(Layer::new([Entry::file("first", "done soon")]))
            .layer(Layer::new([Entry::file("second", incompressible(1 << 20, 3))]))
            .finish();
        let reference = registry.place(&image.bundle(), "app", "v1");
        let (first, second) = (&image.layers[0].blob.digest, &image.layers[1].blob.digest);
        registry.inject(When::blob_of(second), Fault::Stall { at: 1000, how_long: None });
        let world = World::new();
        let mut command = world.command(["pull", &reference, "--quiet", "--plain-http"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let deadline = Instant::now() + COMMAND_LIMIT;
        let finished = || fs::read_dir(world.root().join("snapshots")).map_or(0, Iterator::count);
        while finished() == 0 {
            assert!(Instant::now() < deadline, "the first layer never came");
            if child.try_wait().expect("a state").is_some() {
                panic!("it ended by itself: {:?}", child.wait_with_output());
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        kill_process(Pid::from_child(&child), signal).expect("a child of ours");
        let asked = Instant::now();
        let status = end(&mut child, deadline);
        assert!(asked.elapsed() < Duration::from_secs(20), "{signal:?}: {:?}", asked.elapsed());
        assert!(status.code().is_some_and(|code| codes.contains(&code)), "{signal:?}: {status}");
        world.ok(["fsck"]);
        registry.heal();
        registry.take_requests();
        world.ok(["pull", &reference, "--plain-http"]);
        assert_eq!(registry.count("GET", first.hex()), 0, "{signal:?}: the finished layer came again");
    }
}
