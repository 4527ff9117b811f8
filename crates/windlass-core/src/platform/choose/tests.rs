//! Which entry is chosen, one row per rule.

use std::collections::BTreeMap;

use super::*;
use crate::digest::Digest;
use crate::manifest::{DocumentLimits, UnverifiableEntry, media_type, parse_config};

fn entry(platform: Option<&str>, number: usize) -> Descriptor {
    let platform = platform.map(|text| Platform::parse(text).expect(text));
    let digest = Digest::sha256(number.to_string().as_bytes());
    Descriptor { platform, ..Descriptor::new(media_type::OCI_MANIFEST, digest, 10) }
}

/// An index of the platforms listed, `-` for an entry that names none.
fn index(platforms: &str) -> Index {
    let platforms = platforms.split_whitespace();
    Index {
        media_type: media_type::OCI_INDEX.to_owned(),
        entries: platforms.enumerate().map(|(n, text)| entry((text != "-").then_some(text), n)).collect(),
        unverifiable: Vec::new(),
        artifact_type: None,
        subject: None,
        annotations: BTreeMap::new(),
    }
}

fn wanted(text: &str) -> Wanted {
    Wanted::new(&Platform::parse(text).expect(text))
}

/// The position of each candidate in the index, best first.
fn order(index: &Index, wanted: &Wanted) -> Vec<usize> {
    let position = |candidate: Candidate<'_>| {
        index.entries.iter().position(|e| std::ptr::eq(e, candidate.descriptor)).expect("an entry of this index")
    };
    rank(index, wanted).into_iter().map(position).collect()
}

#[test]
fn the_order_of_preference_is_fixed() {
    let table: [(&str, &str, &[usize]); 22] = [
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v3 linux/amd64/v4", &[2, 1, 0]),
        ("linux/amd64", "linux/amd64/v2 linux/amd64", &[1]),
        ("linux/amd64", "linux/386 linux/arm64", &[]),
        ("linux/amd64", "windows/amd64 linux/amd64 linux/amd64", &[1, 2]),
        ("linux/amd64", "- linux/arm64 linux/x86_64", &[2, 0]),
        ("linux/amd64", "unknown/unknown linux/amd64", &[1]),
        ("linux/amd64", "linux(+erofs)/amd64 linux/amd64", &[1]),
        ("linux(+erofs)/amd64", "linux(+erofs)/amd64 linux/amd64", &[0, 1]),
        ("linux/arm64", "linux/arm64/v8 linux/arm64 linux/arm/v8 linux/arm64/v8.2", &[0, 1]),
        ("linux/arm64/v8.2", "linux/arm64 linux/arm64/v8.1 linux/arm64/v8.3", &[1, 0]),
        ("linux/arm64/v9.1", "linux/arm64/v8.6 linux/arm64/v8.7 linux/arm64/v9 linux/arm64/v9.1", &[3, 2, 0]),
        ("linux/arm64/v9", "linux/arm64/v8.6 linux/arm64/v8.5 linux/arm64", &[1, 2]),
        ("linux/arm", "linux/arm/v5 linux/arm/v6 linux/arm/v7 linux/arm/v8", &[2, 1, 0]),
        ("linux/arm/v8", "linux/arm/v6 linux/arm linux/arm/v8", &[2, 1, 0]),
        ("linux/arm/v6", "linux/arm/v7 linux/arm/v5", &[1]),
        ("linux/386", "linux/i386 linux/amd64", &[0]),
        ("linux/riscv64", "linux/riscv64/rva23 linux/riscv64", &[1]),
        ("linux/ppc64le", "linux/ppc64 linux/ppc64le", &[1]),
        ("linux/amd64/v9", "linux/amd64 linux/amd64/v9", &[1]),
        ("linux/arm64/x", "linux/arm64 linux/arm64/x", &[1]),
        (
            "windows(10.0.17763.1)/amd64",
            "windows(10.0.17134.1)/amd64 windows(10.0.17763.9)/amd64 windows/amd64",
            &[1, 2],
        ),
        ("linux(5.10)/amd64", "linux(4.4)/amd64", &[0]),
    ];
    for (want, offered, best) in table {
        assert_eq!(order(&index(offered), &wanted(want)), best, "{want} of {offered}");
    }
}

#[test]
fn thirty_two_bit_only_on_request() {
    let amd64 = index("linux/386 linux/amd64");
    assert_eq!(order(&amd64, &wanted("linux/amd64").or_thirty_two_bit()), [1, 0]);
    let arm = index("linux/arm/v6 linux/arm/v7 linux/arm64");
    assert_eq!(order(&arm, &wanted("linux/arm64").or_thirty_two_bit()), [2, 1, 0]);
    assert_eq!(order(&arm, &wanted("linux/arm64")), [2]);
}

