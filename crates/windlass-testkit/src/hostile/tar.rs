//! Where readers of tar disagree, one by one. The rule is Go's `archive/tar`, stricter where a stream is damaged.

use super::expect::{dir, file, same, symlink, zeros};
use super::raw::{BLOCK, Header, Tar, pax_records};
use super::{Cases, Expect, Layer, Node};

pub(super) fn cases(cases: &mut Cases) {
    sizes(cases);
    names(cases);
    records(cases);
    headers(cases);
    ends(cases);
    sparse(cases);
}

/// A file that only shows for readers that take the wrong size.
fn inner() -> Vec<u8> {
    Tar::new().file("smuggled", "evil").cut()
}

fn sizes(cases: &mut Cases) {
    cases.apply(
        "td-pax-size",
        "the header says 0, the extended header the truth: CVE-2025-62518",
        Tar::new().pax(&[("size", b"1024")]).head(Header::new(b'0', "a").size(0)).raw(&inner()).file("z", "z"),
        vec![file("a", &String::from_utf8(inner()).expect("ASCII")), file("z", "z")],
    );
    cases.apply(
        "td-pax-size-smaller",
        "the header says 1024, the extended header 0: what follows is an entry: CVE-2026-33055",
        Tar::new().pax(&[("size", b"0")]).head(Header::new(b'0', "a").size(1024)).raw(&inner()),
        vec![file("a", ""), file("smuggled", "evil")],
    );
    for (id, kind) in [("td-directory-size", b'5'), ("td-symlink-size", b'2'), ("td-fifo-size", b'6')] {
        let node = match kind {
            b'5' => dir("a"),
            b'2' => symlink("a", "t"),
            _ => super::expect::fifo("a"),
        };
        let tar = Tar::new().head(Header::new(kind, "a").link("t").size(1024)).raw(&inner());
        cases.apply(id, "a size on what has no content: there is no data", tar, vec![node, file("smuggled", "evil")]);
    }
    cases.apply(
        "td-directory-pax-size",
        "the same with an extended header: CVE-2026-32766",
        Tar::new().pax(&[("size", b"1024")]).head(Header::new(b'5', "a")).raw(&inner()),
        vec![dir("a"), file("smuggled", "evil")],
    );
    cases.apply(
        "td-base-256-size",
        "a size in base 256",
        Tar::new().head(Header::new(b'0', "a").base256(124, 12, 3)).data("abc"),
        vec![file("a", "abc")],
    );
    cases.refuse(
        "td-negative-size",
        "a negative size in base 256",
        Tar::new().head(Header::new(b'0', "a").base256(124, 12, -1)).data("abc"),
        "bad-archive",
    );
    cases.refuse(
        "td-negative-pax-size",
        "a negative size in an extended header",
        Tar::new().pax(&[("size", b"-1")]).head(Header::new(b'0', "a")).data("abc"),
        "bad-archive",
    );
    cases.refuse(
        "td-size-overflow",
        "a size beyond 64 bits",
        Tar::new().pax(&[("size", b"18446744073709551616")]).head(Header::new(b'0', "a")),
        "bad-archive",
    );
    cases.refuse(
        "td-size-enormous",
        "a size of 2^62 and no such data: GHSA-f36w-mj3v-6jqv",
        Tar::new().pax(&[("size", b"4611686018427387904")]).head(Header::new(b'0', "a")),
        "bad-archive",
    );
    cases.refuse(
        "td-pax-size-no-number",
        "a size that is none",
        Tar::new().pax(&[("size", b"0x10")]).file("a", "x"),
        "bad-archive",
    );
    cases.refuse(
        "td-octal-garbage",
        "a size field with a digit that is not octal",
        Tar::new().head(Header::new(b'0', "a").put(124, b"00000000009\0")),
        "bad-archive",
    );
    cases.refuse(
        "td-octal-split",
        "a size field with a space inside",
        Tar::new().head(Header::new(b'0', "a").put(124, b"1 000000001\0")),
        "bad-archive",
    );
    cases.apply(
        "td-octal-spaces",
        "a size field padded with spaces",
        Tar::new().head(Header::new(b'0', "a").put(124, b"         3 \0")).data("abc"),
        vec![file("a", "abc")],
    );
    cases.apply(
        "td-size-empty-field",
        "an empty size field is zero",
        Tar::new().head(Header::new(b'0', "a").put(124, &[0; 12])).file("z", "z"),
        vec![file("a", ""), file("z", "z")],
    );
}

