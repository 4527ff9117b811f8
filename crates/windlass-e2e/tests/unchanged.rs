//! What is here already costs no more than one question.

use http::Method;
use windlass_e2e::peers::skopeo_copy;
use windlass_e2e::world::World;
use windlass_registry::access::Action::Pull;
use windlass_registry::log::AccessRecord;
use windlass_registry::route::RouteKind;
use windlass_testkit::images::{Entry, Image, Index, Layer, small, small_for, text};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{DockerRegistry, Sandbox, Tool};

/// How a request reads in an assertion.
fn told(requests: &[AccessRecord]) -> Vec<String> {
    let line = |r: &AccessRecord| format!("{} {:?} {}", r.method, r.route, r.status.as_u16());
    requests.iter().map(line).collect()
}

#[test]
fn an_unchanged_image_costs_one_head() {
    let registry = TestRegistry::open();
    let index = Index::of([small("m"), small_for("m", "arm64", Some("v8"))]);
    let image = registry.place(&small("one").bundle(), "one", "v1");
    let several = registry.place(&index.bundle(), "several", "v1");
    for reference in [image, several] {
        let world = World::new();
        world.ok(["pull", &reference]);
        registry.take_requests();
        let report = world.ok(["pull", "-o", "json", &reference]).json();
        assert_eq!(told(&registry.take_requests()), ["HEAD Manifest 200"], "{reference}");
        let item = &report["items"][0];
        assert_eq!((item["outcome"].as_str(), item["fetchedBytes"].as_u64()), (Some("up-to-date"), Some(0)));
    }
}

#[test]
fn always_with_nothing_changed_costs_one_head() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("pod").bundle(), "pod", "v1");
    let world = World::new();
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: n}}\nspec:\n  containers:\n  - name: c\n    \
         image: {reference}\n    imagePullPolicy: Always\n"
    );
    world.write("pod.yaml", pod);
    world.ok(["ensure", "-f", "pod.yaml"]);
    registry.take_requests();
    world.ok(["ensure", "-f", "pod.yaml"]);
    assert_eq!(told(&registry.take_requests()), ["HEAD Manifest 200"]);
}

#[test]
fn a_registry_that_asks_for_a_login_costs_one_challenge_more() {
    let image = small("private");
    for (what, builder) in [("basic", TestRegistry::build().basic()), ("bearer", TestRegistry::build().bearer())] {
        let registry = builder.user("alice", "wonderland-1865", "**", &[Pull]).start();
        let reference = registry.place(&image.bundle(), "private", "v1");
        let sandbox = Sandbox::new();
        let login = sandbox.login(&registry.host(), "alice", "wonderland-1865");
        let world = World::new();
        let pull = ["pull".as_ref(), "--authfile".as_ref(), login.as_os_str(), reference.as_ref()];
        world.ok(pull);
        registry.take_requests();
        world.ok(pull);
        let requests = registry.take_requests();
        let told = told(&requests);
        assert_eq!(told.last().map(String::as_str), Some("HEAD Manifest 200"), "{what}: {told:?}");
        let count = |is: fn(&AccessRecord) -> bool| requests.iter().filter(|request| is(request)).count();
        let (challenges, tokens) = (count(|r| r.status.as_u16() == 401), count(|r| r.route == RouteKind::Token));
        assert!(challenges <= 1 && tokens <= 1 && requests.len() == 1 + challenges + tokens, "{what}: {told:?}");
        let gets = count(|r| r.method == Method::GET && matches!(r.route, RouteKind::Manifest | RouteKind::Blob));
        assert_eq!(gets, 0, "{what}: {told:?}");
    }
}

#[test]
fn a_second_image_fetches_only_the_layers_that_are_new() {
    let registry = TestRegistry::open();
    let shared = || Layer::new([Entry::file("shared", text(100_000, 1))]);
    let more = || Layer::new([Entry::file("more", text(50_000, 2))]);
    let own = |name: &str| Layer::new([Entry::file(name, name)]);
    let first = Image::build().layer(shared()).layer(more()).layer(own("first")).finish();
    let second = Image::build().layer(shared()).layer(more()).layer(own("second")).finish();
    let world = World::new();
    world.ok(["pull", &registry.place(&first.bundle(), "a", "first")]);
    let reference = registry.place(&second.bundle(), "a", "second");
    registry.take_requests();
    world.ok(["pull", &reference]);
    let requests = registry.take_requests();
    let mut blobs: Vec<String> =
        requests.iter().filter(|r| r.route == RouteKind::Blob).filter_map(|r| r.reference.clone()).collect();
    blobs.sort();
    let mut want = [second.config.digest.to_string(), second.layers[2].blob.digest.to_string()];
    want.sort();
    assert_eq!(blobs, want);
    let manifests = requests.iter().filter(|r| r.route == RouteKind::Manifest && r.method == Method::GET).count();
    assert_eq!(manifests, 1);
}

#[test]
fn debians_registry_is_asked_once_for_an_unchanged_image() {
    let test = "debians_registry_is_asked_once_for_an_unchanged_image";
    let (Some(_), Some(peer)) = (Tool::Skopeo.find(test), DockerRegistry::start(test)) else { return };
    let source = TestRegistry::open();
    let placed = source.place(&small("peer").bundle(), "a", "v1");
    let reference = peer.reference("a", "v1");
    skopeo_copy(&Sandbox::new(), &format!("docker://{placed}"), &format!("docker://{reference}"));
    let world = World::new();
    world.ok(["pull", &reference]);
    let report = world.ok(["pull", "-o", "json", &reference]).json();
    let item = &report["items"][0];
    assert_eq!((item["requests"].as_u64(), item["fetchedBytes"].as_u64()), (Some(1), Some(0)));
}
