//! What registries tell beside the content, foreign layers, client certificates, who may speak plain http.

use windlass_core::host::Host;
use windlass_core::manifest::Descriptor;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_distribution::config::ForeignUrls;
use windlass_distribution::{Client, ClientConfig, CredentialMode, TagOrDigest};

use crate::pull::read_all;
use crate::support::{Image, Reply, Server, fast, session};

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

#[tokio::test]
async fn warnings_and_rate_limits_are_handed_on() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| {
        served
            .serve(seen)
            .header("Warning", r#"299 - "this registry closes in May""#)
            .header("RateLimit-Limit", "100;w=21600")
            .header("RateLimit-Remaining", "7;w=21600")
    })
    .await;
    let repository = session(&server, fast());
    repository.manifest(&tag()).await.unwrap();
    repository.head(&tag()).await.unwrap();
    assert_eq!(repository.warnings(), ["this registry closes in May"]);
    let rate = repository.rate_limit().unwrap();
    assert_eq!((rate.limit, rate.remaining), (Some(100), Some(7)));
}

#[tokio::test]
async fn foreign_urls_are_asked_only_where_that_is_allowed() {
    let image = Image::new(100_000);
    let served = image.clone();
    let elsewhere = Server::start_on("127.0.0.2", move |_| Reply::new(200).body(served.layer.clone())).await;
    let server = Server::start(|_| Reply::error(404, "BLOB_UNKNOWN", "not kept here")).await;
    let foreign = Descriptor {
        media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(),
        urls: vec!["file:///etc/passwd".into(), "http://169.254.169.254/x".into(), elsewhere.url("/layer")],
        ..image.layer()
    };
    let allowed = ClientConfig { foreign_urls: ForeignUrls::Allowed, ..fast() };

    let error = read_all(session(&server, fast()).blob(&foreign)).await.unwrap_err();
    assert_eq!((error.reason(), elsewhere.seen().len()), (Reason::BlobMissing, 0), "refused unless configured");

    let ordinary = Descriptor { media_type: image.layer().media_type, ..foreign.clone() };
    let error = read_all(session(&server, allowed.clone()).blob(&ordinary)).await.unwrap_err();
    assert_eq!((error.reason(), elsewhere.seen().len()), (Reason::BlobMissing, 0), "only foreign types have urls");

    assert!(read_all(session(&server, allowed.clone()).blob(&foreign)).await.unwrap() == image.layer);
    assert_eq!(elsewhere.seen()[0].authorization(), None);

    // Without the mark for plain http, http is not asked.
    let host = Host::new(server.host());
    let strict = ClientConfig { plain_http_everywhere: false, plain_http: vec![host], ..allowed };
    let error = read_all(session(&server, strict).blob(&foreign)).await.unwrap_err();
    assert_eq!((error.reason(), elsewhere.seen().len()), (Reason::BlobMissing, 1));
}

#[tokio::test]
async fn a_foreign_layer_the_registry_has_comes_from_there() {
    let image = Image::new(100_000);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let foreign = Descriptor {
        media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(),
        urls: vec!["https://layers.example/x".into()],
        ..image.layer()
    };
    assert!(read_all(session(&server, fast()).blob(&foreign)).await.unwrap() == image.layer);
}

#[tokio::test]
async fn sessions_of_one_client_share_connections() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let client = Client::new(fast()).unwrap();
    for name in ["team/app", "team/other", "x/y/z"] {
        let reference = Reference::parse(&format!("{}/{name}:1.0", server.host())).unwrap();
        client.repository(&reference, Vec::new(), CredentialMode::Windlass).manifest(&tag()).await.unwrap();
    }
    assert_eq!((server.connections(), client.counters().manifest), (1, 3));
}

#[tokio::test]
async fn a_kept_connection_the_registry_closed_is_replaced_without_a_failed_try() {
    let image = Image::new(10);
    let served = image.clone();
    // The connection ends right after the body although nothing said so.
    let server = Server::start(move |seen| served.serve(seen).cut_after(served.manifest.len())).await;
    let mut config = fast();
    config.retry.tries = 1;
    let repository = session(&server, config);
    for _ in 0..5 {
        repository.manifest(&tag()).await.unwrap();
    }
    assert_eq!((server.connections(), server.seen().len()), (5, 5));
}

#[tokio::test]
async fn a_dropped_download_leaves_its_connection_closed_and_the_client_well() {
    let image = Image::new(8_000_000);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let mut config = fast();
    config.limits.connections_per_host = 1;
    let repository = session(&server, config);
    for _ in 0..3 {
        let mut fetch = repository.blob(&image.layer());
        assert!(fetch.next().await.unwrap().is_some());
    }
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
}

#[tokio::test]
async fn a_digest_of_a_kind_nobody_can_check_is_never_asked_for() {
    let server = Server::start(|_| Reply::new(200)).await;
    let name = format!("{}/team/app@sha384:{}", server.host(), "0".repeat(96));
    let what = TagOrDigest::from(&Reference::parse(&name).unwrap());
    let repository = session(&server, fast());
    let error = repository.manifest(&what).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidReference);
    assert!(error.to_string().contains("sha256 and sha512 are supported"), "{error}");
    assert_eq!(repository.head(&what).await.unwrap_err().reason(), Reason::InvalidReference);
    assert_eq!(server.seen().len(), 0);
}