fn names(cases: &mut Cases) {
    cases.apply(
        "td-pax-path",
        "the extended header's name beats the header's",
        Tar::new().pax(&[("path", b"long")]).file("short", "x"),
        vec![file("long", "x")],
    );
    cases.apply(
        "td-gnu-path",
        "GNU's long name beats the header's",
        Tar::new().long(b'L', "long").file("short", "x"),
        vec![file("long", "x")],
    );
    cases.apply(
        "td-gnu-beats-pax",
        "both: GNU's counts, in either order",
        Tar::new()
            .pax(&[("path", b"pax")])
            .long(b'L', "gnu")
            .file("a", "x")
            .long(b'L', "gnu2")
            .pax(&[("path", b"pax2")])
            .file("b", "y"),
        vec![file("gnu", "x"), file("gnu2", "y")],
    );
    cases.apply(
        "td-prefix",
        "the prefix of a ustar header",
        Tar::new().with(Header::new(b'0', "name").put(345, b"some/prefix"), "x"),
        vec![file("some/prefix/name", "x")],
    );
    cases.apply(
        "td-gnu-no-prefix",
        "the same bytes are times in a GNU header",
        Tar::new().with(Header::new(b'0', "name").gnu().put(345, b"00000000001\0"), "x"),
        vec![file("name", "x")],
    );
    cases.apply(
        "td-gnu-misplaced-prefix",
        "a GNU header with a prefix where times belong, as old Go wrote it",
        Tar::new().with(Header::new(b'0', "name").gnu().put(345, b"some/prefix"), "x"),
        vec![file("some/prefix/name", "x")],
    );
    cases.apply(
        "td-v7",
        "no magic: no prefix, no device",
        Tar::new().with(Header::new(b'0', "name").put(345, b"prefix").v7(), "x"),
        vec![file("name", "x")],
    );
    cases.apply(
        "td-star",
        "star's header: a prefix of 131 bytes and two times",
        Tar::new().with(
            Header::new(b'0', "name")
                .put(345, b"pre")
                .put(476, b"00000000001\0")
                .put(488, b"00000000001\0")
                .put(508, b"tar\0"),
            "x",
        ),
        vec![file("pre/name", "x")],
    );
    cases.apply(
        "td-name-100",
        "a name that fills its field, without NUL",
        Tar::new().file([b'n'; 100], "x"),
        vec![file([b'n'; 100], "x")],
    );
    cases.apply(
        "td-name-after-nul",
        "bytes behind the NUL of a name",
        Tar::new().with(Header::new(b'0', "a").put(1, b"\0/../../evil"), "x"),
        vec![file("a", "x")],
    );
    cases.refuse(
        "td-long-name-no-nul",
        "a long name without its NUL",
        Tar::new().with(Header::new(b'L', "././@LongLink").gnu(), "name").file("a", "x"),
        "bad-archive",
    );
    cases.apply(
        "td-long-name-nul",
        "a long name with bytes behind its NUL",
        Tar::new().with(Header::new(b'L', "././@LongLink").gnu(), "name\0/../x\0").file("a", "x"),
        vec![file("name", "x")],
    );
    cases.refuse("td-long-name-empty", "an empty long name", Tar::new().long(b'L', "").file("a", "x"), "bad-archive");
    cases.refuse(
        "td-long-name-huge",
        "a long name above 1 MiB",
        Tar::new().long(b'L', vec![b'a'; 1 << 20]).file("a", "x"),
        "limit-exceeded",
    );
    cases.apply(
        "td-pax-linkpath",
        "a link target of an extended header",
        Tar::new().pax(&[("linkpath", b"long")]).symlink("l", "short"),
        vec![symlink("l", "long")],
    );
    cases.apply(
        "td-gnu-linkpath",
        "a link target of GNU's",
        Tar::new().long(b'K', "long").symlink("l", "short"),
        vec![symlink("l", "long")],
    );
    cases.apply(
        "td-gnu-linkpath-beats-pax",
        "both: GNU's counts",
        Tar::new().pax(&[("linkpath", b"pax")]).long(b'K', "gnu").symlink("l", "short"),
        vec![symlink("l", "gnu")],
    );
    cases.apply(
        "td-pax-hardlink",
        "a hard link's target of an extended header",
        Tar::new().file("a", "x").file("b", "y").pax(&[("linkpath", b"b")]).link("l", "a"),
        vec![file("a", "x"), file("b", "y"), same("l", "b")],
    );
    cases.apply(
        "td-not-sticky",
        "an extended header is for one entry",
        Tar::new().pax(&[("path", b"one")]).file("x", "1").file("two", "2"),
        vec![file("one", "1"), file("two", "2")],
    );
    cases.apply(
        "td-slash-file",
        "a file whose name ends in a slash is a file",
        Tar::new().file("a/", "x"),
        vec![file("a", "x")],
    );
    cases.apply(
        "td-nul-type",
        "type NUL is a regular file",
        Tar::new().with(Header::new(0, "a"), "x"),
        vec![file("a", "x")],
    );
    cases.apply(
        "td-nul-type-slash",
        "of the oldest form with a slash at the end: a directory",
        Tar::new().head(Header::new(0, "a/").v7()).file("a/b", "x"),
        vec![dir("a"), file("a/b", "x")],
    );
}

