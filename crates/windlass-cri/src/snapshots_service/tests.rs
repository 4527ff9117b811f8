use std::path::Path;

use super::*;

fn snapshot(name: &str, labels: &[(&str, &str)]) -> SnapshotInfo {
    SnapshotInfo {
        name: name.to_owned(),
        parent: None,
        kind: SnapshotKind::Committed,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn codes_are_those_that_containerd_acts_on() {
    let name = || "n".to_owned();
    let path = || Path::new("/x").to_owned();
    let table = [
        (SnapshotError::AlreadyExists { name: name() }, Code::AlreadyExists),
        (SnapshotError::NotFound { name: name() }, Code::NotFound),
        (SnapshotError::InvalidArgument { what: name() }, Code::InvalidArgument),
        (SnapshotError::FailedPrecondition { what: name() }, Code::FailedPrecondition),
        (StoreError::NoSpace { path: path(), need_bytes: None, free_bytes: None }.into(), Code::ResourceExhausted),
        (StoreError::Locked { root: path(), holder: None }.into(), Code::Unavailable),
        (StoreError::ReadOnly { root: path() }.into(), Code::Internal),
    ];
    for (error, code) in table {
        assert_eq!(status(&error).code(), code, "{error}");
    }
}

#[test]
fn a_list_comes_in_messages_of_bounded_size() {
    let sizes = |infos: Vec<SnapshotInfo>| Pieces::new(infos).map(|piece| piece.info.len()).collect::<Vec<_>>();
    assert_eq!(sizes(Vec::new()), [0; 0]);
    let many: Vec<SnapshotInfo> = (0..250).map(|n| snapshot(&n.to_string(), &[])).collect();
    assert_eq!(sizes(many.clone()), [100, 100, 50]);
    let names = Pieces::new(many.clone()).flat_map(|piece| piece.info).map(|info| info.name).collect::<Vec<_>>();
    assert_eq!(names, many.iter().map(|info| info.name.clone()).collect::<Vec<_>>());
    let long = "v".repeat(PIECE_BYTES / 2);
    assert_eq!(sizes((0..5).map(|n| snapshot(&n.to_string(), &[("k", &long)])).collect()), [2, 2, 1]);
}

#[test]
fn masks_name_labels_and_nothing_else() {
    let of =
        |paths: &[&str]| mask(Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }));
    assert_eq!(mask(None).unwrap(), LabelMask::All);
    assert_eq!(of(&[]).unwrap(), LabelMask::All);
    assert_eq!(of(&["labels"]).unwrap(), LabelMask::All);
    let keys = vec!["a".to_owned(), "containerd.io/snapshot/z.y".to_owned()];
    assert_eq!(of(&["labels.a", "labels.containerd.io/snapshot/z.y"]).unwrap(), LabelMask::Keys(keys));
    for wrong in ["parent", "labels.", "label.a", ""] {
        assert_eq!(of(&[wrong]).unwrap_err().code(), Code::InvalidArgument, "{wrong:?}");
    }
}

#[test]
fn times_before_1970_count_forward() {
    let at = |text: &str| timestamp(text.parse().unwrap());
    assert_eq!(at("1970-01-01T00:00:01.5Z"), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
    assert_eq!(at("1969-12-31T23:59:59.25Z"), prost_types::Timestamp { seconds: -1, nanos: 250_000_000 });
}

#[test]
fn any_sane_name_is_ours() {
    for name in ["", "windlass", "my-windlass.2"] {
        check_snapshotter(name).unwrap();
    }
    for name in ["a b", "../x", "a\n"] {
        assert_eq!(check_snapshotter(name).unwrap_err().code(), Code::InvalidArgument, "{name:?}");
    }
}
