//! Credentials from files: order, search, reload, bounds, and what every kind of source promises.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use windlass_core::keyring::{Credential, DOCKERCONFIGJSON, Mode, Origin, PullSecret};
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;
use windlass_credentials::{
    Builder, CredentialSources, CredentialsError, FileError, Lookup, MAX_FILE_BYTES, NodePlaces, Person,
};

const PASSWORD: &str = "canary-password";

fn image(text: &str) -> Reference {
    Reference::parse(text).expect("an image name")
}

fn config(user: &str) -> String {
    format!(r#"{{"auths":{{"r.io":{{"username":"{user}","password":"{PASSWORD}"}}}}}}"#)
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    fs::create_dir_all(directory).expect("a directory");
    let path = directory.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}

fn secret(user: &str) -> PullSecret {
    PullSecret {
        namespace: "ns".into(),
        name: "pull".into(),
        uid: "uid".into(),
        r#type: DOCKERCONFIGJSON.into(),
        data: Secret::new(config(user).into_bytes()),
    }
}

fn users(lookup: &Lookup) -> Vec<&str> {
    lookup.candidates.iter().map(|c| c.credential.username().unwrap_or("-")).collect()
}

async fn ask(sources: &CredentialSources, secrets: &[PullSecret], mode: Mode) -> Lookup {
    sources.candidates(&image("r.io/team/app"), secrets, mode).await.expect("a lookup")
}

fn node(directory: &Path) -> NodePlaces {
    NodePlaces { config_json: vec![directory.join("a"), directory.join("b")], dockercfg: vec![directory.join("a")] }
}

#[tokio::test]
async fn sources_come_in_the_kubelet_s_order() {
    let dir = TempDir::new().expect("a directory");
    let explicit = write(dir.path(), "auth.json", &config("explicit"));
    write(&dir.path().join("a"), "config.json", &config("node"));
    write(&dir.path().join("home/.docker"), "config.json", &config("person"));
    let sources = CredentialSources::builder()
        .person(Person { home: Some(dir.path().join("home")), ..Person::default() })
        .node(node(dir.path()))
        .authfile(&explicit)
        .given("r.io", Credential::basic("given", "p"))
        .build();
    let lookup = ask(&sources, &[secret("secret")], Mode::Windlass).await;
    assert_eq!(users(&lookup), ["given", "secret", "explicit", "node", "person"]);
    let origins: Vec<String> = lookup.candidates.iter().map(|c| c.origin.to_string()).collect();
    assert_eq!(origins[..2], ["the command", "secret ns/pull"]);
    assert_eq!(lookup.candidates[2].origin, Origin::File { path: explicit });
    assert_eq!((lookup.skipped.len(), lookup.exposed_files.len()), (0, 0));
}

#[tokio::test]
async fn the_first_node_file_wins() {
    // File in a/, file in b/, a/.dockercfg; who is found, how many are reported as unusable.
    let old = r#"{"r.io":{"username":"old","password":"p"}}"#;
    let (one, two) = (config("one"), config("two"));
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], usize);
    let table: [Row<'_>; 5] = [
        (&[("a/config.json", &one), ("b/config.json", &two), ("a/.dockercfg", old)], &["one"], 0),
        (&[("b/config.json", &two), ("a/.dockercfg", old)], &["two"], 0),
        (&[("a/config.json", "{"), ("b/config.json", &two)], &["two"], 1),
        (&[("a/config.json", "{}"), ("b/config.json", &two)], &[], 0),
        (&[("a/.dockercfg", old)], &["old"], 0),
    ];
    for (files, want, reported) in table {
        let dir = TempDir::new().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            write(path.parent().expect("a parent"), path.file_name().and_then(|n| n.to_str()).expect("a name"), text);
        }
        let sources = CredentialSources::builder().node(node(dir.path())).build();
        for mode in [Mode::Kubelet, Mode::Windlass] {
            let lookup = ask(&sources, &[], mode).await;
            assert_eq!(users(&lookup), want, "{files:?} {mode:?}");
            assert_eq!(lookup.skipped.len(), reported, "{files:?} {mode:?}: {:?}", lookup.skipped);
        }
    }
}

#[tokio::test]
async fn a_changed_file_is_read_again() {
    let dir = TempDir::new().expect("a directory");
    let path = write(&dir.path().join("a"), "config.json", &config("before"));
    let sources = CredentialSources::builder().node(node(dir.path())).build();
    assert_eq!(users(&ask(&sources, &[], Mode::Windlass).await), ["before"]);
    let new = write(dir.path(), "new", &config("after"));
    fs::rename(new, &path).expect("a rename");
    assert_eq!(users(&ask(&sources, &[], Mode::Windlass).await), ["after"]);
    fs::write(&path, config("written in place")).expect("a write");
    assert_eq!(users(&ask(&sources, &[], Mode::Windlass).await), ["written in place"]);
    fs::remove_file(&path).expect("a removal");
    assert!(ask(&sources, &[], Mode::Windlass).await.candidates.is_empty());
}

