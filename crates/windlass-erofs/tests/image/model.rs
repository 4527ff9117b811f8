//! A plain model of a layer, and random operations on it and on a tree.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use windlass_erofs::{Attributes, Content, Device, Kind, New, NodeId, Time, Tree, TreeError};

use crate::support::{Contents, Listing, Seen, join};

/// What a random operation creates.
#[derive(Clone, Debug)]
pub(crate) enum Make {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device(Device),
    Fifo,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Insert(Index, Vec<u8>, Make, Attributes),
    /// Many files with names of this length.
    Fill(Index, usize, usize),
    /// Directories in each other.
    Deepen(Index, usize),
    Link(Index, Vec<u8>, Index),
    Remove(Index, Index),
    Replace(Index, Index, Make, Attributes),
    Describe(Index, Attributes),
    Hide(Index),
}

#[derive(Clone, Debug)]
struct Node {
    id: NodeId,
    kind: Kind,
    attributes: Attributes,
    bytes: Vec<u8>,
}

/// The same layer twice: as a tree, and as a table of paths.
pub(crate) struct Model {
    pub(crate) tree: Tree,
    pub(crate) contents: Contents,
    nodes: Vec<Node>,
    entries: BTreeMap<Vec<u8>, usize>,
}

const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

impl Model {
    pub(crate) fn new() -> Model {
        let tree = Tree::new(1 << 30);
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let root = Node { id: tree.root(), kind: Kind::Directory, attributes, bytes: Vec::new() };
        Model { tree, contents: Contents::default(), nodes: vec![root], entries: [(Vec::new(), 0)].into() }
    }

