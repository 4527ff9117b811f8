//! What the layers of a store hold, whatever form they have.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The entries of a tree: whether it is a directory, and its content.
pub(super) type Files = BTreeMap<Vec<u8>, (bool, Vec<u8>)>;

/// Kind and content of each file of each unpacked layer. Modes and owners are not what a check compares.
pub(super) fn trees(root: &Path) -> BTreeMap<PathBuf, Files> {
    let mut found = BTreeMap::new();
    let Ok(snapshots) = fs::read_dir(root.join("snapshots")) else { return found };
    for snapshot in snapshots {
        let snapshot = snapshot.expect("an entry").path();
        let (tree, image) = (snapshot.join("fs"), snapshot.join("image"));
        if let Some(files) = files_of_image(&image) {
            found.insert(image, files);
        } else if tree.is_dir() {
            let files = files_of_tree(&tree);
            found.insert(tree, files);
        }
    }
    found
}

fn files_of_tree(tree: &Path) -> Files {
    let mut paths = Vec::new();
    list(tree, &mut paths);
    let files = paths.iter().map(|path| {
        let meta = fs::symlink_metadata(path).expect("an entry");
        let name = path.strip_prefix(tree).expect("it lies below").as_os_str().as_bytes().to_vec();
        (name, (meta.is_dir(), if meta.is_file() { fs::read(path).unwrap_or_default() } else { Vec::new() }))
    });
    files.collect()
}

/// The same of an image file; none if it cannot be read to its end.
fn files_of_image(path: &Path) -> Option<Files> {
    let bytes = fs::read(path).ok()?;
    let image = windlass_erofs::Image::open(&bytes[..], bytes.len() as u64).ok()?;
    let mut files = Files::new();
    let mut todo = vec![(Vec::new(), image.root())];
    while let Some((path, nid)) = todo.pop() {
        let inode = image.inode(nid).ok()?;
        let mut content = Vec::new();
        if inode.is_directory() {
            // Damaged, a directory may hold itself.
            if path.len() > 100 {
                return None;
            }
            for entry in image.list(&inode).ok()? {
                let entry = entry.ok()?;
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                todo.push(([&path, slash, &entry.name].concat(), entry.nid));
            }
        } else if let Ok(place) = image.content(&inode) {
            content.resize(usize::try_from(place.size_bytes).ok()?, 0);
            image.read(&inode, 0, &mut content).ok()?;
        }
        files.insert(path, (inode.is_directory(), content));
    }
    files.remove(&b""[..]);
    Some(files)
}

/// Every entry below a directory.
pub(super) fn list(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if fs::symlink_metadata(&path).expect("an entry").is_dir() {
            list(&path, found);
        }
        found.push(path);
    }
}
