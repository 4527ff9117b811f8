//! One image with everything a layer can say, for comparisons between tools.
//!
//! Six layers: a base, changes over it, changes over those, two layers written by GNU tar (long names in its own form,
//! sparse files in that of POSIX), and one that makes again what was taken away.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;

use windlass_testkit::images::{Compression, Entry, Family, Image, Layer, incompressible, text};
use windlass_testkit::tools::run;

/// `cap_net_bind_service=ep`, revision 2, as in `linux/capability.h`.
pub const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `u::rw-,u:1000:r--,g::r--,m::r--,o::r--`, as in `linux/posix_acl_xattr.h`.
pub const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0,
    255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

/// The image, in these media types, all layers compressed in this way. podman cannot push what it pulled with
/// [`Holes::Left`]: it does not get the same stream again.
pub fn everything(family: Family, compression: Compression, holes: Holes) -> Image {
    let layers = [
        Layer::new(base()),
        Layer::new(changes()),
        Layer::new(more_changes()),
        Layer::from_tar(gnu_tar("gnu", Holes::Written)),
        Layer::from_tar(gnu_tar("posix", holes)),
        Layer::new(again()),
    ];
    let image = Image::build().family(family);
    layers.into_iter().fold(image, |image, layer| image.layer(layer.compression(compression))).finish()
}

/// Layers with names that are in them twice, which podman refuses and umoci takes, and with a file that its own layer
/// takes away after making it, which podman loses.
pub fn twice() -> Image {
    let lower = Layer::new([Entry::file("both", "lower"), Entry::dir("both-dir"), Entry::file("both-dir/x", "lower")]);
    let layer = Layer::new([
        Entry::dir("d"),
        Entry::file("d/twice", "first").mode(0o600).xattr("user.first", "1"),
        Entry::hard_link("d/first", "d/twice").mode(0o600),
        Entry::file("d/twice", "last").mode(0o644),
        Entry::dir("d/dir"),
        Entry::file("d/dir/stays", "s"),
        Entry::dir("d/dir").mode(0o700),
        Entry::dir("d/kind"),
        Entry::file("d/kind", "was a directory"),
        Entry::file("both", "made and taken away at once"),
        Entry::whiteout("both"),
        Entry::dir("both-dir"),
        Entry::file("both-dir/y", "made and taken away at once"),
        Entry::whiteout("both-dir"),
    ]);
    Image::build().layer(lower).layer(layer).finish()
}

/// Sparse files in GNU tar's own form, which the other tools refuse.
pub fn sparse() -> Image {
    Image::build().layer(Layer::from_tar(gnu_tar("gnu", Holes::Left))).finish()
}

/// What becomes of holes in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Zeros.
    Written,
    /// Entries of sparse files, in the way of the archive's format.
    Left,
}

/// Tar streams of its layers, lowest first.
pub fn tars(image: &Image) -> Vec<&[u8]> {
    image.layers.iter().map(|layer| layer.tar.as_slice()).collect()
}

