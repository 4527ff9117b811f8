//! What a stack of layers is, as a map from paths to nodes. Written to be read, not to be fast.

use std::collections::{BTreeMap, BTreeSet};

use windlass_store::layer::LayerLimits;
use windlass_store::layer::tar::{Entry, Kind, Piece, Reader};

/// Components from the root.
type Parts = Vec<Vec<u8>>;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// Made by the layer being applied; else by one below.
    own: bool,
}

#[derive(Clone, Default)]
pub(super) struct Model {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Directories that only whiteouts of this layer were in so far, and that no layer below has.
    phantoms: BTreeSet<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Content,
    Whiteout,
}

type Refused = &'static str;

const LINKS_MAX: usize = 40;

impl Model {
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Vec<u8>, &Node)> {
        self.nodes.iter()
    }

    /// Whether some layer has had an entry for the root.
    pub(super) fn has_root(&self) -> bool {
        self.nodes.contains_key(&b""[..])
    }

    /// Whether the model can say something about an archive: devices and attributes depend on rights and file systems.
    pub(super) fn knows(&self, tar: &[u8], limits: &LayerLimits) -> bool {
        let mut reader = Reader::new(tar, limits);
        while let Ok(true) = reader.advance() {
            let entry = reader.entry();
            if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) || !entry.xattrs.is_empty() {
                return false;
            }
        }
        true
    }

    /// The tree with one layer more.
    pub(super) fn applied(&self, tar: &[u8], limits: &LayerLimits) -> Result<Model, Refused> {
        let mut next = self.clone();
        next.phantoms.clear();
        next.nodes.values_mut().for_each(|node| node.own = false);
        let mut reader = Reader::new(tar, limits);
        while reader.advance().map_err(|_| "the archive is malformed")? {
            let entry = reader.entry().clone();
            let mut content = Vec::new();
            loop {
                match reader.data().map_err(|_| "the archive is cut off")? {
                    Piece::Data(bytes) => content.extend_from_slice(bytes),
                    Piece::Hole(zeros) => content.resize(content.len() + zeros as usize, 0),
                    Piece::End => break,
                }
            }
            next.entry(&entry, content)?;
        }
        Ok(next)
    }

    fn entry(&mut self, entry: &Entry, content: Vec<u8>) -> Result<(), Refused> {
        let path = clean(&entry.name)?;
        if path.iter().any(|part| [&b".wh..wh.aufs"[..], b".wh..wh.plnk", b".wh..wh.orph"].contains(&&part[..])) {
            return Ok(());
        }
        let is_whiteout = |part: &Vec<u8>| part.starts_with(b".wh.");
        if path.iter().rev().skip(1).any(is_whiteout) {
            return Err("an entry lies below a whiteout");
        }
        if let Some((last, parent)) = path.split_last().filter(|(last, _)| is_whiteout(last)) {
            return self.whiteout(parent, last);
        }
        let id = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or("an owner is beyond 32 bits");
        let link_is_bad = entry.kind == Kind::Symlink && entry.link.contains(&0);
        if link_is_bad {
            return Err("a link holds NUL");
        }
        let Some((name, parent)) = path.split_last() else {
            if entry.kind != Kind::Directory {
                return Err("the root is a directory");
            }
            let node =
                Node { what: What::Directory, mode: mode(entry), owner: (id(entry.uid)?, id(entry.gid)?), own: true };
            self.nodes.insert(Vec::new(), node);
            return Ok(());
        };
        let owner = (id(entry.uid)?, id(entry.gid)?);
        let dir = self.place(parent)?;
        let at = join(&dir, name);
        let what = match entry.kind {
            Kind::HardLink => return self.hard_link(&at, &entry.link),
            Kind::File => What::File(content),
            Kind::Directory => What::Directory,
            Kind::Symlink => What::Symlink(entry.link.clone()),
            Kind::Fifo => What::Fifo,
            Kind::CharDevice | Kind::BlockDevice => What::Other,
        };
        self.put(&at, Node { what, mode: mode(entry), owner, own: true });
        Ok(())
    }

    /// An entry replaces what has its name, save that a directory keeps what is in it.
    fn put(&mut self, at: &[u8], node: Node) {
        let stays = node.what == What::Directory && self.nodes.get(at).is_some_and(|old| old.what == What::Directory);
        if !stays {
            self.remove(at, |_| true);
        }
        self.phantoms.remove(at);
        self.nodes.insert(at.to_vec(), node);
    }

    fn whiteout(&mut self, parent: &[Vec<u8>], name: &[u8]) -> Result<(), Refused> {
        let target = match &name[b".wh.".len()..] {
            b".wh..opq" => {
                if let Some(dir) = self.resolve(parent, Purpose::Whiteout)? {
                    self.hide_below(&dir);
                }
                return Ok(());
            }
            b"" => return Err("a whiteout has no name"),
            b"." | b".." => return Err("a whiteout of a directory's own name"),
            target => target.to_vec(),
        };
        let Some(dir) = self.resolve(parent, Purpose::Whiteout)? else { return Ok(()) };
        let at = join(&dir, &target);
        if self.nodes.get(&at).is_some_and(|node| !node.own) {
            let is_used = self.nodes.iter().any(|(path, node)| node.own && is_below(path, &at));
            match is_used {
                true => self.nodes.insert(at.clone(), implicit()),
                false => self.nodes.remove(&at),
            };
        }
        self.hide_below(&at);
        Ok(())
    }

    /// Removes what the layers below have inside a directory; one of theirs that this layer has something in becomes its
    /// own, without what they said about it.
    fn hide_below(&mut self, dir: &[u8]) {
        let own: Vec<Vec<u8>> = self.nodes.iter().filter(|(_, node)| node.own).map(|(path, _)| path.clone()).collect();
        let hidden: Vec<Vec<u8>> = self
            .nodes
            .iter()
            .filter(|(path, node)| !node.own && is_below(path, dir))
            .map(|(path, _)| path.clone())
            .collect();
        for path in hidden {
            match own.iter().any(|inner| is_below(inner, &path)) {
                true => self.nodes.insert(path, implicit()),
                false => self.nodes.remove(&path),
            };
        }
    }

    fn hard_link(&mut self, at: &[u8], link: &[u8]) -> Result<(), Refused> {
        let target = clean(link)?;
        let Some((name, parent)) = target.split_last() else { return Err("a hard link to the root") };
        let target = join(&self.place(parent)?, name);
        if target == at || is_below(&target, at) {
            return Err("a hard link to itself or in place of its target's directory");
        }
        let node = match self.nodes.get_mut(&target) {
            _ if self.phantoms.contains(&target) => return Err("a hard link to a directory"),
            None => return Err("a hard link to nothing"),
            Some(node) if node.what == What::Directory => return Err("a hard link to a directory"),
            Some(node) => {
                node.own = true;
                node.clone()
            }
        };
        self.put(at, node);
        Ok(())
    }

    /// Where a directory for content really is.
    fn place(&mut self, path: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
        self.resolve(path, Purpose::Content)?.ok_or("a directory for content is made where there is none")
    }

    /// Where a directory really is: links are followed inside the root, missing parts are made for content. There is
    /// none for a whiteout below a file of a layer below.
    fn resolve(&mut self, path: &[Vec<u8>], purpose: Purpose) -> Result<Option<Vec<u8>>, Refused> {
        let mut here: Parts = Vec::new();
        for part in path {
            let mut todo: Parts = vec![part.clone()];
            let mut links = 0;
            while let Some(part) = todo.pop() {
                if part == b".." {
                    here.pop();
                    continue;
                }
                let at = join(&here.join(&b'/'), &part);
                match self.nodes.get(&at).map(|node| (&node.what, node.own)) {
                    Some((What::Directory, _)) => here.push(part),
                    Some((What::Symlink(text), _)) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err("links form a loop");
                        }
                        if text.starts_with(b"/") {
                            here.clear();
                        }
                        let parts = text.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
                        todo.extend(parts.rev().map(<[u8]>::to_vec));
                    }
                    Some((_, true)) => return Err("a parent is no directory"),
                    Some((_, false)) if purpose == Purpose::Whiteout => return Ok(None),
                    // A file of a layer below gives way.
                    Some((_, false)) | None => {
                        match purpose {
                            Purpose::Content => self.put(&at, implicit()),
                            Purpose::Whiteout => {
                                self.phantoms.insert(at);
                            }
                        }
                        here.push(part);
                    }
                }
            }
        }
        Ok(Some(here.join(&b'/')))
    }

    fn remove(&mut self, at: &[u8], which: impl Fn(&Node) -> bool) {
        self.nodes.retain(|path, node| !(path == at || is_below(path, at)) || !which(node));
        self.phantoms.retain(|path| !is_below(path, at));
    }
}

fn mode(entry: &Entry) -> u32 {
    u32::try_from(entry.mode & 0o7777).expect("twelve bits")
}

fn implicit() -> Node {
    Node { what: What::Directory, mode: 0o755, owner: (0, 0), own: true }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    match dir {
        b"" => !path.is_empty(),
        dir => path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/")),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Go's `path.Clean`, save that no name may begin with `..`.
fn clean(name: &[u8]) -> Result<Parts, Refused> {
    let mut parts = Parts::new();
    if name.is_empty() || name.contains(&0) {
        return Err("a name is empty or holds NUL");
    }
    for part in name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            parts.pop().ok_or("a name leads out of the root")?;
        } else {
            parts.push(part.to_vec());
        }
    }
    Ok(parts)
}
