//! The daemon and containerd die and come back; what runs goes on.

use windlass_e2e::cluster::POD_LIMIT;
use windlass_e2e::cluster::pods::{Pod, Status};

use crate::scene::{MARKER, Scene, image};

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
    scene.cluster.start_node_again();
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

/// The same container, never started again.
fn goes_on(scene: &Scene, pod: &Pod, before: &Status, pid: u32) {
    let after = scene.cluster.status(pod);
    assert!(after.is_running(), "{after}");
    assert_eq!((after.container_id(), after.restarts()), (before.container_id(), 0), "{after}");
    assert_eq!(scene.cluster.container_pid(&after), pid);
}
