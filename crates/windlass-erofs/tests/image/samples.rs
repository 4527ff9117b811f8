//! Trees that try what the format makes difficult.

use windlass_erofs::{Attributes, Device, New, NodeId, Time, Tree};

use crate::support::{Contents, plain};

/// A tree, with the contents of its files, and what is special about it.
pub(crate) type Sample = (&'static str, Tree, Contents);

/// All of them; the deepest directory is on this level.
pub(crate) fn all(levels: usize) -> Vec<Sample> {
    vec![
        ("nothing", Tree::new(1 << 20), Contents::default()),
        everything(),
        directories_of_every_size(),
        links_of_every_size(),
        attributes_of_every_size(),
        deep(levels),
    ]
}

fn tree() -> Tree {
    Tree::new(1 << 30)
}

fn with(name: &[u8], value: &[u8]) -> Attributes {
    Attributes { xattrs: vec![(name.to_vec(), value.to_vec())], ..plain(0o640) }
}

fn file(tree: &mut Tree, contents: &mut Contents, directory: NodeId, name: &[u8], bytes: &[u8]) -> NodeId {
    let file = tree.insert(directory, name, New::File, &plain(0o644)).expect("a free name");
    tree.set_content(file, contents.add(bytes)).expect("a file");
    file
}

/// An access list for one user, as `struct posix_acl_xattr_header` and its entries stand in an attribute.
fn access_list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, u32::MAX), (0x02, 7, 1000), (0x04, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// `struct vfs_cap_data` of revision 2 with `CAP_NET_RAW`.
fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Each kind of entry with all that it may carry.
pub(crate) fn everything() -> Sample {
    let (mut tree, mut contents) = (tree(), Contents::default());
    let root = tree.root();
    let time = Time { seconds: 1_600_000_000, nanos: 123_456_789 };
    let special = Attributes { mode: 0o7751, uid: 1000, gid: 4_000_000_000, mtime: time, xattrs: Vec::new() };
    tree.set_attributes(root, &special).expect("plain attributes");
    let etc = tree.insert(root, b"etc", New::Directory, &special).expect("a free name");
    for (number, len) in [0, 1, 511, 512, 513, 4095, 4096, 4097, 3 << 20].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + at / 4096 + number) as u8).collect();
        file(&mut tree, &mut contents, etc, format!("file-{len}").as_bytes(), &bytes);
    }
    let linked = file(&mut tree, &mut contents, root, b"linked", b"with four names");
    tree.set_attributes(linked, &special).expect("plain attributes");
    for name in [&b"a link"[..], b"zz", b"."] {
        let name = [name, b" again"].concat();
        tree.link(etc, &name, linked).expect("a free name");
    }
    let link = tree.insert(root, b"link", New::Symlink(b"etc/../linked"), &special).expect("a free name");
    tree.link(etc, b"the link", link).expect("a free name");
    for (name, block, major, minor) in
        [("null", false, 1, 3), ("disk", true, 259, 0xf_ffff), ("most", false, 0xfff, 256), ("whiteout", false, 0, 0)]
    {
        tree.insert(root, name.as_bytes(), New::Device(Device { block, major, minor }), &special).expect("a free name");
    }
    tree.insert(root, b"pipe", New::Fifo, &special).expect("a free name");
    let attributes = Attributes {
        xattrs: vec![
            (b"security.capability".to_vec(), capability()),
            (b"system.posix_acl_access".to_vec(), access_list()),
            (b"user.empty".to_vec(), Vec::new()),
            (b"user.text".to_vec(), b"value".to_vec()),
        ],
        ..special.clone()
    };
    let carrier = file(&mut tree, &mut contents, root, b"carrier", b"#!");
    tree.set_attributes(carrier, &attributes).expect("attributes that fit");
    let given = tree.insert(root, b"given", New::Directory, &with(b"system.posix_acl_default", &access_list()));
    tree.set_opaque(given.expect("a free name")).expect("a directory");
    for name in [&b"!"[..], b"-", b".a", b"..a", b"..", b"\xff\xfe", b"\x01", &[b'n'; 255]] {
        let name = if name == b".." { b"...".as_slice() } else { name };
        tree.insert(root, name, New::File, &plain(0)).expect("a free name");
    }
    ("everything", tree, contents)
}

fn directories_of_every_size() -> Sample {
    let mut tree = tree();
    for count in (0..50).chain([500, 5000]) {
        for len in [1, 3, 4, 30, 251] {
            let name = format!("{count}-{len}");
            let directory = tree.insert(tree.root(), name.as_bytes(), New::Directory, &plain(0o755)).expect("a name");
            for number in (0..count).rev() {
                let name = format!("{number:04}{}", "x".repeat(len));
                let new = if number % 50 == 7 { New::Directory } else { New::Fifo };
                tree.insert(directory, name.as_bytes(), new, &plain(0o600)).expect("a free name");
            }
        }
    }
    ("directories", tree, Contents::default())
}

fn links_of_every_size() -> Sample {
    let mut tree = tree();
    for len in (1..1200).chain(4000..=4095) {
        let name = format!("link-{len}");
        tree.insert(tree.root(), name.as_bytes(), New::Symlink(&vec![b'x'; len]), &plain(0o777)).expect("a free name");
    }
    ("links", tree, Contents::default())
}

fn attributes_of_every_size() -> Sample {
    let mut tree = tree();
    let root = tree.root();
    for len in (0..600).chain([4000, 65_535]) {
        let attributes = with(b"trusted.a", &vec![b'y'; len]);
        let name = |what| format!("{what}-{len}").into_bytes();
        tree.insert(root, &name("link"), New::Symlink(b"text"), &attributes).expect("a free name");
        tree.insert(root, &name("long"), New::Symlink(&[b'x'; 450]), &attributes).expect("a free name");
        let directory = tree.insert(root, &name("directory"), New::Directory, &attributes).expect("a free name");
        tree.insert(directory, &vec![b'n'; 1 + len % 255], New::File, &attributes).expect("a free name");
    }
    let many = (0..200).map(|number| (format!("user.{number:03}").into_bytes(), vec![number as u8; number])).collect();
    tree.insert(root, b"many", New::File, &Attributes { xattrs: many, ..plain(0o600) }).expect("a free name");
    // As much as an inode can hold.
    let value = |number| (format!("user.{number}aaaa").into_bytes(), vec![7; if number < 3 { 65_535 } else { 65_495 }]);
    let most = Attributes { xattrs: (0..4).map(value).collect(), ..plain(0o600) };
    tree.insert(root, b"most", New::File, &most).expect("a free name");
    ("attributes", tree, Contents::default())
}

fn deep(levels: usize) -> Sample {
    let mut tree = tree();
    let mut at = tree.root();
    for _ in 0..levels {
        tree.insert(at, b"file", New::File, &plain(0o600)).expect("a free name");
        at = tree.insert(at, b"d", New::Directory, &plain(0o755)).expect("a free name");
    }
    ("deep", tree, Contents::default())
}
