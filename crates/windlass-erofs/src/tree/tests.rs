use super::*;
use crate::error::TreeError;

fn plain() -> Attributes {
    Attributes { mode: 0o644, ..Attributes::default() }
}

fn with(name: &[u8], value: Vec<u8>) -> Attributes {
    Attributes { xattrs: vec![(name.to_vec(), value)], ..Attributes::default() }
}

fn tree() -> Tree {
    Tree::new(1 << 30)
}

#[test]
fn what_erofs_cannot_hold_is_refused_and_nothing_changes() {
    let mut tree = tree();
    let root = tree.root();
    let file = tree.insert(root, b"taken", New::File, &plain()).unwrap();
    let long = [b'x'; 256];
    let names: [&[u8]; 6] = [b"", b".", b"..", b"a/b", b"a\0b", &long];
    for name in names {
        assert!(matches!(tree.insert(root, name, New::File, &plain()), Err(TreeError::Name)), "{name:?}");
        assert!(matches!(tree.link(root, name, file), Err(TreeError::Name)), "{name:?}");
    }
    for text in [&b""[..], b"a\0", &[b'x'; 4096]] {
        assert!(matches!(tree.insert(root, b"link", New::Symlink(text), &plain()), Err(TreeError::LinkText)));
    }
    let device = |major, minor| New::Device(Device { block: false, major, minor });
    for new in [device(1 << 12, 0), device(0, 1 << 20)] {
        assert!(matches!(tree.insert(root, b"device", new, &plain()), Err(TreeError::DeviceNumber)));
    }
    assert!(matches!(tree.insert(root, b"taken", New::File, &plain()), Err(TreeError::Taken)));
    assert!(matches!(tree.insert(file, b"below", New::File, &plain()), Err(TreeError::NotADirectory)));
    assert!(matches!(tree.link(root, b"second", root), Err(TreeError::DirectoryLink)));
    assert!(matches!(tree.remove(root, b"absent"), Err(TreeError::Absent)));
    assert!(matches!(tree.set_opaque(file), Err(TreeError::NotADirectory)));
    assert!(matches!(tree.set_content(root, Content { offset: 0, size_bytes: 0 }), Err(TreeError::NotAFile)));
    for (offset, size_bytes) in [(0, 1), (512, 1), (4097, 1), (4096, u64::MAX), (1 << 41, 1), (u64::MAX - 511, 1)] {
        let content = Content { offset, size_bytes };
        assert!(matches!(tree.set_content(file, content), Err(TreeError::ContentOffset { .. })), "{content:?}");
    }
    assert_eq!(tree.len(), 2);
    assert_eq!(tree.children(root).collect::<Vec<_>>(), [(&b"taken"[..], file)]);
}

#[test]
fn extended_attributes_beyond_the_format_are_refused() {
    let mut tree = tree();
    let root = tree.root();
    let unknown = [&b"user."[..], b"system.nfs4_acl", b"system.posix_acl_access2", b"plain", b"", b"user.a\0"];
    for name in unknown {
        let error = tree.insert(root, b"a", New::File, &with(name, vec![])).unwrap_err();
        assert!(matches!(error, TreeError::XattrName), "{name:?}: {error}");
    }
    let long = [&b"user."[..], &[b'n'; 251]].concat();
    assert!(matches!(tree.insert(root, b"a", New::File, &with(&long, vec![])), Err(TreeError::XattrName)));
    let error = tree.insert(root, b"a", New::File, &with(b"user.a", vec![0; 65_536])).unwrap_err();
    assert!(matches!(error, TreeError::XattrValue { size_bytes: 65_536 }), "{error}");
    let twice = Attributes { xattrs: vec![(b"user.a".to_vec(), vec![1]), (b"user.a".to_vec(), vec![2])], ..plain() };
    assert!(matches!(tree.set_attributes(root, &twice), Err(TreeError::XattrTwice)));

    // Four of the largest values and their names come to 12 + 4 * 65,548 bytes; an inode holds 12 + 4 * 65,534.
    let value = |size| vec![7; size];
    let names = [&b"user.aaaaa"[..], b"user.baaaa", b"user.caaaa", b"user.daaaa"];
    let many = |sizes: [usize; 4]| Attributes {
        xattrs: names.iter().zip(sizes).map(|(name, size)| (name.to_vec(), value(size))).collect(),
        ..plain()
    };
    let error = tree.insert(root, b"a", New::File, &many([65_535; 4])).unwrap_err();
    let (want, most) = (12 + 4 * 65_544, 12 + 4 * 65_534);
    assert!(
        matches!(error, TreeError::XattrsTooLarge { size_bytes, max_bytes } if (size_bytes, max_bytes) == (want, most)),
        "{error:?}"
    );
    assert!(tree.has_no_children(root));
    let fits = many([65_535, 65_535, 65_535, 65_535 - 40]);
    let file = tree.insert(root, b"a", New::File, &fits).unwrap();
    assert_eq!(tree.attributes(file), fits);
}

