//! Rules of records and access that the recorded cases do not show.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::keyring::Mode;
use crate::reference::Reference;

fn secret(name: &str, uid: &str, hash: &str) -> SecretProof {
    SecretProof { uid: uid.into(), namespace: "ns".into(), name: name.into(), credential_hash: hash.into() }
}

fn access(secrets: Vec<SecretProof>) -> RepositoryAccess {
    RepositoryAccess { kubernetes_secrets: secrets, ..RepositoryAccess::default() }
}

fn pod(secret: SecretProof) -> PodProofs {
    PodProofs { secrets: vec![secret], service_account: None }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

#[test]
fn files_are_those_of_the_kubelet() {
    let mut record = PulledRecord::new("sha256:aaa");
    record.grant("r.io/app", Grant::Secret(secret("s", "u", "h")), time(1_700_000_000));
    let text = concat!(
        r#"{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1","#,
        r#""lastUpdatedTime":"2023-11-14T22:13:20Z","imageRef":"sha256:aaa","credentialMapping":{"r.io/app":"#,
        r#"{"kubernetesSecrets":[{"uid":"u","namespace":"ns","name":"s","credentialHash":"h"}]}}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(record.encode()).expect("text"), text);
    let old = text.replace("v1beta1", "v1alpha1");
    assert_eq!(PulledRecord::decode(old.as_bytes()), Ok(record));
    let intent = PullIntent { image: "app:1".into() };
    let text = "{\"kind\":\"ImagePullIntent\",\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",\"image\":\"app:1\"}\n";
    assert_eq!(intent.encode(), text.as_bytes());
    assert_eq!(PullIntent::decode(text.as_bytes()), Ok(intent));
    // From `printf busybox | sha256sum`.
    let name = PullIntent::file_name("busybox");
    assert_eq!(name, "sha256-9d75f0d7c398df565d7ac04c6819b62d6d8f9560f5eb4672596ecd8f7e96ae91");
    assert!(PulledRecord::is_file_name(&name) && !PulledRecord::is_file_name(&format!("{name}.tmp")));
}

#[test]
fn damaged_files_are_refused() {
    let good = String::from_utf8(PulledRecord::new("x").encode()).expect("text");
    assert!(PulledRecord::decode(good.as_bytes()).is_ok());
    let table = [
        String::new(),
        "{}".to_owned(),
        good[..good.len() - 3].to_owned(),
        good.replace("imageRef", "imageref"),
        good.replace("\"imageRef\":\"x\"", "\"imageRef\":\"x\",\"imageRef\":\"y\""),
        good.replace("\"imageRef\":\"x\"", "\"imageRef\":\"x\",\"more\":1"),
        good.replace("\"imageRef\":\"x\"", "\"imageRef\":1"),
        good.replace("v1beta1", "v2"),
        good.replace("ImagePulledRecord", "ImagePullIntent"),
        good.replace("null", "\"yesterday\""),
        format!("{good}{}", " ".repeat(RECORD_MAX_BYTES)),
    ];
    for text in table {
        assert!(PulledRecord::decode(text.as_bytes()).is_err(), "{:.200}", text);
    }
}

#[test]
fn absent_unreadable_and_foreign_records_prove_nothing() {
    let image = Reference::parse("r.io/app:1").expect("a name");
    let mut open = PulledRecord::new("sha256:aaa");
    open.grant("r.io/app", Grant::NodePods, time(1));
    let bytes = open.encode();
    let always = VerificationPolicy::AlwaysVerify;
    let table = [
        (RecordLookup::of(Some(&bytes), "sha256:aaa"), Check::Allowed(Grounds::RecordFound)),
        (RecordLookup::of(Some(&bytes), "sha256:bbb"), Check::Denied(Grounds::MustAuthenticate)),
        (RecordLookup::of(None, "sha256:aaa"), Check::Denied(Grounds::MustAuthenticate)),
        (RecordLookup::of(Some(b"{"), "sha256:aaa"), Check::Denied(Grounds::Error)),
    ];
    for (lookup, want) in table {
        assert_eq!(check(&image, &always, &lookup, false), want, "{lookup:?}");
    }
    let damaged = check(&image, &VerificationPolicy::NeverVerify, &RecordLookup::Unreadable, false);
    assert_eq!(damaged, Check::Denied(Grounds::Error));
}

#[test]
fn secrets_are_recognised_by_hash_or_place() {
    let allowed = |also: Option<SecretProof>| PodCheck::Allowed { also: also.map(Grant::Secret) };
    let known = secret("s", "u", "h");
    let moved = secret("other", "v", "h");
    let changed = secret("s", "u", "h2");
    // what the pod shows, in a kubelet, in our own mode
    let table = [
        (known.clone(), allowed(None), allowed(None)),
        (moved.clone(), allowed(Some(moved.clone())), allowed(Some(moved))),
        (changed.clone(), allowed(Some(changed)), PodCheck::Denied),
        (secret("s", "v", "h2"), PodCheck::Denied, PodCheck::Denied),
        (secret("s", "u", ""), allowed(Some(secret("s", "u", ""))), PodCheck::Denied),
    ];
    for (shown, kubelet, windlass) in table {
        let entry = access(vec![known.clone()]);
        assert_eq!(check_pod(&entry, &pod(shown.clone()), Mode::Kubelet), kubelet, "{shown:?}");
        assert_eq!(check_pod(&entry, &pod(shown.clone()), Mode::Windlass), windlass, "{shown:?}");
    }
    // Two secrets without a hash are not the same.
    let nameless = access(vec![secret("a", "u", "")]);
    assert_eq!(check_pod(&nameless, &pod(secret("b", "v", "")), Mode::Kubelet), PodCheck::Denied);
}

#[test]
fn an_empty_uid_never_matches_by_coordinates() {
    let entry = access(vec![secret("s", "", "h")]);
    assert_eq!(check_pod(&entry, &pod(secret("s", "", "h2")), Mode::Kubelet), PodCheck::Denied);
    assert_eq!(check_pod(&entry, &pod(secret("s", "", "h")), Mode::Kubelet), PodCheck::Allowed { also: None });
    let account = AccountProof { uid: String::new(), namespace: "ns".into(), name: "a".into() };
    let entry = RepositoryAccess { kubernetes_service_accounts: vec![account.clone()], ..RepositoryAccess::default() };
    let shown = PodProofs { secrets: Vec::new(), service_account: Some(account) };
    assert_eq!(check_pod(&entry, &shown, Mode::Kubelet), PodCheck::Denied);
}

#[test]
fn a_full_record_takes_no_further_matches() {
    let many = |count: usize| access((0..count).map(|n| secret(&n.to_string(), "u", &format!("h{n}"))).collect());
    let (moved, changed) = (secret("x", "u", "h5"), secret("5", "u", "new"));
    let below = many(MATCHED_SECRETS_MAX - 1);
    assert!(matches!(check_pod(&below, &pod(moved.clone()), Mode::Kubelet), PodCheck::Allowed { also: Some(_) }));
    assert!(matches!(check_pod(&below, &pod(changed.clone()), Mode::Kubelet), PodCheck::Allowed { also: Some(_) }));
    let full = many(MATCHED_SECRETS_MAX);
    assert_eq!(check_pod(&full, &pod(moved), Mode::Kubelet), PodCheck::Allowed { also: None });
    assert_eq!(check_pod(&full, &pod(changed), Mode::Kubelet), PodCheck::Denied);
}

#[test]
fn node_wide_access_never_reverts() {
    let mut record = PulledRecord::new("x");
    assert!(record.grant("r", Grant::Secret(secret("s", "u", "h")), time(1)));
    assert!(!record.grant("r", Grant::Secret(secret("s", "u", "h")), time(2)));
    assert!(record.grant("r", Grant::NodePods, time(3)));
    assert!(!record.grant("r", Grant::Secret(secret("s", "u", "h")), time(4)));
    let open = RepositoryAccess { node_pods_accessible: true, ..RepositoryAccess::default() };
    assert_eq!((record.credential_mapping.get("r"), record.last_updated), (Some(&open), Some(time(3))));
}

#[test]
fn records_of_images_that_are_gone_are_orphans() {
    let mut record = PulledRecord::new("x");
    record.grant("r", Grant::NodePods, time(10));
    let listed = |image: &str| BTreeSet::from([image.to_owned()]);
    assert!(record.is_orphan(&listed("y"), time(11)));
    assert!(!record.is_orphan(&listed("x"), time(11)));
    assert!(!record.is_orphan(&listed("y"), time(10)));
}

#[test]
fn verification_policies_are_read_as_the_kubelet_reads_them() {
    let none: [&str; 0] = [];
    assert_eq!(VerificationPolicy::parse("", &none), Ok(VerificationPolicy::NeverVerifyPreloadedImages));
    assert!(VerificationPolicy::parse("NeverVerifyAllowlistedImages", &["r.io/*"]).is_ok());
    let table: [(&str, &[&str]); 3] =
        [("Sometimes", &[]), ("AlwaysVerify", &["r.io/*"]), ("NeverVerifyAllowlistedImages", &["*"])];
    for (name, list) in table {
        assert!(VerificationPolicy::parse(name, list).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn a_written_record_reads_back(names in proptest::collection::vec("[a-z]{1,3}", 0..6), open: bool, at in 0_i64..4_000_000_000) {
        let mut record = PulledRecord::new("sha256:x\u{1f}\"");
        for name in &names {
            record.grant(&format!("r/{}", &name[..1]), Grant::Secret(secret(name, "u", name)), time(at));
        }
        if open {
            record.grant("r/z", Grant::NodePods, time(at));
        }
        for access in record.credential_mapping.values() {
            prop_assert!(access.kubernetes_secrets.is_sorted_by_key(|s| (&s.namespace, &s.name, &s.uid)));
        }
        prop_assert_eq!(PulledRecord::decode(&record.encode()), Ok(record));
    }
}
