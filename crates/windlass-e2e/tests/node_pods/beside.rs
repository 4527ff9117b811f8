//! What other hands see and do: ctr, containerd's own CRI, containerd's collector.

use std::time::Duration;

use serde_json::json;
use windlass_e2e::cluster::pods::Pod;
use windlass_e2e::cluster::wait::until;
use windlass_e2e::cri::ImageService;
use windlass_testkit::images::{Entry, Image, Layer};
use windlass_testkit::program::{Then, program};
use windlass_testkit::tools::run;

use crate::scene::{MARKER, Scene, image};

/// Within this time both sides know what the other did: a second, and what a busy machine adds.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// The daemon as the kubelet asks it.
fn ours(scene: &Scene) -> ImageService {
    ImageService::at(&scene.cluster.node_socket().expect("the daemon serves the images"))
}

/// containerd's own.
fn containerds(scene: &Scene) -> ImageService {
    ImageService::at(&scene.cluster.containerd_socket())
}

fn ctr(scene: &Scene, args: &[&str]) -> String {
    let output = run(&mut scene.cluster.ctr(args.iter().copied()));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn ctr_and_containerds_cri_see_and_run_what_we_pulled(scene: &Scene) {
    let greeter = Entry::file("greet", program("greetings from below\n", Then::Ends)).mode(0o755);
    let image = Image::build().layer(Layer::new([greeter])).config(json!({ "Entrypoint": ["/greet"] })).finish();
    let reference = scene.open.place(&image.bundle(), "greeter", "v1");
    let id = ours(scene).pull(&reference).expect("a pull");
    let listed = ctr(scene, &["images", "ls", "-q"]);
    for name in [&reference, &id, &format!("{}/greeter@{}", scene.open.host(), image.manifest.digest)] {
        assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
    }
    let said = ctr(scene, &["run", "--rm", "--snapshotter", "windlass", &reference, "greeter"]);
    assert_eq!(said, "greetings from below\n");
    let [mine, theirs] = [ours(scene), containerds(scene)].map(|service| {
        let image = service.status(&reference).expect("an answer").expect("the image");
        (image.id, image.repo_tags, image.repo_digests, image.size)
    });
    assert_eq!(mine, theirs, "both services say the same of it");
}

pub(crate) fn a_forced_collection_of_containerd_removes_nothing_in_use(scene: &Scene) {
    let reference = scene.place("collected", &image("collected").bundle());
    let pod = Pod::new("collected", "before", &reference);
    let status = scene.cluster.run_pod(&pod);
    let only_pulled = scene.open.place(&image("pulled").bundle(), "collected", "pulled");
    ours(scene).pull(&only_pulled).expect("a pull");
    ctr(scene, &["leases", "create", "--id", "forces-a-collection"]);
    ctr(scene, &["leases", "delete", "--sync", "forces-a-collection"]);
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"collected");
    let after = Pod::new("collected", "after", &reference).policy("Never");
    scene.cluster.run_pod(&after);
    let pulled = scene.cluster.run_pod(&Pod::new("collected", "pulled", &only_pulled).policy("Never"));
    assert_eq!(scene.cluster.read_in(&pulled, MARKER), b"pulled");
    // The pods' directories go, and the image stays for the next.
    scene.cluster.delete(&pod);
    scene.cluster.delete(&after);
    ctr(scene, &["leases", "create", "--id", "forces-another"]);
    ctr(scene, &["leases", "delete", "--sync", "forces-another"]);
    scene.cluster.run_pod(&Pod::new("collected", "again", &reference).policy("Never"));
}

pub(crate) fn what_other_hands_remove_or_tag_is_noticed_soon(scene: &Scene) {
    let reference = scene.open.place(&image("noticed").bundle(), "noticed", "v1");
    let (ours, theirs) = (ours(scene), containerds(scene));
    let id = ours.pull(&reference).expect("a pull");
    let other = format!("{}/noticed:other", scene.open.host());
    ctr(scene, &["images", "tag", &reference, &other]);
    let tagged = || ours.status(&other).expect("an answer").filter(|image| image.id == id);
    until(NOTICE_LIMIT, tagged).expect("ours knows the tag");
    // containerd's CRI labels the record some time after it came, and makes it anew where it went meanwhile.
    until(NOTICE_LIMIT, || theirs.status(&other).expect("an answer")).expect("containerd's CRI knows the tag");
    ctr(scene, &["images", "rm", &other]);
    until(NOTICE_LIMIT, || ours.status(&other).expect("an answer").is_none().then_some(())).expect("it is gone");
    assert!(ours.status(&reference).expect("an answer").is_some(), "the other name stays");
    ours.remove(&reference).expect("a removal");
    assert!(ours.status(&reference).expect("an answer").is_none());
    until(NOTICE_LIMIT, || theirs.status(&reference).expect("an answer").is_none().then_some(()))
        .expect("containerd's CRI knows too");
    assert!(!ctr(scene, &["images", "ls", "-q"]).contains("/noticed"));
}
