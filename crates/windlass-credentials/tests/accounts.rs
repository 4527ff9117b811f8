//! Providers that act for service accounts: who is asked with which token, and what is kept for whom.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::{Plugin, Scene, answer, failure, image, users};
use windlass_core::keyring::{Mode, Origin};
use windlass_credentials::{Asked, Asker, CredentialSources, Lookup, ServiceAccount};

const TOKENS: &str =
    "apiVersion: credentialprovider.kubelet.k8s.io/v1\ntokenAttributes:\n  serviceAccountTokenAudience: sts";

/// A token as the API server makes them; the signature is none.
fn token(account: &str, audience: &str, seconds_left: i64, salt: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let expires = now.saturating_add_signed(seconds_left);
    let claims = format!(
        r#"{{"aud":["{audience}"],"exp":{expires},"sub":"system:serviceaccount:{account}","jti":"{salt}",
        "kubernetes.io":{{"serviceaccount":{{"name":"x","uid":"uid-1"}}}}}}"#
    );
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, text).expect("a file");
}

fn account(name: &str, annotations: &[(&str, &str)]) -> ServiceAccount {
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ServiceAccount { namespace: "ns".to_owned(), name: name.to_owned(), uid: String::new(), annotations }
}

async fn ask_for(sources: &CredentialSources, account: Option<&ServiceAccount>) -> Lookup {
    let asker = Asker { pull_secrets: &[], service_account: account };
    sources.candidates_for(&image("r.io/app"), asker, Mode::Windlass).await.expect("a lookup")
}

fn scene(attributes: &str, login: &str) -> Scene {
    let more = format!("{TOKENS}\n{attributes}");
    let script = format!("echo run >> $DIR/runs; cat > $DIR/request; {login}");
    Scene::new(&[Plugin { name: "p", more: &more, script: &script }])
}