    pub(crate) fn after(operations: &[Operation]) -> Model {
        let mut model = Model::new();
        for operation in operations {
            model.apply(operation);
        }
        model
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert(directory, name, make, attributes) => {
                let directory = self.directory(directory);
                self.insert(&directory, name, make, attributes);
            }
            Operation::Fill(directory, count, len) => {
                let directory = self.directory(directory);
                for number in 0..*count {
                    let name = format!("{number:0len$}");
                    self.insert(&directory, name.as_bytes(), &Make::Fifo, &Attributes::default());
                }
            }
            Operation::Deepen(directory, count) => {
                let mut directory = self.directory(directory);
                for _ in 0..*count {
                    self.insert(&directory, b"deeper", &Make::Directory, &Attributes::default());
                    directory = join(&directory, b"deeper");
                    if self.kind(&directory) != Some(Kind::Directory) {
                        break;
                    }
                }
            }
            Operation::Link(directory, name, target) => {
                let (directory, target) = (self.directory(directory), self.any(target));
                self.link(&directory, name, &target);
            }
            Operation::Remove(directory, name) => {
                let directory = self.directory(directory);
                if let Some(name) = self.name_in(&directory, name) {
                    self.remove(&directory, &name);
                }
            }
            Operation::Replace(directory, name, make, attributes) => {
                let directory = self.directory(directory);
                if let Some(name) = self.name_in(&directory, name) {
                    self.remove(&directory, &name);
                    self.insert(&directory, &name, make, attributes);
                }
            }
            Operation::Describe(target, attributes) => {
                let target = self.any(target);
                let node = &mut self.nodes[self.entries[&target]];
                self.tree.set_attributes(node.id, attributes).expect("attributes that fit");
                let was = is_opaque(&node.attributes) || node.kind == Kind::Directory && is_opaque(attributes);
                node.attributes = attributes.clone();
                if was {
                    hide(&mut node.attributes);
                }
            }
            Operation::Hide(directory) => {
                let directory = self.directory(directory);
                let node = &mut self.nodes[self.entries[&directory]];
                self.tree.set_opaque(node.id).expect("a directory");
                hide(&mut node.attributes);
            }
        }
    }

    fn insert(&mut self, directory: &[u8], name: &[u8], make: &Make, attributes: &Attributes) {
        let (path, above) = (join(directory, name), self.nodes[self.entries[directory]].id);
        let (new, kind) = match make {
            Make::Directory => (New::Directory, Kind::Directory),
            Make::File(_) => (New::File, Kind::File),
            Make::Symlink(text) => (New::Symlink(text), Kind::Symlink),
            Make::Device(device) => (New::Device(*device), Kind::Device(*device)),
            Make::Fifo => (New::Fifo, Kind::Fifo),
        };
        let result = self.tree.insert(above, name, new, attributes);
        if self.entries.contains_key(&path) {
            assert!(matches!(result, Err(TreeError::Taken)), "{path:?}");
            return;
        }
        let id = result.expect("a free name");
        let bytes = match make {
            Make::File(bytes) => {
                let content: Content = self.contents.add(bytes);
                self.tree.set_content(id, content).expect("a file");
                bytes.clone()
            }
            Make::Symlink(text) => text.clone(),
            Make::Directory | Make::Device(_) | Make::Fifo => Vec::new(),
        };
        let node = Node { id, kind, attributes: attributes.clone(), bytes };
        self.entries.insert(path, self.nodes.len());
        self.nodes.push(node);
    }

    fn link(&mut self, directory: &[u8], name: &[u8], target: &[u8]) {
        let (path, above) = (join(directory, name), self.nodes[self.entries[directory]].id);
        let index = self.entries[target];
        let result = self.tree.link(above, name, self.nodes[index].id);
        if self.entries.contains_key(&path) {
            assert!(matches!(result, Err(TreeError::Taken)), "{path:?}");
        } else if self.nodes[index].kind == Kind::Directory {
            assert!(matches!(result, Err(TreeError::DirectoryLink)), "{path:?}");
        } else {
            result.expect("a free name");
            self.entries.insert(path, index);
        }
    }

    fn remove(&mut self, directory: &[u8], name: &[u8]) {
        let path = join(directory, name);
        self.tree.remove(self.nodes[self.entries[directory]].id, name).expect("a name");
        let below = join(&path, b"");
        self.entries.retain(|other, _| *other != path && !other.starts_with(&below));
    }

    fn kind(&self, path: &[u8]) -> Option<Kind> {
        Some(self.nodes[*self.entries.get(path)?].kind)
    }

    fn directory(&self, index: &Index) -> Vec<u8> {
        let directories = self.entries.iter().filter(|(_, node)| self.nodes[**node].kind == Kind::Directory);
        let all: Vec<_> = directories.map(|(path, _)| path).collect();
        index.get(&all).to_vec()
    }

    fn any(&self, index: &Index) -> Vec<u8> {
        let all: Vec<_> = self.entries.keys().collect();
        index.get(&all).to_vec()
    }

    fn name_in(&self, directory: &[u8], index: &Index) -> Option<Vec<u8>> {
        let inside = if directory.is_empty() { Vec::new() } else { join(directory, b"") };
        let names = self.entries.keys().filter_map(|path| path.strip_prefix(&inside[..]));
        let names: Vec<_> = names.filter(|name| !name.is_empty() && !name.contains(&b'/')).collect();
        if names.is_empty() { None } else { Some(index.get(&names).to_vec()) }
    }

    /// What must be seen of it.
    pub(crate) fn listing(&self) -> Listing {
        let mut names: BTreeMap<usize, Vec<&Vec<u8>>> = BTreeMap::new();
        let mut subdirectories: BTreeMap<&[u8], u32> = BTreeMap::new();
        for (path, &node) in &self.entries {
            names.entry(node).or_default().push(path);
            if self.nodes[node].kind == Kind::Directory && !path.is_empty() {
                let above = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                *subdirectories.entry(&path[..above]).or_default() += 1;
            }
        }
        let seen = |path: &Vec<u8>, node: usize| {
            let Node { kind, attributes, bytes, .. } = self.nodes[node].clone();
            let links = match kind {
                Kind::Directory => 2 + subdirectories.get(&path[..]).copied().unwrap_or(0),
                Kind::File | Kind::Symlink | Kind::Device(_) | Kind::Fifo => names[&node].len() as u32,
            };
            Seen { kind, attributes, links, bytes, same_as: names[&node][0].clone() }
        };
        self.entries.iter().map(|(path, &node)| (path.clone(), seen(path, node))).collect()
    }
}

fn is_opaque(attributes: &Attributes) -> bool {
    attributes.xattrs.iter().any(|(name, value)| (&name[..], &value[..]) == OPAQUE)
}