fn records(cases: &mut Cases) {
    cases.apply(
        "td-two-pax",
        "two extended headers: the later one replaces the earlier one",
        Tar::new().pax(&[("path", b"one"), ("mtime", b"5")]).pax(&[("path", b"two")]).file("a", "x"),
        vec![file("two", "x").mtime(0, 0)],
    );
    cases.apply(
        "td-key-twice",
        "a key twice: the last value",
        Tar::new().pax(&[("path", b"one"), ("path", b"two")]).file("a", "x"),
        vec![file("two", "x")],
    );
    cases.apply(
        "td-empty-value",
        "an empty value takes the override back",
        Tar::new().pax(&[("path", b"one"), ("path", b"")]).file("a", "x"),
        vec![file("a", "x")],
    );
    cases.apply(
        "td-empty-attribute",
        "an extended attribute with an empty value takes the record back",
        Tar::new().pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"")]).file("a", "x"),
        vec![file("a", "x").xattrs(&[])],
    );
    cases.apply(
        "td-pax-empty",
        "an extended header without records",
        Tar::new().pax(&[]).file("a", "x"),
        vec![file("a", "x")],
    );
    cases.apply(
        "td-pax-unknown",
        "keys nobody knows, comments and character sets",
        Tar::new()
            .pax(&[("comment", b"hi"), ("hdrcharset", b"BINARY"), ("MSWINDOWS.rawsd", b"x"), ("VENDOR.a", b"\0")])
            .file("a", "x"),
        vec![file("a", "x")],
    );
    for (id, text) in [
        ("td-record-short", "5 a=b\n"),
        ("td-record-long", "99 path=a\n"),
        ("td-record-zero", "0 path=a\n"),
        ("td-record-no-length", "path=a\n"),
        ("td-record-no-space", "10path=ab\n"),
        ("td-record-no-newline", "10 path=ab"),
        ("td-record-no-equals", "9 pathab\n"),
        ("td-record-no-key", "6 =ab\n"),
        ("td-record-nul-key", "9 pa\0=ab\n"),
        ("td-record-plus", "+11 path=a\n"),
        ("td-record-hex", "0xb path=a\n"),
        ("td-record-huge-length", "99999999999999999999 path=a\n"),
        ("td-record-then-garbage", "10 path=a\n\0\0\0"),
    ] {
        cases.refuse(
            id,
            "a malformed record in an extended header",
            Tar::new().pax_text(text).file("a", "x"),
            "bad-archive",
        );
    }
    cases.apply(
        "td-global",
        "a global header is skipped: its name is nobody's",
        Tar::new().with(Header::new(b'g', "g"), pax_records(&[("path", b"evil"), ("size", b"0")])).file("a", "x"),
        vec![file("a", "x")],
    );
    cases.refuse(
        "td-global-malformed",
        "a malformed global header",
        Tar::new().with(Header::new(b'g', "g"), "99 path=a\n").file("a", "x"),
        "bad-archive",
    );
    cases.apply(
        "td-global-resets",
        "a global header between an extended one and its entry: the extended one is lost, as in Go",
        Tar::new()
            .pax(&[("path", b"lost")])
            .with(Header::new(b'g', "g"), pax_records(&[("comment", b"x")]))
            .file("a", "x"),
        vec![file("a", "x")],
    );
    cases.refuse(
        "td-pax-huge",
        "an extended header above 1 MiB: CVE-2017-11468",
        Tar::new().pax(&[("comment", &vec![b'a'; 1 << 20])]).file("a", "x"),
        "limit-exceeded",
    );
    cases.refuse(
        "td-pax-announced",
        "an extended header announced with 2^40 bytes: nothing is allocated for it",
        Tar::new().head(Header::new(b'x', "pax").base256(124, 12, 1 << 40)),
        "limit-exceeded",
    );
    let keys: Vec<String> = (0..1025).map(|at| format!("V.k{at}")).collect();
    let many: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"x"[..])).collect();
    cases.refuse("td-pax-many", "1,025 records", Tar::new().pax(&many).file("a", "x"), "limit-exceeded");
    cases.refuse(
        "td-pax-negative",
        "an extended header of negative size",
        Tar::new().head(Header::new(b'x', "pax").base256(124, 12, -512)),
        "bad-archive",
    );
}