fn login() -> String {
    answer(r#""cacheKeyType":"Registry","auth":{"r.io":{"username":"u","password":"p"}}"#)
}

fn sources(scene: &Scene) -> CredentialSources {
    scene.builder().service_account_tokens(scene.path("tokens")).build()
}

#[tokio::test]
async fn the_token_for_the_audience_is_found() {
    let attributes = "  cacheType: ServiceAccount\n  requireServiceAccount: true\n  \
        requiredServiceAccountAnnotationKeys: [role]\n  optionalServiceAccountAnnotationKeys: [more]";
    let scene = scene(attributes, &login());
    let long = token("ns:app", "sts", 3600, "long");
    put(&scene.path("tokens"), "ns/app/1", &token("ns:app", "sts", 600, "short"));
    put(&scene.path("tokens"), "ns/app/2", &format!("{long}\n"));
    put(&scene.path("tokens"), "ns/app/3", &token("ns:app", "other", 7200, "other"));
    let sources = sources(&scene);
    let app = account("app", &[("role", "arn"), ("x", "y")]);
    let lookup = ask_for(&sources, Some(&app)).await;
    assert_eq!(users(&lookup), ["u"]);
    let request = fs::read_to_string(scene.path("request")).expect("a request");
    let want = format!(
        r#"{{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"r.io/app","serviceAccountToken":"{long}","serviceAccountAnnotations":{{"role":"arn"}}}}"#
    );
    assert_eq!(request, want);
    let origin = Origin::ServiceAccount { namespace: "ns".into(), name: "app".into(), uid: "uid-1".into() };
    assert_eq!(lookup.candidates[0].origin, origin);
    assert_eq!(lookup.providers[0].cache_key, "registry r.io for ns/app");
    assert!(!format!("{lookup:?} {sources:?}").contains(&long));
}

#[tokio::test]
async fn a_token_that_does_not_fit_is_named() {
    let scene = scene("  cacheType: Token\n  requireServiceAccount: true", &login());
    let root = scene.path("tokens");
    put(&root, "ns/other", &token("ns:app", "sts", 600, ""));
    put(&root, "ns/audience", &token("ns:audience", "x", 600, ""));
    put(&root, "ns/old", &token("ns:old", "sts", 5, ""));
    put(&root, "ns/text", "canary");
    fs::create_dir_all(root.join("ns/empty")).expect("a directory");
    let sources = sources(&scene);
    let table = [
        ("other", "belongs to another account"),
        ("audience", "is for another audience"),
        ("old", "has expired"),
        ("text", "is not the token of a service account"),
        ("empty", "is empty"),
        ("absent", "cannot be read: No such file or directory (os error 2)"),
        ("..", "has a name that no service account can have"),
    ];
    for (name, want) in table {
        let lookup = ask_for(&sources, Some(&account(name, &[]))).await;
        let Asked::NoToken { why } = &lookup.providers[0].asked else { panic!("{lookup:?}") };
        assert_eq!(lookup.skipped.len(), 1, "said to whoever pulls: {lookup:?}");
        assert!(why.ends_with(want) && !why.contains("canary"), "{name}: {why}");
    }
    assert_eq!(scene.lines("runs"), 0);
}

#[tokio::test]
async fn who_lacks_an_account_or_an_annotation_is_left_alone() {
    let table = [
        (
            "  cacheType: Token\n  requireServiceAccount: true",
            None,
            "it acts for service accounts only, and there is none here",
        ),
        (
            "  cacheType: Token\n  requireServiceAccount: true\n  requiredServiceAccountAnnotationKeys: [role]",
            Some(account("app", &[])),
            "the service account lacks the annotation role",
        ),
    ];
    for (attributes, account, want) in table {
        let scene = scene(attributes, &login());
        put(&scene.path("tokens"), "ns/app", &token("ns:app", "sts", 600, ""));
        let lookup = ask_for(&sources(&scene), account.as_ref()).await;
        assert_eq!(lookup.providers[0].asked, Asked::Skipped { why: want.to_owned() });
        assert_eq!((scene.lines("runs"), lookup.skipped.len()), (0, 0), "quietly");
    }
    let scene = scene("  cacheType: Token\n  requireServiceAccount: false", &login());
    let lookup = ask_for(&sources(&scene), None).await;
    assert_eq!(lookup.candidates[0].origin, Origin::Plugin { name: "p".to_owned() });
    assert!(!fs::read_to_string(scene.path("request")).expect("a request").contains("serviceAccountToken"));
}

#[tokio::test]
async fn answers_are_kept_for_the_account_or_its_token() {
    // The kind; runs after: the same account, a new token of it, another account.
    for (kind, want) in [("ServiceAccount", [1, 1, 2]), ("Token", [1, 2, 3])] {
        let scene = scene(&format!("  cacheType: {kind}\n  requireServiceAccount: true"), &login());
        let tokens = scene.path("tokens");
        put(&tokens, "ns/app", &token("ns:app", "sts", 600, "1"));
        put(&tokens, "ns/two", &token("ns:two", "sts", 600, "1"));
        let sources = sources(&scene);
        let (app, two) = (account("app", &[]), account("two", &[]));
        ask_for(&sources, Some(&app)).await;
        let mut runs = Vec::new();
        ask_for(&sources, Some(&app)).await;
        runs.push(scene.lines("runs"));
        put(&tokens, "ns/app", &token("ns:app", "sts", 600, "2"));
        let lookup = ask_for(&sources, Some(&app)).await;
        runs.push(scene.lines("runs"));
        ask_for(&sources, Some(&two)).await;
        runs.push(scene.lines("runs"));
        assert_eq!(runs, want, "{kind}");
        assert_eq!(lookup.providers[0].advice.is_empty(), kind == "ServiceAccount");
    }
}

#[tokio::test]
async fn a_token_that_comes_back_as_a_password_is_refused_where_others_would_get_it() {
    for (kind, is_refused) in [("ServiceAccount", true), ("Token", false)] {
        let the_token = token("ns:app", "sts", 600, "");
        let echo =
            answer(&format!(r#""cacheKeyType":"Image","auth":{{"r.io":{{"username":"u","password":"{the_token}"}}}}"#));
        let scene = scene(&format!("  cacheType: {kind}\n  requireServiceAccount: true"), &echo);
        put(&scene.path("tokens"), "ns/app", &the_token);
        let lookup = ask_for(&sources(&scene), Some(&account("app", &[]))).await;
        assert_eq!(lookup.candidates.is_empty(), is_refused, "{kind}");
        if is_refused {
            assert_eq!(
                failure(&lookup),
                "it answered with the service account's token, which is for cacheType Token only"
            );
        }
    }
}
