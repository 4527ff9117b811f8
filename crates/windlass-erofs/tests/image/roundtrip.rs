//! What was written is read back.

use proptest::prelude::*;
use windlass_erofs::{Attributes, Content, Device, FileType, Image, Layer, New, ReadError, Time, Tree, WriteError};

use crate::model::{Model, operations};
use crate::samples;
use crate::support::{Contents, DIGEST, LEVELS, Listing, UUID, image_file, listing_of_image, listing_of_tree, plain};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn operations_on_a_tree_do_what_a_model_does(operations in operations()) {
        let model = Model::after(&operations);
        prop_assert_eq!(listing_of_tree(&model.tree, &model.contents), model.listing());
    }

    #[test]
    fn what_was_written_is_read_back(operations in operations()) {
        let model = Model::after(&operations);
        let bytes = image_file(&model.tree, &model.contents);
        let image = Image::open(&bytes, bytes.len() as u64).unwrap();
        image.check_metadata().unwrap();
        prop_assert_eq!(image.inodes(), model.tree.len() as u64);
        prop_assert_eq!(listing_of_image(&image), model.listing());
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes(operations in operations(), seed in any::<u64>()) {
        let model = Model::after(&operations);
        let again = rebuilt(&model.listing(), &model.tree, seed);
        prop_assert_eq!(&image_file(&model.tree, &model.contents)[..], &image_file(&again, &model.contents)[..]);
    }
}

#[test]
fn one_time_for_all_entries_takes_a_third_off_the_metadata() {
    let metadata_bytes = |time_of: &dyn Fn(i64) -> i64| {
        let mut tree = Tree::new(1 << 30);
        for number in 0..10_000 {
            let attributes = Attributes { mtime: Time { seconds: time_of(number), nanos: 9 }, ..plain(0o644) };
            tree.insert(tree.root(), format!("{number:08}").as_bytes(), New::File, &attributes).expect("a free name");
        }
        let bytes = image_file(&tree, &Contents::default());
        let image = Image::open(&bytes, bytes.len() as u64).expect("an image");
        assert_eq!(listing_of_image(&image), listing_of_tree(&tree, &Contents::default()));
        image.head().total_bytes - image.head().metadata_offset
    };
    // `struct erofs_inode_compact` is half of `struct erofs_inode_extended`; all is rounded up to a block.
    let compact = |saved: u64| saved.div_ceil(32);
    let different = metadata_bytes(&|number| 1_735_689_600 + number);
    for (time_of, count) in [
        (&(|_| 1_735_689_600_i64) as &dyn Fn(i64) -> i64, 10_000),
        (&|number| if number % 3 == 0 { -5 } else { 7 }, 6_666),
        // The superblock's time is not before 1970.
        (&|_| -5, 0),
    ] {
        let saved = different.saturating_sub(metadata_bytes(time_of));
        assert!(compact(saved).abs_diff(count) <= 512 / 32, "{saved} of {different} for {count}");
    }
}

/// The same entries put into a new tree in another order.
fn rebuilt(listing: &Listing, from: &Tree, seed: u64) -> Tree {
    let at = |path: &[u8]| {
        let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        names.fold(from.root(), |directory, name| from.find(directory, name).unwrap())
    };
    let mut paths: Vec<_> = listing.keys().collect();
    // Parents stay before their children; the rest is in an order of its own.
    let depth = |path: &[u8]| path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).count();
    paths.sort_by_key(|path| (depth(path), hash(path, seed)));
    let mut tree = Tree::new(1 << 30);
    let mut known = std::collections::BTreeMap::new();
    for path in paths {
        let (old, attributes) = (at(path), from.attributes(at(path)));
        if path.is_empty() {
            tree.set_attributes(tree.root(), &attributes).unwrap();
            known.insert(old, tree.root());
            continue;
        }
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let above = known[&at(&path[..slash.unwrap_or(0)])];
        let name = &path[slash.map_or(0, |slash| slash + 1)..];
        if let Some(&same) = known.get(&old) {
            tree.link(above, name, same).unwrap();
            continue;
        }
        let new = match from.kind(old).unwrap() {
            windlass_erofs::Kind::Directory => New::Directory,
            windlass_erofs::Kind::File => New::File,
            windlass_erofs::Kind::Symlink => New::Symlink(from.link_text(old).unwrap()),
            windlass_erofs::Kind::Device(device) => New::Device(device),
            windlass_erofs::Kind::Fifo => New::Fifo,
        };
        let node = tree.insert(above, name, new, &attributes).unwrap();
        if let Some(content) = from.content(old) {
            tree.set_content(node, content).unwrap();
        }
        known.insert(old, node);
    }
    tree
}

