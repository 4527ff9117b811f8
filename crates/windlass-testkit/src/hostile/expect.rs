//! What has to come of a case.

/// Outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Refused with this class of reason; nothing of it is visible.
    Refuse(&'static str),
    /// Applied: the tree holds exactly these entries. Directories on the way to them may be left out of the list.
    Apply(Vec<Node>),
}

/// One entry of a tree. What is `None` is not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is, without a leading slash; empty for the root. Bytes, since names are.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Permission bits, 07777.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Seconds and nanoseconds of the last change.
    pub mtime: Option<(i64, u32)>,
    /// All extended attributes that belong to the content.
    pub xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A file with this content.
    File(Vec<u8>),
    /// A large file of this many bytes, all zero.
    Zeros(u64),
    /// A link with this text.
    Symlink(Vec<u8>),
    /// The same file as the one at this path.
    SameAs(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A pipe.
    Fifo,
}

impl Node {
    fn new(path: impl AsRef<[u8]>, what: What) -> Node {
        Node { path: path.as_ref().to_vec(), what, mode: None, owner: None, mtime: None, xattrs: None }
    }

    /// With these permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Node {
        self.mode = Some(mode);
        self
    }

    /// With this owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Node {
        self.owner = Some((uid, gid));
        self
    }

    /// With this time.
    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanos: u32) -> Node {
        self.mtime = Some((seconds, nanos));
        self
    }

    /// With these extended attributes and no others.
    #[must_use]
    pub fn xattrs(mut self, xattrs: &[(&str, &[u8])]) -> Node {
        self.xattrs = Some(xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect());
        self
    }
}

pub(super) fn dir(path: impl AsRef<[u8]>) -> Node {
    Node::new(path, What::Directory)
}

pub(super) fn file(path: impl AsRef<[u8]>, content: &str) -> Node {
    Node::new(path, What::File(content.into()))
}

pub(super) fn zeros(path: impl AsRef<[u8]>, size: u64) -> Node {
    Node::new(path, What::Zeros(size))
}

pub(super) fn symlink(path: impl AsRef<[u8]>, text: &str) -> Node {
    Node::new(path, What::Symlink(text.into()))
}

pub(super) fn same(path: impl AsRef<[u8]>, other: &str) -> Node {
    Node::new(path, What::SameAs(other.into()))
}

pub(super) fn fifo(path: impl AsRef<[u8]>) -> Node {
    Node::new(path, What::Fifo)
}

pub(super) fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Node {
    Node::new(path, What::Char(major, minor))
}

pub(super) fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Node {
    Node::new(path, What::Block(major, minor))
}
