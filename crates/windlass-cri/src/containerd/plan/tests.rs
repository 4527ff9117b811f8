use super::*;

fn entry(name: &str, os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
    let mut entry = Descriptor::new("application/vnd.oci.image.manifest.v1+json", Digest::sha256(name.as_bytes()), 1);
    entry.platform = (!os.is_empty()).then(|| windlass_core::platform::Platform::new(os, architecture, variant));
    entry
}

fn index(entries: Vec<Descriptor>) -> Index {
    Index {
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        entries,
        unverifiable: Vec::new(),
        artifact_type: None,
        subject: None,
        annotations: BTreeMap::new(),
    }
}

#[test]
fn an_index_is_the_target_unless_containerd_could_choose_otherwise() {
    let ours = || entry("ours", "linux", "amd64", None);
    let table = [
        ("alone", vec![ours()], true),
        (
            "among other machines",
            vec![entry("a", "linux", "arm64", None), ours(), entry("b", "windows", "amd64", None)],
            true,
        ),
        ("with its attestation", vec![ours(), entry("a", "unknown", "unknown", None)], true),
        ("alone and unnamed", vec![entry("ours", "", "", None)], true),
        ("not there", vec![entry("a", "linux", "arm64", None)], false),
        ("beside another variant", vec![ours(), entry("a", "linux", "amd64", Some("v3"))], false),
        ("beside one of the same", vec![ours(), entry("a", "linux", "amd64", None)], false),
        ("beside one that names none", vec![ours(), entry("a", "", "", None)], false),
    ];
    for (case, entries, want) in table {
        assert_eq!(containerd_chooses(&index(entries), &Digest::sha256(b"ours")), want, "{case}");
    }
}

#[test]
fn labels_are_those_of_a_pull_by_containerd() {
    let mut other = entry("other", "", "", None);
    other.media_type = "application/octet-stream".to_owned();
    let labels =
        index_labels(&index(vec![entry("a", "linux", "amd64", None), other, entry("b", "linux", "arm64", None)]));
    let digest = |name: &str| Digest::sha256(name.as_bytes()).to_string();
    let want = [
        ("containerd.io/gc.ref.content.0", digest("other")),
        ("containerd.io/gc.ref.content.m.0", digest("a")),
        ("containerd.io/gc.ref.content.m.1", digest("b")),
    ];
    assert_eq!(labels, want.map(|(key, value)| (key.to_owned(), value)).into());
    assert_eq!(snapshot_label("windlass"), "containerd.io/gc.ref.snapshot.windlass");
}

#[test]
fn sources_are_joined_by_host_and_bounded() {
    let source = |host: &str, path: &str| Source { host: host.to_owned(), path: path.to_owned() };
    let sources = [
        source("localhost:5000", "b"),
        source("localhost:5001", "a"),
        source("docker.io", "library/busybox"),
        source("[::1]:5000", "six"),
        source("long.example", &"p".repeat(LABEL_MAX_BYTES)),
    ];
    let want = [
        ("containerd.io/distribution.source.localhost", "a,b"),
        ("containerd.io/distribution.source.docker.io", "library/busybox"),
        ("containerd.io/distribution.source.::1", "six"),
    ];
    let want: Labels = want.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    assert_eq!(distribution_sources(&sources), want);
    let table = [("", "a", "a"), ("b", "a,c", "a,b,c"), ("a,b", "b", "a,b")];
    for (old, ours, want) in table {
        assert_eq!(joined("k", old, ours), want, "{old} and {ours}");
    }
    let long = "p".repeat(LABEL_MAX_BYTES - 1);
    assert_eq!(joined("k", &long, "a"), long);
}
