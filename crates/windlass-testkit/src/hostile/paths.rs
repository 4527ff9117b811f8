//! Names.

use super::Cases;
use super::expect::{dir, file};
use super::raw::{Header, Tar};

pub(super) fn cases(cases: &mut Cases) {
    for (id, name) in [
        ("path-dotdot", "../windlass-escape"),
        ("path-dotdot-deep", "a/../../windlass-escape"),
        ("path-dotdot-absolute", "/../windlass-escape"),
        ("path-dotdot-alone", ".."),
        ("path-dotdot-slash", "a/b/../../../tmp/windlass-sentinel/file"),
    ] {
        cases.refuse(
            id,
            "a name that climbs out of the root: CVE-2014-9358",
            Tar::new().file(name, "out"),
            "unsafe-path",
        );
    }
    cases.refuse("path-dotdot-directory", "a directory that climbs out", Tar::new().dir("../d"), "unsafe-path");
    cases.refuse(
        "path-dotdot-pax",
        "a harmless name in the header, a climbing one in the extended header",
        Tar::new().pax(&[("path", b"../../windlass-escape")]).file("ok", "out"),
        "unsafe-path",
    );
    cases.refuse(
        "path-dotdot-gnu",
        "a harmless name in the header, a climbing one in GNU's long name",
        Tar::new().long(b'L', "../../windlass-escape").file("ok", "out"),
        "unsafe-path",
    );
    cases.apply(
        "path-absolute",
        "an absolute name is inside the root",
        Tar::new().file("/tmp/windlass-sentinel/file", "in"),
        vec![file("tmp/windlass-sentinel/file", "in")],
    );
    cases.apply("path-cleaned", "dots and slashes", Tar::new().file(".//a/./b//../c", "x"), vec![file("a/c", "x")]);
    cases.apply(
        "path-dotdot-inside",
        "`..` that stays inside, before the directory exists",
        Tar::new().file("no/../b", "x"),
        vec![file("b", "x")],
    );
    cases.apply(
        "path-odd-bytes",
        "bytes that are no UTF-8, and control characters: CVE-2021-25743",
        Tar::new().file(b"\xff\xfe\x1b[31m\n", "x"),
        vec![file(b"\xff\xfe\x1b[31m\n", "x")],
    );
    cases.apply(
        "path-control",
        "a name that would steer a terminal",
        Tar::new().dir("d\x1b]0;x\x07").file("d\x1b]0;x\x07/a\rb", "x"),
        vec![dir("d\x1b]0;x\x07"), file("d\x1b]0;x\x07/a\rb", "x")],
    );
    cases.apply(
        "path-dots",
        "names of dots that are names",
        Tar::new().file("...", "x").file("..a", "y"),
        vec![file("...", "x"), file("..a", "y")],
    );
    cases.refuse("path-empty", "no name", Tar::new().file("", "x"), "bad-archive");
    cases.refuse(
        "path-nul",
        "NUL inside a name of an extended header",
        Tar::new().pax(&[("path", b"a\0b")]).file("a", "x"),
        "bad-archive",
    );
    cases.refuse("path-root-file", "the root as a file", Tar::new().file("./", "x"), "unsafe-path");
    cases.refuse(
        "path-root-device",
        "the root as a device",
        Tar::new().head(Header::new(b'3', ".").device(1, 3)),
        "unsafe-path",
    );
    cases.refuse("path-root-link", "the root as a hard link", Tar::new().file("a", "x").link("./", "a"), "unsafe-path");
    cases.refuse(
        "path-component",
        "a component of 256 bytes",
        Tar::new().pax(&[("path", &[b'a'; 256])]).file("a", "x"),
        "limit-exceeded",
    );
    cases.apply(
        "path-component-255",
        "a component of 255 bytes",
        Tar::new().pax(&[("path", &[b'a'; 255])]).file("a", "x"),
        vec![file([b'a'; 255], "x")],
    );
    let long = "abcdefg/".repeat(512);
    cases.refuse(
        "path-4096",
        "a name of 4,096 bytes",
        Tar::new().pax(&[("path", long.as_bytes())]).dir("a"),
        "limit-exceeded",
    );
    let deep = "d/".repeat(1000) + "f";
    cases.apply(
        "path-deep",
        "1,000 directories above one another, none with an entry",
        Tar::new().pax(&[("path", deep.as_bytes())]).file("a", "x"),
        vec![file(&deep, "x")],
    );
    let beyond = format!("{}/{}", "a", "d/".repeat(2047));
    cases.refuse(
        "path-depth-by-link",
        "deeper than a path by way of a link",
        Tar::new()
            .pax(&[("path", ("d/".repeat(1500)).as_bytes())])
            .dir("a")
            .pax(&[("linkpath", ("d/".repeat(1500)).as_bytes())])
            .symlink("a", "x")
            .pax(&[("path", &beyond.as_bytes()[..2000])])
            .dir("a"),
        "limit-exceeded",
    );
    cases.refuse(
        "path-parent-file",
        "below a file of the same layer",
        Tar::new().file("a", "x").file("a/b", "y"),
        "bad-archive",
    );
    cases.refuse(
        "path-parent-pipe",
        "below a pipe",
        Tar::new().head(Header::new(b'6', "p")).file("p/b", "y"),
        "bad-archive",
    );
    cases.apply(
        "path-parents",
        "missing parents are made, 0755 and root's",
        Tar::new().file("a/b/c", "x"),
        vec![dir("a").mode(0o755).owner(0, 0), dir("a/b").mode(0o755).owner(0, 0), file("a/b/c", "x")],
    );
    cases.apply(
        "path-parent-later",
        "a parent whose entry comes after its child",
        Tar::new().file("a/b", "x").head(Header::new(b'5', "a").mode(0o700).uid(3).mtime(7)),
        vec![dir("a").mode(0o700).owner(3, 0).mtime(7, 0), file("a/b", "x")],
    );
    cases.stack(
        "path-parent-below",
        "a parent without an entry takes owner and mode of the lower layer's",
        Tar::new().head(Header::new(b'5', "a").mode(0o711).uid(8).gid(9).mtime(55)),
        Tar::new().file("a/b", "x"),
        vec![dir("a").mode(0o711).owner(8, 9).mtime(55, 0), file("a/b", "x")],
    );
    cases.stack(
        "path-parent-file-below",
        "a lower layer's file gives way to a parent",
        Tar::new().file("a", "x"),
        Tar::new().file("a/b", "y"),
        vec![dir("a").mode(0o755), file("a/b", "y")],
    );
    cases.stack(
        "path-directory-merges",
        "a directory in both layers: content of both, owner and mode of the upper",
        Tar::new().head(Header::new(b'5', "a").mode(0o700).uid(1)).file("a/low", "l"),
        Tar::new().head(Header::new(b'5', "a").mode(0o750).uid(2).mtime(5)).file("a/up", "u"),
        vec![dir("a").mode(0o750).owner(2, 0).mtime(5, 0), file("a/low", "l"), file("a/up", "u")],
    );
    cases.stack(
        "path-file-over-directory",
        "a file over a lower directory",
        Tar::new().dir("a").file("a/x", "x"),
        Tar::new().file("a", "f"),
        vec![file("a", "f")],
    );
    cases.stack(
        "path-directory-over-file",
        "a directory over a lower file",
        Tar::new().file("a", "f"),
        Tar::new().dir("a").file("a/x", "x"),
        vec![dir("a"), file("a/x", "x")],
    );
    cases.stack(
        "path-gone-and-back",
        "a lower directory replaced by a file and made again in one layer: its old content stays away",
        Tar::new().dir("a").file("a/old", "x"),
        Tar::new().file("a", "f").dir("a").file("a/new", "y"),
        vec![dir("a"), file("a/new", "y")],
    );
    cases.apply(
        "path-twice",
        "the same name twice: the last one counts",
        Tar::new().file("a", "one").file("a", "two"),
        vec![file("a", "two")],
    );
    cases.apply(
        "path-directory-twice",
        "a directory twice keeps its content",
        Tar::new().head(Header::new(b'5', "a").mode(0o700)).file("a/x", "x").head(Header::new(b'5', "a").mode(0o711)),
        vec![dir("a").mode(0o711), file("a/x", "x")],
    );
    cases.apply(
        "path-tree-replaced",
        "a file over a directory of the same layer",
        Tar::new().dir("a").dir("a/b").file("a/b/c", "x").file("a", "f"),
        vec![file("a", "f")],
    );
    cases.apply(
        "path-root-metadata",
        "an entry for the root",
        Tar::new().head(Header::new(b'5', "./").mode(0o711).uid(4).gid(5).mtime(6)).file("a", "x"),
        vec![dir("").mode(0o711).owner(4, 5).mtime(6, 0), file("a", "x")],
    );
}
