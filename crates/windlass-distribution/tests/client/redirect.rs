//! Redirects: what travels along, how far they go, where they may not lead.

use windlass_core::reason::Reason;
use windlass_distribution::{FetchError, TagOrDigest};

use crate::pull::read_all;
use crate::support::{Image, Reply, Server, basic, fast, session, session_as, user};

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

#[tokio::test]
async fn credentials_stay_with_the_origin_that_was_asked() {
    let image = Image::new(500_000);
    // Another port and another host: both are other origins.
    for address in ["127.0.0.1", "127.0.0.2"] {
        let stored = image.clone();
        let store = Server::start_on(address, move |seen| match seen.authorization() {
            None => stored.serve(seen),
            Some(_) => Reply::error(400, "AMBIGUOUS", "signed and authorised"),
        })
        .await;
        let target = store.url("");
        let server = Server::start(move |seen| match seen.authorization() {
            Some(_) => Reply::redirect(&format!("{target}{}?X-Amz-Signature=s3cr3t", seen.path()))
                .header("Set-Cookie", "session=1"),
            None => Reply::basic_challenge(),
        })
        .await;
        let repository = session_as(&server, fast(), vec![user("ada")]);
        assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
        let seen = store.seen();
        assert_eq!(seen.len(), 1, "{address}");
        for name in ["authorization", "cookie", "proxy-authorization"] {
            assert_eq!(seen[0].header(name), None, "{address} {name}");
        }
        assert!(server.seen().iter().any(|s| s.authorization() == Some(basic("ada").as_str())));
    }
}

#[tokio::test]
async fn a_signed_url_is_used_again_and_never_shown() {
    let image = Image::new(1_000_000);
    let stored = image.clone();
    let store = Server::start_on("127.0.0.2", move |seen| match seen.number {
        0 => stored.serve(seen).cut_after(200_000),
        1 => stored.serve(seen).cut_after(200_000),
        2 => Reply::error(403, "EXPIRED", "Request has expired"),
        _ => stored.serve(seen),
    })
    .await;
    let target = store.url("");
    let server = Server::start(move |seen| {
        Reply::redirect(&format!("{target}{}?X-Amz-Signature=s3cr3t{}", seen.path(), seen.number))
    })
    .await;
    let repository = session(&server, fast());
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(server.seen().len(), 2, "the registry is asked again only when the signature has expired");
    assert!(store.seen()[1].target.ends_with("s3cr3t0") && store.seen()[3].target.ends_with("s3cr3t1"));

    let store = Server::start_on("127.0.0.2", |_| Reply::error(503, "DOWN", "sorry")).await;
    let target = store.url("/x?X-Amz-Signature=s3cr3t");
    let server = Server::start(move |_| Reply::redirect(&target)).await;
    let error = read_all(session(&server, fast()).blob(&image.layer())).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[tokio::test]
async fn redirect_loops_end() {
    let server = Server::start(|seen| Reply::redirect(&format!("{}x", seen.target))).await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect { .. }), "{error}");
    assert_eq!(server.seen().len(), 6, "the request and five redirects");
}

#[tokio::test]
async fn metadata_addresses_are_refused() {
    for target in [
        "http://169.254.169.254/latest/meta-data/iam",
        "http://[fe80::1]/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://100.100.100.200/",
        "file:///etc/passwd",
        "gopher://x/",
        "http://user:pw@127.0.0.1/",
    ] {
        let server = Server::start(move |_| Reply::redirect(target)).await;
        let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
        assert!(matches!(error, FetchError::Redirect { .. }), "{target}: {error}");
        assert_eq!(server.seen().len(), 1, "{target}");
    }
}

#[tokio::test]
async fn a_401_of_a_redirect_target_gets_no_credential() {
    let image = Image::new(10);
    let store = Server::start_on("127.0.0.2", |_| Reply::basic_challenge()).await;
    let target = store.url("/blob");
    let server = Server::start(move |seen| match seen.authorization() {
        Some(_) => Reply::redirect(&target),
        None => Reply::basic_challenge(),
    })
    .await;
    let error = session_as(&server, fast(), vec![user("ada")]).blob_bytes(&image.config(), 999).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unauthorized, "{error}");
    assert!(store.seen().iter().all(|s| s.authorization().is_none()));
}

#[tokio::test]
async fn relative_redirects_keep_the_credential() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| match (seen.authorization(), seen.path()) {
        (None, _) => Reply::basic_challenge(),
        (Some(_), "/elsewhere") => served.manifest_reply(),
        (Some(_), _) => Reply::redirect("/elsewhere"),
    })
    .await;
    session_as(&server, fast(), vec![user("ada")]).manifest(&tag()).await.unwrap();
}

#[tokio::test]
async fn a_redirect_without_target_is_an_error() {
    let server = Server::start(|_| Reply::new(307)).await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect { .. }), "{error}");
}