fn headers(cases: &mut Cases) {
    cases.refuse(
        "td-bad-checksum",
        "a header whose sum does not fit",
        Tar::new().head(Header::new(b'0', "a").wrong_sum()),
        "bad-archive",
    );
    cases.refuse(
        "td-bad-checksum-later",
        "the same in the second entry",
        Tar::new().file("a", "x").head(Header::new(b'0', "b").wrong_sum()),
        "bad-archive",
    );
    cases.apply(
        "td-signed-checksum",
        "a sum of signed bytes, as old programs made it",
        Tar::new().head(Header::new(b'0', b"\xff\xfe").signed_sum()),
        vec![file(b"\xff\xfe", "")],
    );
    for (id, kind) in [
        ("td-type-contiguous", b'7'),
        ("td-type-volume", b'V'),
        ("td-type-multi-volume", b'M'),
        ("td-type-dumpdir", b'D'),
        ("td-type-solaris", b'X'),
        ("td-type-unknown", b'Z'),
        ("td-type-letter", b'a'),
    ] {
        cases.refuse(id, "a type that is not created", Tar::new().head(Header::new(kind, "a")), "unsupported-entry");
    }
    cases.refuse("td-text", "a text instead of an archive", Tar::new().data("<html>not a layer</html>"), "bad-archive");
}

