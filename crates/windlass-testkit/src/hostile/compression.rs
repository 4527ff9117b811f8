//! What is wrong around the archive.

use windlass_core::digest::Digest;

use super::expect::file;
use super::raw::{Tar, gzip, skippable, zstd};
use super::{Cases, Expect, GZIP, Layer, PLAIN, ZSTD};

pub(super) fn cases(cases: &mut Cases) {
    let tar = Tar::new().file("a", "x").end();
    let layer = |blob: Vec<u8>, media_type| vec![Layer { blob, media_type, diff_id: Digest::sha256(&tar) }];
    let good = || Expect::Apply(vec![file("a", "x")]);
    let bad = || Expect::Refuse("bad-compression");
    let (first, second) = tar.split_at(700);
    let packed = gzip(&tar);
    let changed = |at_end: usize| {
        let mut blob = packed.clone();
        let at = blob.len() - at_end;
        blob[at] ^= 0x55;
        blob
    };
    cases.push(
        "gz-members",
        "several members, as bgzip and stargz write them",
        layer([gzip(first), gzip(second)].concat(), GZIP),
        good(),
    );
    cases.push(
        "gz-empty-member",
        "an empty member in between and at the end",
        layer([gzip(first), gzip(b""), gzip(second), gzip(b"")].concat(), GZIP),
        good(),
    );
    cases.push(
        "gz-zero-padding",
        "zeros behind the last member",
        layer([packed.clone(), vec![0; 1000]].concat(), GZIP),
        good(),
    );
    cases.push(
        "gz-junk",
        "other bytes behind the last member",
        layer([packed.clone(), b"junk".to_vec()].concat(), GZIP),
        bad(),
    );
    cases.push(
        "gz-zeros-then-junk",
        "zeros and then other bytes",
        layer([packed.clone(), vec![0; 10], b"junk".to_vec()].concat(), GZIP),
        bad(),
    );
    cases.push(
        "gz-zeros-then-member",
        "zeros and then a member",
        layer([gzip(first), vec![0; 10], gzip(second)].concat(), GZIP),
        bad(),
    );
    cases.push(
        "gz-no-trailer",
        "the trailer is missing: umoci takes it",
        layer(packed[..packed.len() - 8].to_vec(), GZIP),
        bad(),
    );
    cases.push(
        "gz-half-trailer",
        "half of the trailer is missing",
        layer(packed[..packed.len() - 4].to_vec(), GZIP),
        bad(),
    );
    cases.push("gz-cut", "cut in the middle", layer(packed[..packed.len() / 2].to_vec(), GZIP), bad());
    cases.push("gz-crc", "a wrong checksum", layer(changed(8), GZIP), bad());
    cases.push("gz-length", "a wrong length", layer(changed(1), GZIP), bad());
    let with_header =
        |flags: u8, fields: &[u8]| [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255][..], fields, &packed[10..]].concat();
    cases.push(
        "gz-header-fields",
        "a name, a comment and extra bytes",
        layer(with_header(28, b"\x02\x00ab/../name\0comment\0"), GZIP),
        good(),
    );
    cases.push(
        "gz-header-long",
        "a name of 70 KB",
        layer(with_header(8, &[b'n'; 70_000]), GZIP),
        Expect::Refuse("limit-exceeded"),
    );
    cases.push("gz-header-crc", "a wrong checksum of the header", layer(with_header(2, b"\x12\x34"), GZIP), bad());
    cases.push("gz-reserved", "a reserved flag", layer(with_header(0x40, b""), GZIP), bad());
    cases.push("gz-method", "an unknown method", layer([&[0x1f, 0x8b, 7][..], &packed[3..]].concat(), GZIP), bad());
    let bomb = vec![0; 80 << 20];
    cases.push(
        "gz-bomb",
        "80 MiB of zeros in 80 KB: CVE-2023-30551",
        vec![Layer { blob: zstd(&bomb), media_type: ZSTD, diff_id: Digest::sha256(&bomb) }],
        Expect::Refuse("limit-exceeded"),
    );

    cases.push("zstd-plain", "one frame", layer(zstd(&tar), ZSTD), good());
    cases.push("zstd-frames", "several frames", layer([zstd(first), zstd(second)].concat(), ZSTD), good());
    cases.push(
        "zstd-skippable",
        "frames to skip in front, between and behind, as zstd:chunked has them",
        layer([skippable(b"a"), zstd(first), skippable(b""), zstd(second), skippable(b"toc")].concat(), ZSTD),
        good(),
    );
    cases.push("zstd-cut", "cut in the middle", layer(zstd(&tar)[..30].to_vec(), ZSTD), bad());
    cases.push(
        "zstd-checksum",
        "a wrong checksum",
        layer(
            {
                let mut blob = zstd(&tar);
                let last = blob.len() - 1;
                blob[last] ^= 1;
                blob
            },
            ZSTD,
        ),
        bad(),
    );
    cases.push(
        "zstd-junk",
        "other bytes behind the last frame",
        layer([zstd(&tar), b"junk".to_vec()].concat(), ZSTD),
        bad(),
    );
    cases.push(
        "zstd-window",
        "a frame that asks for a window of 1 GiB",
        layer(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 1, 0, 0], ZSTD),
        Expect::Refuse("limit-exceeded"),
    );
    cases.push(
        "zstd-dictionary",
        "a frame that needs a dictionary",
        layer(vec![0x28, 0xb5, 0x2f, 0xfd, 0x21, 1, 0, 1, 0, 0], ZSTD),
        bad(),
    );

    cases.push("comp-plain", "no compression", layer(tar.clone(), PLAIN), good());
    cases.push(
        "comp-type-gzip-is-zstd",
        "the type says gzip, the bytes are zstd: the bytes win",
        layer(zstd(&tar), GZIP),
        good(),
    );
    cases.push("comp-type-zstd-is-gzip", "the type says zstd, the bytes are gzip", layer(packed.clone(), ZSTD), good());
    cases.push("comp-type-gzip-is-plain", "the type says gzip, the bytes are a tar", layer(tar.clone(), GZIP), good());
    cases.push(
        "comp-type-plain-is-gzip",
        "a type without compression is never decompressed",
        layer(packed.clone(), PLAIN),
        Expect::Refuse("bad-archive"),
    );
    let twice = |outer: Vec<u8>, inner: &[u8], media_type| {
        vec![Layer { blob: outer, media_type, diff_id: Digest::sha256(inner) }]
    };
    cases.push("comp-double-gzip", "compressed twice", twice(gzip(&packed), &packed, GZIP), bad());
    cases.push("comp-double-mixed", "zstd inside gzip", twice(gzip(&zstd(&tar)), &zstd(&tar), GZIP), bad());
    cases.push("comp-double-zstd", "gzip inside zstd", twice(zstd(&packed), &packed, ZSTD), bad());
    cases.push(
        "comp-empty",
        "no bytes at all",
        vec![Layer { blob: Vec::new(), media_type: PLAIN, diff_id: Digest::sha256(b"") }],
        Expect::Apply(Vec::new()),
    );
    cases.push(
        "diff-id-lie",
        "the config names another diff ID",
        vec![Layer { blob: packed.clone(), media_type: GZIP, diff_id: Digest::sha256(b"another") }],
        Expect::Refuse("diffid-mismatch"),
    );
    cases.push(
        "diff-id-without-end",
        "the diff ID of the archive without what follows its end marker",
        vec![Layer {
            blob: gzip(&[tar.clone(), vec![7; 100]].concat()),
            media_type: GZIP,
            diff_id: Digest::sha256(&tar),
        }],
        Expect::Refuse("diffid-mismatch"),
    );
}
