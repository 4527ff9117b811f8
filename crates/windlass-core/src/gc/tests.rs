//! The kubelet's rules of collection, one row each.

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn id(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn image(name: &str, last_used: Option<i64>, first_detected: i64, size_bytes: u64) -> ImageUse {
    ImageUse {
        id: id(name),
        size_bytes,
        first_detected: time(first_detected),
        last_used: last_used.map(time),
        shields: Vec::new(),
    }
}

fn clock(now: i64) -> Clock {
    Clock { now: time(now), watched_for: Duration::from_secs(now.unsigned_abs()) }
}

fn ids(choice: &Choice) -> Vec<Digest> {
    choice.victims.iter().map(|victim| victim.id.clone()).collect()
}

/// 100 bytes, of which so many are free.
fn disk(available_bytes: u64) -> Disk {
    Disk { capacity_bytes: 100, available_bytes }
}

#[test]
fn use_of_the_disk_is_rounded_up() {
    let table =
        [(100, 100, 0), (100, 15, 85), (1000, 159, 85), (1000, 150, 85), (1000, 149, 86), (100, 0, 100), (10, 99, 0)];
    for (capacity_bytes, available_bytes, want) in table {
        assert_eq!(Disk { capacity_bytes, available_bytes }.used_percent(), Ok(want), "{available_bytes}");
    }
    let none = Disk { capacity_bytes: 0, available_bytes: 0 };
    assert_eq!(for_space(&[], &GcSettings::default(), none, clock(1)), Err(GcError::InvalidDiskCapacity));
}

#[test]
fn space_stops_when_enough_is_free() {
    let images = [image("a", Some(1), 0, 4), image("b", Some(2), 0, 4), image("c", Some(3), 0, 4)];
    let settings = GcSettings::default();
    let choose = |available| for_space(&images, &settings, disk(available), clock(DAY)).expect("a disk");
    assert_eq!(ids(&choose(16)), [], "below the high threshold");
    let at_threshold = choose(15);
    assert_eq!((at_threshold.wanted_bytes, ids(&at_threshold)), (5, vec![id("a"), id("b")]));
    assert_eq!(at_threshold.kept, [(id("c"), Kept::NotNeeded)]);
    let full = choose(0);
    assert_eq!((full.wanted_bytes, full.victim_bytes(), full.missing_bytes()), (20, 12, 8));
    let off = GcSettings { high_percent: 100, ..settings };
    assert_eq!(ids(&for_space(&images, &off, disk(0), clock(DAY)).expect("a disk")), []);
}

#[test]
fn least_recently_used_goes_first() {
    let images = [
        image("recent", Some(50), 0, 1),
        image("never, later", None, 9, 1),
        image("old", Some(10), 5, 1),
        image("never, first", None, 3, 1),
        image("old too", Some(10), 4, 1),
    ];
    let choice = for_space(&images, &GcSettings::default(), disk(0), clock(DAY)).expect("a disk");
    assert_eq!(ids(&choice), ["never, first", "never, later", "old too", "old", "recent"].map(id));
}

#[test]
fn young_and_just_used_images_stay() {
    let now = DAY;
    let images = [
        image("young", None, now - 119, 1),
        image("old enough", None, now - 120, 1),
        image("just used", Some(now), 0, 1),
    ];
    for choice in [
        for_space(&images, &GcSettings::default(), disk(0), clock(now)).expect("a disk"),
        under_pressure(&images, &GcSettings::default(), clock(now)),
    ] {
        assert_eq!(ids(&choice), [id("old enough")]);
        assert_eq!(choice.kept, [(id("young"), Kept::TooYoung), (id("just used"), Kept::JustUsed)]);
    }
}

#[test]
fn age_counts_from_the_last_use() {
    let settings = GcSettings { max_age: Duration::from_secs(DAY.unsigned_abs()), ..GcSettings::default() };
    let now = 10 * DAY;
    let images = [
        image("older", Some(now - DAY - 1), 0, 1),
        image("exact", Some(now - DAY), 0, 1),
        image("never, new", None, now - 1, 1),
        image("never, old", None, 0, 1),
    ];
    let kubelet = old(&images, &settings, clock(now), Mode::Kubelet);
    assert_eq!(ids(&kubelet), ["never, old", "never, new", "older"].map(id));
    let windlass = old(&images, &settings, clock(now), Mode::Windlass);
    assert_eq!(ids(&windlass), ["never, old", "older"].map(id));
    assert_eq!(windlass.victims[0].why.to_string(), "unused for 10 days");
    let fresh = Clock { watched_for: Duration::from_secs(DAY.unsigned_abs()), ..clock(now) };
    assert_eq!(ids(&old(&images, &settings, fresh, Mode::Kubelet)), []);
    assert_eq!(ids(&old(&images, &GcSettings::default(), clock(now), Mode::Windlass)), []);
}

#[test]
fn settings_are_checked() {
    assert_eq!(GcSettings::default().check(), Ok(()));
    let table = [(85, 101), (101, 80), (80, 80), (80, 85)];
    for (high_percent, low_percent) in table {
        let error = GcSettings { high_percent, low_percent, ..GcSettings::default() }.check().expect_err("bad");
        assert_eq!(error.reason(), Reason::InvalidConfig);
    }
}

#[test]
fn every_image_is_explained() {
    let mut pinned = image("pinned", None, 0, 1);
    pinned.shields = vec![Shield::Pinned("user: base image".into()), Shield::InUse("pod web/a".into())];
    let choice = under_pressure(&[pinned, image("x", None, 0, 1)], &GcSettings::default(), clock(DAY));
    assert_eq!(choice.kept[0].1.to_string(), "pinned by user: base image, in use by pod web/a");
    assert_eq!((choice.victims.len(), choice.victims[0].why.label()), (1, "space"));
}

proptest! {
    #[test]
    fn pinned_and_used_images_are_never_chosen(
        uses in proptest::collection::vec((any::<bool>(), proptest::option::of(0_i64..DAY), 0_i64..DAY, 0_u64..50), 0..20),
        available in 0_u64..100,
    ) {
        let images: Vec<ImageUse> = uses
            .iter()
            .enumerate()
            .map(|(n, (shielded, last_used, first, size))| {
                let mut image = image(&n.to_string(), *last_used, *first, *size);
                image.shields.extend(shielded.then(|| Shield::Leased("a pull".into())));
                image
            })
            .collect();
        let settings = GcSettings { max_age: Duration::from_secs(60), ..GcSettings::default() };
        let space = for_space(&images, &settings, disk(available), clock(DAY)).expect("a disk");
        for choice in [space, under_pressure(&images, &settings, clock(DAY)), old(&images, &settings, clock(DAY), Mode::Kubelet)] {
            prop_assert_eq!(choice.victims.len() + choice.kept.len(), images.len());
            for victim in &choice.victims {
                let image = images.iter().find(|image| image.id == victim.id).expect("one of them");
                prop_assert!(image.shields.is_empty());
            }
        }
    }
}
