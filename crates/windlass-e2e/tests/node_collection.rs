//! The kubelet's own garbage collection removes an image of ours that no container uses any more.
//!
//! The kubelet looks every five minutes and no option changes that, so this runs only where `WINDLASS_LONG_TESTS` is
//! set, as `cargo xtask ci` does.

use std::time::Duration;

use serde_json::json;
use windlass_e2e::cluster::pods::{Pod, Status};
use windlass_e2e::cluster::wait::until;
use windlass_e2e::cluster::{Cluster, Images, Options, POD_LIMIT};
use windlass_e2e::world::disk_bytes;
use windlass_testkit::images::{Entry, Image, Layer, incompressible};
use windlass_testkit::program::{Then, program};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{run, skipped};

const TEST: &str = "the_kubelet_collects_an_unused_image";
/// Kubelet: `ImageGCPeriod`, five minutes, and some more on a busy machine.
const COLLECTION_LIMIT: Duration = Duration::from_secs(400);
/// Bytes of the layer that only the unused image has.
const OWN_BYTES: usize = 8 << 20;

fn image(seed: u64) -> Image {
    let layers = [
        Layer::new([Entry::file("app", program("", Then::Stays)).mode(0o755)]),
        Layer::new([Entry::file("own", incompressible(OWN_BYTES, seed))]).level(1),
    ];
    let image = layers.into_iter().fold(Image::build(), |image, layer| image.layer(layer));
    image.config(json!({ "Entrypoint": ["/app"] })).finish()
}

#[test]
fn the_kubelet_collects_an_unused_image() {
    if std::env::var_os("WINDLASS_LONG_TESTS").is_none() {
        return skipped(TEST, "WINDLASS_LONG_TESTS is not set: it takes minutes");
    }
    let mut options = Options::new(Images::Windlass);
    // Any disk is fuller than this, so that every unused image goes once it is old enough.
    options.kubelet = json!({
        "imageMinimumGCAge": "10s",
        "imageGCHighThresholdPercent": 1,
        "imageGCLowThresholdPercent": 0,
    });
    let Some(cluster) = Cluster::start(TEST, &options) else { return };
    let registry = TestRegistry::open();
    cluster.namespace("collect");
    let [used, unused] = [1, 2].map(|seed| registry.place(&image(seed).bundle(), "collect", &format!("v{seed}")));
    let keeps = Pod::new("collect", "keeps", &used);
    cluster.run_pod(&keeps);
    let goes = Pod::new("collect", "goes", &unused);
    cluster.run_pod(&goes);
    cluster.delete(&goes);
    let before = disk_bytes(&cluster.store());
    let names = || String::from_utf8_lossy(&run(&mut cluster.ctr(["images", "ls", "-q"])).stdout).into_owned();
    assert!(names().contains(&unused) && names().contains(&used), "{}", names());

    // It takes stock when it starts, and what it found then is old enough when it looks next.
    cluster.restart_kubelet();
    until(COLLECTION_LIMIT, || (!names().contains(&unused)).then_some(()))
        .unwrap_or_else(|| panic!("it is still here: {}", names()));
    assert!(names().contains(&used), "what a container uses stays: {}", names());
    assert!(cluster.status(&keeps).is_running());
    let shrunk = || disk_bytes(&cluster.store()) + (OWN_BYTES as u64) / 2 < before;
    until(POD_LIMIT, || shrunk().then_some(())).expect("the layer only it had leaves the disk");

    let never = Pod::new("collect", "never", &unused).policy("Never");
    cluster.apply(never.document());
    cluster.wait_for(&never, "refused", POD_LIMIT, |status| status.waiting() == Some("ErrImageNeverPull"));
    let again = cluster.run_pod(&Pod::new("collect", "again", &unused));
    assert_eq!(cluster.read_in(&again, "/own"), incompressible(OWN_BYTES, 2), "it is pulled again where it is wanted");
    cluster.wait_for(&keeps, "running", POD_LIMIT, Status::is_running);
}
