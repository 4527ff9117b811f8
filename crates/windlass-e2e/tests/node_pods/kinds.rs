//! Images of every kind: an index, many layers, users.

use serde_json::json;
use windlass_e2e::cluster::POD_LIMIT;
use windlass_e2e::cluster::pods::{Pod, Status};
use windlass_testkit::images::{Entry, Image, Index, Layer};

use crate::scene::{MARKER, Scene, base, image, marked, pod, with_config};

pub(crate) fn the_entry_of_an_index_for_this_machine_runs(scene: &Scene) {
    let other = Image::build().platform("linux", "s390x", None).layer(marked("s390x")).finish();
    let index = Index::of([other, image("amd64")]);
    let reference = scene.place("multi", &index.bundle());
    let status = scene.cluster.run_pod(&pod("multi", &reference));
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"amd64");
    assert!(status.image_id().ends_with(index.index.digest.as_str()), "{}", status.image_id());
}

pub(crate) fn an_image_of_sixty_layers_runs(scene: &Scene) {
    let layer = |at: usize| {
        let mut entries = vec![Entry::dir("layers"), Entry::file(format!("layers/{at}"), at.to_string())];
        entries.push(Entry::file("etc/marker", at.to_string()));
        if at > 0 {
            entries.push(Entry::whiteout(format!("layers/{}", at - 1)));
        }
        Layer::new(entries)
    };
    let image = (0..59).map(layer).fold(Image::build().layer(base()), |image, layer| image.layer(layer));
    let image = image.config(json!({ "Entrypoint": ["/app"] })).finish();
    assert_eq!(image.layers.len(), 60);
    let reference = scene.place("sixty", &image.bundle());
    let status = scene.cluster.run_pod(&pod("sixty", &reference));
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"58");
    assert_eq!(scene.cluster.read_in(&status, "/layers/58"), b"58");
    assert_eq!(scene.cluster.names_in(&status, "/layers"), ["58"]);
}

pub(crate) fn a_numeric_user_passes_run_as_non_root(scene: &Scene) {
    let image = with_config("number", json!({ "Entrypoint": ["/app"], "User": "12345:54321" }));
    let reference = scene.place("user-number", &image.bundle());
    let status = scene.cluster.run_pod(&pod("user-number", &reference).with("securityContext", no_root()));
    // The kubelet passes on the user it has checked, and the group is the runtime's choice then.
    let (user, _) = scene.cluster.owner_of(&status);
    assert_eq!(user, 12345);
}

pub(crate) fn a_named_user_runs_but_does_not_pass_run_as_non_root(scene: &Scene) {
    let image = with_config("name", json!({ "Entrypoint": ["/app"], "User": "app" }));
    let reference = scene.place("user-name", &image.bundle());
    let status = scene.cluster.run_pod(&Pod::new("user-name", "free", &reference));
    assert_eq!(scene.cluster.owner_of(&status), (4321, 8765), "as the image's /etc/passwd says");
    let pod = Pod::new("user-name", "strict", &reference).with("securityContext", no_root());
    let status = refused(scene, &pod);
    assert!(status.message().contains("non-numeric user (app)"), "{status}");
}

pub(crate) fn root_does_not_pass_run_as_non_root(scene: &Scene) {
    for (case, user) in [("user-none", json!({})), ("user-zero", json!({ "User": "0" }))] {
        let mut config = user;
        config["Entrypoint"] = json!(["/app"]);
        let reference = scene.place(case, &with_config(case, config).bundle());
        let status = refused(scene, &pod(case, &reference).with("securityContext", no_root()));
        assert!(status.message().contains("image will run as root"), "{status}");
    }
}

pub(crate) fn two_pods_write_without_seeing_each_other(scene: &Scene) {
    let reference = scene.place("writers", &image("writers").bundle());
    let [one, two] = ["one", "two"].map(|name| scene.cluster.run_pod(&Pod::new("writers", name, &reference)));
    scene.cluster.write_in(&one, "/written", b"by one");
    assert_eq!(scene.cluster.read_in(&one, "/written"), b"by one");
    assert!(!scene.cluster.names_in(&two, "/").contains(&"written".to_owned()));
}

fn no_root() -> serde_json::Value {
    json!({ "runAsNonRoot": true })
}

/// A pod whose container the kubelet does not create.
fn refused(scene: &Scene, pod: &Pod) -> Status {
    scene.cluster.apply(pod.document());
    let is_refused = |status: &Status| status.waiting() == Some("CreateContainerConfigError");
    scene.cluster.wait_for(pod, "refused", POD_LIMIT, is_refused)
}