fn hash(path: &[u8], seed: u64) -> u64 {
    path.iter().fold(seed, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn every_sample_is_read_back() {
    for (what, tree, contents) in samples::all(LEVELS) {
        let bytes = image_file(&tree, &contents);
        let image = Image::open(&bytes, bytes.len() as u64).unwrap();
        assert!(listing_of_image(&image) == listing_of_tree(&tree, &contents), "{what}");
    }
}

#[test]
fn what_a_tree_cannot_become_is_refused_before_a_byte_is_written() {
    let mut tree = Tree::new(1 << 20);
    let file = tree.insert(tree.root(), b"file", New::File, &plain(0o644)).unwrap();
    tree.set_content(file, Content { offset: 8704, size_bytes: 513 }).unwrap();
    let layer = Layer { tar_bytes: 5000, tar_digest: DIGEST, between_crc32c: 0, uuid: UUID };
    let long = "x".repeat(201);
    type Expected = fn(&WriteError) -> bool;
    let table: [(Layer<'_>, u64, Expected); 8] = [
        (layer, 1 << 20 | 1, |error| matches!(error, WriteError::MetadataOffset { .. })),
        (layer, 4096 + 4608, |error| matches!(error, WriteError::MetadataOffset { .. })),
        (Layer { tar_bytes: u64::MAX, ..layer }, 1 << 20, |error| matches!(error, WriteError::MetadataOffset { .. })),
        (layer, 4096 + 5120, |error| matches!(error, WriteError::ContentBeyond { offset: 8704, size_bytes: 513 })),
        (layer, 1 << 41, |error| matches!(error, WriteError::TooLarge)),
        (Layer { tar_digest: "", ..layer }, 1 << 20, |error| matches!(error, WriteError::DigestText)),
        (Layer { tar_digest: &long, ..layer }, 1 << 20, |error| matches!(error, WriteError::DigestText)),
        (Layer { tar_digest: "sha256:\n", ..layer }, 1 << 20, |error| matches!(error, WriteError::DigestText)),
    ];
    for (layer, at_bytes, expected) in table {
        let mut out = Vec::new();
        let error = windlass_erofs::write(&tree, &layer, at_bytes, &mut out).unwrap_err();
        assert!(expected(&error) && out.is_empty(), "{at_bytes}: {error}");
    }
    windlass_erofs::write(&tree, &layer, 8704 + 1024, &mut Vec::new()).unwrap();
}

#[test]
fn a_failing_sink_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let layer = Layer { tar_bytes: 0, tar_digest: DIGEST, between_crc32c: 0, uuid: UUID };
    let error = windlass_erofs::write(&Tree::new(1 << 20), &layer, 4096, &mut Full).unwrap_err();
    assert!(matches!(error, WriteError::Io(source) if source.kind() == std::io::ErrorKind::StorageFull));
}

#[test]
fn entries_answer_what_they_are() {
    let mut contents = Contents::default();
    let mut tree = Tree::new(1 << 20);
    let root = tree.root();
    let file = tree.insert(root, b"file", New::File, &plain(0o644)).unwrap();
    let content = contents.add(&b"0123456789".repeat(100));
    tree.set_content(file, content).unwrap();
    tree.insert(root, b"gone", New::Device(Device::WHITEOUT), &plain(0)).unwrap();
    let directory = tree.insert(root, b"opaque", New::Directory, &plain(0o755)).unwrap();
    tree.set_opaque(directory).unwrap();
    let bytes = image_file(&tree, &contents);
    let image = Image::open(&bytes, bytes.len() as u64).unwrap();
    let root = image.inode(image.root()).unwrap();
    let types: Vec<_> = image.list(&root).unwrap().map(|entry| entry.unwrap().file_type).collect();
    assert_eq!(types, [FileType::File, FileType::CharDevice, FileType::Directory]);
    let find = |name: &[u8]| image.inode(image.lookup(&root, name).unwrap().unwrap()).unwrap();
    let (file, gone, opaque) = (find(b"file"), find(b"gone"), find(b"opaque"));
    assert!(gone.is_whiteout() && !file.is_whiteout());
    assert!(image.is_opaque(&opaque).unwrap() && !image.is_opaque(&root).unwrap());
    for name in [&b"."[..], b"..", b"absent", b"", b"zzz"] {
        assert_eq!(image.lookup(&root, name).unwrap(), None, "{name:?}");
    }
    assert_eq!(image.content(&file).unwrap(), content);
    let mut buf = [0; 7];
    for (offset, want) in [(0, &b"0123456"[..]), (993, b"3456789"), (995, b"56789"), (1000, b""), (u64::MAX, b"")] {
        let read = image.read(&file, offset, &mut buf).unwrap();
        assert_eq!(&buf[..read], want, "{offset}");
    }
    assert!(matches!(image.lookup(&file, b"x"), Err(ReadError::NotADirectory)));
    assert!(matches!(image.list(&file), Err(ReadError::NotADirectory)));
    assert!(matches!(image.read(&root, 0, &mut buf), Err(ReadError::NotAFile)));
    assert!(matches!(image.link_text(&file), Err(ReadError::NotALink)));
    assert_eq!((&image.head().tar_digest[..], image.head().tar_bytes), (DIGEST, 1024));
}
