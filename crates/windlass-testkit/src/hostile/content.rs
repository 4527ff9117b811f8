//! Devices, owners, modes, attributes and times.

use super::Cases;
use super::expect::{block_device, char_device, dir, fifo, file, same, symlink};
use super::raw::{Header, Tar};

/// A capability set as the kernel stores it: revision 2, `cap_net_raw` permitted and effective.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access ACL as the kernel stores it: user::rw-, user:7:r--, group::r--, mask::r--, other::r--.
const ACL: &[u8] = &[
    2, 0, 0, 0, // version
    1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, // user::rw-
    2, 0, 4, 0, 7, 0, 0, 0, // user:7:r--
    4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, // group::r--
    0x10, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, // mask::r--
    0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, // other::r--
];

pub(super) fn cases(cases: &mut Cases) {
    devices(cases);
    owners(cases);
    attributes(cases);
    times(cases);
}

fn devices(cases: &mut Cases) {
    cases.apply(
        "dev-char",
        "a character device",
        Tar::new().head(Header::new(b'3', "null").device(1, 3).mode(0o666)),
        vec![char_device("null", 1, 3).mode(0o666)],
    );
    cases.apply(
        "dev-block",
        "a block device, never opened: CVE-2026-41579",
        Tar::new().head(Header::new(b'4', "sda").device(8, 0).mode(0o660)),
        vec![block_device("sda", 8, 0).mode(0o660)],
    );
    cases.apply(
        "dev-large",
        "the largest number the kernel has",
        Tar::new().head(Header::new(b'3', "d").device(4095, 1_048_575)),
        vec![char_device("d", 4095, 1_048_575)],
    );
    cases.refuse(
        "dev-beyond-major",
        "a major number of 13 bits",
        Tar::new().head(Header::new(b'3', "d").device(4096, 1)),
        "bad-archive",
    );
    cases.refuse(
        "dev-beyond-minor",
        "a minor number of 21 bits",
        Tar::new().head(Header::new(b'3', "d").device(1, 1_048_576)),
        "bad-archive",
    );
    cases.refuse(
        "dev-negative",
        "a negative number",
        Tar::new().head(Header::new(b'3', "d").base256(329, 8, -1)),
        "bad-archive",
    );
    cases.apply(
        "dev-size",
        "a device with a size has no data",
        Tar::new().head(Header::new(b'3', "d").device(1, 3).size(512)).file("z", "z"),
        vec![char_device("d", 1, 3), file("z", "z")],
    );
    cases.apply(
        "dev-then-file",
        "a file over a device of the same layer: the device is not written to",
        Tar::new().head(Header::new(b'4', "d").device(8, 0)).file("d", "x"),
        vec![file("d", "x")],
    );
    cases.apply(
        "dev-block-zero",
        "a block device 0:0 hides nothing",
        Tar::new().head(Header::new(b'4', "d").device(0, 0)),
        vec![block_device("d", 0, 0)],
    );
    cases.apply(
        "fifo",
        "a pipe, never opened",
        Tar::new().head(Header::new(b'6', "p").mode(0o622)),
        vec![fifo("p").mode(0o622)],
    );
    cases.apply(
        "fifo-then-file",
        "a file over a pipe: opening it would block",
        Tar::new().head(Header::new(b'6', "p")).file("p", "x"),
        vec![file("p", "x")],
    );
    cases.stack(
        "fifo-lower",
        "a file over a lower layer's pipe",
        Tar::new().head(Header::new(b'6', "p")),
        Tar::new().file("p", "x"),
        vec![file("p", "x")],
    );
    cases.stack(
        "fifo-linked-lower",
        "a hard link to a lower layer's pipe",
        Tar::new().head(Header::new(b'6', "p")),
        Tar::new().link("q", "p"),
        vec![fifo("p"), same("q", "p")],
    );
}

