//! What an entry of a layer means, whatever the layer is unpacked into. Pure: names and numbers in, an [`Action`] out.
//!
//! | entry | action |
//! | --- | --- |
//! | `./` | the root's own owner, mode and times |
//! | `d/.wh.x` of any kind | [`Action::Whiteout`] of `d/x` |
//! | `d/.wh..wh..opq` | [`Action::Opaque`] on `d` |
//! | `.wh..wh.aufs`, `.wh..wh.plnk`, `.wh..wh.orph` and below | skipped: remains of aufs |
//! | everything else | [`Action::Node`] with a cleaned name |
//!
//! Source of truth: OCI image-spec `layer.md`; containerd `pkg/archive/tar.go` and umoci `oci/layer` where it is silent.
//!
//! Invariants: `no_name_leaves_the_root`; `names_are_cleaned_as_paths_are`; `whiteout_names_are_told_apart`.

use super::error::{EntryName, LayerError};
use super::limits::LayerLimits;
use super::tar::{Entry, Kind, Time};

/// Names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Owner, mode, times and extended attributes of an entry, judged and filtered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: 07777 at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change, between 1970 and 2262.
    pub mtime: Time,
    /// Extended attributes that are kept, sorted by name.
    pub xattrs: Xattrs,
}

impl Meta {
    /// What a directory gets that no layer describes: 0755, root's, 1970.
    pub fn implicit_directory() -> Meta {
        Meta { mode: 0o755, ..Meta::default() }
    }
}

/// What is to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link; its text is the entry's, unchanged.
    Symlink,
    /// Another name of a file; the target is [`Entry::link`], to be cleaned by [`Rules::link_target`].
    HardLink,
    /// A device.
    Device(Device),
    /// A named pipe.
    Fifo,
}

/// Kind and number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// A block device; else a character device.
    pub block: bool,
    /// Major number, 12 bits.
    pub major: u32,
    /// Minor number, 20 bits.
    pub minor: u32,
}

/// What an entry asks for. The path it is about was written to the caller's buffer: cleaned, without a leading slash,
/// empty for the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Skip,
    /// Create the entry.
    Node(NodeKind),
    /// Hide the path of the layers below.
    Whiteout,
    /// Hide everything that the layers below have in this directory.
    Opaque,
}

/// The rules, with the limits they hold.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'l> {
    /// Limits of the layer.
    pub limits: &'l LayerLimits,
    /// Whether `security.ima` and `security.evm` are kept.
    pub integrity_xattrs: bool,
}

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.plnk", b".wh..wh.orph"];