#[test]
fn a_plain_request_may_use_what_the_host_runs() {
    let host = Platform::parse("linux/amd64/v3").expect("a platform");
    let ask = |text| Wanted::on_host(&Platform::parse(text).expect(text), &host);
    let offered = index("linux/amd64/v4 linux/amd64/v2 linux/amd64/v3 linux/amd64");
    assert_eq!(order(&offered, &ask("linux/amd64")), [3, 2, 1]);
    assert_eq!(order(&offered, &ask("linux/amd64/v2")), [1, 3]);
    assert_eq!(order(&offered, &ask("linux/arm64")), [0_usize; 0]);
}

#[test]
fn attestations_are_never_chosen() {
    let mut offered = index("linux/amd64 -");
    for entry in &mut offered.entries {
        entry.annotations.insert(REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned());
    }
    assert!(rank(&offered, &wanted("linux/amd64")).is_empty());
    let mut other = index("linux/amd64");
    other.entries[0].media_type = "application/vnd.example".to_owned();
    assert!(rank(&other, &wanted("linux/amd64")).is_empty());
}

#[test]
fn no_match_lists_what_is_offered() {
    let many: Vec<String> = (0..30).map(|n| format!("linux/cpu{n} linux/cpu{n}")).collect();
    let error =
        choose(&index(&format!("unknown/unknown {}", many.join(" "))), &wanted("linux/amd64")).expect_err("none");
    let text = error.to_string();
    assert!(text.starts_with("no image for linux/amd64; offered: linux/cpu0, linux/cpu1, "), "{text}");
    assert!(text.ends_with("linux/cpu19 and 10 more"), "{text}");
    assert_eq!(error.reason().class(), "no-matching-platform");
    let none = choose(&index(""), &wanted("linux/amd64")).expect_err("none").to_string();
    assert_eq!(none, "no image for linux/amd64; offered: none");
}

#[test]
fn an_unverifiable_entry_matters_only_when_nothing_else_fits() {
    let mut offered = index("linux/amd64");
    let platform = Platform::parse("linux/arm64").ok();
    offered.unverifiable.push(UnverifiableEntry { digest: "md5:x".to_owned(), platform });
    assert!(choose(&offered, &wanted("linux/amd64")).is_ok());
    let error = choose(&offered, &wanted("linux/arm64")).expect_err("cannot be verified");
    assert!(matches!(&error, PlatformError::Unverifiable { digest, .. } if digest == "md5:x"), "{error}");
}

fn config(os: &str, architecture: &str) -> ImageConfig {
    let text =
        serde_json::json!({"os": os, "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}});
    parse_config(text.to_string().as_bytes(), &DocumentLimits::default()).expect("a config")
}

#[test]
fn a_single_image_is_judged_by_its_config() {
    let want = wanted("linux/amd64/v2");
    assert_eq!(judge_config(&want, &config("linux", "amd64")), Ok(ConfigVerdict::Fits));
    let arm = Platform::parse("linux/arm64").expect("a platform");
    assert_eq!(judge_config(&want, &config("linux", "aarch64")), Ok(ConfigVerdict::OtherProcessor(arm)));
    let error = judge_config(&want, &config("windows", "amd64")).expect_err("another system");
    assert_eq!(error.to_string(), "the image is for windows/amd64, not for linux/amd64/v2");
    assert_eq!(error.reason().class(), "no-matching-platform");
}

#[test]
fn a_lie_about_the_platform_is_noticed() {
    let entry = Platform::parse("linux/amd64/v3").expect("a platform");
    assert_eq!(lie(&entry, &config("linux", "x86_64")), None);
    let found = lie(&entry, &config("linux", "arm64")).expect("a lie").to_string();
    assert_eq!(found, "platform-lie: the index says linux/amd64/v3, the image's config says linux/arm64");
}

proptest::proptest! {
    #[test]
    fn choice_is_deterministic(names in proptest::collection::vec("linux/(amd64|arm64|arm|386)(/v[0-9](\\.[0-9])?)?", 0..12), want in "linux/(amd64|arm64|arm)(/v[0-9])?") {
        let offered = index(&names.join(" "));
        let wanted = wanted(&want);
        let once = order(&offered, &wanted);
        proptest::prop_assert_eq!(&once, &order(&offered, &wanted));
        let ranks: Vec<_> = once.iter().map(|at| wanted.rank(offered.entries[*at].platform.as_ref().expect("named"))).collect();
        proptest::prop_assert!(ranks.is_sorted());
    }
}
