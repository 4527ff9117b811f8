//! The daemon and containerd die and come back; what runs goes on.

use std::fs;

use serde_json::json;
use windlass_core::manifest::chain_ids;
use windlass_e2e::cluster::POD_LIMIT;
use windlass_e2e::cluster::pods::{Pod, Status};
use windlass_e2e::cluster::wait::until;
use windlass_e2e::world::Snapshots;
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::{BuiltLayer, Entry, Image, Layer, incompressible};

use crate::scene::{MARKER, Scene, base, image};

pub(crate) fn pods_keep_running_while_the_daemon_is_dead_and_new_ones_start_after(scene: &Scene) {
    let known = scene.place("daemon-dies", &image("known").bundle());
    let running = Pod::new("daemon-dies", "running", &known);
    let before = scene.cluster.run_pod(&running);
    let pid = scene.cluster.container_pid(&before);
    scene.cluster.kill_node();
    let next = scene.open.place(&image("next").bundle(), "daemon-dies", "next");
    let (waiting, local) = (Pod::new("daemon-dies", "next", &next), Pod::new("daemon-dies", "local", &known));
    for pod in [&waiting, &local] {
        scene.cluster.apply(pod.document());
        // The kubelet tells of a socket that nobody listens on; the pod waits.
        scene.cluster.wait_for_event(pod, "connection refused", POD_LIMIT);
    }
    assert_eq!(scene.cluster.container_pid(&before), pid, "the container goes on");
    assert_eq!(scene.cluster.read_in(&before, MARKER), b"known", "its files are there");
    scene.cluster.start_node_again(Snapshots::Default);
    for (pod, marker) in [(&waiting, "next"), (&local, "known")] {
        let status = scene.cluster.wait_for(pod, "running", POD_LIMIT, Status::is_running);
        assert_eq!(scene.cluster.read_in(&status, MARKER), marker.as_bytes());
    }
    goes_on(scene, &running, &before, pid);
    scene.cluster.delete(&running);
}

pub(crate) fn pods_and_images_outlive_a_crash_of_containerd(scene: &Scene) {
    let reference = scene.place("containerd-dies", &image("outlives").bundle());
    let running = Pod::new("containerd-dies", "running", &reference);
    let before = scene.cluster.run_pod(&running);
    let pid = scene.cluster.container_pid(&before);
    scene.cluster.restart_containerd();
    let local = Pod::new("containerd-dies", "local", &reference).policy("Never");
    let status = scene.cluster.run_pod(&local);
    assert_eq!(scene.cluster.read_in(&status, MARKER), b"outlives");
    goes_on(scene, &running, &before, pid);
}

pub(crate) fn a_pull_cut_off_by_the_daemons_death_keeps_its_finished_layers(scene: &Scene) {
    let registry = FaultyRegistry::open();
    // It does not answer the TLS that is tried first.
    scene.cluster.tell_host(&registry.host(), &format!("server = {:?}\n", registry.url()));
    let own = |seed| Layer::new([Entry::file(format!("own-{seed}"), incompressible(200_000, seed))]);
    let layers = [base(), own(1), own(2)];
    let image = layers.into_iter().fold(Image::build(), |image, layer| image.layer(layer));
    let image = image.config(json!({ "Entrypoint": ["/app"] })).finish();
    let [_, finished, stalled] = &image.layers[..] else { panic!("three layers") };
    registry.inject(When::blob_of(&stalled.blob.digest).first(1), Fault::StallHead(None));
    let reference = registry.place(&image.bundle(), "cut-off", "v1");
    scene.cluster.namespace("cut-off");
    let pod = Pod::new("cut-off", "app", &reference);
    scene.cluster.apply(pod.document());
    let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let chain = chain_ids(&diff_ids)[1].to_string();
    let asked = |layer: &BuiltLayer| registry.count("GET", layer.blob.digest.as_str());
    let is_between = || asked(stalled) > 0 && scene.cluster.stored_chains().contains(&chain);
    until(POD_LIMIT, || is_between().then_some(())).expect("one layer is there, and the other does not come");
    scene.cluster.kill_node();
    scene.cluster.start_node_again(Snapshots::Default);
    let status = scene.cluster.wait_for(&pod, "running", POD_LIMIT, Status::is_running);
    assert_eq!(scene.cluster.read_in(&status, "/own-2"), incompressible(200_000, 2));
    assert_eq!((asked(finished), asked(stalled)), (1, 2));
}

pub(crate) fn layers_of_both_forms_make_one_root(scene: &Scene) {
    if Snapshots::possible(&std::env::temp_dir(), "layers_of_both_forms_make_one_root").len() < 2 {
        return;
    }
    let forms = [(Snapshots::ImageFiles, "lower"), (Snapshots::Directories, "upper")];
    let lowest = Layer::new([Entry::file("lowest", "lowest"), Entry::dir("both"), Entry::file("both/lowest", "")]);
    let mut image = Image::build().layer(base()).layer(lowest).config(json!({ "Entrypoint": ["/app"] }));
    scene.cluster.namespace("both-forms");
    let mut names = vec!["lowest".to_owned()];
    // Each time one more layer, in the other form, above those that are here.
    for (snapshots, name) in forms.into_iter().chain([(Snapshots::ImageFiles, "top")]) {
        image = image.layer(Layer::new([Entry::file(format!("both/{name}"), name), Entry::whiteout("lowest")]));
        scene.cluster.kill_node();
        scene.cluster.start_node_again(snapshots);
        let reference = scene.open.place(&image.clone().finish().bundle(), "both-forms", name);
        let status = scene.cluster.run_pod(&Pod::new("both-forms", name, &reference));
        names.push(name.to_owned());
        names.sort();
        assert_eq!(scene.cluster.names_in(&status, "/both"), names);
        assert_eq!(scene.cluster.read_in(&status, &format!("/both/{name}")), name.as_bytes());
        assert!(!scene.cluster.names_in(&status, "/").contains(&"lowest".to_owned()), "a whiteout hides it");
        scene.cluster.write_in(&status, "/both/written", b"above all layers");
    }
    for form in ["fs", "image"] {
        let layers = fs::read_dir(scene.cluster.store().join("snapshots")).expect("the store");
        let count = layers.filter(|layer| layer.as_ref().is_ok_and(|layer| layer.path().join(form).exists())).count();
        assert!(count > 0, "no layer is kept as {form}");
    }
    scene.cluster.kill_node();
    scene.cluster.start_node_again(Snapshots::Default);
}

/// The same container, never started again.
fn goes_on(scene: &Scene, pod: &Pod, before: &Status, pid: u32) {
    let after = scene.cluster.status(pod);
    assert!(after.is_running(), "{after}");
    assert_eq!((after.container_id(), after.restarts()), (before.container_id(), 0), "{after}");
    assert_eq!(scene.cluster.container_pid(&after), pid);
}