#[tokio::test]
async fn files_that_others_can_read_are_reported() {
    let dir = TempDir::new().expect("a directory");
    let path = write(&dir.path().join("a"), "config.json", &config("node"));
    let sources = CredentialSources::builder().node(node(dir.path())).build();
    for (mode, exposed) in [(0o600, false), (0o640, true), (0o604, true), (0o400, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        let lookup = ask(&sources, &[], Mode::Windlass).await;
        assert_eq!(lookup.exposed_files == [path.clone()], exposed, "{mode:o}");
        assert_eq!(users(&lookup), ["node"], "{mode:o}");
    }
}

#[tokio::test]
async fn a_file_named_on_purpose_must_be_usable() {
    let dir = TempDir::new().expect("a directory");
    let huge = dir.path().join("huge");
    fs::File::create(&huge).and_then(|f| f.set_len(MAX_FILE_BYTES + 1)).expect("a sparse file");
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a pipe");
    let bad = write(dir.path(), "bad", &format!("{{\"auths\": \"{PASSWORD}\"}}"));
    type Expected = fn(&FileError) -> bool;
    let table: [(PathBuf, Expected); 5] = [
        (dir.path().join("missing"), |e| matches!(e, FileError::Missing)),
        (dir.path().to_owned(), |e| matches!(e, FileError::NotRegular)),
        (pipe, |e| matches!(e, FileError::NotRegular)),
        (huge, |e| matches!(e, FileError::TooLarge)),
        (bad, |e| matches!(e, FileError::Decode(_))),
    ];
    for (path, expected) in table {
        let sources = CredentialSources::builder().authfile(&path).build();
        let error = sources.candidates(&image("r.io/a"), &[], Mode::Windlass).await.expect_err("unusable");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(path.to_str().expect("a path")) && !shown.contains(PASSWORD), "{shown}");
        assert!(matches!(&error, CredentialsError::AuthFile { source, .. } if expected(source)), "{error:?}");
    }
}

#[tokio::test]
async fn the_same_trouble_in_a_usual_place_is_only_reported() {
    let dir = TempDir::new().expect("a directory");
    let huge = write(&dir.path().join("a"), "config.json", "");
    fs::File::options().write(true).open(&huge).and_then(|f| f.set_len(MAX_FILE_BYTES + 1)).expect("a sparse file");
    write(&dir.path().join("b"), "config.json", &config("node"));
    let sources = CredentialSources::builder().node(node(dir.path())).build();
    let lookup = ask(&sources, &[], Mode::Windlass).await;
    assert_eq!((users(&lookup), lookup.skipped.len()), (vec!["node"], 1));
}

#[tokio::test]
async fn a_malformed_pull_secret_fails_the_lookup_only_by_the_kubelet_s_rules() {
    let bad = PullSecret { data: Secret::new(b"{".to_vec()), ..secret("x") };
    let sources = CredentialSources::builder().build();
    let refused = sources.candidates(&image("r.io/a"), std::slice::from_ref(&bad), Mode::Kubelet).await;
    assert!(matches!(refused, Err(CredentialsError::Keyring(_))));
    let lookup = ask(&sources, &[bad, secret("good")], Mode::Windlass).await;
    assert_eq!((users(&lookup), lookup.skipped.len()), (vec!["good"], 1));
}

/// What every kind of source promises. A new one is added to the list and is done.
#[tokio::test]
async fn every_source_keeps_the_promises_of_sources() {
    let dir = TempDir::new().expect("a directory");
    let authfile = write(dir.path(), "auth.json", &config("u"));
    write(&dir.path().join("a"), "config.json", &config("u"));
    write(&dir.path().join("home/.docker"), "config.json", &config("u"));
    let person = Person { home: Some(dir.path().join("home")), ..Person::default() };
    let kinds: [(&str, Builder); 4] = [
        ("given", CredentialSources::builder().given("r.io", Credential::basic("u", PASSWORD))),
        ("authfile", CredentialSources::builder().authfile(authfile)),
        ("node", CredentialSources::builder().node(node(dir.path()))),
        ("person", CredentialSources::builder().person(person)),
    ];
    for (kind, builder) in kinds {
        let sources = builder.build();
        for mode in [Mode::Kubelet, Mode::Windlass] {
            let lookup = ask(&sources, &[], mode).await;
            assert_eq!(users(&lookup), ["u"], "{kind}: its credential is found");
            assert_eq!(lookup.candidates[0].key, "r.io", "{kind}: the key is named");
            assert_eq!(ask(&sources, &[], mode).await, lookup, "{kind}: asking twice gives the same");
            let other = sources.candidates(&image("other.io/team/app"), &[], mode).await.expect("a lookup");
            assert!(other.candidates.is_empty(), "{kind}: another host gets nothing");
            let shown = format!("{sources:?} {lookup:?}");
            assert!(!shown.contains(PASSWORD), "{kind}: no secret shows");
        }
    }
}