impl Rules<'_> {
    /// Says what to do with an entry; `path` is overwritten with what it is about.
    ///
    /// # Errors
    /// The class of what is wrong with its name, kind or numbers.
    pub fn judge(&self, entry: &Entry, path: &mut Vec<u8>) -> Result<Action, LayerError> {
        self.clean(&entry.name, &entry.name, path)?;
        let (mut whiteout, mut below_whiteout) = (false, false);
        for component in components(path) {
            if AUFS.contains(&component) {
                return Ok(Action::Skip);
            }
            below_whiteout |= whiteout;
            whiteout = component.starts_with(PREFIX);
        }
        if below_whiteout {
            return Err(archive(entry, "an entry below a whiteout"));
        }
        if whiteout {
            return self.whiteout(entry, path);
        }
        let kind = self.kind(entry)?;
        if path.is_empty() && kind != NodeKind::Directory {
            return Err(unsafe_path(entry, "the root can only be a directory"));
        }
        Ok(Action::Node(kind))
    }

    fn whiteout(&self, entry: &Entry, path: &mut Vec<u8>) -> Result<Action, LayerError> {
        let base = path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
        if &path[base..] == OPAQUE {
            path.truncate(base.saturating_sub(1));
            return Ok(Action::Opaque);
        }
        match &path[base + PREFIX.len()..] {
            b"" => Err(archive(entry, "a whiteout without a name")),
            b"." | b".." => Err(unsafe_path(entry, "a whiteout of a directory's own name or its parent's")),
            _ => {
                path.drain(base..base + PREFIX.len());
                Ok(Action::Whiteout)
            }
        }
    }

    fn kind(&self, entry: &Entry) -> Result<NodeKind, LayerError> {
        Ok(match entry.kind {
            Kind::File => NodeKind::File,
            Kind::Directory => NodeKind::Directory,
            Kind::Symlink if entry.link.len() > self.limits.link_bytes => {
                return Err(limit(entry, "linkBytes", self.limits.link_bytes));
            }
            Kind::Symlink if entry.link.contains(&0) => return Err(archive(entry, "a link target that holds NUL")),
            Kind::Symlink => NodeKind::Symlink,
            Kind::HardLink => NodeKind::HardLink,
            Kind::CharDevice => NodeKind::Device(device(entry, false)?),
            Kind::BlockDevice => NodeKind::Device(device(entry, true)?),
            Kind::Fifo => NodeKind::Fifo,
        })
    }

    /// The target of a hard link, cleaned like a name.
    ///
    /// # Errors
    /// As for a name.
    pub fn link_target(&self, entry: &Entry, target: &mut Vec<u8>) -> Result<(), LayerError> {
        self.clean(&entry.link, &entry.name, target)
    }

    /// Owner, mode, times and the extended attributes that are kept.
    ///
    /// # Errors
    /// [`LayerError::Archive`] for ids that no Linux system has.
    pub fn meta(&self, entry: &Entry) -> Result<Meta, LayerError> {
        let id = |id: i64| {
            // The last number means "unchanged" to chown.
            u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(|| archive(entry, "an owner beyond 32 bits"))
        };
        let mode = u32::try_from(entry.mode & 0o7777).unwrap_or_default();
        let xattrs = entry.xattrs.iter().filter(|(name, _)| self.keeps_xattr(name)).cloned().collect();
        Ok(Meta { mode, uid: id(entry.uid)?, gid: id(entry.gid)?, mtime: entry.mtime.clamped(), xattrs })
    }

    /// Whether an extended attribute of this name is kept: what belongs to the content is, what belongs to the node
    /// (labels) or to the file system's own bookkeeping (overlay marks) is not.
    pub fn keeps_xattr(&self, name: &[u8]) -> bool {
        match name {
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
            b"security.ima" | b"security.evm" => self.integrity_xattrs,
            // The kernel takes names of 255 bytes.
            name => name.starts_with(b"user.") && name.len() <= 255 && !name.starts_with(b"user.overlay."),
        }
    }

    /// Cleans a name without looking at any file: no empty components, no `.`, and `..` takes back the one before.
    fn clean(&self, name: &[u8], entry: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
        let entry = || EntryName::new(entry);
        out.clear();
        if name.is_empty() || name.contains(&0) {
            return Err(LayerError::Archive { entry: entry(), what: "a name that is empty or holds NUL" });
        }
        if name.len() > self.limits.path_bytes {
            return Err(LayerError::Limit { entry: entry(), limit: "pathBytes", max: self.limits.path_bytes as u64 });
        }
        let mut depth = 0;
        for component in name.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." if depth == 0 => {
                    return Err(LayerError::UnsafePath { entry: entry(), what: "it leads out of the root" });
                }
                b".." => {
                    depth -= 1;
                    out.truncate(out.iter().rposition(|&b| b == b'/').unwrap_or(0));
                }
                _ if component.len() > self.limits.component_bytes => {
                    let max = self.limits.component_bytes as u64;
                    return Err(LayerError::Limit { entry: entry(), limit: "componentBytes", max });
                }
                _ => {
                    depth += 1;
                    if !out.is_empty() {
                        out.push(b'/');
                    }
                    out.extend_from_slice(component);
                }
            }
        }
        if depth > self.limits.depth {
            return Err(LayerError::Limit { entry: entry(), limit: "directoryDepth", max: self.limits.depth as u64 });
        }
        Ok(())
    }
}

