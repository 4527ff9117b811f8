//! Different images pulled at once through a daemon, and what that costs: for tests, which want bounds, and for the
//! bench, which wants figures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, setpriority_process};
use windlass_registry::route::RouteKind;
use windlass_testkit::images::{Entry, Image, Layer, incompressible};
use windlass_testkit::registry::TestRegistry;

use crate::cluster::daemon::Memory;
use crate::cri::ImageService;
use crate::node::LoneNode;

/// Different images at once.
pub const IMAGES: u64 = 20;
/// What the daemon may hold in memory with that many pulls.
pub const MEMORY_BYTES_MAX: u64 = 200 << 20;

/// An image of layers of this many bytes each, which no other has.
pub fn image(seed: u64, layers: u64, bytes: usize) -> Image {
    let layer = |at: u64| {
        let content = incompressible(bytes, seed * 1000 + at);
        Layer::new([Entry::file(format!("layer-{at}"), content)]).level(1)
    };
    (0..layers).map(layer).fold(Image::build(), |image, layer| image.layer(layer)).finish()
}

/// What came of pulling many at once.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub wall: Duration,
    /// How long answers about an image took meanwhile, shortest first.
    pub status_times: Vec<Duration>,
    /// Most that the daemon held in memory.
    pub peak_bytes: u64,
}

/// Pulls [`IMAGES`] images of four layers of this size at once; each blob is fetched once, and all of them are there
/// then.
pub fn pull_many(layer_bytes: usize) -> Outcome {
    let node = LoneNode::start(crate::world::World::new());
    let registry = TestRegistry::open();
    step_back("test-registry");
    let images: Vec<Image> = (0..IMAGES).map(|seed| image(seed, 4, layer_bytes)).collect();
    let place = |(at, image): (usize, &Image)| registry.place(&image.bundle(), &format!("many-{at}"), "v1");
    let references: Vec<String> = images.iter().enumerate().map(place).collect();
    let service = ImageService::at(node.socket());
    let started = Instant::now();
    let pulls: Vec<_> = references.iter().map(|reference| service.start_pull(reference)).collect();
    let status_times = service.status_times(&references[0], || pulls.iter().all(|pull| pull.is_finished()));
    let wall = started.elapsed();
    for (pull, image) in pulls.into_iter().zip(&images) {
        assert_eq!(service.end(pull).expect("a pull"), image.id().to_string(), "{}", node.output());
    }
    assert_eq!(blob_requests(&registry), each_blob_once(&images));
    assert_eq!(service.list().expect("a list").len(), images.len());
    let peak_bytes = Memory::of(node.pid()).expect("the daemon runs").peak_bytes;
    Outcome { wall, status_times, peak_bytes }
}

/// Lets everything else on this machine go before the threads of this name: a registry is another machine elsewhere.
fn step_back(name: &str) {
    for task in std::fs::read_dir("/proc/self/task").expect("procfs") {
        let path = task.expect("an entry").path();
        // A thread that has just ended needs nothing.
        let is_it = std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let number = path.file_name().and_then(|number| number.to_str()?.parse().ok());
        if let Some(thread) = number.and_then(Pid::from_raw).filter(|_| is_it) {
            let _set = setpriority_process(Some(thread), LOWEST_PRIORITY);
        }
    }
}

/// The highest number that setpriority(2) knows.
const LOWEST_PRIORITY: i32 = 19;

/// How often each blob was asked for, by digest.
pub fn blob_requests(registry: &TestRegistry) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in registry.requests() {
        if request.route == RouteKind::Blob && request.method.as_str() == "GET" {
            *counts.entry(request.reference.unwrap_or_default()).or_default() += 1;
        }
    }
    counts
}

/// What [`blob_requests`] answers when nothing was fetched in vain.
pub fn each_blob_once(images: &[Image]) -> BTreeMap<String, usize> {
    let blobs = images.iter().flat_map(|image| image.bundle().blobs);
    blobs.map(|blob| (blob.digest.to_string(), 1)).collect()
}
