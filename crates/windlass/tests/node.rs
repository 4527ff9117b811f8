//! `windlass node` as a person and the command line meet it: one daemon on a root, work that goes through it, its end,
//! new configurations, pinned images, its page.

mod run;

use std::io::Read as _;
use std::process::Stdio;

use run::World;
use run::node::until;
use serde_json::Value as Json;
use windlass_registry::access::Action;
use windlass_testkit::canary::Canary;
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::{Entry, Image, Layer, incompressible, small};
use windlass_testkit::registry::TestRegistry;

fn large(bytes: usize) -> Image {
    Image::build().layer(Layer::new([Entry::file("large", incompressible(bytes, 7))])).finish()
}

/// An image whose one large layer the registry does not finish.
fn stalled(world: &World) -> (FaultyRegistry, String) {
    let registry = FaultyRegistry::open();
    world.speaks_http(&registry.host());
    let image = large(1 << 20);
    let reference = registry.place(&image.bundle(), "team/stalled", "1");
    registry.inject(When::blob_of(&image.layers[0].blob.digest), Fault::Stall { at: 200_000, how_long: None });
    (registry, reference)
}

/// A document without what differs from run to run.
fn steady(mut json: Json) -> Json {
    fn strip(json: &mut Json) {
        match json {
            Json::Object(fields) => {
                fields.remove("tookSeconds");
                // A client that lives longer has a token already.
                fields.remove("requests");
                // The kubelet's sentence has the time in it.
                if fields.get("reason").is_some_and(|reason| reason == "Pulled") {
                    fields.remove("message");
                }
                fields.values_mut().for_each(strip);
            }
            Json::Array(items) => items.iter_mut().for_each(strip),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
    strip(&mut json);
    json
}

#[test]
fn a_second_daemon_on_a_root_is_refused() {
    let world = World::new();
    let mut first = world.node("");
    world.file("other.yaml", "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\n");
    let socket = world.path("other.sock");
    let second = ["node", "--config", "other.yaml", "--socket", socket.to_str().unwrap(), "-o", "json"];
    let refused = world.run(second).env("WINDLASS_NODE_METRICS_ADDRESS", "").fails(1);
    let last = refused.stderr.lines().last().unwrap();
    let error: Json = serde_json::from_str(last).unwrap();
    assert_eq!(error["error"]["class"], "store-locked", "{error}");
    let status = first.status();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("process {}", status["pid"])), "{message}");
    first.signal("-TERM");
    assert_eq!(first.ended().code(), Some(0), "{}", first.log());
    assert!(!world.socket().exists(), "the socket goes with its daemon");
    world.run(["status", "--socket", world.socket().to_str().unwrap()]).fails(3);
}

#[test]
fn pull_prints_the_same_with_and_without_a_daemon() {
    let registry = TestRegistry::build().bearer().user("ci", "right", "team/*", &[Action::Pull]).start();
    let reference = registry.place(&small("private").bundle(), "team/app", "1");
    let gone = registry.reference("team/app", "gone");
    let host = registry.host();
    let login = |world: &World, password: &str| {
        let auth = format!(r#"{{"auths":{{"{host}":{{"username":"ci","password":"{password}"}}}}}}"#);
        world.file("auth.json", &auth);
    };
    let (alone, beside) = (World::new(), World::new());
    let node = beside.node("");
    let calls: [(&str, Vec<&str>); 5] = [
        ("canary-wrong", vec!["pull", &reference]),
        ("right", vec!["pull", &reference]),
        ("right", vec!["pull", &reference]),
        ("right", vec!["pull", &reference, &gone]),
        ("right", vec!["pull", "Team/BAD"]),
    ];
    let canary = Canary::new("canary-wrong");
    for (password, arguments) in calls {
        let output = |world: &World| {
            login(world, password);
            let mut command = world.run(["--authfile", "auth.json", "-o", "json"]);
            for argument in &arguments {
                command = command.args([argument]);
            }
            command.ends_somehow()
        };
        let (here, there) = (output(&alone), output(&beside));
        assert_eq!(here.status(), there.status(), "{arguments:?}: {} {}", here.stderr, there.stderr);
        let json = |text: &str| {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).map(steady).collect::<Vec<Json>>()
        };
        assert_eq!(json(&here.stderr), json(&there.stderr), "{arguments:?}");
        if !here.stdout.is_empty() {
            assert_eq!(steady(here.stdout_json()), steady(there.stdout_json()), "{arguments:?}");
        }
    }
    canary.assert_absent("the daemon's log", node.log().as_bytes());
    let pulls = node.status()["recent"].as_array().unwrap().clone();
    assert_eq!(pulls.len(), 5, "the daemon did all of it but the last, which is no name: {pulls:?}");
    let failed = pulls.iter().find(|pull| pull["reason"] == "unauthorized").unwrap();
    assert_eq!(failed["credential"], "file auth.json", "{failed}");
}

