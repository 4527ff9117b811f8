//! Whatever happened to the bytes of an image: an answer or an error, soon, and never a panic.

use std::collections::HashSet;

use proptest::prelude::*;
use windlass_erofs::{DATA_START, Image, Kind, New, Nid, ReadError, Tree};

use crate::model::{Model, operations};
use crate::support::{Contents, image_file, plain};

/// Asks everything that can be asked; counts what it got, so that nothing runs for ever.
fn ask_everything(bytes: &[u8]) -> Result<(), ReadError> {
    let image = Image::open(bytes, bytes.len() as u64)?;
    let _sum = image.check_metadata();
    let mut seen = HashSet::new();
    let mut waiting = vec![image.root()];
    let mut buf = vec![0; 3000];
    // An entry takes 12 bytes, and each directory is gone through once.
    let mut left = bytes.len() * 40;
    while let Some(nid) = waiting.pop() {
        if !seen.insert(nid) {
            continue;
        }
        let Ok(inode) = image.inode(nid) else { continue };
        let _attributes = image.attributes(&inode);
        let _opaque = image.is_opaque(&inode);
        match inode.kind {
            Kind::Directory => {
                for entry in image.list(&inode)? {
                    left = left.checked_sub(1).expect("an end");
                    let Ok(entry) = entry else { break };
                    let _found = image.lookup(&inode, &entry.name);
                    waiting.push(entry.nid);
                }
            }
            Kind::File => {
                let _read = image.read(&inode, 0, &mut buf);
                let _end = image.read(&inode, inode.size_bytes.saturating_sub(1), &mut buf);
            }
            Kind::Symlink => {
                let _text = image.link_text(&inode);
            }
            Kind::Device(_) | Kind::Fifo => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damage_is_an_error_and_never_a_panic(
        operations in operations(),
        places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let model = Model::after(&operations);
        let mut bytes = image_file(&model.tree, &model.contents);
        let metadata = Image::open(&bytes, bytes.len() as u64).unwrap().head().metadata_offset as usize;
        for (place, value) in &places {
            let at = metadata + place.index(bytes.len() - metadata);
            bytes[at] = *value;
        }
        // The front is left alone, so that all behind it is asked.
        ask_everything(&bytes).unwrap();
        if let Some(cut) = cut {
            let len = cut.index(bytes.len());
            prop_assert!(ask_everything(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn any_number_is_an_inode_or_an_error(operations in operations(), numbers in proptest::collection::vec(any::<u64>(), 20)) {
        let model = Model::after(&operations);
        let bytes = image_file(&model.tree, &model.contents);
        let image = Image::open(&bytes, bytes.len() as u64).unwrap();
        let slots = (bytes.len() as u64 - image.head().metadata_offset) / 32;
        for nid in numbers.iter().copied().chain(0..slots + 2) {
            let Ok(inode) = image.inode(Nid(nid)) else { continue };
            let _attributes = image.attributes(&inode);
            if inode.is_directory() {
                let _entries = image.list(&inode).unwrap().take_while(Result::is_ok).count();
            }
        }
    }
}

#[test]
fn a_changed_byte_of_the_metadata_does_not_pass_the_check() {
    let mut tree = Tree::new(1 << 20);
    tree.insert(tree.root(), b"file", New::Symlink(b"text"), &plain(0o777)).unwrap();
    let good = image_file(&tree, &Contents::default());
    for at in DATA_START as usize..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let image = Image::open(&bytes, bytes.len() as u64).unwrap();
        assert!(matches!(image.check_metadata(), Err(ReadError::Sum { what: "metadata" })), "{at}");
    }
}

#[test]
fn what_is_no_image_is_told_at_once() {
    let good = image_file(&Tree::new(1 << 20), &Contents::default());
    let open = |bytes: &[u8]| Image::open(bytes, bytes.len() as u64).map(drop);
    assert!(matches!(open(b""), Err(ReadError::NotALayer)));
    assert!(matches!(open(&vec![0; 10_000]), Err(ReadError::NotALayer)));
    assert!(matches!(open(&good[..4095]), Err(ReadError::NotALayer)));
    assert!(matches!(open(&good[..good.len() - 512]), Err(ReadError::Size { .. })));
    assert!(matches!(open(&[&good[..], &[0; 512]].concat()), Err(ReadError::Size { .. })));
    // The file is shorter than the caller believes.
    assert!(matches!(Image::open(&good[..4000], 4608), Err(ReadError::Damaged { .. })));
}