fn ends(cases: &mut Cases) {
    let one = || Tar::new().file("a", "x");
    let push = |cases: &mut Cases, id, what, tar: Vec<u8>, expect: Expect| {
        cases.push(id, what, vec![Layer::of_tar(&tar)], expect)
    };
    let good = |tree: Vec<Node>| Expect::Apply(tree);
    let refused = || Expect::Refuse("bad-archive");
    push(cases, "td-empty-stream", "no bytes at all", Vec::new(), good(Vec::new()));
    push(cases, "td-only-end", "only the end marker", vec![0; 2 * BLOCK], good(Vec::new()));
    push(cases, "td-no-end", "no end marker", one().cut(), good(vec![file("a", "x")]));
    push(
        cases,
        "td-one-zero-block",
        "one zero block and the end",
        one().raw(&[0; BLOCK]).cut(),
        good(vec![file("a", "x")]),
    );
    push(
        cases,
        "td-unpadded",
        "the last block is not filled up",
        one().cut()[..BLOCK + 1].to_vec(),
        good(vec![file("a", "x")]),
    );
    push(
        cases,
        "td-zero-block-between",
        "a zero block between entries",
        one().raw(&[0; BLOCK]).file("b", "y").end(),
        refused(),
    );
    push(
        cases,
        "td-after-eof",
        "an entry behind the end marker: hashed, not extracted",
        one().raw(&[0; 2 * BLOCK]).file("hidden", "y").end(),
        good(vec![file("a", "x")]),
    );
    push(
        cases,
        "td-garbage-after-eof",
        "junk behind the end marker: hashed, ignored",
        one().raw(&[0; 2 * BLOCK]).raw(&[7; 777]).cut(),
        good(vec![file("a", "x")]),
    );
    push(cases, "td-cut-header", "cut inside a header", one().cut()[..300].to_vec(), refused());
    push(
        cases,
        "td-cut-second-header",
        "cut inside the second header",
        one().file("b", "y").cut()[..3 * BLOCK - 1].to_vec(),
        refused(),
    );
    push(
        cases,
        "td-cut-data",
        "cut inside a file",
        Tar::new().file("a", &"x".repeat(600)).cut()[..BLOCK + 599].to_vec(),
        refused(),
    );
    push(
        cases,
        "td-cut-pax",
        "cut inside an extended header",
        Tar::new().pax(&[("path", b"a")]).cut()[..BLOCK + 5].to_vec(),
        refused(),
    );
    push(
        cases,
        "td-pax-then-end",
        "an extended header and the end",
        Tar::new().pax(&[("path", b"a")]).end(),
        refused(),
    );
    push(cases, "td-long-name-then-end", "a long name and the end", Tar::new().long(b'L', "a").cut(), refused());
    push(
        cases,
        "td-block-of-zeros-name",
        "a header of zeros but for one byte",
        {
            let mut block = vec![0; BLOCK];
            block[500] = 1;
            block
        },
        refused(),
    );
}

fn old_sparse(entries: &[(u64, u64)], size: u64, stored: usize, extended: bool) -> Header {
    let mut header = Header::new(b'S', "s").gnu().size(stored).octal(483, 12, size);
    for (at, (offset, length)) in entries.iter().enumerate() {
        header = header.octal(386 + at * 24, 12, *offset).octal(398 + at * 24, 12, *length);
    }
    if extended { header.put(482, &[1]) } else { header }
}

