//! Links in the way.

use super::expect::{dir, file, same, symlink};
use super::raw::{Header, Tar};
use super::{Cases, SENTINEL};

/// The sentinel's place inside a root.
const INSIDE: &str = "tmp/windlass-sentinel";

pub(super) fn symbolic(cases: &mut Cases) {
    let up = "../../../../../../../../tmp/windlass-sentinel";
    cases.apply(
        "sym-absolute-parent",
        "a link to an absolute path outside, then a file below it: CVE-2014-9356",
        Tar::new().symlink("esc", SENTINEL).file("esc/file", "in"),
        vec![symlink("esc", SENTINEL), file(format!("{INSIDE}/file"), "in")],
    );
    cases.apply(
        "sym-relative-parent",
        "the same with a relative link that climbs out: CVE-2014-9357",
        Tar::new().dir("a").symlink("a/esc", up).file("a/esc/file", "in"),
        vec![symlink("a/esc", up), file(format!("{INSIDE}/file"), "in")],
    );
    cases.apply(
        "sym-chain",
        "three links one after the other: CVE-2018-1002100",
        Tar::new().symlink("one", "two").symlink("two", "/three").symlink("three", SENTINEL).file("one/file", "in"),
        vec![
            symlink("one", "two"),
            symlink("two", "/three"),
            symlink("three", SENTINEL),
            file(format!("{INSIDE}/file"), "in"),
        ],
    );
    cases.apply(
        "sym-write-through",
        "a file over a link to a file outside: CVE-2026-50162",
        Tar::new().symlink("f", format!("{SENTINEL}/file")).file("f", "in"),
        vec![file("f", "in")],
    );
    cases.apply(
        "sym-directory-mode",
        "a directory over a link to a directory outside, whose mode must not change: CVE-2021-32760, CVE-2026-33056",
        Tar::new().symlink("d", SENTINEL).head(Header::new(b'5', "d").mode(0o777)).file("d/file", "in"),
        vec![dir("d").mode(0o777), file("d/file", "in")],
    );
    cases.apply(
        "sym-replaced-by-directory",
        "a directory over a link inside the root: a directory, nothing below the link's target",
        Tar::new().dir("real").symlink("d", "real").dir("d").file("d/x", "x"),
        vec![dir("real"), dir("d"), file("d/x", "x")],
    );
    cases.apply(
        "sym-replaced-by-file",
        "a file over a link inside the root",
        Tar::new().file("real", "old").symlink("f", "real").file("f", "new"),
        vec![file("real", "old"), file("f", "new")],
    );
    cases.apply(
        "sym-replaced-by-link",
        "a hard link over a symbolic one",
        Tar::new().file("real", "x").symlink("f", SENTINEL).link("f", "real"),
        vec![file("real", "x"), same("f", "real")],
    );
    cases.apply(
        "sym-replaces-directory",
        "a link over a directory with content",
        Tar::new().dir("d").file("d/x", "x").symlink("d", SENTINEL),
        vec![symlink("d", SENTINEL)],
    );
    cases.refuse(
        "sym-root-entry",
        "the root itself as a link: CVE-2021-29136",
        Tar::new().symlink(".", SENTINEL).file("x", "x"),
        "unsafe-path",
    );
    cases.refuse("sym-root-slash", "the root as a link, named /", Tar::new().symlink("/", SENTINEL), "unsafe-path");
    cases.refuse(
        "sym-loop",
        "two links in a circle",
        Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "x"),
        "unsafe-path",
    );
    cases.refuse(
        "sym-self",
        "a link to itself as a parent",
        Tar::new().symlink("a", "a").file("a/x", "x"),
        "unsafe-path",
    );
    let chain = |links: usize| {
        let links = (0..links).fold(Tar::new(), |tar, at| tar.symlink(format!("l{at}"), format!("l{}", at + 1)));
        links.file("l0/x", "x")
    };
    cases.refuse("sym-chain-41", "more links than the kernel follows", chain(41), "unsafe-path");
    let mut tree: Vec<_> = (0..40).map(|at| symlink(format!("l{at}"), &format!("l{}", at + 1))).collect();
    tree.push(file("l40/x", "x"));
    cases.apply("sym-chain-40", "as many links as the kernel follows", chain(40), tree);
    cases.apply(
        "sym-missing-target",
        "a link to nothing as a parent: its target is made",
        Tar::new().symlink("l", "no/where").file("l/x", "x"),
        vec![symlink("l", "no/where"), file("no/where/x", "x")],
    );
    cases.apply(
        "sym-magic",
        "a link through /proc/self/root, which is an ordinary name here",
        Tar::new().symlink("l", format!("/proc/self/root{SENTINEL}")).file("l/file", "in"),
        vec![symlink("l", &format!("/proc/self/root{SENTINEL}")), file(format!("proc/self/root/{INSIDE}/file"), "in")],
    );
    cases.apply(
        "sym-text-kept",
        "the text of a link is stored as it is",
        Tar::new().symlink("l", "..//../a/./b/"),
        vec![symlink("l", "..//../a/./b/")],
    );
    cases.apply(
        "sym-dotdot-of-link",
        "`..` after a link means the parent of where the link leads",
        Tar::new().dir("x/y").symlink("l", "x/y").symlink("m", "l/../z").file("m/f", "f"),
        vec![dir("x/y"), symlink("l", "x/y"), symlink("m", "l/../z"), file("x/z/f", "f")],
    );
    cases.refuse(
        "sym-to-file-as-parent",
        "a link to a file as a parent",
        Tar::new().file("f", "x").symlink("l", "f").file("l/x", "x"),
        "bad-archive",
    );
    cases.refuse("sym-empty", "a link without a target", Tar::new().symlink("l", ""), "bad-archive");
    cases.refuse(
        "sym-long",
        "a link target longer than a path",
        Tar::new().pax(&[("linkpath", &[b'a'; 4096])]).symlink("l", "x"),
        "limit-exceeded",
    );
    cases.refuse(
        "sym-nul",
        "a link target that holds NUL",
        Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("l", "x"),
        "bad-archive",
    );
    cases.stack(
        "sym-lower-parent",
        "the parent is a link of a lower layer",
        Tar::new().dir("real").symlink("d", "/real"),
        Tar::new().file("d/x", "x"),
        vec![dir("real"), symlink("d", "/real"), file("real/x", "x")],
    );
    cases.stack(
        "sym-lower-climbs",
        "the parent is a link of a lower layer that climbs out: CVE-2018-1002100",
        Tar::new().symlink("d", up),
        Tar::new().file("d/file", "in"),
        vec![symlink("d", up), file(format!("{INSIDE}/file"), "in")],
    );
    cases.stack(
        "sym-lower-replaced-by-directory",
        "a directory entry over a link of a lower layer",
        Tar::new().dir("real").file("real/old", "old").symlink("d", "real"),
        Tar::new().dir("d").file("d/x", "x"),
        vec![file("real/old", "old"), dir("d"), file("d/x", "x")],
    );
    cases.stack_refused(
        "sym-lower-loop",
        "a loop that only shows with the lower layer",
        Tar::new().symlink("a", "b"),
        Tar::new().symlink("b", "a").file("b/x", "x"),
        "unsafe-path",
    );
}

