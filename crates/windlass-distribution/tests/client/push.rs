//! Uploads: what goes over the wire, who sees credentials, and what happens when it breaks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use windlass_core::digest::Digest;
use windlass_core::manifest::Descriptor;
use windlass_core::reason::Reason;
use windlass_distribution::{ClientConfig, FetchError, Mount, Pushed, Repository, TagOrDigest, UploadSource};

use crate::support::image::MANIFEST_TYPE;
use crate::support::{Image, Reply, Seen, Server, basic, fast, session_as, user};

/// A registry that takes uploads of `ada`, as the specification says.
#[derive(Default)]
struct Registry {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    uploads: Mutex<HashMap<String, Vec<u8>>>,
    manifests: Mutex<HashMap<String, Vec<u8>>>,
}

impl Registry {
    fn answer(&self, seen: &Seen) -> Reply {
        if seen.authorization() != Some(basic("ada").as_str()) {
            return Reply::basic_challenge();
        }
        let path = seen.path().trim_start_matches("/v2/team/app/").to_owned();
        let id = path.rsplit('/').next().unwrap().to_owned();
        let mut uploads = self.uploads.lock().unwrap();
        let here = |id: &str| format!("/v2/team/app/blobs/uploads/{id}?state=x%2Fy");
        match (seen.method.as_str(), path.split('/').nth(1).unwrap_or_default()) {
            ("HEAD", id) => match self.blobs.lock().unwrap().get(id) {
                Some(blob) => Reply::new(200).length(blob.len()),
                None => Reply::new(404),
            },
            ("POST", _) => {
                let id = format!("u{}", seen.number);
                uploads.insert(id.clone(), Vec::new());
                Reply::new(202).header("Location", &here(&id)).header("Range", "0-0")
            }
            ("PATCH", _) => {
                let upload = uploads.get_mut(&id).unwrap();
                let range = seen.header("content-range").unwrap();
                if range.split('-').next().unwrap() != upload.len().to_string() {
                    return Reply::new(416);
                }
                upload.extend_from_slice(&seen.body);
                Reply::new(202).header("Location", &here(&id)).header("Range", &format!("0-{}", upload.len() - 1))
            }
            ("GET", _) => {
                let length = uploads[&id].len();
                Reply::new(204)
                    .header("Location", &here(&id))
                    .header("Range", &format!("0-{}", length.saturating_sub(1)))
            }
            ("PUT", "uploads") => {
                let Some(mut upload) = uploads.remove(&id) else {
                    return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "?");
                };
                upload.extend_from_slice(&seen.body);
                let digest = Digest::sha256(&upload);
                assert!(seen.query().starts_with("state=x%2Fy&digest=sha256%3A"), "{}", seen.query());
                if !seen.query().ends_with(digest.hex()) {
                    return Reply::error(400, "DIGEST_INVALID", "not these bytes");
                }
                self.blobs.lock().unwrap().insert(digest.to_string(), upload);
                Reply::new(201).header("Docker-Content-Digest", digest.as_str())
            }
            ("PUT", name) => {
                self.manifests.lock().unwrap().insert(name.to_owned(), seen.body.clone());
                Reply::new(201).header("Docker-Content-Digest", Digest::sha256(&seen.body).as_str())
            }
            ("DELETE", _) => Reply::new(204),
            _ => Reply::new(400),
        }
    }
}

async fn start(before: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> (Server, Arc<Registry>) {
    let registry = Arc::new(Registry::default());
    let state = registry.clone();
    let server = Server::start(move |seen| before(seen).unwrap_or_else(|| state.answer(seen))).await;
    (server, registry)
}

fn pusher(server: &Server, config: ClientConfig) -> Repository {
    session_as(server, config, vec![user("ada")])
}

fn chunked(bytes: usize) -> ClientConfig {
    ClientConfig { upload_chunk_bytes: Some(bytes), ..fast() }
}

fn source(image: &Image) -> UploadSource {
    UploadSource::bytes(Bytes::from(image.layer.clone()))
}

#[tokio::test]
async fn an_image_goes_up_and_what_is_there_is_not_sent_again() {
    let image = Image::new(3_000_000);
    let (server, registry) = start(|_| None).await;
    let repository = pusher(&server, fast());
    let (pushing, layer, bytes) = (repository.clone(), image.layer(), source(&image));
    let pushed = tokio::spawn(async move { pushing.push_blob(&layer, &bytes).await }).await.unwrap();
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert!(registry.blobs.lock().unwrap()[image.layer().digest.as_str()] == image.layer);
    assert_eq!(repository.push_blob(&image.layer(), &source(&image)).await.unwrap(), Pushed::AlreadyThere);
    let manifest = Bytes::from(image.manifest.clone());
    let tag = TagOrDigest::Tag("1.0".into());
    let digest = repository.push_manifest(&tag, MANIFEST_TYPE, manifest.clone()).await.unwrap();
    assert_eq!(digest, image.digest());
    let by_digest = TagOrDigest::Digest(image.digest());
    repository.push_manifest(&by_digest, MANIFEST_TYPE, manifest.clone()).await.unwrap();
    assert!(registry.manifests.lock().unwrap()["1.0"] == image.manifest);
    let methods: Vec<String> = server.seen().iter().map(|s| s.method.clone()).collect();
    assert_eq!(methods, ["HEAD", "HEAD", "POST", "PUT", "HEAD", "PUT", "PUT"]);
    assert_eq!(server.seen()[3].header("content-length"), Some("3000000"));
    assert_eq!(server.seen()[5].header("content-type"), Some(MANIFEST_TYPE));

    let other = TagOrDigest::Digest(Digest::sha256(b"other"));
    let error = repository.push_manifest(&other, MANIFEST_TYPE, manifest).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DigestMismatch);
}