fn base() -> Vec<Entry> {
    let mut entries = vec![
        Entry::dir("./").mode(0o751).owner(0, 7).mtime(1_600_000_001, 0),
        Entry::dir("etc").mtime(1_600_000_002, 120_000_000),
        Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        Entry::file("etc/shadow", "").mode(0o640).owner(0, 42),
        Entry::file("etc/hosts", "127.0.0.1 localhost\n").mtime(1_500_000_000, 1),
        Entry::file("etc/nanoseconds", "n").mtime(1_699_999_999, 999_999_999),
        Entry::file("etc/epoch", "0").mtime(0, 0),
        Entry::dir("usr"),
        Entry::dir("usr/bin"),
        Entry::file("usr/bin/tool", text(40_000, 1)).mode(0o755),
        Entry::hard_link("usr/bin/tool2", "usr/bin/tool").mode(0o755),
        Entry::hard_link("usr/bin/tool3", "usr/bin/tool2").mode(0o755),
        Entry::file("usr/bin/su", "setuid").mode(0o4755),
        Entry::file("usr/bin/wall", "setgid").mode(0o2755).owner(0, 5),
        Entry::file("usr/bin/all", "every bit").mode(0o7777).owner(70_000, 70_001),
        Entry::file("usr/bin/none", "no bit").mode(0),
        Entry::file("usr/bin/ping", "capability").mode(0o755).xattr("security.capability", CAPABILITY),
        Entry::file("usr/bin/own-cap", "capability and owner")
            .mode(0o755)
            .owner(70_000, 0)
            .xattr("security.capability", CAPABILITY),
        Entry::symlink("bin", "usr/bin"),
        Entry::symlink("absolute", "/usr/bin/tool"),
        Entry::symlink("dangling", "no/such/../thing").owner(12, 34).mtime(1_234_567_890, 5),
        Entry::symlink("up", "../../../etc/passwd"),
        Entry::hard_link("link-to-symlink", "dangling").owner(12, 34).mtime(1_234_567_890, 5),
        Entry::dir("owners").owner(100_000, 200_000),
        Entry::file("owners/large", "l").owner(4_000_000_000, 4_000_000_001),
        Entry::file("owners/2097152", "pax").owner(2_097_152, 2_097_151),
        Entry::dir("tmp").mode(0o1777),
        Entry::dir("sgid").mode(0o2775).owner(0, 50),
        Entry::file("sgid/child", "keeps its own group"),
        Entry::dir("xattrs").xattr("user.on-a-directory", "yes"),
        Entry::file("xattrs/user", "x").xattr("user.a", "1").xattr("user.binary", [0, 255, 10, 61]),
        Entry::file("xattrs/empty", "x").xattr("user.empty", ""),
        Entry::file("xattrs/acl", "x").mode(0o644).xattr("system.posix_acl_access", ACL),
        Entry::file("xattrs/selinux", "x").xattr("security.selinux", "system_u:object_r:bin_t:s0\0"),
        Entry::file("xattrs/trusted", "x").xattr("trusted.anything", "t"),
        Entry::dir("xattrs/overlay").xattr("trusted.overlay.opaque", "y").xattr("user.overlay.opaque", "y"),
        Entry::dir("dev"),
        Entry::char_device("dev/null", 1, 3).mode(0o666),
        Entry::char_device("dev/large", 4000, 1_000_000).owner(0, 6),
        Entry::block_device("dev/loop0", 7, 0).mode(0o660).owner(0, 6),
        Entry::fifo("dev/pipe").mode(0o620).mtime(1_000_000_000, 0),
        Entry::hard_link("dev/pipe-too", "dev/pipe").mode(0o620).mtime(1_000_000_000, 0),
        Entry::dir("odd"),
        Entry::file("odd/ leading blank", "1"),
        Entry::file("odd/line\nfeed", "2"),
        Entry::file(b"odd/not-utf8-\xff\xfe", "3"),
        Entry::file("odd/-dash", "4"),
        Entry::file("odd/back\\slash", "5"),
        Entry::file("odd/umlaut-\u{e4}", "6"),
        Entry::file("odd/umlaut-a\u{308}", "7"),
        Entry::file("odd/*?[a]$(b)`c`", "8"),
        Entry::file(format!("odd/{}", "n".repeat(255)), "longest name"),
        Entry::symlink("odd/long-link", format!("/{}", "t/".repeat(400))),
        Entry::file("odd/.whatever", "no whiteout"),
        Entry::dir("deep"),
    ];
    let mut deep = "deep".to_owned();
    for level in 0..40 {
        deep = format!("{deep}/level-{level}");
        entries.push(Entry::dir(&deep));
    }
    entries.push(Entry::file(format!("{deep}/bottom"), "down here"));
    entries.extend(to_be_changed());
    entries
}

/// What the layers above change.
fn to_be_changed() -> Vec<Entry> {
    vec![
        Entry::dir("gone"),
        Entry::file("gone/a", "a"),
        Entry::dir("gone/b"),
        Entry::file("gone/b/c", "c"),
        Entry::file("gone-file", "x"),
        Entry::symlink("gone-link", "gone"),
        Entry::dir("opaque").mode(0o750).owner(3, 4),
        Entry::file("opaque/old", "old"),
        Entry::dir("opaque/olddir"),
        Entry::file("opaque/olddir/x", "x"),
        Entry::dir("opaque-late"),
        Entry::file("opaque-late/old", "old"),
        Entry::dir("again"),
        Entry::file("again/old", "old"),
        Entry::file("file-to-dir", "f"),
        Entry::dir("dir-to-file"),
        Entry::file("dir-to-file/x", "x"),
        Entry::dir("dir-to-link"),
        Entry::file("dir-to-link/x", "x"),
        Entry::symlink("link-to-dir", "etc"),
        Entry::file("file-to-device", "f"),
        Entry::dir("merged").mode(0o711).owner(8, 9).mtime(1_400_000_000, 0).xattr("user.base", "1"),
        Entry::file("merged/stays", "stays"),
        Entry::file("merged/replaced", "old").xattr("user.old", "1").mode(0o600),
        Entry::dir("implicit").mode(0o2750).owner(11, 12).xattr("user.base", "1"),
        Entry::file("implicit/lower", "l"),
        Entry::dir("times").mtime(1_300_000_000, 0),
        Entry::file("times/lower", "l"),
        Entry::dir("links"),
        Entry::file("links/one", "linked").mode(0o604).owner(21, 22),
        Entry::hard_link("links/two", "links/one").mode(0o604).owner(21, 22),
        Entry::file("links/says", "what its own entry says").mode(0o604).owner(21, 22),
        Entry::hard_link("links/says-otherwise", "links/says").mode(0o777).owner(23, 24),
        Entry::file("links/target", "linked from above"),
    ]
}

