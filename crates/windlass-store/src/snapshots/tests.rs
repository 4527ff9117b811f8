use std::fs;

use super::*;
use crate::fsck::{FindingClass, Outcome, Repair};
use crate::layer::Depth;
use crate::meta::Record as _;
use crate::store::StoreOptions;
use record::RuntimeRecord;

fn open(root: &std::path::Path) -> Store {
    Store::open(root, StoreOptions::default()).unwrap()
}

fn active(store: &Store, key: &str) {
    store.snapshots().prepare(key, None, &Labels::new()).unwrap();
}

/// The table as bytes.
const RUNTIME: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new(RuntimeRecord::TABLE);

/// Changes the database as no version of ours does.
fn tamper(store: &Store, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(store.layout().database()).unwrap();
    let tx = database.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}

#[test]
fn a_store_from_before_snapshots_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    tamper(&store, |tx| assert!(tx.delete_table(RUNTIME).unwrap()));
    drop(store);
    let store = open(&root);
    assert_eq!(store.snapshots().list().unwrap(), []);
    store.snapshots().cleanup().unwrap();
    store.gc(&crate::GcRequest::sweep()).unwrap();
    assert_eq!(store.usage().unwrap().inodes, 0);
    assert_eq!(store.fsck(Depth::Full, Repair::No).unwrap().findings, []);
    assert!(matches!(store.snapshots().stat("a"), Err(SnapshotError::NotFound { .. })));
    active(&store, "a");
    assert_eq!(store.snapshots().list().unwrap().len(), 1);
    // And by an older version it can be opened as before: the format is the same.
    assert_eq!(fs::read_to_string(root.join("meta/format")).unwrap().trim(), crate::FORMAT.to_string());
}

#[test]
fn a_record_that_cannot_be_read_costs_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    for key in ["a", "b"] {
        active(&store, key);
    }
    fs::write(root.join("upper/1/fs/mine"), "x").unwrap();
    tamper(&store, |tx| {
        let mut table = tx.open_table(RUNTIME).unwrap();
        table.insert("a", b"{\"parent\":null,\"new field\":1}".as_slice()).unwrap();
    });
    assert!(store.snapshots().cleanup().is_err());
    assert!(store.gc(&crate::GcRequest::sweep()).is_err());
    // As after a restart of the machine.
    fs::remove_file(root.join("meta/boot")).unwrap();
    let store = open(&root);
    assert!(root.join("upper/1/fs/mine").exists());
    let findings = store.fsck(Depth::Quick, Repair::Yes).unwrap().findings;
    let classes: Vec<_> = findings.iter().map(|found| (found.class, found.outcome)).collect();
    assert_eq!(classes, [(FindingClass::RecordUnreadable, Outcome::Repaired)]);
    let aside: Vec<_> =
        fs::read_dir(root.join("quarantine/upper")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read_to_string(aside[0].join("fs/mine")).unwrap(), "x");
    store.snapshots().cleanup().unwrap();
    store.snapshots().mounts("b").unwrap();
}

#[test]
fn a_lost_database_costs_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    active(&store, "a");
    fs::write(root.join("upper/1/fs/mine"), "x").unwrap();
    fs::write(store.layout().database(), vec![7; 100_000]).unwrap();
    let findings = store.fsck(Depth::Quick, Repair::Yes).unwrap().findings;
    assert!(matches!(findings.as_slice(), [one] if one.outcome == Outcome::Repaired), "{findings:?}");
    assert_eq!(store.snapshots().list().unwrap(), []);
    let aside = fs::read_dir(root.join("quarantine/upper")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_to_string(aside.join("fs/mine")).unwrap(), "x");
}

#[test]
fn what_was_never_recorded_is_gone_after_a_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    active(&store, "a");
    fs::create_dir_all(root.join("upper/9/fs/deep")).unwrap();
    fs::remove_file(root.join("meta/boot")).unwrap();
    drop(store);
    let store = open(&root);
    assert_eq!(store.recovered().runtime_directories, 1);
    assert!(!root.join("upper/9").exists());
    store.snapshots().mounts("a").unwrap();
}

#[test]
fn a_path_that_would_end_an_option_is_refused() {
    for name in ["a:b", "a,b", "a\\b", "a\"b"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join(name));
        let refused = store.snapshots().prepare("a", None, &Labels::new()).unwrap_err();
        assert!(matches!(refused, SnapshotError::FailedPrecondition { .. }), "{refused}");
        assert_eq!(store.snapshots().list().unwrap(), []);
    }
}
