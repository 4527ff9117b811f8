use super::*;

fn data(text: &str) -> SecretData {
    SecretData::from([(".dockerconfigjson".to_owned(), Secret::new(text.as_bytes().to_vec()))])
}

fn found(text: &str) -> Vec<String> {
    let problems = examine(DOCKERCONFIGJSON, &data(text));
    problems.iter().map(|p| format!("{} {:?} {}", p.entry, p.severity(), variant(&p.kind))).collect()
}

fn variant(kind: &ProblemKind) -> String {
    format!("{kind:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}

#[test]
fn a_good_secret_has_no_problems() {
    for key in ["https://index.docker.io/v1/", "docker.io", "quay.io", "r.io:5000/team/", "*.azurecr.io", "[::1]:5000"]
    {
        let text = format!("{{\"auths\":{{\"{key}\":{{\"auth\":\"dTpw\"}}}}}}");
        assert_eq!(found(&text), [""; 0], "{key}");
    }
}

#[test]
fn each_mistake_is_named() {
    let entry = |entry: &str| format!("{{\"auths\":{{\"r.io\":{entry}}}}}");
    let base64_twice = STANDARD.encode(r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#);
    let table: [(&str, &[&str]); 15] = [
        ("", &[" Error Undecodable"]),
        ("auths: {}", &[" Error Undecodable"]),
        (&base64_twice, &[" Error StillBase64"]),
        (r#"{"r.io":{"auth":"dTpw"}}"#, &[" Error LegacyLayout"]),
        ("{}", &[" Warning NoEntries"]),
        (r#"{"credsStore":"x","HttpHeaders":{}}"#, &[" Note HttpHeaders", " Warning Helpers", " Warning NoEntries"]),
        (&entry(r#"{"auth":"bm9jb2xvbg=="}"#), &["r.io Error BadEntry"]),
        (&entry(r#"{"auth":7}"#), &["r.io Error BadEntry"]),
        (&entry("{}"), &["r.io Warning EmptyEntry"]),
        (&entry(r#"{"auth":"dTo="}"#), &["r.io Warning HalfEmpty"]),
        (&entry(r#"{"auth":"dTpwCg=="}"#), &["r.io Warning OddPasswordEnd"]),
        (&entry(r#"{"auth":"dTpwAA=="}"#), &["r.io Warning OddPasswordEnd"]),
        (&entry(r#"{"auth":" dTpw"}"#), &["r.io Error BlanksAroundAuth"]),
        (&entry(r#"{"identitytoken":"t"}"#), &["r.io Warning TokenIgnored"]),
        ("\u{feff}{\"auths\":{\"r.io\":{\"auth\":\"dTpw\"}}}", &[" Error ByteOrderMark"]),
    ];
    for (text, want) in table {
        assert_eq!(found(text), want, "{text}");
    }
}

#[test]
fn keys_that_never_match_are_named() {
    let table: [(&str, &[&str]); 14] = [
        ("oci://r.io", &["Error KeyScheme"]),
        ("HTTPS://r.io", &["Error KeyScheme"]),
        ("r.io/app:1", &["Error KeyTag"]),
        ("r.io/app@sha256:00", &["Error KeyTag"]),
        ("r.io/*", &["Error KeyGlob"]),
        ("r.io:*", &["Error KeyGlob"]),
        ("eu?.gcr.io", &["Error KeyGlob"]),
        ("eu[0-9].gcr.io", &["Error KeyGlob"]),
        ("r.io:port", &["Error KeyUnparsable"]),
        ("a b", &["Error KeyUnparsable"]),
        ("registry-1.docker.io", &["Error KeyHubName"]),
        ("https://index.docker.io/v1", &["Error KeyVersionPath"]),
        ("R.io:443", &["Warning KeyDefaultPort", "Warning KeyUpperCase"]),
        ("r.io/team", &["Note KeyNeighbours"]),
    ];
    for (key, want) in table {
        let text = format!("{{\"auths\":{{\"{key}\":{{\"auth\":\"dTpw\"}}}}}}");
        let want: Vec<String> = want.iter().map(|w| format!("{key} {w}")).collect();
        assert_eq!(found(&text), want, "{key}");
    }
}

#[test]
fn the_secret_around_the_document_is_looked_at_too() {
    let good = r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#;
    let kinds = |r#type: &str, data: &SecretData| -> Vec<String> {
        examine(r#type, data).iter().map(|p| variant(&p.kind)).collect()
    };
    assert_eq!(kinds("Opaque", &data(good)), ["OtherType"]);
    assert_eq!(kinds(DOCKERCFG, &data(good)), ["MissingKey"]);
    let legacy = SecretData::from([(".dockercfg".to_owned(), Secret::new(good.as_bytes().to_vec()))]);
    assert_eq!(kinds(DOCKERCFG, &legacy), ["NewLayout"]);
    let mut large = data(good);
    large.insert("bad key".into(), Secret::new(vec![0; MAX_SECRET_BYTES]));
    assert_eq!(kinds(DOCKERCONFIGJSON, &large), ["BadDataKey", "TooLarge"]);
}

#[test]
fn every_problem_has_a_hint_and_shows_no_value() {
    let texts = [
        "canary",
        r#"{"auths":{"r.io":{"auth":"canary"}}}"#,
        r#"{"auths":{"r.io":{"auth":["canary"]}}}"#,
        r#"{"auths":{"r.io/x:1":{"username":"u","password":"canary\n"},"s.io":"canary"}}"#,
        r#"{"auths":{"r.io":{"identitytoken":"canary"}},"credsStore":"x"}"#,
        r#"{"r.io":{"password":"canary"}}"#,
        r#"{"auths":"canary"}"#,
    ];
    for text in texts {
        let problems = examine(DOCKERCONFIGJSON, &data(text));
        assert!(!problems.is_empty(), "{text}");
        for problem in problems {
            assert!(!problem.hint().is_empty() && !problem.hint().ends_with('.'), "{problem}");
            let shown = format!("{problem} {problem:?} {}", problem.hint());
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
    assert_eq!(Problem::not_base64().severity(), Severity::Error);
}
