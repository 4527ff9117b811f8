//! Pull policies, tags that move, digests.

use windlass_e2e::cluster::POD_LIMIT;
use windlass_e2e::cluster::pods::Pod;
use windlass_registry::route::RouteKind;

use crate::scene::{MARKER, Scene, image, pod};

pub(crate) fn never_and_absent_is_never_pulled(scene: &Scene) {
    let reference = scene.place("never-absent", &image("never-absent").bundle());
    let pod = pod("never-absent", &reference).policy("Never");
    scene.cluster.apply(pod.document());
    scene.cluster.wait_for(&pod, "refused", POD_LIMIT, |status| status.waiting() == Some("ErrImageNeverPull"));
    assert_eq!(scene.asked("never-absent"), []);
}

pub(crate) fn never_and_present_runs_without_a_request(scene: &Scene) {
    let reference = scene.place("never-present", &image("never-present").bundle());
    scene.cluster.run_pod(&Pod::new("never-present", "first", &reference));
    let asked = scene.asked("never-present").len();
    scene.cluster.run_pod(&Pod::new("never-present", "second", &reference).policy("Never"));
    assert_eq!(scene.asked("never-present").len(), asked);
}

pub(crate) fn always_with_the_same_digest_asks_for_no_layer(scene: &Scene) {
    let image = image("always");
    let reference = scene.place("always", &image.bundle());
    scene.cluster.run_pod(&Pod::new("always", "first", &reference).policy("Always"));
    let (asked, blobs) = (scene.asked("always").len(), scene.asked_blobs("always"));
    // The lowest layer is in other images too.
    let own = image.layers.last().expect("a layer").blob.digest.as_str();
    assert_eq!(blobs.iter().filter(|blob| *blob == own).count(), 1, "{blobs:?}");
    scene.cluster.run_pod(&Pod::new("always", "second", &reference).policy("Always"));
    let later = scene.asked("always").split_off(asked);
    assert!(later.iter().any(|request| request.route == RouteKind::Manifest), "the tag was looked up: {later:?}");
    assert!(later.iter().all(|request| request.route != RouteKind::Blob), "{later:?}");
}

pub(crate) fn a_moved_tag_runs_the_new_image(scene: &Scene) {
    let reference = scene.place("moved", &image("old").bundle());
    let before = Pod::new("moved", "before", &reference).policy("Always");
    let old = scene.cluster.run_pod(&before);
    scene.open.place(&image("new").bundle(), "moved", "v1");
    let new = scene.cluster.run_pod(&Pod::new("moved", "after", &reference).policy("Always"));
    assert_eq!(scene.cluster.read_in(&new, MARKER), b"new");
    assert_ne!(new.image_id(), old.image_id());
    assert_eq!(scene.cluster.read_in(&old, MARKER), b"old", "what runs goes on as it was");
    let local = scene.cluster.run_pod(&Pod::new("moved", "local", &reference).policy("Never"));
    assert_eq!(scene.cluster.read_in(&local, MARKER), b"new", "the tag has moved on the node too");
    assert!(scene.cluster.status(&before).is_running());
}

pub(crate) fn an_image_by_digest_runs(scene: &Scene) {
    let image = image("by-digest");
    scene.place("by-digest", &image.bundle());
    let reference = format!("{}/by-digest@{}", scene.open.host(), image.manifest.digest);
    let status = scene.cluster.run_pod(&pod("by-digest", &reference));
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"by-digest");
    assert_eq!(status.image_id(), reference);
}

pub(crate) fn a_missing_image_is_an_error_that_says_so(scene: &Scene) {
    scene.cluster.namespace("missing");
    let pod = pod("missing", &scene.open.reference("missing", "v1"));
    scene.cluster.apply(pod.document());
    let is_refused = |status: &windlass_e2e::cluster::pods::Status| status.waiting() == Some("ErrImagePull");
    let status = scene.cluster.wait_for(&pod, "refused", POD_LIMIT, is_refused);
    assert!(status.message().contains("not found"), "{status}");
}