fn owners(cases: &mut Cases) {
    let max = u64::from(u32::MAX - 1);
    let text = max.to_string();
    cases.apply(
        "uid-max",
        "the largest owner there is",
        Tar::new().pax(&[("uid", text.as_bytes()), ("gid", text.as_bytes())]).file("a", "x"),
        vec![file("a", "x").owner(u32::MAX - 1, u32::MAX - 1)],
    );
    for (id, key, value) in [
        ("uid-minus-one", "uid", "4294967295"),
        ("gid-minus-one", "gid", "4294967295"),
        ("uid-33-bits", "uid", "4294967296"),
        ("gid-33-bits", "gid", "8589934592"),
        ("uid-negative", "uid", "-1"),
        ("uid-beyond-64-bits", "uid", "99999999999999999999"),
        ("uid-no-number", "uid", "root"),
    ] {
        let what = "an owner that no system has: CVE-2024-40635, CVE-2026-46680";
        cases.refuse(id, what, Tar::new().pax(&[(key, value.as_bytes())]).file("a", "x"), "bad-archive");
    }
    cases.refuse(
        "uid-base-256-negative",
        "a negative owner in base 256",
        Tar::new().with(Header::new(b'0', "a").base256(108, 8, -2), "x"),
        "bad-archive",
    );
    cases.apply(
        "uid-base-256",
        "an owner in base 256",
        Tar::new().with(Header::new(b'0', "a").base256(108, 8, 3_000_000_000), "x"),
        vec![file("a", "x").owner(3_000_000_000, 0)],
    );
    cases.refuse(
        "uid-directory",
        "the same for a directory",
        Tar::new().pax(&[("uid", b"4294967295")]).dir("a"),
        "bad-archive",
    );
    cases.apply(
        "perm-setuid",
        "setuid survives the change of owner: it is set after it",
        Tar::new().with(Header::new(b'0', "su").mode(0o4755).uid(10).gid(20), "x"),
        vec![file("su", "x").mode(0o4755).owner(10, 20)],
    );
    cases.apply(
        "perm-setgid",
        "setgid with an owner",
        Tar::new().with(Header::new(b'0', "sg").mode(0o2755).uid(10).gid(20), "x"),
        vec![file("sg", "x").mode(0o2755).owner(10, 20)],
    );
    cases.apply(
        "perm-setgid-directory",
        "children of a directory with the set-group bit keep their own group and get no such bit",
        Tar::new().head(Header::new(b'5', "d").mode(0o2775).gid(50)).file("d/f", "x").dir("d/e").file("d/e/g", "y"),
        vec![
            dir("d").mode(0o2775).owner(0, 50),
            file("d/f", "x").owner(0, 0).mode(0o644),
            dir("d/e").owner(0, 0).mode(0o755),
            file("d/e/g", "y").owner(0, 0),
        ],
    );
    cases.apply(
        "perm-sticky",
        "a sticky directory open to all",
        Tar::new().head(Header::new(b'5', "tmp").mode(0o1777)),
        vec![dir("tmp").mode(0o1777)],
    );
    cases.apply(
        "perm-none",
        "no rights at all",
        Tar::new().head(Header::new(b'5', "d").mode(0)).with(Header::new(b'0', "d/f").mode(0), "x"),
        vec![dir("d").mode(0), file("d/f", "x").mode(0)],
    );
    cases.apply(
        "perm-all",
        "all rights, whatever the umask",
        Tar::new()
            .head(Header::new(b'5', "d").mode(0o777))
            .with(Header::new(b'0', "f").mode(0o7777), "x")
            .head(Header::new(b'6', "p").mode(0o777)),
        vec![dir("d").mode(0o777), file("f", "x").mode(0o7777), fifo("p").mode(0o777)],
    );
    cases.apply(
        "perm-high-bits",
        "kind bits in the mode are no mode",
        Tar::new().with(Header::new(b'0', "f").mode(0o120_644), "x"),
        vec![file("f", "x").mode(0o644)],
    );
}

