//! Measures a layer of a million entries: memory of the tree, time to fill, write and walk it.
//!
//! `cargo run --release -p windlass-erofs --example million -- /var/tmp/image`

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use windlass_erofs::{Attributes, Content, DATA_START, Image, Layer, New, NodeId, Tree};

const DIRECTORIES: u64 = 50_000;
const FILES: u64 = 19;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("the path of a file to write is missing")?;
    let mut out = std::io::stdout().lock();
    let start = Instant::now();
    let tree = fill()?;
    let (filled, entries) = (start.elapsed(), tree.len());
    let per_entry = tree.memory_bytes() / entries;
    writeln!(out, "{entries} entries in {filled:.2?}: {} MiB, {per_entry} bytes each", tree.memory_bytes() >> 20)?;
    writeln!(out, "most memory of the process so far: {}", peak()?)?;

    let start = Instant::now();
    let tar_bytes = (entries as u64) * 1024;
    let layer = Layer { tar_bytes, tar_digest: "sha256:none", between_crc32c: 0, uuid: [7; 16] };
    let mut sink = std::io::sink();
    let written = windlass_erofs::write(&tree, &layer, DATA_START + tar_bytes, &mut sink)?;
    let metadata = written.head.total_bytes - written.head.metadata_offset;
    writeln!(out, "metadata of {} MiB made in {:.2?}", metadata >> 20, start.elapsed())?;

    let start = Instant::now();
    let mut file = File::create(&path)?;
    file.seek(SeekFrom::Start(DATA_START + tar_bytes))?;
    let written = windlass_erofs::write(&tree, &layer, DATA_START + tar_bytes, &mut file)?;
    file.write_all_at(&written.front[..], 0)?;
    writeln!(out, "and written to a file in {:.2?}", start.elapsed())?;
    writeln!(out, "most memory of the process: {}", peak()?)?;
    drop(tree);

    let image = Image::open(File::open(&path)?, written.head.total_bytes)?;
    let start = Instant::now();
    image.check_metadata()?;
    writeln!(out, "summed up in {:.2?}", start.elapsed())?;
    let start = Instant::now();
    let (mut waiting, mut seen) = (vec![image.root()], 0);
    while let Some(nid) = waiting.pop() {
        let inode = image.inode(nid)?;
        seen += 1;
        if inode.is_directory() {
            waiting.extend(image.list(&inode)?.filter_map(Result::ok).map(|entry| entry.nid));
        }
    }
    writeln!(out, "{seen} entries walked in {:.2?}", start.elapsed())?;
    Ok(())
}

/// Packages with files of the usual lengths of names.
fn fill() -> Result<Tree, windlass_erofs::TreeError> {
    let mut tree = Tree::new(1 << 30);
    let (mut group, mut at) = (tree.root(), DATA_START);
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    for directory in 0..DIRECTORIES {
        if directory % 250 == 0 {
            group = tree.insert(tree.root(), format!("group-{directory}").as_bytes(), New::Directory, &attributes)?;
        }
        let package: NodeId =
            tree.insert(group, format!("package-{directory}").as_bytes(), New::Directory, &attributes)?;
        for file in 0..FILES {
            let name = format!("{:x}-{file}.module.js", directory * 7919 % 65_521);
            let file = tree.insert(package, name.as_bytes(), New::File, &attributes)?;
            tree.set_content(file, Content { offset: at, size_bytes: 500 })?;
            at += 1024;
        }
    }
    Ok(tree)
}

/// The line of the kernel about it.
fn peak() -> Result<String, std::io::Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("unknown").to_owned())
}
