use proptest::prelude::*;

use super::*;
use crate::secret::Secret;

fn read(text: &str, mode: Mode) -> Result<Document, DecodeError> {
    decode(text.as_bytes(), Layout::ConfigJson, mode)
}

#[test]
fn one_bad_entry_costs_only_itself() {
    let text = r#"{"auths":{"a":{"auth":"YTox"},"b":{"auth":"@"},"c":{"auth":1},"d":"x","e":{"auth":"YWJj"}}}"#;
    let document = read(text, Mode::Windlass).expect("a document with one good entry");
    assert_eq!(document.entries.len(), 1);
    let why: Vec<(&str, &EntryError)> = document.rejected.iter().map(|r| (r.key.as_str(), &r.why)).collect();
    assert_eq!(
        why,
        [
            ("b", &EntryError::Base64),
            ("c", &EntryError::FieldType { field: "auth" }),
            ("d", &EntryError::NotAnObject),
            ("e", &EntryError::NoColon),
        ]
    );
    assert!(matches!(read(text, Mode::Kubelet), Err(DecodeError::Entry { key, .. }) if key == "b"));
}

#[test]
fn doubles_are_merged_as_go_merges_them() {
    let table = [
        (r#"{"auths":{"a":{}},"Auths":{"b":{}}}"#, vec!["a", "b"]),
        (r#"{"auths":{"a":{}},"auths":null}"#, vec![]),
        (r#"{"auths":{"a":{},"b":{},"a":{}}}"#, vec!["a", "b"]),
        (r#"{"auth\u017f":{"k":{}}}"#, vec!["k"]),
    ];
    for (text, want) in table {
        for mode in [Mode::Kubelet, Mode::Windlass] {
            let document = read(text, mode).expect(text);
            let keys: Vec<&str> = document.entries.iter().map(|e| e.key.as_str()).collect();
            assert_eq!(keys, want, "{text} {mode:?}");
        }
    }
}

#[test]
fn the_wrong_layout_is_named() {
    let legacy = read(r#"{"r.io":{"auth":"dTpw"}}"#, Mode::Windlass).expect("no entries");
    assert_eq!((legacy.entries.len(), legacy.notes), (0, vec![Note::Document(DocumentNote::LegacyLayout)]));
    let new = decode(br#"{"auths":{"r.io":{"auth":"dTpw"}}}"#, Layout::DockerCfg, Mode::Windlass).expect("one entry");
    assert_eq!(new.notes, [Note::Document(DocumentNote::NewLayout)]);
    let neither = read(r#"{"credsStore":"x","credHelpers":{"r.io":"y"}}"#, Mode::Windlass).expect("no entries");
    assert_eq!((neither.notes.len(), neither.creds_store.as_deref()), (0, Some("x")));
    assert_eq!(neither.cred_helpers.get("r.io").map(String::as_str), Some("y"));
}

#[test]
fn what_a_kubelet_would_do_differently_is_noted() {
    let table: [(&str, &[EntryNote]); 4] = [
        (r#"{"identitytoken":"t"}"#, &[EntryNote::IdentityToken]),
        (r#"{"registrytoken":"t"}"#, &[EntryNote::RegistryToken]),
        (r#"{"auth":" dTpw"}"#, &[EntryNote::BlanksAroundAuth]),
        (r#"{"auth":"dTpwAA=="}"#, &[EntryNote::NulBytes]),
    ];
    for (entry, want) in table {
        let document = read(&format!("{{\"auths\":{{\"r.io\":{entry}}}}}"), Mode::Windlass).expect(entry);
        let want: Vec<Note> = want.iter().map(|what| Note::Entry { key: "r.io".into(), what: *what }).collect();
        assert_eq!(document.notes, want, "{entry}");
    }
}

#[test]
fn bytes_that_are_no_text_never_become_a_password() {
    let table: [&[u8]; 3] = [
        b"{\"auths\":{\"r\":{\"username\":\"u\",\"password\":\"\xff\"}}}",
        b"{\"auths\":{\"r\":{\"auth\":\"dTr/\"}}}",
        b"{\"auths\":{\"r\":{\"auth\":\"/zpw\"}}}",
    ];
    for bytes in table {
        let document = decode(bytes, Layout::ConfigJson, Mode::Windlass).expect("a document");
        assert_eq!(document.rejected, [Rejected { key: "r".into(), why: EntryError::NotUtf8 }]);
        assert!(decode(bytes, Layout::ConfigJson, Mode::Kubelet).is_ok(), "the kubelet does not look");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert_eq!(read(&deep, Mode::Windlass), Err(DecodeError::TooDeep));
    assert_eq!(read(&"[".repeat(1_000_000), Mode::Kubelet), Err(DecodeError::TooDeep));
    assert_eq!(
        decode(&vec![b' '; MAX_DOCUMENT_BYTES + 1], Layout::ConfigJson, Mode::Windlass),
        Err(DecodeError::TooLarge)
    );
}

#[test]
fn no_value_shows_in_errors_or_debug() {
    let entries = [
        r#""canary""#,
        r#"["canary"]"#,
        r#"{"auth":["canary"]}"#,
        r#"{"auth":"canary"}"#,
        r#"{"auth":"canary!"}"#,
        r#"{"username":"u","password":"canary"}"#,
        r#"{"identitytoken":"canary"}"#,
        r#"{"registrytoken":"canary"}"#,
        r#"{"password":"canary","#,
    ];
    for entry in entries {
        let text = format!("{{\"auths\":{{\"r.io\":{entry}}}}}");
        for mode in [Mode::Kubelet, Mode::Windlass] {
            let shown = match read(&text, mode) {
                Ok(document) => format!("{document:?}"),
                Err(error) => {
                    format!("{error} {error:?} {:?}", std::error::Error::source(&error).map(|e| e.to_string()))
                }
            };
            assert!(!shown.contains("canary"), "{entry} {mode:?}: {shown}");
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let entry = |registry: &str, username: &str, password: &str| LoginEntry {
        registry: registry.into(),
        username: username.into(),
        password: Secret::from(password),
    };
    let entries = [
        entry("docker.io", "hub", "a:b\"\\\n✓"),
        entry("r.io/team", "u", "old"),
        entry("r.io/team", "u", "p"),
        entry("x.io", "a:b", "c"),
    ];
    let json = write_config_json(&entries);
    assert!(!format!("{json:?} {entries:?}").contains("old"));
    for mode in [Mode::Kubelet, Mode::Windlass] {
        let got = decode(json.expose(), Layout::ConfigJson, mode).expect("our own document");
        let got: Vec<(&str, &Credential)> = got.entries.iter().map(|e| (e.key.as_str(), &e.credential)).collect();
        let want = [
            ("https://index.docker.io/v1/", &Credential::basic("hub", "a:b\"\\\n✓")),
            ("r.io/team", &Credential::basic("u", "p")),
            ("x.io", &Credential::basic("a:b", "c")),
        ];
        assert_eq!(got, want);
    }
}

proptest! {
    #[test]
    fn nothing_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for mode in [Mode::Kubelet, Mode::Windlass] {
            for layout in [Layout::ConfigJson, Layout::DockerCfg] {
                let _ = decode(&bytes, layout, mode);
            }
        }
    }

    #[test]
    fn structured_garbage_does_not_panic_either(text in "(\\{|\\}|\"auths\"|\"auth\"|\"username\"|:|,|null|\"dTpw\"|\"r\\.io\"|\\[|\\]|1|\\\\ud800|\"){0,24}") {
        for mode in [Mode::Kubelet, Mode::Windlass] {
            let _ = read(&text, mode);
        }
    }

    #[test]
    fn any_login_survives_writing(username in "[^:]{0,12}", password in ".{1,20}") {
        let entry = LoginEntry { registry: "r.io".into(), username: username.clone(), password: Secret::new(password.clone()) };
        let json = write_config_json(&[entry]);
        let got = decode(json.expose(), Layout::ConfigJson, Mode::Kubelet).expect("our own document");
        prop_assert_eq!(&got.entries[0].credential, &Credential::basic(username, password));
    }
}
