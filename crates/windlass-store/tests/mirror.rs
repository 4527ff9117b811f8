//! What a store promises to who repeats another keeper's changes in it.

mod support;

use jiff::Timestamp;
use support::{TestImage, open, small};
use windlass_core::pin::PinSource;
use windlass_store::{Mirrored, Name, Store};

const NAME: &str = "registry.example/team/app:1";

fn placed() -> (tempfile::TempDir, Store, TestImage) {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let image = small(NAME);
    image.pull(&store).unwrap();
    (root, store, image)
}

fn tag(name: &str) -> Name {
    let (repository, tag) = name.rsplit_once(':').unwrap();
    Name::tagged(repository, tag)
}

/// After everything that was written until now.
fn after() -> Timestamp {
    let now = Timestamp::now();
    while Timestamp::now() <= now {}
    Timestamp::now()
}

#[test]
fn a_name_that_another_removed_goes_and_the_image_stays() {
    let (_root, store, image) = placed();
    let digest = Name::digested(&image.repository, &image.manifest_digest());
    assert_eq!(store.mirror_removed_name(&tag(NAME), after()).unwrap(), Mirrored::Changed);
    let found = store.find_id(&image.id()).unwrap().unwrap();
    assert_eq!((found.repo_tags, found.repo_digests), (vec![], vec![digest.clone()]));
    assert_eq!(store.mirror_removed_name(&digest, after()).unwrap(), Mirrored::Changed);
    assert_eq!(store.mirror_removed_name(&digest, after()).unwrap(), Mirrored::Same);
    assert_eq!(store.find_id(&image.id()).unwrap().unwrap().damage, None);
    store.pin(image.id().as_str(), &PinSource::user(), "").unwrap();
    assert_eq!(store.mirror_removed_image(&image.id(), after()).unwrap(), Mirrored::Changed);
    assert_eq!(store.find_id(&image.id()).unwrap(), None);
    assert_eq!(store.mirror_removed_image(&image.id(), after()).unwrap(), Mirrored::Same);
}

#[test]
fn what_is_newer_here_stays() {
    let (_root, store, image) = placed();
    let other = small("registry.example/team/other:1");
    other.pull(&store).unwrap();
    let old = Timestamp::UNIX_EPOCH;
    assert_eq!(store.mirror_removed_name(&tag(NAME), old).unwrap(), Mirrored::Same);
    assert_eq!(store.mirror_name(&tag(NAME), &other.manifest_digest(), old).unwrap(), Mirrored::Same);
    assert_eq!(store.mirror_removed_image(&image.id(), old).unwrap(), Mirrored::Same);
    assert_eq!(store.find(NAME).unwrap().unwrap().id, image.id());
}

#[test]
fn a_name_that_another_gave_leads_to_the_image() {
    let (_root, store, image) = placed();
    let other = small("registry.example/team/other:1");
    other.pull(&store).unwrap();
    let new = tag("elsewhere.example/copy:2");
    assert_eq!(store.mirror_name(&new, &image.manifest_digest(), after()).unwrap(), Mirrored::Changed);
    assert_eq!(store.mirror_name(&new, &image.manifest_digest(), after()).unwrap(), Mirrored::Same);
    assert_eq!(store.find(&new.to_string()).unwrap().unwrap().id, image.id());
    // Moved to another image, then to content that no image here was made of.
    assert_eq!(store.mirror_name(&new, &other.manifest_digest(), after()).unwrap(), Mirrored::Changed);
    assert_eq!(store.find(&new.to_string()).unwrap().unwrap().id, other.id());
    let unknown = windlass_core::digest::Digest::sha256(b"nothing here");
    assert_eq!(store.mirror_name(&new, &unknown, after()).unwrap(), Mirrored::Changed);
    assert_eq!(store.find(&new.to_string()).unwrap(), None);
    assert_eq!(store.mirror_name(&new, &unknown, after()).unwrap(), Mirrored::Same);
}