fn changes() -> Vec<Entry> {
    vec![
        Entry::whiteout("gone"),
        Entry::whiteout("gone-file"),
        Entry::whiteout("gone-link"),
        Entry::whiteout("never-there"),
        Entry::dir("fresh"),
        Entry::whiteout("fresh/never-there"),
        Entry::file("fresh/file", "f"),
        Entry::dir("opaque").mode(0o750).owner(3, 4),
        Entry::opaque("opaque"),
        Entry::file("opaque/new", "new"),
        Entry::dir("opaque-late"),
        Entry::file("opaque-late/new", "new"),
        Entry::opaque("opaque-late"),
        Entry::dir("file-to-dir"),
        Entry::file("file-to-dir/x", "x"),
        Entry::file("dir-to-file", "f"),
        Entry::symlink("dir-to-link", "usr"),
        Entry::dir("link-to-dir"),
        Entry::file("link-to-dir/x", "x"),
        Entry::char_device("file-to-device", 1, 5),
        Entry::dir("merged").mode(0o1755).owner(10, 11).mtime(1_450_000_000, 7).xattr("user.new", "2"),
        Entry::file("merged/replaced", "new"),
        Entry::file("merged/added", "added"),
        Entry::file("implicit/upper", "u"),
        Entry::file("implicit/made/on/the/way", "u"),
        Entry::file("times/upper", "u"),
        Entry::dir("times").mtime(1_350_000_000, 0),
        Entry::file("bin/through-a-link", "lands in usr/bin").mode(0o755),
        Entry::whiteout("usr/bin/tool3"),
        Entry::hard_link("links/three", "links/target"),
        Entry::whiteout("etc/hosts"),
        Entry::file("etc/hosts", "made again"),
    ]
}

fn more_changes() -> Vec<Entry> {
    vec![
        Entry::file("opaque/newer", "newer"),
        Entry::whiteout("opaque/new"),
        Entry::whiteout("again"),
        Entry::whiteout("links/two"),
        Entry::file("usr/share/data", incompressible(200_000, 3)),
        Entry::file("gone", "a file where a directory was"),
        Entry::whiteout("bin/through-a-link"),
    ]
}

fn again() -> Vec<Entry> {
    vec![
        Entry::dir("again").mode(0o700),
        Entry::file("again/new", "new"),
        Entry::file("dir-to-link/through", "lands in usr"),
        Entry::dir("sparse").mtime(1_700_000_000, 0),
    ]
}

/// A layer of real files, archived by GNU tar in this format.
fn gnu_tar(format: &str, holes: Holes) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sparse = dir.path().join("sparse");
    fs::create_dir(&sparse).expect("a directory");
    let mut file = fs::File::create(sparse.join(format!("holes-{format}"))).expect("a file");
    file.set_len(5 << 20).expect("a length");
    for (at, seed) in [(1 << 20, 1), (3 << 20, 2)] {
        file.seek(SeekFrom::Start(at)).expect("a place");
        file.write_all(&incompressible(10_000, seed)).expect("space");
    }
    let empty = fs::File::create(sparse.join(format!("only-a-hole-{format}"))).expect("a file");
    empty.set_len(1 << 20).expect("a length");
    let long = dir.path().join(format!("long-{format}/{}", "name-".repeat(30)));
    fs::create_dir_all(&long).expect("a directory");
    fs::write(long.join("file"), format).expect("a file");
    let target = format!("/{}", "target/".repeat(40));
    std::os::unix::fs::symlink(target, long.join("link")).expect("a link");
    let mut tar = Command::new("tar");
    if matches!(holes, Holes::Left) {
        tar.arg("--sparse");
    }
    if format == "posix" {
        tar.arg("--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f");
    }
    tar.args(["--create", "--sort=name", "--numeric-owner", "--owner=1000", "--group=1000", "--mode=u=rwX,go=rX"]);
    tar.args(["--mtime=@1680000000", "--format", format, "--file=-", "--directory"]).arg(dir.path());
    tar.args(["sparse", &format!("long-{format}")]);
    run(&mut tar).stdout
}
