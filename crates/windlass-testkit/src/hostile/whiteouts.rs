//! What a layer takes away, and tries to.

use super::Cases;
use super::expect::{dir, file, symlink};
use super::raw::{Header, Tar};

fn lower() -> Tar {
    Tar::new().dir("d").file("d/a", "a").file("d/b", "b").dir("d/sub").file("d/sub/c", "c").file("top", "t")
}

pub(super) fn cases(cases: &mut Cases) {
    let rest = || vec![file("d/b", "b"), file("d/sub/c", "c"), file("top", "t")];
    let with = |mut tree: Vec<super::Node>, more: Vec<super::Node>| {
        tree.extend(more);
        tree
    };
    cases.stack("wh-file", "a file is removed", lower(), Tar::new().file("d/.wh.a", ""), rest());
    cases.stack(
        "wh-directory",
        "a directory is removed with all in it",
        lower(),
        Tar::new().file(".wh.d", ""),
        vec![file("top", "t")],
    );
    cases.stack(
        "wh-missing",
        "nothing of that name: nothing happens",
        lower(),
        Tar::new().file("d/.wh.zz", "").file("no/.wh.x", ""),
        with(rest(), vec![file("d/a", "a")]),
    );
    cases.stack(
        "wh-in-new-directory",
        "a whiteout in a directory that is new does not show",
        lower(),
        Tar::new().dir("new").file("new/.wh.x", "").file("new/y", "y"),
        with(rest(), vec![file("d/a", "a"), dir("new"), file("new/y", "y")]),
    );
    cases.stack(
        "wh-below-file",
        "a whiteout below what is a file: nothing happens",
        lower(),
        Tar::new().file("top/.wh.x", ""),
        with(rest(), vec![file("d/a", "a")]),
    );
    cases.stack(
        "wh-opaque",
        "an opaque directory hides the lower layers' content",
        lower(),
        Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/new", "n"),
        vec![file("d/new", "n"), file("top", "t")],
    );
    cases.stack(
        "wh-opaque-after",
        "the mark may come after the new content",
        lower(),
        Tar::new().dir("d").file("d/new", "n").file("d/.wh..wh..opq", ""),
        vec![file("d/new", "n"), file("top", "t")],
    );
    cases.stack(
        "wh-opaque-implicit",
        "the mark in a directory without an entry: the directory keeps owner and mode",
        Tar::new().head(Header::new(b'5', "d").mode(0o750).uid(3)).file("d/a", "a"),
        Tar::new().file("d/.wh..wh..opq", ""),
        vec![dir("d").mode(0o750).owner(3, 0)],
    );
    cases.stack(
        "wh-opaque-root",
        "an opaque root: nothing of the lower layers is left",
        lower(),
        Tar::new().file(".wh..wh..opq", "").file("new", "n"),
        vec![file("new", "n")],
    );
    cases.stack(
        "wh-opaque-root-own",
        "an opaque root, own content first, one directory in both layers",
        lower(),
        Tar::new().dir("d").file("d/new", "n").file(".wh..wh..opq", ""),
        vec![dir("d"), file("d/new", "n")],
    );
    cases.stack(
        "wh-opaque-twice",
        "two marks are one",
        lower(),
        Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/.wh..wh..opq", ""),
        vec![dir("d"), file("top", "t")],
    );
    cases.refuse("wh-empty", "a whiteout without a name", Tar::new().file("d/.wh.", ""), "bad-archive");
    cases.refuse("wh-dot", "a whiteout of the directory itself", Tar::new().file("d/.wh..", ""), "unsafe-path");
    cases.refuse(
        "wh-dotdot",
        "a whiteout of the parent: CVE-2017-1002102",
        Tar::new().file("d/.wh...", ""),
        "unsafe-path",
    );
    cases.refuse("wh-dotdot-root", "a whiteout of the root's parent", Tar::new().file(".wh...", ""), "unsafe-path");
    cases.refuse("wh-parent", "an entry below a whiteout", Tar::new().file(".wh.d/x", "x"), "bad-archive");
    cases.stack(
        "wh-then-file",
        "removed and made again: the file stays",
        lower(),
        Tar::new().file("d/.wh.a", "").file("d/a", "new"),
        with(rest(), vec![file("d/a", "new")]),
    );
    cases.stack(
        "wh-after-file",
        "made and then removed: the file stays, a whiteout speaks of lower layers",
        lower(),
        Tar::new().file("d/a", "new").file("d/.wh.a", ""),
        with(rest(), vec![file("d/a", "new")]),
    );
    cases.stack(
        "wh-then-directory",
        "a removed directory made again is empty",
        lower(),
        Tar::new().file(".wh.d", "").dir("d").file("d/new", "n"),
        vec![file("d/new", "n"), file("top", "t")],
    );
    cases.stack(
        "wh-after-directory",
        "the same in the other order",
        lower(),
        Tar::new().dir("d").file("d/new", "n").file(".wh.d", ""),
        vec![file("d/new", "n"), file("top", "t")],
    );
    cases.stack(
        "wh-then-child",
        "a removed directory made again by a child without an entry of its own: 0755, root's",
        Tar::new().head(Header::new(b'5', "d").mode(0o700).uid(3)).file("d/a", "a"),
        Tar::new().file(".wh.d", "").file("d/new", "n"),
        vec![dir("d").mode(0o755).owner(0, 0), file("d/new", "n")],
    );
    cases.stack(
        "wh-after-child",
        "the same in the other order",
        Tar::new().head(Header::new(b'5', "d").mode(0o700).uid(3)).file("d/a", "a"),
        Tar::new().file("d/new", "n").file(".wh.d", ""),
        vec![dir("d").mode(0o755).owner(0, 0), file("d/new", "n")],
    );
    cases.stack(
        "wh-below-whiteout",
        "a whiteout inside what another one removes, both orders",
        lower(),
        Tar::new().file(".wh.d", "").file("d/.wh.a", "").file("d2/.wh.x", "").file(".wh.d2", ""),
        vec![file("top", "t")],
    );
    cases.stack(
        "wh-nested-after",
        "the inner whiteout first",
        lower(),
        Tar::new().file("d/sub/.wh.c", "").file(".wh.d", ""),
        vec![file("top", "t")],
    );
    cases.apply(
        "wh-aufs",
        "what aufs leaves behind is skipped with all in it",
        Tar::new()
            .dir(".wh..wh.plnk")
            .file(".wh..wh.plnk/1", "x")
            .file(".wh..wh.aufs", "")
            .dir("d")
            .dir("d/.wh..wh.orph")
            .file("a", "x"),
        vec![dir("d"), file("a", "x")],
    );
    cases.stack(
        "wh-through-link",
        "the parent of a whiteout is a link of a lower layer: its target's child goes",
        Tar::new().dir("real").file("real/x", "x").file("real/y", "y").symlink("d", "real"),
        Tar::new().file("d/.wh.x", ""),
        vec![symlink("d", "real"), file("real/y", "y")],
    );
    cases.stack(
        "wh-link-itself",
        "a whiteout of a link removes the link, not what it names: CVE-2017-1002102",
        Tar::new().dir("real").file("real/x", "x").symlink("d", "/real"),
        Tar::new().file(".wh.d", ""),
        vec![file("real/x", "x")],
    );
    cases.stack(
        "wh-outside",
        "a whiteout behind a link that leads outside",
        Tar::new().symlink("esc", super::SENTINEL),
        Tar::new().file("esc/.wh.file", ""),
        vec![symlink("esc", super::SENTINEL)],
    );
    cases.stack(
        "wh-opaque-outside",
        "an opaque mark behind a link that leads outside",
        Tar::new().symlink("esc", super::SENTINEL),
        Tar::new().file("esc/.wh..wh..opq", ""),
        vec![symlink("esc", super::SENTINEL)],
    );
    cases.stack(
        "wh-directory-entry",
        "a directory with a whiteout's name is a whiteout",
        lower(),
        Tar::new().dir("d/.wh.a"),
        rest(),
    );
    cases.stack("wh-link-entry", "so is a link", lower(), Tar::new().symlink("d/.wh.a", "/etc"), rest());
    cases.stack(
        "wh-device-entry",
        "so is a device",
        lower(),
        Tar::new().head(Header::new(b'3', "d/.wh.a").device(0, 0)),
        rest(),
    );
    cases.stack(
        "wh-with-data",
        "a whiteout with content: the content is skipped",
        lower(),
        Tar::new().file("d/.wh.a", "surprise").file("z", "z"),
        with(rest(), vec![file("z", "z")]),
    );
    cases.refuse(
        "wh-chardev",
        "overlayfs's own whiteout as an entry: it would hide a file below",
        Tar::new().head(Header::new(b'3', "d/a").device(0, 0)),
        "unsupported-entry",
    );
    for (id, name) in [
        ("wh-overlay-opaque", "trusted.overlay.opaque"),
        ("wh-overlay-redirect", "trusted.overlay.redirect"),
        ("wh-overlay-user-opaque", "user.overlay.opaque"),
        ("wh-overlay-user-whiteouts", "user.overlay.whiteouts"),
    ] {
        let key: &'static str = match name {
            "trusted.overlay.opaque" => "SCHILY.xattr.trusted.overlay.opaque",
            "trusted.overlay.redirect" => "SCHILY.xattr.trusted.overlay.redirect",
            "user.overlay.opaque" => "SCHILY.xattr.user.overlay.opaque",
            _ => "SCHILY.xattr.user.overlay.whiteouts",
        };
        let tree = with(rest(), vec![file("d/a", "a"), dir("d").xattrs(&[])]);
        cases.stack(
            id,
            "overlayfs's own marks as attributes of an entry are dropped",
            lower(),
            Tar::new().pax(&[(key, b"y")]).dir("d"),
            tree,
        );
    }
    cases.stack(
        "wh-overlay-user-whiteout",
        "the attribute form of a whiteout on an empty file: an empty file",
        lower(),
        Tar::new().pax(&[("SCHILY.xattr.user.overlay.whiteout", b"y")]).file("d/a", ""),
        with(rest(), vec![file("d/a", "").xattrs(&[])]),
    );
    cases.stack(
        "wh-escape-name",
        "a name with `.wh.` inside is a name",
        lower(),
        Tar::new().file("d/x.wh.a", "x").file("d/wh.a", "y"),
        with(rest(), vec![file("d/a", "a"), file("d/x.wh.a", "x"), file("d/wh.a", "y")]),
    );
}