/// The components of a cleaned path; none for the root.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|component| !component.is_empty())
}

/// A cleaned path's directory and last component; the root has neither.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    }
}

fn device(entry: &Entry, block: bool) -> Result<Device, LayerError> {
    let number = |value: i64, bits: u32| u32::try_from(value).ok().filter(|value| value >> bits == 0);
    let (Some(major), Some(minor)) = (number(entry.device.0, 12), number(entry.device.1, 20)) else {
        return Err(archive(entry, "a device number that no Linux device has"));
    };
    if !block && major == 0 && minor == 0 {
        let what = "a character device 0:0 would hide a file of a lower layer";
        return Err(LayerError::UnsupportedEntry { entry: EntryName::new(&entry.name), what });
    }
    Ok(Device { block, major, minor })
}

fn archive(entry: &Entry, what: &'static str) -> LayerError {
    LayerError::Archive { entry: EntryName::new(&entry.name), what }
}

fn unsafe_path(entry: &Entry, what: &'static str) -> LayerError {
    LayerError::UnsafePath { entry: EntryName::new(&entry.name), what }
}

fn limit(entry: &Entry, limit: &'static str, max: usize) -> LayerError {
    LayerError::Limit { entry: EntryName::new(&entry.name), limit, max: max as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(name: &[u8]) -> Result<(Action, Vec<u8>), LayerError> {
        let limits = LayerLimits::default();
        let entry = Entry { name: name.to_vec(), ..Entry::default() };
        let mut path = Vec::new();
        Rules { limits: &limits, integrity_xattrs: false }.judge(&entry, &mut path).map(|action| (action, path))
    }

    #[test]
    fn names_are_cleaned_as_paths_are() {
        let table: [(&str, Option<&str>); 12] = [
            ("a", Some("a")),
            ("./a/b", Some("a/b")),
            ("/etc//passwd", Some("etc/passwd")),
            ("a/./b/.", Some("a/b")),
            ("a/../b", Some("b")),
            ("a/b/../../c", Some("c")),
            ("a/", Some("a")),
            ("..", None),
            ("../a", None),
            ("a/../../b", None),
            ("/../a", None),
            ("..a/b..", Some("..a/b..")),
        ];
        for (name, want) in table {
            let got = judge(name.as_bytes()).ok().map(|(_, path)| String::from_utf8_lossy(&path).into_owned());
            assert_eq!(got.as_deref(), want, "{name}");
        }
    }

    #[test]
    fn whiteout_names_are_told_apart() {
        let table: [(&str, Option<(Action, &str)>); 10] = [
            (".wh.x", Some((Action::Whiteout, "x"))),
            ("d/.wh.x", Some((Action::Whiteout, "d/x"))),
            ("d/.wh..x", Some((Action::Whiteout, "d/.x"))),
            ("d/.wh..wh..opq", Some((Action::Opaque, "d"))),
            (".wh..wh..opq", Some((Action::Opaque, ""))),
            (".wh..wh.plnk/1", Some((Action::Skip, ".wh..wh.plnk/1"))),
            (".wh.", None),
            ("d/.wh..", None),
            ("d/.wh...", None),
            ("d/.wh.x/y", None),
        ];
        for (name, want) in table {
            let got = judge(name.as_bytes()).ok();
            let want = want.map(|(action, path)| (action, path.as_bytes().to_vec()));
            assert_eq!(got, want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_the_root(name in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), Just(b'a'), any::<u8>()], 0..64)) {
            if let Ok((_, path)) = judge(&name) {
                prop_assert!(!path.starts_with(b"/") && !path.ends_with(b"/"));
                prop_assert!(components(&path).all(|c| c != b"." && c != b".." && !c.contains(&0)));
                prop_assert_eq!(components(&path).collect::<Vec<_>>().join(&b'/'), path);
            }
        }
    }
}