#[tokio::test]
async fn chunks_go_up_in_order_and_an_empty_blob_too() {
    let image = Image::new(250_000);
    let (server, registry) = start(|_| None).await;
    let repository = pusher(&server, chunked(100_000));
    repository.push_blob(&image.layer(), &source(&image)).await.unwrap();
    assert!(registry.blobs.lock().unwrap()[image.layer().digest.as_str()] == image.layer);
    let ranges: Vec<String> =
        server.seen().iter().filter_map(|s| s.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["0-99999", "100000-199999", "200000-249999"]);
    let empty = Descriptor::new("a/b", Digest::sha256(b""), 0);
    repository.push_blob(&empty, &UploadSource::bytes(Bytes::new())).await.unwrap();
    assert!(repository.has_blob(&empty).await.unwrap());
}

#[tokio::test]
async fn the_registrys_least_chunk_is_kept_and_413_means_chunks() {
    let image = Image::new(250_000);
    let (server, registry) = start(|seen| match (seen.method.as_str(), seen.authorization()) {
        ("POST", Some(_)) => None,
        ("PUT", _) if seen.body.len() > 200_000 => Some(Reply::new(413)),
        _ => None,
    })
    .await;
    pusher(&server, fast()).push_blob(&image.layer(), &source(&image)).await.unwrap();
    assert!(registry.blobs.lock().unwrap()[image.layer().digest.as_str()] == image.layer);
    assert!(server.seen().iter().any(|s| s.method == "PATCH"));

    let (server, registry) = start(|seen| match seen.method.as_str() {
        "POST" if seen.authorization().is_some() => Some(
            Reply::new(202)
                .header("Location", "/v2/team/app/blobs/uploads/mine?state=x%2Fy")
                .header("OCI-Chunk-Min-Length", "150000"),
        ),
        _ => None,
    })
    .await;
    registry.uploads.lock().unwrap().insert("mine".into(), Vec::new());
    pusher(&server, chunked(10_000)).push_blob(&image.layer(), &source(&image)).await.unwrap();
    let ranges: Vec<String> =
        server.seen().iter().filter_map(|s| s.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["0-149999", "150000-249999"]);
}

#[tokio::test]
async fn chunks_are_resumed_where_the_registry_says() {
    let image = Image::new(250_000);
    let failures = Arc::new(Mutex::new(vec![Reply::new(503), Reply::new(416)]));
    let (server, registry) = start(move |seen| match seen.method.as_str() {
        "PATCH" if seen.header("content-range") == Some("100000-199999") => failures.lock().unwrap().pop(),
        _ => None,
    })
    .await;
    pusher(&server, chunked(100_000)).push_blob(&image.layer(), &source(&image)).await.unwrap();
    assert!(registry.blobs.lock().unwrap()[image.layer().digest.as_str()] == image.layer);
    let asked = server.seen().iter().filter(|s| s.method == "GET").count();
    assert_eq!(asked, 2, "after each failure the registry is asked how far it is");
}

#[tokio::test]
async fn a_broken_upload_starts_again() {
    let image = Image::new(250_000);
    for first in [Reply::new(503), Reply::raw(Vec::new()), Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "?")] {
        let once = Mutex::new(Some(first));
        let (server, registry) = start(move |seen| match (seen.method.as_str(), seen.authorization()) {
            ("PUT", Some(_)) => once.lock().unwrap().take(),
            _ => None,
        })
        .await;
        pusher(&server, fast()).push_blob(&image.layer(), &source(&image)).await.unwrap();
        assert!(registry.blobs.lock().unwrap()[image.layer().digest.as_str()] == image.layer);
        assert_eq!(server.seen().iter().filter(|s| s.method == "PUT").count(), 2);
    }
}