#[test]
fn a_full_tree_says_so_and_stays_as_it_is() {
    let max = 256 << 10;
    let table: [(&str, New<'_>, Attributes); 3] = [
        ("files", New::File, plain()),
        ("links", New::Symlink(&[b'x'; 3000]), plain()),
        ("attributes", New::Directory, with(b"user.a", vec![0; 4000])),
    ];
    for (what, new, attributes) in table {
        let mut tree = Tree::new(max);
        let root = tree.root();
        let mut count = 0_usize;
        let error = loop {
            let mut attributes = attributes.clone();
            if let Some((_, value)) = attributes.xattrs.first_mut() {
                value[..8].copy_from_slice(&count.to_le_bytes());
            }
            match tree.insert(root, count.to_string().as_bytes(), new, &attributes) {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
            assert!(tree.memory_bytes() <= max, "{what}: {count}");
        };
        assert!(matches!(error, TreeError::Full { max_bytes } if max_bytes == max), "{what}: {error}");
        assert!(count > 30, "{what}: {count}");
        assert_eq!(tree.len(), count + 1, "{what}");
        assert_eq!(tree.children(root).count(), count, "{what}");
        assert_eq!(tree.find(root, count.to_string().as_bytes()), None, "{what}");
        assert!(tree.find(root, (count - 1).to_string().as_bytes()).is_some(), "{what}");
    }
}

#[test]
fn removing_is_as_deep_as_it_gets() {
    let mut tree = tree();
    let mut at = tree.root();
    for _ in 0..100_000 {
        tree.insert(at, b"file", New::File, &plain()).unwrap();
        at = tree.insert(at, b"d", New::Directory, &plain()).unwrap();
    }
    assert_eq!(tree.len(), 200_001);
    tree.remove(tree.root(), b"d").unwrap();
    assert_eq!((tree.len(), tree.links(tree.root())), (2, 2));
    assert_eq!(tree.kind(at), None);
}

#[test]
fn what_is_removed_does_not_come_back_as_something_else() {
    let mut tree = tree();
    let root = tree.root();
    let gone = tree.insert(root, b"a", New::Directory, &plain()).unwrap();
    tree.remove(root, b"a").unwrap();
    let new = tree.insert(root, b"a", New::File, &plain()).unwrap();
    assert_ne!(gone, new);
    assert_eq!((tree.kind(gone), tree.links(gone), tree.parent(gone)), (None, 0, None));
    assert!(matches!(tree.insert(gone, b"b", New::File, &plain()), Err(TreeError::Removed)));
    assert!(matches!(tree.set_attributes(gone, &plain()), Err(TreeError::Removed)));
    assert!(matches!(tree.link(root, b"b", gone), Err(TreeError::Removed)));
    assert_eq!(tree.children(gone).count(), 0);
}

#[test]
fn a_file_lives_as_long_as_one_of_its_names() {
    let mut tree = tree();
    let root = tree.root();
    let directory = tree.insert(root, b"d", New::Directory, &plain()).unwrap();
    let file = tree.insert(directory, b"first", New::File, &plain()).unwrap();
    tree.link(root, b"second", file).unwrap();
    assert_eq!((tree.links(file), tree.links(root)), (2, 3));
    tree.remove(root, b"d").unwrap();
    assert_eq!((tree.links(file), tree.links(root)), (1, 2));
    assert_eq!(tree.find(root, b"second"), Some(file));
    tree.remove(root, b"second").unwrap();
    assert_eq!(tree.kind(file), None);
    assert!(tree.is_empty());
}

#[test]
fn opaque_stays_until_the_directory_goes() {
    let mut tree = tree();
    let root = tree.root();
    let directory = tree.insert(root, b"d", New::Directory, &with(b"user.a", vec![1])).unwrap();
    assert!(!tree.is_opaque(directory));
    tree.set_opaque(directory).unwrap();
    tree.set_opaque(directory).unwrap();
    let opaque = (b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    assert_eq!(tree.attributes(directory).xattrs, [opaque.clone(), (b"user.a".to_vec(), vec![1])]);
    tree.set_attributes(directory, &plain()).unwrap();
    assert!(tree.is_opaque(directory));
    assert_eq!(tree.attributes(directory).xattrs, std::slice::from_ref(&opaque));
    tree.remove(root, b"d").unwrap();
    let given = Attributes { xattrs: vec![opaque], ..plain() };
    let directory = tree.insert(root, b"d", New::Directory, &given).unwrap();
    assert!(tree.is_opaque(directory));
}

#[test]
fn entries_that_come_and_go_leave_little_behind() {
    let mut tree = tree();
    let root = tree.root();
    tree.insert(root, b"kept", New::Symlink(b"kept text"), &plain()).unwrap();
    let text = [b'x'; 4095];
    for round in 0..20_000_u32 {
        let name = [&b"a long name to be forgotten "[..], &round.to_le_bytes().map(|byte| byte % 64 + 48)].concat();
        tree.insert(root, &name, New::Symlink(&text), &plain()).unwrap();
        tree.remove(root, &name).unwrap();
    }
    // 80 MB of texts went by; what is left are nodes of 48 bytes.
    assert!(tree.memory_bytes() < 6 << 20, "{}", tree.memory_bytes());
    let kept = tree.find(root, b"kept").unwrap();
    assert_eq!(tree.link_text(kept), Some(&b"kept text"[..]));
    assert_eq!(tree.len(), 2);
}

#[test]
fn a_million_entries_take_less_than_150_mib() {
    let mut tree = tree();
    let attributes = [plain(), with(b"security.capability", vec![1; 20])];
    let mut directory = tree.root();
    for index in 0..1_000_000_u32 {
        if index % 20 == 0 {
            let name = format!("package-{index}");
            directory = tree.insert(tree.root(), name.as_bytes(), New::Directory, &plain()).unwrap();
        } else {
            let name = format!("{:08x}.module.js", index.wrapping_mul(2_654_435_761));
            tree.insert(directory, name.as_bytes(), New::File, &attributes[(index % 1000 == 1) as usize]).unwrap();
        }
    }
    assert_eq!(tree.len(), 1_000_001);
    assert!(tree.memory_bytes() < 150 << 20, "{}", tree.memory_bytes());
}