fn sparse(cases: &mut Cases) {
    let text = |parts: &[(&str, usize)]| {
        parts.iter().map(|(data, holes)| data.to_string() + &"\0".repeat(*holes)).collect::<String>()
    };
    cases.apply(
        "td-sparse-old",
        "GNU's old sparse form",
        Tar::new().head(old_sparse(&[(0, 2), (1000, 3)], 1010, 5, false)).data("abcde").file("z", "z"),
        vec![file("s", &text(&[("ab", 998), ("cde", 7)])), file("z", "z")],
    );
    let extension = {
        let mut block = vec![0u8; BLOCK];
        for (at, (offset, length)) in [(4000u64, 1u64), (5000, 1)].iter().enumerate() {
            block[at * 24..at * 24 + 12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
            block[at * 24 + 12..at * 24 + 24].copy_from_slice(format!("{length:011o}\0").as_bytes());
        }
        block
    };
    let four = [(0, 1), (1000, 1), (2000, 1), (3000, 1)];
    cases.apply(
        "td-sparse-old-extended",
        "with a second block of the map",
        Tar::new().head(old_sparse(&four, 5001, 6, true)).raw(&extension).data("abcdef"),
        vec![file("s", &text(&[("a", 999), ("b", 999), ("c", 999), ("d", 999), ("e", 999), ("f", 0)]))],
    );
    cases.refuse(
        "td-sparse-old-cut",
        "the map ends with the stream",
        Tar::new().head(old_sparse(&four, 5001, 6, true)).raw(b""),
        "bad-archive",
    );
    cases.refuse(
        "td-sparse-not-gnu",
        "type S in a ustar header",
        Tar::new().head(Header::new(b'S', "s")),
        "bad-archive",
    );
    cases.apply(
        "td-sparse-hole-only",
        "nothing but a hole",
        Tar::new().head(old_sparse(&[], 70_000, 0, false)).file("z", "z"),
        vec![zeros("s", 70_000), file("z", "z")],
    );
    let replaced = || Tar::new().head(old_sparse(&[(0, 2), (1000, 3)], 1010, 5, false)).data("abcde");
    cases.apply(
        "td-sparse-replaced",
        "a sparse file whose name a later entry takes",
        replaced().file("s", "z"),
        vec![file("s", "z")],
    );
    cases.apply(
        "td-sparse-replaced-linked",
        "a sparse file that keeps its second name when a later entry takes the first",
        replaced().link("t", "s").file("s", "z"),
        vec![file("s", "z"), file("t", &text(&[("ab", 998), ("cde", 7)]))],
    );
    let pax = |version: &[(&str, &[u8])], data: &str| {
        Tar::new().pax(version).with(Header::new(b'0', "GNUSparseFile.0/s"), data)
    };
    cases.apply(
        "td-sparse-0.0",
        "pax sparse, version 0.0: keys that come again",
        pax(
            &[
                ("GNU.sparse.size", b"1010"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", b"2"),
                ("GNU.sparse.offset", b"1000"),
                ("GNU.sparse.numbytes", b"3"),
            ],
            "abcde",
        ),
        vec![file("GNUSparseFile.0/s", &text(&[("ab", 998), ("cde", 7)]))],
    );
    cases.apply(
        "td-sparse-0.1",
        "version 0.1: a map in one record, a name of its own",
        pax(
            &[
                ("GNU.sparse.size", b"1010"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.map", b"0,2,1000,3"),
                ("GNU.sparse.name", b"s"),
            ],
            "abcde",
        ),
        vec![file("s", &text(&[("ab", 998), ("cde", 7)]))],
    );
    let v1: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"1010"),
    ];
    let map = |text: &str, data: &str| {
        let mut map = text.to_owned();
        map.push_str(&"\0".repeat(BLOCK - map.len()));
        map + data
    };
    cases.apply(
        "td-sparse-1.0",
        "version 1.0: the map before the data",
        pax(v1, &map("2\n0\n2\n1000\n3\n", "abcde")),
        vec![file("s", &text(&[("ab", 998), ("cde", 7)]))],
    );
    for (id, data) in [
        ("td-sparse-overlap", map("2\n0\n3\n2\n2\n", "abcde")),
        ("td-sparse-backwards", map("2\n100\n3\n0\n2\n", "abcde")),
        ("td-sparse-beyond", map("1\n1009\n5\n", "abcde")),
        ("td-sparse-less-data", map("1\n0\n6\n", "abcde")),
        ("td-sparse-more-data", map("1\n0\n4\n", "abcde")),
        ("td-sparse-no-number", map("x\n", "abcde")),
        ("td-sparse-negative", map("1\n-1\n5\n", "abcde")),
        ("td-sparse-unfinished", map("3\n0\n2\n", "")),
        ("td-sparse-no-map", String::new()),
        ("td-sparse-overflow", map("1\n9223372036854775807\n5\n", "abcde")),
    ] {
        cases.refuse(id, "a map that does not fit", pax(v1, &data), "bad-archive");
    }
    cases.refuse(
        "td-sparse-many",
        "a map announced with 2^40 pieces",
        pax(v1, &map("1099511627776\n", "")),
        "limit-exceeded",
    );
    cases.refuse(
        "td-sparse-huge",
        "8 TiB of holes: it counts as unpacked",
        pax(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"8796093022208"),
            ],
            &map("0\n", ""),
        ),
        "limit-exceeded",
    );
    cases.refuse("td-sparse-directory", "a sparse directory", Tar::new().pax(v1).dir("d"), "bad-archive");
    cases.refuse(
        "td-sparse-dotdot",
        "a sparse file whose own name climbs out",
        pax(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"../s"),
                ("GNU.sparse.realsize", b"2"),
            ],
            &map("1\n0\n2\n", "ab"),
        ),
        "unsafe-path",
    );
    cases.apply(
        "td-sparse-unknown",
        "a version nobody knows: an ordinary file, as in Go",
        pax(&[("GNU.sparse.major", b"9"), ("GNU.sparse.minor", b"9")], "abc"),
        vec![file("GNUSparseFile.0/s", "abc")],
    );
}