#[test]
fn ensure_prints_the_same_with_and_without_a_daemon() {
    let registry = TestRegistry::build().bearer().user("ci", "canary-right", "team/*", &[Action::Pull]).start();
    let reference = registry.place(&small("private").bundle(), "team/app", "1");
    let config = format!(r#"{{"auths":{{"{}":{{"username":"ci","password":"canary-right"}}}}}}"#, registry.host());
    let manifests = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: regcred, namespace: team}}\ntype: kubernetes.io/dockerconfigjson\n\
         stringData:\n  .dockerconfigjson: '{config}'\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: team}}\n\
         spec:\n  imagePullSecrets: [{{name: regcred}}]\n  containers:\n  - {{name: app, image: '{reference}'}}\n  \
         - {{name: never, image: '{}', imagePullPolicy: Never}}\n  - {{name: gone, image: '{}'}}\n",
        registry.reference("team/app", "never"),
        registry.reference("team/app", "gone"),
    );
    let output = |world: &World| {
        world.file("pod.yaml", &manifests);
        world.run(["ensure", "-f", "pod.yaml", "-o", "json"]).fails(1)
    };
    let (alone, beside) = (World::new(), World::new());
    let node = beside.node("");
    for _ in 0..2 {
        let (here, there) = (output(&alone), output(&beside));
        assert_eq!(steady(here.stdout_json()), steady(there.stdout_json()));
        assert_eq!(here.stderr, there.stderr);
    }
    Canary::new("canary-right").assert_absent("the daemon's log", node.log().as_bytes());
    let recent = node.status()["recent"].clone();
    let outcomes: Vec<_> = recent.as_array().unwrap().iter().map(|pull| pull["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "pulled").count(), 1, "the second time it was here");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "failed").count(), 2, "a call starts without back-off");
}

#[test]
fn an_interrupted_command_cancels_its_pull_in_the_daemon() {
    let world = World::new();
    let (_registry, reference) = stalled(&world);
    let node = world.node("");
    let mut child = world.process(&["pull", &reference, "-o", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    let under_way = || {
        let pulls = node.status()["pulls"].clone();
        pulls[0]["doneBytes"].as_u64().is_some_and(|bytes| bytes > 0).then_some(pulls)
    };
    let pulls = until("a pull under way", under_way);
    assert_eq!(pulls[0]["image"], reference.as_str());
    assert!(pulls[0]["totalBytes"].as_u64() > pulls[0]["doneBytes"].as_u64(), "{pulls}");
    let table = world.run(["status"]).succeeds().stdout;
    assert!(table.contains(&reference) && table.contains("1 images") || table.contains("0 images"), "{table}");
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let ended = until("its end in the daemon", || {
        let status = node.status();
        (status["pullCount"] == 0).then(|| status["recent"][0]["outcome"].clone())
    });
    assert_eq!(ended, "canceled");
}

#[test]
fn a_daemon_that_goes_away_is_told_as_that() {
    let world = World::new();
    let (_registry, reference) = stalled(&world);
    let node = world.node("");
    let mut child = world.process(&["pull", &reference, "-o", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    until("a pull under way", || (node.status()["pullCount"] == 1).then_some(()));
    node.signal("-KILL");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    let error: Json = serde_json::from_str(&said).unwrap();
    assert_eq!(error["error"]["class"], "daemon-unavailable", "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("went away"), "{error}");
    // Its lock died with it: the next command works alone.
    let registry = TestRegistry::open();
    let other = registry.place(&small("x").bundle(), "app", "1");
    world.run(["pull", &other]).succeeds();
}

#[test]
fn a_flag_that_the_daemon_cannot_obey_keeps_the_work_here() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("x").bundle(), "app", "1");
    let world = World::new();
    let node = world.node("");
    let output = world.run(["pull", "--progress-timeout", "5s", &reference]).succeeds();
    assert!(output.stderr.contains("--progress-timeout is for this call only"), "{}", output.stderr);
    assert_eq!(node.status()["recent"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_drain_gives_pulls_their_time_and_then_cancels_them() {
    let world = World::new();
    let (_registry, reference) = stalled(&world);
    let mut node = world.node("  drainTimeout: 500ms\n");
    let mut child = world.process(&["pull", &reference, "-o", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    until("a pull under way", || (node.status()["pullCount"] == 1).then_some(()));
    node.signal("-TERM");
    until("the drain", || (node.get("/readyz").0 == 503).then_some(()));
    let refused = world.run(["pull", &reference, "-o", "json"]).ends_somehow();
    assert_ne!(refused.status(), Some(0), "no new pulls while it drains");
    assert_eq!(node.ended().code(), Some(0), "{}", node.log());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let error: Json = serde_json::from_str(&said).unwrap();
    assert!(["canceled", "daemon-unavailable"].contains(&error["error"]["class"].as_str().unwrap()), "{error}");
    assert_ne!(child.wait().unwrap().code(), Some(0));
    let left = node.logged("pulls did not end in time and were cancelled; their finished layers are kept");
    assert_eq!(left.unwrap()["fields"]["left"], 1);
    assert_eq!(world.run(["fsck", "-o", "json"]).succeeds().stdout_json()["verdict"], "clean");
}

#[test]
fn health_is_told_in_one_word_or_check_by_check() {
    let world = World::new();
    let node = world.node("");
    let table = [
        ("/livez", 200, "ok\n"),
        ("/livez?verbose", 200, "[+]ping ok\nlivez check passed\n"),
        ("/readyz", 200, "ok\n"),
        ("/readyz?verbose", 200, "[+]store ok\n[+]socket ok\n[+]work ok\nreadyz check passed\n"),
        ("/readyz/store", 200, "ok\n"),
        ("/readyz/moon", 404, "no such check\n"),
    ];
    for (path, status, body) in table {
        assert_eq!(node.get(path), (status, body.to_owned()), "{path}");
    }
}

#[test]
fn a_login_that_ended_is_asked_for_again_for_a_daemon_too() {
    use std::os::unix::fs::PermissionsExt as _;

    let registry = TestRegistry::build().basic().user("ci", "login-2", "team/*", &[Action::Pull]).start();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let world = World::new();
    world.speaks_http(&registry.host());
    let _node = world.node("");
    // Each answer of the helper is another login; the first one is over by the time it is used.
    std::fs::create_dir(world.path("bin")).unwrap();
    let count = world.path("count").display().to_string();
    world.file(
        "bin/docker-credential-counting",
        &format!(
            "#!/bin/sh\necho x >> {count}\nprintf '{{\"Username\":\"ci\",\"Secret\":\"login-%d\"}}' $(wc -l < {count})\n"
        ),
    );
    let program = world.path("bin/docker-credential-counting");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(world.path(".docker")).unwrap();
    world.file(".docker/config.json", &format!("{{\"credHelpers\":{{\"{}\":\"counting\"}}}}", registry.host()));
    let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
    world.run(["pull", &reference]).env("PATH", &path).succeeds();
    assert_eq!(std::fs::read_to_string(world.path("count")).unwrap().lines().count(), 2);
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new();
    let (_registry, reference) = stalled(&world);
    let mut node = world.node("  drainTimeout: 10m\n");
    let mut child = world.process(&["pull", &reference]).stderr(Stdio::null()).spawn().unwrap();
    until("a pull under way", || (node.status()["pullCount"] == 1).then_some(()));
    node.signal("-TERM");
    until("the drain", || (node.get("/readyz").0 == 503).then_some(()));
    node.signal("-TERM");
    assert_eq!(node.ended().code(), Some(130));
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_bad_file_changes_nothing_and_is_told() {
    let world = World::new();
    let node = world.node("  pinnedCheckEvery: 30m\n");
    world.configure("  pinnedImagez: [a]\n");
    node.signal("-HUP");
    let problem = until("the problem", || node.status()["configuration"]["problem"].as_str().map(str::to_owned));
    assert!(problem.contains("node.pinnedImagez") && problem.contains("did you mean node.pinnedImages?"), "{problem}");
    let table = world.run(["status"]).succeeds().stdout;
    assert!(table.contains("the old one is in force"), "{table}");
    assert!(node.logged("the new configuration is not valid; the old one stays in force").is_some(), "{}", node.log());
    let metrics = node.get("/metrics").1;
    assert!(metrics.contains("windlass_configuration_good 0"), "{metrics}");
    // Repaired, and with a key that only a restart takes over.
    world.configure("  drainTimeout: 7s\n");
    node.signal("-HUP");
    let restart = until("the repair", || {
        let configuration = node.status()["configuration"].clone();
        configuration["problem"].is_null().then(|| configuration["needsRestart"].clone())
    });
    assert_eq!(restart, serde_json::json!(["node.drainTimeout"]));
}

#[test]
fn pinned_images_come_by_a_changed_file_and_go_by_another() {
    let registry = TestRegistry::open();
    let (one, other) = (small("one"), small("other"));
    let reference = registry.place(&one.bundle(), "app", "1");
    let gone = registry.reference("app", "gone");
    let world = World::new();
    let node = world.node("");
    // Nobody says that the file has changed.
    world.configure(&format!("  pinnedImages: ['{reference}', '{gone}']\n  pinnedCheckEvery: 1s\n"));
    let row = |image: &str| {
        let rows = node.status()["pinned"].clone();
        rows.as_array().unwrap().iter().find(|row| row["image"] == image).cloned()
    };
    let id = until("the pinned image", || row(&reference)?["id"].as_str().map(str::to_owned));
    assert_eq!(id, one.id().as_str());
    let failed = until("the other's failure", || row(&gone).filter(|row| row["state"] == "failed"));
    assert!(failed["problem"].as_str().is_some_and(|why| why.contains("MANIFEST_UNKNOWN")), "{failed}");
    let waiting = node.status()["backOff"].clone();
    assert_eq!(
        (&waiting[0]["image"], &waiting[0]["who"]),
        (&gone.as_str().into(), &"node.pinnedImages".into()),
        "{waiting}"
    );
    let pins = |id: &str| {
        let images = node.status()["images"].clone();
        let image = images.as_array().unwrap().iter().find(|image| image["id"] == id).cloned()?;
        Some(image["pins"].clone())
    };
    until("the pin", || pins(&id).filter(|pins| pins[0].as_str().is_some_and(|pin| pin.starts_with("config: "))));
    let kept = world.run(["gc", "--all", "--dry-run", "-o", "json"]).succeeds().stdout_json();
    assert_eq!(kept["victims"].as_array().map(Vec::len), Some(0), "{kept}");
    // The tag moves: the new image comes, and the old one is free to go.
    registry.place(&other.bundle(), "app", "1");
    until("the moved tag", || row(&reference).filter(|row| row["id"] == other.id().as_str()));
    until("the old pin's end", || pins(&id).filter(|pins| pins.as_array().is_some_and(Vec::is_empty)));
    // And so is one that leaves the list.
    world.configure("");
    let other = other.id().to_string();
    until("the new pin's end", || pins(&other).filter(|pins| pins.as_array().is_some_and(Vec::is_empty)));
    assert!(node.status()["pinned"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn images_unused_for_too_long_go_where_the_daemon_collects() {
    let registry = TestRegistry::open();
    let kept = registry.place(&small("kept").bundle(), "app", "kept");
    let goes = registry.place(&small("goes").bundle(), "app", "goes");
    let world = World::new();
    world.run(["pull", &kept, &goes]).succeeds();
    world.run(["pin", &kept]).succeeds();
    let node =
        world.node("  collect: {enabled: true, every: 1s, maximumAge: 500ms, highPercent: 100, lowPercent: 99}\n");
    let collection = until("the collection", || {
        let collection = node.status()["collection"].clone();
        collection["removed"].as_array().is_some_and(|removed| !removed.is_empty()).then_some(collection)
    });
    assert!(collection["removed"][0].as_str().unwrap().contains("unused for"), "{collection}");
    let names = world.run(["images", "-o", "json"]).succeeds().stdout_json();
    assert_eq!(
        (names["items"].as_array().map(Vec::len), &names["items"][0]["repoTags"][0]),
        (Some(1), &kept.as_str().into())
    );
    let metrics = node.get("/metrics").1;
    assert!(metrics.contains("windlass_collected_images_total{reason=\"age\"} 1"), "{metrics}");
}

#[test]
fn events_of_the_page_follow_a_pull() {
    let registry = FaultyRegistry::open();
    let image = large(3_000_000);
    let reference = registry.place(&image.bundle(), "team/slow", "1");
    registry.inject(When::blob_of(&image.layers[0].blob.digest), Fault::Trickle(1_000_000));
    let world = World::new();
    world.speaks_http(&registry.host());
    let node = world.node("");
    let mut child = world.process(&["pull", &reference]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen: Vec<u64> = Vec::new();
    node.events(|line| {
        let done = line.split("data-done=\"").nth(1).and_then(|rest| rest.split('"').next());
        let done: u64 = done?.parse().ok()?;
        if seen.last().is_none_or(|last| *last < done) {
            seen.push(done);
        }
        (seen.len() >= 3).then_some(())
    });
    assert!(seen.is_sorted() && seen[0] < seen[2], "{seen:?}");
    let (status, page) = node.get("/");
    assert_eq!(status, 200);
    assert!(page.contains(&reference) && page.contains("<progress"), "without JavaScript it is all there: {page}");
    assert!(child.wait().unwrap().success());
    node.events(|line| (line == "data: <p class=\"soft\">None.</p>").then_some(()));
    let json: Json = serde_json::from_str(&node.get("/status.json").1).unwrap();
    assert_eq!(json["recent"][0]["outcome"], "pulled");
    let metrics = node.get("/metrics").1;
    assert!(metrics.contains("windlass_pulls_total{outcome=\"pulled\",reason=\"\"} 1"), "{metrics}");
    assert_eq!(node.logged("pull ended").unwrap()["fields"]["outcome"], "pulled");
}

#[test]
fn a_hostile_image_name_is_text_on_the_page() {
    let world = World::new();
    let node = world.node("");
    // A path of the daemon's own, so that the name is not refused before it is tried.
    let hostile = "127.0.0.1:1/<script>alert(1)</script>";
    world.run(["pull", hostile]).fails(2);
    world.configure("  pinnedImages: ['127.0.0.1:1/a:1']\n");
    until("the failure", || (node.status()["recent"][0]["outcome"] == "failed").then_some(()));
    let page = node.get("/").1;
    assert!(page.contains("127.0.0.1:1/a:1"), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "{page}");
}

#[test]
fn status_without_a_daemon_says_what_to_do() {
    let world = World::new();
    let error = world.run(["status", "-o", "json"]).env("WINDLASS_NODE_SOCKET", "/nonexistent/w.sock").fails(3);
    let error = error.stderr_json();
    assert_eq!(error["error"]["class"], "daemon-unavailable");
    assert!(error["error"]["hint"].as_str().unwrap().contains("windlass node"), "{error}");
}

#[test]
fn a_watched_status_is_a_document_a_line() {
    let world = World::new();
    let node = world.node("");
    let mut child = world
        .process(&["status", "--watch", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut next = || serde_json::from_str::<Json>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["pullCount"], 0);
    let (_registry, reference) = stalled(&world);
    let mut pull = world.process(&["pull", &reference]).stderr(Stdio::null()).spawn().unwrap();
    until("a pull in the watched status", || (next()["pullCount"] == 1).then_some(()));
    pull.kill().unwrap();
    pull.wait().unwrap();
    until("its end in the watched status", || (next()["pullCount"] == 0).then_some(()));
    drop(node);
    assert_eq!(child.wait().unwrap().code(), Some(3), "the daemon went away");
}

/// What the daemon tells the service manager, one message at a time.
fn heard(socket: &std::os::unix::net::UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("a message in time");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let world = World::new();
    world.configure("");
    let manager = std::os::unix::net::UnixDatagram::bind(world.path("notify")).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut child = world
        .process(&["node", "--config", "node.yaml"])
        .env("NOTIFY_SOCKET", world.path("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until_heard = |word: &str| until(word, || Some(heard(&manager)).filter(|message| message.contains(word)));
    until_heard("READY=1");
    world.run(["status"]).succeeds();
    until_heard("STATUS=0 images, 0 pulls under way");
    until_heard("WATCHDOG=1");
    let signal = |signal: &str, id: u32| {
        let kill = std::process::Command::new("kill").args([signal, &id.to_string()]).status();
        assert!(kill.unwrap().success());
    };
    signal("-HUP", child.id());
    assert!(until_heard("RELOADING=1").contains("MONOTONIC_USEC="));
    until_heard("READY=1");
    signal("-TERM", child.id());
    until_heard("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_socket_that_is_handed_over_is_used_and_stays() {
    const PROGRAM: &str = "systemd-socket-activate";
    let world = World::new();
    world.configure("");
    let mut command = std::process::Command::new(PROGRAM);
    let windlass = world.process(&["node", "--config", "node.yaml"]);
    command.arg("--listen").arg(world.socket());
    for (name, value) in windlass.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        let mut pair = std::ffi::OsString::from("--setenv=");
        pair.push(name);
        pair.push("=");
        pair.push(value);
        command.arg(pair).env(name, value);
    }
    command.arg(windlass.get_program()).args(windlass.get_args()).current_dir(world.path(""));
    let Ok(mut child) = command.stderr(Stdio::null()).spawn() else {
        windlass_testkit::tools::skipped("a_socket_that_is_handed_over_is_used_and_stays", "there is no systemd");
        return;
    };
    until("the socket", || world.socket().exists().then_some(()));
    // The first call starts the daemon and waits for it.
    let status = world.run(["status", "-o", "json", "--socket", world.socket().to_str().unwrap()]).succeeds();
    assert_eq!(status.stdout_json()["pid"], child.id());
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(world.socket().exists(), "it is the service manager's");
}

#[test]
fn the_units_that_are_shipped_are_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
    let world = World::new();
    let service = std::fs::read_to_string(format!("{folder}/windlass-node.service")).unwrap();
    let binary = assert_cmd::cargo::cargo_bin!("windlass");
    assert!(service.contains("ExecStart=/usr/bin/windlass node\n") && service.contains("Type=notify\n"));
    // Settings that would give the daemon a mount namespace of its own, in which containerd cannot see its mounts.
    for setting in
        ["Protect", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ReadWritePaths", "BindPaths", "RootDirectory"]
    {
        assert!(!service.lines().any(|line| line.starts_with(setting)), "{setting}");
    }
    world.file("windlass-node.service", &service.replace("/usr/bin/windlass", binary.to_str().unwrap()));
    world.file("windlass-node.socket", &std::fs::read_to_string(format!("{folder}/windlass-node.socket")).unwrap());
    let verify = std::process::Command::new("systemd-analyze")
        .arg("verify")
        .args([world.path("windlass-node.service"), world.path("windlass-node.socket")])
        .output();
    let Ok(verify) = verify else {
        windlass_testkit::tools::skipped("the_units_that_are_shipped_are_valid", "there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && !said.contains("windlass-node"), "{said}");
}
