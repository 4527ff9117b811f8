//! Many pulls at once through `windlass node`: work is shared, and memory stays small.

use windlass_e2e::cri::ImageService;
use windlass_e2e::load::{MEMORY_BYTES_MAX, blob_requests, each_blob_once, image, pull_many};
use windlass_e2e::node::LoneNode;
use windlass_e2e::world::World;
use windlass_testkit::registry::TestRegistry;

/// Pulls of one image at once.
const PULLS: usize = 100;

#[test]
fn a_hundred_pulls_of_one_image_fetch_each_blob_once() {
    let node = LoneNode::start(World::new());
    let registry = TestRegistry::open();
    let image = image(1, 8, 300_000);
    let reference = registry.place(&image.bundle(), "shared", "v1");
    let service = ImageService::at(node.socket());
    let pulls: Vec<_> = (0..PULLS).map(|_| service.start_pull(&reference)).collect();
    for pull in pulls {
        assert_eq!(service.end(pull).expect("a pull"), image.id().to_string(), "{}", node.output());
    }
    assert_eq!(blob_requests(&registry), each_blob_once(&[image]));
}

#[test]
fn twenty_images_at_once_stay_in_little_memory() {
    let outcome = pull_many(3_000_000);
    // It answers about images meanwhile; how fast is for `cargo xtask bench` to say.
    assert!(!outcome.status_times.is_empty(), "the pulls were over at once");
    assert!(outcome.peak_bytes < MEMORY_BYTES_MAX, "{} bytes", outcome.peak_bytes);
}