pub(super) fn hard(cases: &mut Cases) {
    cases.apply(
        "hl-plain",
        "an ordinary hard link",
        Tar::new().file("a", "x").link("b", "a"),
        vec![file("a", "x"), same("b", "a")],
    );
    cases.apply(
        "hl-cleaned",
        "a target written as ./a or /a",
        Tar::new().file("a", "x").link("b", "./a").link("c", "/a"),
        vec![file("a", "x"), same("b", "a"), same("c", "a")],
    );
    cases.refuse(
        "hl-absolute-outside",
        "a target outside, written absolutely: CVE-2026-50163",
        Tar::new().link("l", format!("{SENTINEL}/file")),
        "bad-archive",
    );
    cases.refuse(
        "hl-dotdot",
        "a target that climbs out",
        Tar::new().link("l", "../../../tmp/windlass-sentinel/file"),
        "unsafe-path",
    );
    cases.refuse(
        "hl-through-link",
        "a target behind a link that leads outside: CVE-2026-50163",
        Tar::new().symlink("esc", SENTINEL).link("l", "esc/file"),
        "bad-archive",
    );
    cases.refuse("hl-missing", "a target that does not exist", Tar::new().link("l", "nowhere"), "bad-archive");
    cases.refuse("hl-later", "a target that comes later", Tar::new().link("l", "a").file("a", "x"), "bad-archive");
    cases.refuse("hl-directory", "a target that is a directory", Tar::new().dir("d").link("l", "d"), "bad-archive");
    cases.refuse("hl-root", "the root as a target", Tar::new().link("l", "/"), "bad-archive");
    cases.refuse("hl-self", "a link to itself", Tar::new().file("a", "x").link("a", "a"), "bad-archive");
    cases.refuse("hl-empty", "no target", Tar::new().link("a", ""), "bad-archive");
    cases.refuse(
        "hl-whiteout",
        "a target that this layer removes",
        Tar::new().file(".wh.a", "").link("l", "a"),
        "bad-archive",
    );
    cases.refuse(
        "hl-replaces-its-target",
        "a link over the directory that holds its target",
        Tar::new().dir("d").file("d/f", "x").link("d", "d/f"),
        "bad-archive",
    );
    cases.apply(
        "hl-to-symlink",
        "the target is a symbolic link: that is linked, not what it names; no owner or mode goes through: CVE-2021-32760",
        Tar::new().symlink("s", format!("{SENTINEL}/file")).head(Header::new(b'1', "l").link("s").mode(0o4777).uid(77)),
        vec![symlink("s", &format!("{SENTINEL}/file")), symlink("l", &format!("{SENTINEL}/file"))],
    );
    cases.apply(
        "sym-hardlink-chmod",
        "a hard link's own mode and owner are not applied to its target",
        Tar::new().file("a", "x").head(Header::new(b'1', "l").link("a").mode(0o777).uid(77)),
        vec![file("a", "x").mode(0o644).owner(0, 0), same("l", "a")],
    );
    cases.apply(
        "hl-copy-on-write",
        "a file over one of two names leaves the other alone: RUSTSEC-2018-0002",
        Tar::new().file("a", "old").link("b", "a").file("a", "new"),
        vec![file("a", "new"), file("b", "old")],
    );
    cases.apply(
        "hl-group-survives",
        "three names, one of them replaced: the others stay one file",
        Tar::new().file("a", "old").link("b", "a").link("c", "b").file("a", "new"),
        vec![file("a", "new"), file("b", "old"), same("c", "b")],
    );
    cases.apply(
        "hl-size",
        "a link with a size has no data all the same",
        Tar::new().file("a", "x").head(Header::new(b'1', "l").link("a").size(512)).file("z", "z"),
        vec![file("a", "x"), same("l", "a"), file("z", "z")],
    );
    cases.stack(
        "hl-lower",
        "the target is only in a lower layer: copied up, with its owner and mode",
        Tar::new().dir("d").with(Header::new(b'0', "d/f").mode(0o640).uid(5).gid(6).mtime(99), "content"),
        Tar::new().link("l", "d/f"),
        vec![file("d/f", "content").mode(0o640).owner(5, 6).mtime(99, 0), same("l", "d/f")],
    );
    cases.stack(
        "hl-cross-cow",
        "a name of a lower layer's pair is replaced: the other keeps its content",
        Tar::new().file("a", "old").link("b", "a"),
        Tar::new().file("b", "new"),
        vec![file("a", "old"), file("b", "new")],
    );
    cases.stack(
        "hl-lower-then-replaced",
        "linked to a lower file, which this layer then replaces",
        Tar::new().file("a", "old"),
        Tar::new().link("b", "a").file("a", "new"),
        vec![file("a", "new"), file("b", "old")],
    );
    cases.stack(
        "hl-lower-below-whiteout",
        "a lower file that a whiteout takes for a directory: nothing is in it to hide, and it can be linked to",
        Tar::new().file("b", "x"),
        Tar::new().file("b/.wh.a", "").link("c", "b"),
        vec![file("b", "x"), same("c", "b")],
    );
    cases.stack_refused(
        "hl-lower-missing",
        "in no layer",
        Tar::new().file("a", "x"),
        Tar::new().link("l", "nowhere"),
        "bad-archive",
    );
    cases.stack_refused(
        "hl-lower-directory",
        "a directory below",
        Tar::new().dir("d"),
        Tar::new().link("l", "d"),
        "bad-archive",
    );
    cases.stack_refused(
        "hl-lower-removed",
        "a lower file in a directory that this layer hides",
        Tar::new().dir("d").file("d/f", "x"),
        Tar::new().dir("d").file("d/.wh..wh..opq", "").link("l", "d/f"),
        "bad-archive",
    );
    cases.stack_refused(
        "hl-lower-removed-with-its-directory",
        "a lower file whose directory this layer removes as a whole",
        Tar::new().dir("c").dir("c/d").file("c/d/f", "x"),
        Tar::new().file("c/d/.wh.f", "").file("c/.wh.d", "").link("b/l", "c/d/f"),
        "bad-archive",
    );
    cases.stack_refused(
        "hl-lower-removed-link",
        "the same with a symbolic link below",
        Tar::new().dir("c").dir("c/d").symlink("c/d/l", "x"),
        Tar::new().file("c/.wh.d", "").link("l", "c/d/l"),
        "bad-archive",
    );
}
