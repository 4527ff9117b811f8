//! Private images: whose secrets are used, and what becomes of a wrong one.

use serde_json::json;
use windlass_e2e::cluster::POD_LIMIT;
use windlass_e2e::cluster::pods::Status;

use crate::scene::{MARKER, PASSWORD, Scene, WRONG_PASSWORD, pod};

pub(crate) fn a_private_image_runs_by_an_image_pull_secret(scene: &Scene) {
    let reference = scene.place_private("by-secret");
    scene.give_secret("by-secret", PASSWORD);
    let status = scene.cluster.run_pod(&pod("by-secret", &reference).pull_secret("pull"));
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"by-secret");
}

pub(crate) fn a_private_image_runs_by_the_secret_of_a_service_account(scene: &Scene) {
    let reference = scene.place_private("by-account");
    scene.give_secret("by-account", PASSWORD);
    scene.cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "namespace": "by-account", "name": "puller" },
        "imagePullSecrets": [{ "name": "pull" }],
    }));
    let status = scene.cluster.run_pod(&pod("by-account", &reference).with("serviceAccountName", "puller"));
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"by-account");
}

pub(crate) fn a_private_image_does_not_run_without_a_secret(scene: &Scene) {
    let reference = scene.place_private("no-secret");
    let pod = pod("no-secret", &reference);
    scene.cluster.apply(pod.document());
    scene.cluster.wait_for(&pod, "refused", POD_LIMIT, |status| status.waiting() == Some("ErrImagePull"));
    let events = scene.cluster.events(&pod);
    assert!(events.iter().any(|event| event.starts_with("Failed: Failed to pull image")), "{events:?}");
}

pub(crate) fn a_wrong_pull_secret_is_an_error_then_a_back_off_and_repaired_the_pod_runs(scene: &Scene) {
    let reference = scene.place_private("wrong-secret");
    scene.give_secret("wrong-secret", WRONG_PASSWORD);
    let pod = pod("wrong-secret", &reference).pull_secret("pull");
    scene.cluster.apply(pod.document());
    let waits = |reason| move |status: &Status| status.waiting() == Some(reason);
    scene.cluster.wait_for(&pod, "refused", POD_LIMIT, waits("ErrImagePull"));
    scene.cluster.wait_for(&pod, "backing off", POD_LIMIT, waits("ImagePullBackOff"));
    scene.give_secret("wrong-secret", PASSWORD);
    let status = scene.cluster.wait_for(&pod, "running", POD_LIMIT, Status::is_running);
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"wrong-secret");
}
