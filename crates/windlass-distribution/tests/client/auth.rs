//! Who is shown which credential, how often, and what a test of the wire sees of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::keyring::{Candidate, Credential, Origin};
use windlass_core::reason::Reason;
use windlass_core::secret::Secret;
use windlass_distribution::config::AnonymousFallback;
use windlass_distribution::{Client, CredentialMode, FetchError, TagOrDigest};

use crate::support::{Image, Reply, Seen, Server, basic, fast, reference, session, session_as, user};

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

const SCOPE: &str = "repository:team/app:pull";

/// A registry with its token endpoint on the same host and port. `token` answers token requests.
async fn with_tokens(image: &Image, token: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    let served = image.clone();
    Server::start(move |seen| match seen.path() {
        "/token" => token(seen),
        _ if seen.authorization().is_some_and(|a| a.starts_with("Bearer good")) => served.serve(seen),
        _ => Reply::bearer(&format!("http://{}/token", seen.header("host").unwrap()), SCOPE),
    })
    .await
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_and_kept() {
    let image = Image::new(10);
    let server = with_tokens(&image, |_| Reply::json(r#"{"token":"good","expires_in":300}"#)).await;
    let client = Client::new(fast()).unwrap();
    let session = || client.repository(&reference(&server), Vec::new(), CredentialMode::Windlass);
    session().manifest(&tag()).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "GET /v2/team/app/manifests/1.0",
            "GET /token?service=registry.test&scope=repository%3Ateam%2Fapp%3Apull",
            "GET /v2/team/app/manifests/1.0",
        ]
    );
    assert_eq!(server.seen()[1].authorization(), None);
    // The next session asks once: the token is used without waiting for a 401.
    session().head(&tag()).await.unwrap().unwrap();
    assert_eq!(server.lines()[3..], ["HEAD /v2/team/app/manifests/1.0"]);
    assert_eq!(client.counters().token, 1);
}

#[tokio::test]
async fn a_password_gets_its_token_by_get_with_basic() {
    let image = Image::new(10);
    let server = with_tokens(&image, |seen| match seen.authorization() {
        Some(a) if a == basic("ada") => Reply::json(r#"{"access_token":"good","token":"bad"}"#),
        _ => Reply::error(401, "UNAUTHORIZED", "no"),
    })
    .await;
    let repository = session_as(&server, fast(), vec![user("ada")]);
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(repository.accepted().unwrap(), Some(user("ada")));
    assert!(repository.attempts().is_empty());
    for seen in server.seen().iter().filter(|s| s.path() != "/token") {
        assert_ne!(seen.authorization(), Some(basic("ada").as_str()), "the password goes to the token endpoint only");
    }
}

#[tokio::test]
async fn a_password_is_posted_only_where_get_is_unknown() {
    let image = Image::new(10);
    for status in [404, 405] {
        let server = with_tokens(&image, move |seen| match seen.method.as_str() {
            "GET" => Reply::new(status),
            _ => Reply::json(r#"{"access_token":"good"}"#),
        })
        .await;
        session_as(&server, fast(), vec![user("ada")]).manifest(&tag()).await.unwrap();
        let post = server.seen().into_iter().find(|s| s.method == "POST").unwrap();
        assert_eq!(
            String::from_utf8(post.body).unwrap(),
            "grant_type=password&username=ada&password=hunter2-ada&service=registry.test&client_id=windlass\
             &scope=repository%3Ateam%2Fapp%3Apull"
        );
    }
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let image = Image::new(10);
    let server = with_tokens(&image, |seen| match seen.method.as_str() {
        "POST" => Reply::json(r#"{"access_token":"good"}"#),
        _ => Reply::error(405, "UNSUPPORTED", "no"),
    })
    .await;
    let credential = Credential::IdentityToken { username: None, token: Secret::from("refresh/me+1") };
    let candidate = Candidate::new(credential, Origin::Given, "x");
    session_as(&server, fast(), vec![candidate.clone()]).manifest(&tag()).await.unwrap();
    let body = String::from_utf8(server.seen()[1].body.clone()).unwrap();
    assert!(body.starts_with("grant_type=refresh_token&refresh_token=refresh%2Fme%2B1&service="), "{body}");

    let server = with_tokens(&image, |_| Reply::error(405, "UNSUPPORTED", "no")).await;
    let error = session_as(&server, fast(), vec![candidate]).manifest(&tag()).await.unwrap_err();
    assert!(error.to_string().contains("takes no identity tokens"), "{error}");
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let image = Image::new(10);
    let server = with_tokens(&image, |_| panic!("no token endpoint is asked")).await;
    let credential = Credential::RegistryToken { token: Secret::from("good-as-gold") };
    let candidate = Candidate::new(credential, Origin::Given, "x");
    session_as(&server, fast(), vec![candidate]).manifest(&tag()).await.unwrap();
    assert_eq!(server.seen()[1].authorization(), Some("Bearer good-as-gold"));
}

/// A registry with Basic authentication that knows one user.
async fn with_basic(image: &Image, refusal: u16) -> Server {
    let served = image.clone();
    Server::start(move |seen| match seen.authorization() {
        Some(a) if a == basic("bob") => served.serve(seen),
        Some(_) => Reply::error(refusal, "DENIED", "not you"),
        None => Reply::basic_challenge(),
    })
    .await
}

#[tokio::test]
async fn the_next_credential_is_tried_on_401_403_and_404() {
    let image = Image::new(10);
    for refusal in [401, 403, 404] {
        let server = with_basic(&image, refusal).await;
        let repository = session_as(&server, fast(), vec![user("ada"), user("bob"), user("eve")]);
        repository.manifest(&tag()).await.unwrap();
        assert_eq!(repository.accepted().unwrap(), Some(user("bob")), "{refusal}");
        let attempts: Vec<String> = repository.attempts().iter().map(ToString::to_string).collect();
        let words = format!("secret team/secret-ada key registry.example (user ada): {refusal}: DENIED not you");
        assert_eq!(attempts, [words]);
        // What was accepted is used from then on, and eve's credential is never shown.
        let before = server.seen().len();
        repository.manifest(&tag()).await.unwrap();
        let later = server.seen().split_off(before);
        assert_eq!(later.len(), 1);
        assert_eq!(later[0].authorization(), Some(basic("bob").as_str()));
        assert!(server.seen().iter().all(|s| s.authorization() != Some(basic("eve").as_str())));
    }
}

#[tokio::test]
async fn the_same_credential_is_retried_on_429_and_5xx() {
    let image = Image::new(10);
    for status in [429, 500, 503] {
        let served = image.clone();
        let failures = AtomicUsize::new(0);
        let server = Server::start(move |seen| match seen.authorization() {
            None => Reply::basic_challenge(),
            Some(_) if failures.fetch_add(1, Ordering::SeqCst) < 2 => Reply::new(status),
            Some(_) => served.serve(seen),
        })
        .await;
        session_as(&server, fast(), vec![user("ada"), user("bob")]).manifest(&tag()).await.unwrap();
        let shown: BTreeSet<_> = server.seen().iter().filter_map(|s| s.authorization().map(str::to_owned)).collect();
        assert_eq!(shown, BTreeSet::from([basic("ada")]), "{status}");
    }
}

#[tokio::test]
async fn a_public_image_is_pulled_although_a_credential_is_refused() {
    let image = Image::new(10);
    let run = async |anonymous: AnonymousFallback| {
        let server = with_tokens(&image, |seen| match seen.authorization() {
            Some(_) => Reply::error(401, "UNAUTHORIZED", "wrong password"),
            None => Reply::json(r#"{"token":"good"}"#),
        })
        .await;
        let config = windlass_distribution::ClientConfig { anonymous_fallback: anonymous, ..fast() };
        let repository = session_as(&server, config, vec![user("ada")]);
        let outcome = repository.manifest(&tag()).await.map(|_| ());
        (outcome, repository.accepted(), repository.attempts())
    };
    let (outcome, accepted, attempts) = run(AnonymousFallback::Allowed).await;
    assert!(outcome.is_ok() && accepted == Some(None));
    assert_eq!(attempts[0].username.as_deref(), Some("ada"));
    assert_eq!(attempts[0].answer, "401: UNAUTHORIZED wrong password");
    let (outcome, accepted, attempts) = run(AnonymousFallback::Disabled).await;
    assert_eq!(outcome.unwrap_err().reason(), Reason::Unauthorized);
    assert_eq!((accepted, attempts.len()), (None, 1));
}

#[tokio::test]
async fn kubelet_mode_tries_exactly_what_it_was_given() {
    let image = Image::new(10);
    let server = with_basic(&image, 403).await;
    let client = Client::new(fast()).unwrap();
    let given = vec![user("ada"), user("bob")];
    let repository = client.repository(&reference(&server), given, CredentialMode::Kubelet);
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Denied, "{error}");
    assert_eq!(error.attempts().len(), 1);
    let shown: Vec<_> = server.seen().iter().map(|s| s.authorization().map(str::to_owned)).collect();
    assert_eq!(shown, [None, Some(basic("ada"))]);
}

#[tokio::test]
async fn two_rounds_are_all_there_are() {
    let tokens = Arc::new(AtomicUsize::new(0));
    let count = tokens.clone();
    // Never satisfied; every challenge asks for another scope of this repository.
    let server = Server::start(move |seen| match seen.path() {
        "/token" => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::json(r#"{"token":"t"}"#)
        }
        _ => {
            let realm = format!("http://{}/token", seen.header("host").unwrap());
            Reply::bearer(&realm, &format!("repository:team/app:pull,more{}", seen.number))
        }
    })
    .await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unauthorized);
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_kept_token_that_is_refused_is_renewed_once() {
    let image = Image::new(10);
    let served = image.clone();
    let tokens = AtomicUsize::new(0);
    // Each token is good for one request.
    let server = Server::start(move |seen| match (seen.path(), seen.authorization()) {
        ("/token", _) => Reply::json(&format!(r#"{{"token":"t{}"}}"#, tokens.fetch_add(1, Ordering::SeqCst))),
        (_, Some("Bearer t0")) if seen.number < 3 => served.serve(seen),
        (_, Some("Bearer t1")) => served.serve(seen),
        _ => Reply::bearer(&format!("http://{}/token", seen.header("host").unwrap()), SCOPE),
    })
    .await;
    let repository = session(&server, fast());
    repository.manifest(&tag()).await.unwrap();
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(repository.counters().token, 2);
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn a_token_with_too_little_scope_is_widened() {
    let image = Image::new(10);
    for status in [401, 403] {
        let served = image.clone();
        let server = Server::start(move |seen| match (seen.path(), seen.authorization()) {
            ("/token", _) if seen.query().contains("scope=aws") => Reply::json(r#"{"token":"wide"}"#),
            ("/token", _) => Reply::json(r#"{"token":"narrow"}"#),
            (_, Some("Bearer wide")) => served.serve(seen),
            (_, proof) => {
                let realm = format!("http://{}/token", seen.header("host").unwrap());
                let scope = if proof.is_some() { "aws" } else { SCOPE };
                let value = format!(r#"Bearer realm="{realm}",scope="{scope}",error="insufficient_scope""#);
                Reply::new(if proof.is_some() { status } else { 401 }).header("WWW-Authenticate", &value)
            }
        })
        .await;
        session(&server, fast()).manifest(&tag()).await.unwrap();
        let asked: Vec<String> = server.lines().into_iter().filter(|l| l.contains("/token")).collect();
        assert!(asked[1].ends_with("scope=repository%3Ateam%2Fapp%3Apull&scope=aws"), "{asked:?}");
    }
}

#[tokio::test]
async fn the_password_of_one_host_never_reaches_another_realm() {
    let image = Image::new(10);
    let elsewhere = Server::start_on("127.0.0.2", |_| Reply::json(r#"{"token":"good"}"#)).await;
    let served = image.clone();
    let realm = elsewhere.url("/token");
    let server = Server::start(move |seen| match seen.authorization() {
        Some("Bearer good") => served.serve(seen),
        _ => Reply::bearer(&realm, SCOPE),
    })
    .await;
    // The anonymous token is enough here.
    let repository = session_as(&server, fast(), vec![user("ada")]);
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(elsewhere.seen().len(), 1);
    assert_eq!(elsewhere.seen()[0].authorization(), None);

    // Where it is not, the error names the realm and the rule.
    let elsewhere = Server::start_on("127.0.0.2", |_| Reply::json(r#"{"token":"weak"}"#)).await;
    let realm = elsewhere.url("/token");
    let server = Server::start(move |_| Reply::bearer(&realm, SCOPE)).await;
    let error = session_as(&server, fast(), vec![user("ada")]).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RealmNotTrusted, "{error}");
    assert!(error.to_string().contains(&elsewhere.host()), "{error}");
    for seen in elsewhere.seen() {
        assert_eq!((seen.authorization(), seen.method.as_str()), (None, "GET"));
    }
}

#[tokio::test]
async fn hostile_realms_are_never_asked() {
    for (realm, rule) in [
        ("http://169.254.169.254/latest/meta-data", "forbidden_address"),
        ("http://[::ffff:169.254.169.254]/token", "forbidden_address"),
        ("file:///etc/passwd", "scheme"),
        ("/token", "not_absolute"),
        ("http://user:pw@127.0.0.1/token", "userinfo"),
        ("http://0x7f000001/token", "bad_url"),
    ] {
        let server = Server::start(move |_| Reply::bearer(realm, SCOPE)).await;
        let error = session_as(&server, fast(), vec![user("ada")]).manifest(&tag()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RealmNotTrusted, "{realm}: {error}");
        assert!(error.to_string().contains(rule), "{realm}: {error}");
        assert_eq!(server.seen().len(), 1, "{realm}");
    }
}

#[tokio::test]
async fn token_endpoints_are_bounded_and_retried() {
    let image = Image::new(10);
    let failures = AtomicUsize::new(0);
    let server = with_tokens(&image, move |_| match failures.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::error(503, "UNAVAILABLE", "busy"),
        1 => Reply::error(429, "TOOMANYREQUESTS", "slow").header("Retry-After", "0"),
        _ => Reply::json(r#"{"token":"good"}"#),
    })
    .await;
    session(&server, fast()).manifest(&tag()).await.unwrap();

    for (reply, part) in [
        (Reply::json(&format!(r#"{{"token":"{}"}}"#, "x".repeat(70_000))), "larger than 64 KiB"),
        (Reply::json("{}"), "holds no token"),
        (Reply::new(200).header("Content-Type", "text/html").body(b"<html>".to_vec()), "no token document"),
        (Reply::new(200).endless(), "larger than 64 KiB"),
    ] {
        let server = with_tokens(&image, move |_| reply.clone()).await;
        let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
        assert!(matches!(error, FetchError::Token { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn many_blobs_share_one_token_request() {
    let image = Image::new(10);
    let server = with_tokens(&image, |_| Reply::json(r#"{"token":"good"}"#)).await;
    let repository = session(&server, fast());
    let one = || {
        let (repository, config) = (repository.clone(), image.config());
        tokio::spawn(async move { repository.blob_bytes(&config, 1 << 20).await.map(|_| ()) })
    };
    let all: Vec<_> = (0..12).map(|_| one()).collect();
    for task in all {
        task.await.unwrap().unwrap();
    }
    assert_eq!(repository.counters().token, 1);
}

#[tokio::test]
async fn an_authentication_nobody_knows_is_named() {
    let server = Server::start(|_| Reply::new(401).header("WWW-Authenticate", "Negotiate, Digest realm=\"x\"")).await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert!(error.to_string().contains("negotiate, digest"), "{error}");
    assert_eq!(error.reason(), Reason::Unauthorized);
}

#[tokio::test]
async fn no_error_and_no_debug_text_holds_a_secret() {
    let image = Image::new(10);
    let server = with_basic(&image, 403).await;
    let repository = session_as(&server, fast(), vec![user("ada")]);
    let error = repository.manifest(&tag()).await.unwrap_err();
    let text = format!("{error} {error:?} {repository:?} {:?}", repository.attempts());
    let encoded = basic("ada");
    assert!(!text.contains("hunter2") && !text.contains(encoded.trim_start_matches("Basic ")), "{text}");
}
