//! Mirrors: their order, what they are told, and when the next one is asked.

use std::path::Path;
use std::time::Duration;

use windlass_core::host::Host;
use windlass_core::keyring::Credential;
use windlass_core::mirror::{Fallback, HostOverride, RegistryOverride};
use windlass_core::reason::Reason;
use windlass_distribution::{BlobEvent, Client, ClientConfig, CredentialMode, FetchError, Repository, TagOrDigest};

use crate::pull::read_all;
use crate::support::{Image, Reply, Server, basic, fast, reference, user};

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

/// Writes `hosts.toml` for the registry `host`.
fn write_hosts(root: &Path, host: &str, text: &str) {
    let directory = root.join(host);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
}

fn config(root: &Path) -> ClientConfig {
    ClientConfig { hosts_dirs: vec![root.to_owned()], ..fast() }
}

async fn honest(image: &Image) -> Server {
    let served = image.clone();
    Server::start(move |seen| served.serve(seen)).await
}

/// A session at `registry` with one mirror before it.
fn mirrored(root: &Path, registry: &Server, mirror: &Server, config: ClientConfig) -> Repository {
    write_hosts(root, &registry.host(), &format!("[host.\"{}\"]\n", mirror.url("")));
    let client = Client::new(config).unwrap();
    client.repository(&reference(registry), vec![user("ada")], CredentialMode::Windlass)
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_whose_content_is_meant() {
    let (image, root) = (Image::new(500_000), tempfile::tempdir().unwrap());
    let (registry, mirror) = (honest(&image).await, honest(&image).await);
    let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
    let fetched = repository.manifest(&tag()).await.unwrap();
    assert_eq!(fetched.source.as_str(), mirror.host());
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(registry.seen().len(), 0);
    let ns = format!("ns={}", registry.host());
    assert!(mirror.seen().iter().all(|s| s.query() == ns), "{:?}", mirror.lines());
}

#[tokio::test]
async fn a_mirror_never_sees_the_registrys_credentials() {
    let (image, root) = (Image::new(10), tempfile::tempdir().unwrap());
    let registry = honest(&image).await;
    let mirror = Server::start(|_| Reply::basic_challenge()).await;
    let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(mirror.seen().len(), 1);
    assert!(mirror.seen().iter().all(|s| s.authorization().is_none()));

    // Unless the configuration trusts it, or gives it its own.
    let served = image.clone();
    let mirror = Server::start(move |seen| match seen.authorization() {
        Some(_) => served.serve(seen),
        None => Reply::basic_challenge(),
    })
    .await;
    for (host, want) in [
        (HostOverride { trusted: true, ..HostOverride::default() }, "ada"),
        (HostOverride { credential: Some(Credential::basic("eve", "hunter2-eve")), ..HostOverride::default() }, "eve"),
    ] {
        let overrides =
            RegistryOverride { hosts: vec![(Host::new(mirror.host()), host)], ..RegistryOverride::default() };
        let registries = vec![(Host::new(registry.host()), overrides)];
        let config = ClientConfig { registries, ..config(root.path()) };
        mirrored(root.path(), &registry, &mirror, config).manifest(&tag()).await.unwrap();
        assert_eq!(mirror.seen().last().unwrap().authorization(), Some(basic(want).as_str()));
    }
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_a_mirror_fails() {
    let (image, root) = (Image::new(500_000), tempfile::tempdir().unwrap());
    let (size, wrong) = (image.manifest.len(), Image::new(9));
    let replies: Vec<(&str, Reply)> = vec![
        ("404", Reply::error(404, "UNKNOWN", "no")),
        ("401", Reply::basic_challenge()),
        ("403", Reply::error(403, "DENIED", "no")),
        ("429", Reply::new(429).header("Retry-After", "3600")),
        ("500", Reply::new(500)),
        ("503", Reply::new(503)),
        ("418", Reply::new(418)),
        ("html", Reply::new(200).header("Content-Type", "text/html").body(b"<html>".to_vec())),
        ("wrong digest", wrong.manifest_reply()),
        ("encoded", image.manifest_reply().header("Content-Encoding", "gzip")),
        ("cut", image.manifest_reply().cut_after(size / 2)),
        ("redirect to metadata", Reply::redirect("http://169.254.169.254/")),
    ];
    for (name, reply) in replies {
        let registry = honest(&image).await;
        let mirror = Server::start(move |_| reply.clone()).await;
        let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
        let begin = std::time::Instant::now();
        let digest = TagOrDigest::Digest(image.digest());
        let fetched = repository.manifest(&digest).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(fetched.source.as_str(), registry.host(), "{name}");
        assert!(begin.elapsed() < Duration::from_secs(3), "{name}: nobody waits while another host is left");
        assert!(mirror.seen().len() <= 2, "{name}");
    }
}

#[tokio::test]
async fn a_failed_mirror_is_left_alone_for_a_while() {
    let (image, root) = (Image::new(10), tempfile::tempdir().unwrap());
    let registry = honest(&image).await;
    let mirror = Server::start(|_| Reply::new(503)).await;
    let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
    for _ in 0..3 {
        repository.manifest(&tag()).await.unwrap();
    }
    assert_eq!((mirror.seen().len(), registry.seen().len()), (1, 3));
}

#[tokio::test]
async fn a_wrong_blob_puts_its_source_behind_the_others() {
    let (image, root) = (Image::new(500_000), tempfile::tempdir().unwrap());
    let registry = honest(&image).await;
    let size = image.layer.len();
    let mirror = Server::start(move |_| Reply::new(200).body(vec![7; size])).await;
    let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
    let mut fetch = repository.blob(&image.layer());
    let mut all = Vec::new();
    loop {
        match fetch.next().await.unwrap() {
            Some(BlobEvent::Bytes(bytes)) => all.extend_from_slice(&bytes),
            Some(BlobEvent::Restart) => all.clear(),
            None if all == image.layer => break,
            None => {
                assert_eq!(fetch.source().unwrap().as_str(), mirror.host());
                assert!(fetch.reject_source());
                all.clear();
            }
        }
    }
    assert_eq!(fetch.source().unwrap().as_str(), registry.host());
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(mirror.seen().len(), 1, "for a minute the registry is asked first");
}

#[tokio::test]
async fn a_blob_of_a_mirror_that_breaks_for_good_is_taken_over() {
    let (image, root) = (Image::new(500_000), tempfile::tempdir().unwrap());
    let registry = honest(&image).await;
    let served = image.clone();
    let mirror = Server::start(move |seen| match seen.number {
        0 => served.serve(seen).cut_after(200_000),
        _ => Reply::error(404, "UNKNOWN", "collected meanwhile"),
    })
    .await;
    let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(registry.seen()[0].header("range"), Some("bytes=200000-"));
}

#[tokio::test]
async fn every_endpoints_failure_is_told() {
    let root = tempfile::tempdir().unwrap();
    let registry = Server::start(|_| Reply::error(404, "MANIFEST_UNKNOWN", "no such tag")).await;
    let mirror = Server::start(|_| Reply::new(503)).await;
    let repository = mirrored(root.path(), &registry, &mirror, config(root.path()));
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    let text = error.to_string();
    assert!(text.contains("answered 503") && text.contains("MANIFEST_UNKNOWN no such tag"), "{text}");
    assert!(matches!(error, FetchError::AllEndpoints { .. }));
}

#[tokio::test]
async fn the_registrys_own_bad_manifest_is_final_and_hosts_are_read_anew() {
    let (image, root) = (Image::new(10), tempfile::tempdir().unwrap());
    let schema_one = "application/vnd.docker.distribution.manifest.v1+json";
    let registry = honest(&image).await;
    let mirror = Server::start(move |_| Reply::new(200).header("Content-Type", schema_one).body(b"{}".to_vec())).await;
    let client = Client::new(config(root.path())).unwrap();
    let session = || client.repository(&reference(&registry), Vec::new(), CredentialMode::Windlass);
    // No file yet: the registry is asked.
    session().manifest(&tag()).await.unwrap();
    // Only the mirror, without a restart of the client.
    write_hosts(root.path(), &registry.host(), &format!("server = \"{}\"\n", mirror.url("")));
    let error = session().manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::UnsupportedMediaType, "{error}");
}

#[tokio::test]
async fn capabilities_and_fallback_are_honoured() {
    let (image, root) = (Image::new(10), tempfile::tempdir().unwrap());
    let (registry, mirror) = (honest(&image).await, honest(&image).await);
    let text = format!("[host.\"{}\"]\ncapabilities = [\"pull\"]\n", mirror.url(""));
    write_hosts(root.path(), &registry.host(), &text);
    let client = Client::new(config(root.path())).unwrap();
    let repository = client.repository(&reference(&registry), Vec::new(), CredentialMode::Windlass);
    repository.manifest(&tag()).await.unwrap();
    repository.manifest(&TagOrDigest::Digest(image.digest())).await.unwrap();
    assert!(registry.lines()[0].ends_with("/1.0") && registry.seen().len() == 1);
    assert!(mirror.lines()[0].contains("/sha256:") && mirror.seen().len() == 1);

    let overrides = RegistryOverride { fallback: Fallback::Never, ..RegistryOverride::default() };
    let registries = vec![(Host::new(registry.host()), overrides)];
    let client = Client::new(ClientConfig { registries, ..config(root.path()) }).unwrap();
    let repository = client.repository(&reference(&registry), Vec::new(), CredentialMode::Windlass);
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, FetchError::NoEndpoint { .. }), "{error}");
}

#[tokio::test]
async fn headers_of_hosts_toml_go_to_that_host_alone() {
    let (image, root) = (Image::new(10), tempfile::tempdir().unwrap());
    let store = {
        let served = image.clone();
        Server::start_on("127.0.0.2", move |seen| served.serve(seen)).await
    };
    let target = store.url("");
    let registry = Server::start(move |seen| Reply::redirect(&format!("{target}{}", seen.path()))).await;
    let text = format!("server = \"{}\"\n[header]\nX-Key = \"s3cr3t\"\n", registry.url(""));
    write_hosts(root.path(), &registry.host(), &text);
    let client = Client::new(config(root.path())).unwrap();
    let repository = client.repository(&reference(&registry), Vec::new(), CredentialMode::Windlass);
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(registry.seen()[0].header("x-key"), Some("s3cr3t"));
    assert_eq!(store.seen()[0].header("x-key"), None);
    assert!(!format!("{repository:?}").contains("s3cr3t"));
}
