//! Pulling without faults: what is asked, in which order, and what comes.

use crate::support::{Image, Reply, Server, fast, session};
use windlass_distribution::{BlobEvent, BlobFetch, FetchError, TagOrDigest};

pub(crate) async fn read_all(mut fetch: BlobFetch) -> Result<Vec<u8>, FetchError> {
    let mut all = Vec::new();
    while let Some(event) = fetch.next().await? {
        match event {
            BlobEvent::Bytes(bytes) => all.extend_from_slice(&bytes),
            BlobEvent::Restart => all.clear(),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn an_anonymous_pull_asks_three_things_on_kept_connections() {
    let image = Image::new(3_000_000);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let repository = session(&server, fast());
    let tag = TagOrDigest::Tag("1.0".into());
    let fetched = repository.manifest(&tag).await.unwrap();
    assert_eq!(fetched.digest, image.digest());
    assert_eq!(&fetched.bytes[..], &image.manifest[..]);
    assert_eq!(&repository.blob_bytes(&image.config(), 1 << 20).await.unwrap()[..], &image.config[..]);
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(
        server.lines(),
        [
            "GET /v2/team/app/manifests/1.0".to_owned(),
            format!("GET /v2/team/app/blobs/{}", image.config().digest),
            format!("GET /v2/team/app/blobs/{}", image.layer().digest),
        ]
    );
    assert_eq!(server.connections(), 1, "one connection is used three times");
    assert_eq!(repository.accepted(), Some(None), "anonymously");
    let counters = repository.counters();
    assert_eq!((counters.manifest, counters.blob, counters.requests()), (1, 2, 3));
    assert_eq!(counters.bytes as usize, image.manifest.len() + image.config.len() + image.layer.len());
    let seen = &server.seen()[0];
    assert_eq!(
        seen.header("accept"),
        Some(
            "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
             application/vnd.docker.distribution.manifest.list.v2+json, \
             application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1"
        )
    );
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert!(seen.header("user-agent").unwrap().starts_with("windlass/"));
}

#[tokio::test]
async fn an_unchanged_tag_costs_one_head() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let repository = session(&server, fast());
    let head = repository.head(&TagOrDigest::Tag("1.0".into())).await.unwrap().unwrap();
    assert_eq!(head.digest, image.digest());
    assert_eq!(head.size_bytes as usize, image.manifest.len());
    assert_eq!(server.lines(), ["HEAD /v2/team/app/manifests/1.0"]);
}

#[tokio::test]
async fn a_head_without_its_headers_means_get() {
    for reply in [
        Reply::new(405),
        Reply::new(400),
        Reply::new(501),
        Reply::new(200).header("Content-Type", crate::support::image::MANIFEST_TYPE),
        Reply::new(200).header("Docker-Content-Digest", "sha256:../../etc").header("Content-Type", "a/b"),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let repository = session(&server, fast());
        assert_eq!(repository.head(&TagOrDigest::Tag("1.0".into())).await.unwrap(), None);
        assert_eq!(server.lines().len(), 1);
    }
}
