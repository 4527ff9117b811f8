//! Layers are unpacked side by side; what comes out must be what applying them one after the other gives. Three
//! answers are compared for random stacks of layers: a model in memory written from the rules, the plain tree, and the
//! kernel's overlayfs over the settled layers.

mod layer_support;

use std::collections::{BTreeMap, BTreeSet};

use layer_support::{Blob, FORMS, Kind, Seen, overlay, plain, read_tree, read_tree_of, side_by_side};
use proptest::prelude::*;
use windlass_store::layer::LayerLimits;
use windlass_testkit::hostile::raw::{Header, Tar};

/// One entry of a random layer.
#[derive(Clone, Debug)]
enum Entry {
    Directory(String, u32),
    File(String, u32),
    Symlink(String, String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn tar(layer: &[Entry]) -> Vec<u8> {
    layer
        .iter()
        .fold(Tar::new(), |tar, entry| match entry {
            Entry::Directory(path, owner) => {
                tar.head(Header::new(b'5', path).uid((*owner).into()).mode(0o700 + u64::from(owner % 8)))
            }
            Entry::File(path, owner) => tar.with(Header::new(b'0', path).uid((*owner).into()), format!("{owner}")),
            Entry::Symlink(path, target) => tar.symlink(path, target),
            Entry::HardLink(path, target) => tar.link(path, target),
            Entry::Whiteout(path) => match path.rsplit_once('/') {
                Some((dir, name)) => tar.file(format!("{dir}/.wh.{name}"), ""),
                None => tar.file(format!(".wh.{path}"), ""),
            },
            Entry::Opaque(path) if path.is_empty() => tar.file(".wh..wh..opq", ""),
            Entry::Opaque(path) => tar.file(format!("{path}/.wh..wh..opq"), ""),
        })
        .end()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory { owner: u32, mode: u32 },
    File { owner: u32, content: String },
    Symlink(String),
}

const IMPLICIT: Node = Node::Directory { owner: 0, mode: 0o755 };

/// The tree as the rules say it should be.
#[derive(Clone, Debug)]
struct Model {
    tree: BTreeMap<String, Node>,
    /// What the current layer has made, and whether by an entry.
    own: BTreeMap<String, bool>,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused;

impl Model {
    fn apply(&mut self, layer: &[Entry]) -> Result<(), Refused> {
        self.own.clear();
        for entry in layer {
            match entry {
                Entry::Directory(path, owner) => {
                    let path = self.place(path)?;
                    if !matches!(self.tree.get(&path), Some(Node::Directory { .. })) {
                        self.remove(&path);
                    }
                    self.tree.insert(path.clone(), Node::Directory { owner: *owner, mode: 0o700 + owner % 8 });
                    self.own.insert(path, true);
                }
                Entry::File(path, owner) => self.put(path, Node::File { owner: *owner, content: owner.to_string() })?,
                Entry::Symlink(path, target) => self.put(path, Node::Symlink(target.clone()))?,
                Entry::HardLink(path, target) => {
                    let path = self.place(path)?;
                    let target = self.place(target)?;
                    if path == target || target.starts_with(&format!("{path}/")) {
                        return Err(Refused);
                    }
                    let node = self.tree.get(&target).cloned().ok_or(Refused)?;
                    if matches!(node, Node::Directory { .. }) {
                        return Err(Refused);
                    }
                    self.remove(&path);
                    self.tree.insert(path.clone(), node);
                    self.own.insert(path, true);
                    self.own.insert(target, true);
                }
                Entry::Whiteout(path) => self.whiteout(path)?,
                Entry::Opaque(path) => {
                    if let Some(dir) = self.resolve(path, false)? {
                        self.remove_foreign_below(&dir);
                    }
                }
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &str) -> Result<(), Refused> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(dir) = self.resolve(parent, false)? else { return Ok(()) };
        let path = join(&dir, name);
        match self.own.get(&path) {
            None => self.remove(&path),
            Some(by_entry) => {
                let by_entry = *by_entry;
                self.remove_foreign_below(&path);
                if !by_entry {
                    self.tree.insert(path, IMPLICIT);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, node: Node) -> Result<(), Refused> {
        let path = self.place(path)?;
        self.remove(&path);
        self.tree.insert(path.clone(), node);
        self.own.insert(path, true);
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.tree.retain(|name, _| name != path && !name.starts_with(&below));
        self.own.retain(|name, _| name != path && !name.starts_with(&below));
    }

    /// Hides what the layers below have in a directory: their part of the directories that stay, too.
    fn remove_foreign_below(&mut self, dir: &str) {
        let below = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let own = &self.own;
        self.tree.retain(|name, _| !name.starts_with(&below) || own.contains_key(name));
        for (name, by_entry) in own {
            if name.starts_with(&below) && !by_entry {
                self.tree.insert(name.clone(), IMPLICIT);
            }
        }
    }

    /// Where an entry goes: its parent resolved and made, everything on the way is of this layer now.
    fn place(&mut self, path: &str) -> Result<String, Refused> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.resolve(parent, true)?.ok_or(Refused)?;
        let mut way = dir.as_str();
        while !way.is_empty() {
            self.own.entry(way.to_owned()).or_insert(false);
            way = way.rsplit_once('/').map_or("", |(above, _)| above);
        }
        Ok(join(&dir, name))
    }

    fn resolve(&mut self, path: &str, make: bool) -> Result<Option<String>, Refused> {
        let mut todo: Vec<String> = path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let (mut dir, mut links) = (String::new(), 0);
        while let Some(name) = todo.pop() {
            if name == ".." {
                dir = dir.rsplit_once('/').map_or(String::new(), |(above, _)| above.to_owned());
                continue;
            }
            let next = join(&dir, &name);
            match self.tree.get(&next) {
                Some(Node::Directory { .. }) => dir = next,
                Some(Node::Symlink(target)) => {
                    links += 1;
                    if links > 40 {
                        return Err(Refused);
                    }
                    if target.starts_with('/') {
                        dir = String::new();
                    }
                    todo.extend(target.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned));
                }
                Some(Node::File { .. }) if self.own.contains_key(&next) => return Err(Refused),
                Some(Node::File { .. }) | None if !make => return Ok(None),
                Some(Node::File { .. }) | None => {
                    self.tree.insert(next.clone(), IMPLICIT);
                    self.own.insert(next.clone(), false);
                    dir = next;
                }
            }
        }
        Ok(Some(dir))
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"))
}

fn layer() -> impl Strategy<Value = Vec<Entry>> {
    let owner = 1u32..1000;
    let target = prop_oneof![3 => path(), 1 => path().prop_map(|path| format!("/{path}")), 1 => path().prop_map(|path| format!("../{path}"))];
    let entry = prop_oneof![
        4 => (path(), owner.clone()).prop_map(|(path, owner)| Entry::Directory(path, owner)),
        4 => (path(), owner).prop_map(|(path, owner)| Entry::File(path, owner)),
        1 => (path(), target).prop_map(|(path, target)| Entry::Symlink(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Entry::HardLink(path, target)),
        2 => path().prop_map(Entry::Whiteout),
        1 => prop_oneof![3 => path(), 1 => Just(String::new())].prop_map(Entry::Opaque),
    ];
    prop::collection::vec(entry, 0..7)
}

fn compare(what: &str, seen: &BTreeMap<Vec<u8>, Seen>, model: &Model) -> Result<(), TestCaseError> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let names: BTreeSet<String> = seen.keys().map(|path| text(path)).filter(|path| !path.is_empty()).collect();
    prop_assert_eq!(&names, &model.tree.keys().cloned().collect::<BTreeSet<_>>(), "{}: names", what);
    for (path, node) in &model.tree {
        let entry = &seen[path.as_bytes()];
        let got = match &entry.kind {
            Kind::Directory => Node::Directory { owner: entry.owner.0, mode: entry.mode },
            Kind::File { content, .. } => Node::File { owner: entry.owner.0, content: text(content) },
            Kind::Symlink(target) => Node::Symlink(text(target)),
            other => return Err(TestCaseError::fail(format!("{what}: {path} is {other:?}"))),
        };
        prop_assert_eq!(&got, node, "{}: {}", what, path);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_stack_equals_layers_applied_one_after_the_other(layers in prop::collection::vec(layer(), 1..4)) {
        if !rustix::process::geteuid().is_root() {
            // Owners are compared; the corpus covers what a user can do.
            return Ok(());
        }
        let mut model = Model { tree: BTreeMap::new(), own: BTreeMap::new() };
        let mut good = Vec::new();
        let mut refused = None;
        for layer in &layers {
            let mut next = model.clone();
            if next.apply(layer) == Err(Refused) {
                refused = Some(layer);
                break;
            }
            model = next;
            good.push(Blob::of_tar(tar(layer)));
        }
        let place = tempfile::tempdir().expect("a directory");
        let limits = LayerLimits::default();
        let target = plain(place.path(), &good, &limits).map_err(|error| TestCaseError::fail(error.to_string()))?;
        compare("in turn", &read_tree(&target), &model)?;
        for (form, format) in FORMS {
            let place = place.path().join(form);
            std::fs::create_dir(&place).expect("a directory");
            let stored = side_by_side(&place, &good, &limits, false, format);
            let stored = stored.map_err(|error| TestCaseError::fail(format!("{form}: {error}")))?;
            if let Some(view) = overlay(&place, &stored) {
                compare(form, &read_tree_of(&view), &model)?;
            }
        }
        if let Some(layer) = refused {
            let place = tempfile::tempdir().expect("a directory");
            good.push(Blob::of_tar(tar(layer)));
            prop_assert!(plain(place.path(), &good, &limits).is_err(), "in turn: refused as by the model");
            for (form, format) in FORMS {
                let place = place.path().join(form);
                std::fs::create_dir(&place).expect("a directory");
                let stored = side_by_side(&place, &good, &limits, false, format);
                prop_assert!(stored.is_err(), "{form}: refused as by the model");
            }
        }
    }
}