fn attributes(cases: &mut Cases) {
    let key = |name: &'static str| name;
    cases.apply(
        "xattr-user",
        "an attribute of the user",
        Tar::new().pax(&[(key("SCHILY.xattr.user.a"), b"one"), ("SCHILY.xattr.user.b", b"\0\xff")]).file("f", "x"),
        vec![file("f", "x").xattrs(&[("user.a", b"one"), ("user.b", b"\0\xff")])],
    );
    cases.apply(
        "xattr-directory",
        "on a directory",
        Tar::new().pax(&[("SCHILY.xattr.user.a", b"one")]).dir("d"),
        vec![dir("d").xattrs(&[("user.a", b"one")])],
    );
    cases.apply(
        "xattr-directory-replaced",
        "a second entry of a directory replaces the attributes",
        Tar::new().pax(&[("SCHILY.xattr.user.a", b"one")]).dir("d").pax(&[("SCHILY.xattr.user.b", b"two")]).dir("d"),
        vec![dir("d").xattrs(&[("user.b", b"two")])],
    );
    cases.apply(
        "xattr-capability",
        "capabilities survive the change of owner",
        Tar::new()
            .pax(&[("SCHILY.xattr.security.capability", CAPABILITY)])
            .with(Header::new(b'0', "f").uid(9).mode(0o755), "x"),
        vec![file("f", "x").owner(9, 0).xattrs(&[("security.capability", CAPABILITY)])],
    );
    cases.apply(
        "xattr-acl",
        "an access list",
        Tar::new().pax(&[("SCHILY.xattr.system.posix_acl_access", ACL)]).file("f", "x"),
        vec![file("f", "x").mode(0o644).xattrs(&[("system.posix_acl_access", ACL)])],
    );
    cases.apply(
        "xattr-default-acl",
        "a directory's default access list is not handed down to entries of the archive",
        Tar::new().pax(&[("SCHILY.xattr.system.posix_acl_default", ACL)]).dir("d").file("d/f", "x").dir("d/e"),
        vec![
            dir("d").xattrs(&[("system.posix_acl_default", ACL)]),
            file("d/f", "x").mode(0o644).xattrs(&[]),
            dir("d/e").mode(0o755).xattrs(&[]),
        ],
    );
    for (id, name) in [
        ("xattr-trusted", "SCHILY.xattr.trusted.evil"),
        ("xattr-selinux", "SCHILY.xattr.security.selinux"),
        ("xattr-ima", "SCHILY.xattr.security.ima"),
        ("xattr-system", "SCHILY.xattr.system.nfs4_acl"),
        ("xattr-unknown", "SCHILY.xattr.windlass.mark"),
    ] {
        cases.apply(
            id,
            "an attribute of the node, or of nobody: dropped",
            Tar::new().pax(&[(name, b"x")]).file("f", "x"),
            vec![file("f", "x").xattrs(&[])],
        );
    }
    cases.apply(
        "xattr-libarchive",
        "libarchive's form: percent and base64, without padding",
        Tar::new()
            .pax(&[("LIBARCHIVE.xattr.user.a%20b", b"b25l"), ("LIBARCHIVE.xattr.user.c", b"dHdvMg")])
            .file("f", "x"),
        vec![file("f", "x").xattrs(&[("user.a b", b"one"), ("user.c", b"two2")])],
    );
    cases.refuse(
        "xattr-libarchive-bad",
        "base64 that is none",
        Tar::new().pax(&[("LIBARCHIVE.xattr.user.a", b"!!")]).file("f", "x"),
        "bad-archive",
    );
    cases.refuse(
        "xattr-no-name",
        "an attribute without a name",
        Tar::new().pax(&[("SCHILY.xattr.", b"x")]).file("f", "x"),
        "bad-archive",
    );
    let names: Vec<String> = (0..65).map(|at| format!("SCHILY.xattr.user.n{at}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    cases.refuse("xattr-many", "65 attributes", Tar::new().pax(&many).file("f", "x"), "limit-exceeded");
    cases.refuse(
        "xattr-large",
        "an attribute above 64 KiB",
        Tar::new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 65537])]).file("f", "x"),
        "limit-exceeded",
    );
    cases.apply(
        "xattr-symlink",
        "on a link the kernel has no such attributes: left out",
        Tar::new().pax(&[("SCHILY.xattr.user.a", b"x")]).symlink("l", "t"),
        vec![symlink("l", "t")],
    );
}

fn times(cases: &mut Cases) {
    cases.apply(
        "time-dir-order",
        "a directory's time survives the entries that come after it",
        Tar::new()
            .head(Header::new(b'5', "d").mtime(1000))
            .head(Header::new(b'5', "d/e").mtime(2000))
            .with(Header::new(b'0', "d/e/f").mtime(3000), "x")
            .file("d/g", "y"),
        vec![
            dir("d").mtime(1000, 0),
            dir("d/e").mtime(2000, 0),
            file("d/e/f", "x").mtime(3000, 0),
            file("d/g", "y").mtime(0, 0),
        ],
    );
    cases.apply(
        "time-fraction",
        "nanoseconds of an extended header",
        Tar::new().pax(&[("mtime", b"1350244992.023960108")]).file("f", "x"),
        vec![file("f", "x").mtime(1_350_244_992, 23_960_108)],
    );
    cases.apply(
        "time-before-1970",
        "a negative time is 1970",
        Tar::new().pax(&[("mtime", b"-5.5")]).file("f", "x"),
        vec![file("f", "x").mtime(0, 0)],
    );
    cases.refuse(
        "time-beyond-64-bits",
        "a time beyond 64 bits",
        Tar::new().pax(&[("mtime", b"99999999999999999999")]).file("f", "x"),
        "bad-archive",
    );
    cases.refuse(
        "time-no-number",
        "a time that is none",
        Tar::new().pax(&[("mtime", b"1.-1")]).file("f", "x"),
        "bad-archive",
    );
    cases.apply(
        "time-base-256",
        "a time in base 256",
        Tar::new().with(Header::new(b'0', "f").base256(136, 12, 8_600_000_000), "x"),
        vec![file("f", "x").mtime(8_600_000_000, 0)],
    );
    cases.apply(
        "time-symlink",
        "a link has its own time",
        Tar::new().head(Header::new(b'2', "l").link("t").mtime(77)),
        vec![symlink("l", "t").mtime(77, 0)],
    );
}