fn hide(attributes: &mut Attributes) {
    attributes.xattrs.retain(|(name, _)| name != OPAQUE.0);
    attributes.xattrs.push((OPAQUE.0.to_vec(), OPAQUE.1.to_vec()));
    attributes.xattrs.sort();
}

/// Names that sort around `.` and `..`, the longest, odd bytes, and short ones that collide.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(prop_oneof![Just(b'a'), Just(b'b')], 1..3),
        2 => vec(any::<u8>().prop_map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { byte }), 1..40)
            .prop_map(|name| if matches!(&name[..], b"." | b"..") { b"...".to_vec() } else { name }),
        1 => Just(b"!".to_vec()),
        1 => Just(b"..a".to_vec()),
        1 => Just(b".-".to_vec()),
        1 => (b'a'..=b'z', 200_usize..=255).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

/// Names of extended attributes that any entry may have, with any value, also where the kernel is asked.
const XATTRS: [&[u8]; 4] = [b"trusted.a", b"trusted.longer.name", b"security.windlass", b"trusted.overlay.origin"];

fn attributes() -> impl Strategy<Value = Attributes> {
    let name = proptest::sample::select(&XATTRS[..]).prop_map(<[u8]>::to_vec);
    let value = prop_oneof![6 => vec(any::<u8>(), 0..80), 1 => vec(any::<u8>(), 400..3000)];
    let xattrs = prop_oneof![3 => Just(BTreeMap::new()), 1 => proptest::collection::btree_map(name, value, 0..4)];
    // Many have one time and small ids: those become compact.
    let common = Time { seconds: 1_735_689_600, nanos: 7 };
    let seconds = prop_oneof![3 => 0_i64..1 << 33, 1 => any::<i64>()];
    let other = (seconds, 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| Time { seconds, nanos });
    let mtime = prop_oneof![2 => Just(common), 1 => other];
    let id = || prop_oneof![2 => 0..0x1_0002_u32, 1 => 0..u32::MAX];
    (0_u32..0o10000, id(), id(), mtime, xattrs).prop_map(|(mode, uid, gid, mtime, xattrs)| Attributes {
        mode,
        uid,
        gid,
        mtime,
        xattrs: xattrs.into_iter().collect(),
    })
}

fn make() -> impl Strategy<Value = Make> {
    let text = |len| vec(1_u8..=255, len);
    prop_oneof![
        3 => Just(Make::Directory),
        3 => vec(any::<u8>(), 0..1500).prop_map(Make::File),
        2 => text(1..100).prop_map(Make::Symlink),
        1 => text(380..600).prop_map(Make::Symlink),
        1 => text(4000..4096).prop_map(Make::Symlink),
        1 => Just(Make::Device(Device::WHITEOUT)),
        1 => (any::<bool>(), 0_u32..1 << 12, 0_u32..1 << 20)
            .prop_map(|(block, major, minor)| Make::Device(Device { block, major, minor })),
        1 => Just(Make::Fifo),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = any::<Index>;
    prop_oneof![
        10 => (index(), name(), make(), attributes()).prop_map(|(d, n, m, a)| Operation::Insert(d, n, m, a)),
        1 => (index(), 0_usize..120, 1_usize..60).prop_map(|(d, count, len)| Operation::Fill(d, count, len)),
        1 => (index(), 0_usize..30).prop_map(|(d, count)| Operation::Deepen(d, count)),
        2 => (index(), name(), index()).prop_map(|(d, n, t)| Operation::Link(d, n, t)),
        1 => (index(), index()).prop_map(|(d, n)| Operation::Remove(d, n)),
        1 => (index(), index(), make(), attributes()).prop_map(|(d, n, m, a)| Operation::Replace(d, n, m, a)),
        1 => (index(), attributes()).prop_map(|(t, a)| Operation::Describe(t, a)),
        1 => index().prop_map(Operation::Hide),
    ]
}

pub(crate) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), 0..60)
}

/// The same random models each time, for tests that are too slow for more.
pub(crate) fn some(count: usize) -> impl Iterator<Item = Model> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(move |_| Model::after(&operations().new_tree(&mut runner).expect("operations").current()))
}