#[tokio::test]
async fn a_blob_the_registry_had_already_taken_is_not_sent_again() {
    let image = Image::new(250_000);
    let registry = Arc::new(Registry::default());
    let state = registry.clone();
    // The upload arrives; its answer does not.
    let server = Server::start(move |seen| match (seen.method.as_str(), state.answer(seen)) {
        ("PUT", _) => Reply::raw(Vec::new()),
        (_, reply) => reply,
    })
    .await;
    let outcome = pusher(&server, fast()).push_blob(&image.layer(), &source(&image)).await;
    assert_eq!(outcome.unwrap(), Pushed::Uploaded);
    assert_eq!(server.seen().iter().filter(|s| s.method == "PUT").count(), 1);
}

#[tokio::test]
async fn an_upload_elsewhere_gets_no_credential() {
    let image = Image::new(250_000);
    let store = Server::start_on("127.0.0.2", |_| Reply::new(201)).await;
    let target = store.url("/bucket/u1?sig=s3cr3t");
    let (server, _) = start(move |seen| match (seen.method.as_str(), seen.authorization()) {
        ("POST", Some(_)) => Some(Reply::new(202).header("Location", &target)),
        _ => None,
    })
    .await;
    pusher(&server, fast()).push_blob(&image.layer(), &source(&image)).await.unwrap();
    let seen = store.seen();
    assert!(seen.len() == 1 && seen[0].body == image.layer);
    assert_eq!(seen[0].authorization(), None);
    assert!(seen[0].target.starts_with("/bucket/u1?sig=s3cr3t&digest=sha256%3A"));

    for bad in ["http://169.254.169.254/x", "file:///x", ""] {
        let (server, _) = start(move |seen| match (seen.method.as_str(), seen.authorization()) {
            ("POST", Some(_)) => Some(Reply::new(202).header("Location", bad)),
            _ => None,
        })
        .await;
        assert!(pusher(&server, fast()).push_blob(&image.layer(), &source(&image)).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let image = Image::new(10);
    let (server, _) = start(|seen| match (seen.method.as_str(), seen.authorization()) {
        ("POST", Some(_)) if seen.query().ends_with("from=base%2Fimage") => Some(Reply::new(201)),
        _ => None,
    })
    .await;
    let repository = pusher(&server, fast());
    assert_eq!(repository.mount_blob(&image.layer(), "base/image").await.unwrap(), Mount::Mounted);
    assert_eq!(repository.mount_blob(&image.layer(), "other").await.unwrap(), Mount::UploadNeeded);
    let last = server.seen().pop().unwrap();
    assert_eq!(last.method, "DELETE", "the session that is not needed is given up");

    let served = Arc::new(Mutex::new(Vec::new()));
    let log = served.clone();
    let server = Server::start(move |seen| match (seen.path(), seen.authorization()) {
        ("/token", _) => {
            log.lock().unwrap().push(seen.query().to_owned());
            Reply::json(r#"{"token":"t"}"#)
        }
        (_, Some(_)) => Reply::new(201),
        _ => Reply::bearer(&format!("http://{}/token", seen.header("host").unwrap()), "repository:team/app:push,pull"),
    })
    .await;
    pusher(&server, fast()).mount_blob(&image.layer(), "base/image").await.unwrap();
    let want = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush&scope=repository%3Abase%2Fimage%3Apull";
    assert!(served.lock().unwrap()[0].ends_with(want), "{served:?}");
}

#[tokio::test]
async fn refusals_and_bad_sources_are_told() {
    let image = Image::new(250_000);
    for (status, reason) in [(403, Reason::Denied), (400, Reason::BadManifest), (405, Reason::Denied)] {
        let (server, _) = start(move |seen| match (seen.method.as_str(), seen.authorization()) {
            ("PUT", Some(_)) => Some(Reply::error(status, "MANIFEST_INVALID", "no")),
            _ => None,
        })
        .await;
        let manifest = Bytes::from(image.manifest.clone());
        let name = TagOrDigest::Tag("1.0".into());
        let error = pusher(&server, fast()).push_manifest(&name, MANIFEST_TYPE, manifest).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
    let (server, _) = start(|_| None).await;
    let short = UploadSource::bytes(Bytes::from_static(b"too short"));
    for config in [fast(), chunked(100_000)] {
        let error = pusher(&server, config).push_blob(&image.layer(), &short).await.unwrap_err();
        assert!(matches!(error, FetchError::Source { .. }), "{error}");
    }
    let wrong = UploadSource::bytes(Bytes::from(vec![1; 250_000]));
    let error = pusher(&server, fast()).push_blob(&image.layer(), &wrong).await.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
}
