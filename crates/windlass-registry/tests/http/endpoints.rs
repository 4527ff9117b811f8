//! The end-points over real HTTP, without authentication.

use std::sync::Arc;

use crate::support::{Client, Fixture, INDEX, OCI, config, image, start};
use windlass_core::digest::{Algorithm, Digest};
use windlass_registry::log::MemoryLog;
use windlass_registry::{Deletes, RegistryServer};

async fn open() -> (Fixture, Client) {
    let fixture = start(|config| config.deletes = Deletes::On).await;
    let client = Client::new(&fixture);
    (fixture, client)
}

#[tokio::test]
async fn what_was_pushed_is_pulled_byte_for_byte() {
    let (fixture, client) = open().await;
    for (client, name) in [(client.clone(), "a/one"), (Client::http2(&fixture), "a/two")] {
        let (manifest, layer) = client.push_image(name, "v1", b"the layer").await;
        let digest = Digest::sha256(manifest.as_bytes());
        for reference in ["v1", digest.as_str()] {
            let path = format!("/v2/{name}/manifests/{reference}");
            let (got, head) = (client.get(&path).await, client.send("HEAD", &path, &[], "").await);
            assert_eq!((got.status.as_u16(), &got.body[..]), (200, manifest.as_bytes()));
            assert_eq!(got.header("content-type"), OCI);
            assert_eq!(got.header("docker-content-digest"), digest.as_str());
            assert_eq!(got.header("docker-distribution-api-version"), "registry/2.0");
            assert!(head.body.is_empty());
            for same in ["content-type", "content-length", "docker-content-digest", "etag"] {
                assert_eq!(head.header(same), got.header(same), "{same}");
            }
            let etag = got.header("etag");
            assert_eq!(client.send("GET", &path, &[("if-none-match", etag)], "").await.status, 304);
        }
        let blob = client.get(&format!("/v2/{name}/blobs/{layer}")).await;
        assert_eq!(&blob.body[..], b"the layer");
        assert_eq!(blob.header("docker-content-digest"), layer.as_str());
    }
}

#[tokio::test]
async fn ranges_of_blobs_are_served() {
    let (_fixture, client) = open().await;
    let digest = client.push_blob("a", b"0123456789").await;
    let path = format!("/v2/a/blobs/{digest}");
    let table = [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("bytes=500-0", 200, "0123456789", ""),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
    ];
    for (range, status, body, content_range) in table {
        let reply = client.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (status, body.as_bytes()), "{range}");
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        let head = client.send("HEAD", &path, &[("range", range)], "").await;
        assert_eq!(head.header("content-length"), body.len().to_string(), "{range}");
    }
    let beyond = client.send("GET", &path, &[("range", "bytes=10-")], "").await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */10"));
    let etag = format!("\"{digest}\"");
    assert_eq!(client.send("GET", &path, &[("if-none-match", &etag)], "").await.status, 304);
    let stale = [("range", "bytes=0-3"), ("if-range", "\"other\"")];
    assert_eq!(client.send("GET", &path, &stale, "").await.status, 200);
}

#[tokio::test]
async fn a_large_blob_goes_through_whole() {
    let (_fixture, client) = open().await;
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let bytes: &'static [u8] = Vec::leak(bytes);
    let digest = client.push_blob("a", bytes).await;
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(&client.get(&path).await.body[..], bytes);
    let tail = client.send("GET", &path, &[("range", "bytes=1234567-")], "").await;
    assert_eq!(&tail.body[..], &bytes[1_234_567..]);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_stands_and_nowhere_else() {
    let (_fixture, client) = open().await;
    let started = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(started.status, 202);
    let at = started.header("location").to_owned();
    assert!(at.starts_with("/v2/a/blobs/uploads/"), "relative: {at}");
    let patch = |range: &'static str, body: &'static str| {
        let (client, at) = (client.clone(), at.clone());
        async move { client.send("PATCH", &at, &[("content-range", range)], body).await }
    };
    assert_eq!(client.get(&at).await.header("range"), "0-0");
    assert_eq!(patch("0-3", "0123").await.header("range"), "0-3");
    for (range, body) in [("0-3", "0123"), ("5-6", "56"), ("4-9", "45"), ("x", "4"), ("9-4", "4")] {
        let refused = patch(range, body).await;
        assert_eq!((refused.status.as_u16(), refused.header("range")), (416, "0-3"), "{range}");
    }
    assert_eq!(client.send("PATCH", &at, &[], "45").await.header("range"), "0-5");
    let state = client.get(&at).await;
    assert_eq!((state.status.as_u16(), state.header("range")), (204, "0-5"));
    let digest = Digest::sha256(b"01234567");
    let end = format!("{at}?digest={digest}");
    assert_eq!(client.send("PUT", &end, &[("content-range", "9-10")], "67").await.status, 416);
    let done = client.send("PUT", &end, &[("content-range", "6-7")], "67").await;
    assert_eq!((done.status.as_u16(), done.header("location")), (201, format!("/v2/a/blobs/{digest}").as_str()));
    assert_eq!(client.get(&at).await.status, 404, "the session is over");
    assert_eq!(&client.get(&format!("/v2/a/blobs/{digest}")).await.body[..], b"01234567");
}

#[tokio::test]
async fn nothing_unverified_becomes_a_blob() {
    let (fixture, client) = open().await;
    let want = Digest::sha256(b"promised");
    let single = client.send("POST", &format!("/v2/a/blobs/uploads/?digest={want}"), &[], "sent").await;
    assert_eq!((single.status.as_u16(), single.code().as_str()), (400, "DIGEST_INVALID"));
    let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let put = client.send("PUT", &format!("{at}?digest={want}"), &[], "sent").await;
    assert_eq!((put.status.as_u16(), put.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(client.get(&format!("/v2/a/blobs/{want}")).await.code(), "BLOB_UNKNOWN");
    for odd in ["", "x", "sha256:../../etc/passwd", "md5:00"] {
        let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
        assert_eq!(client.send("PUT", &format!("{at}?digest={odd}"), &[], "").await.code(), "DIGEST_INVALID", "{odd}");
    }
    let blobs = fixture.dir.path().join("registry/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    let (fixture, client) = open().await;
    let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    assert_eq!(client.send("PATCH", &at, &[], "some").await.status, 202);
    assert_eq!(client.send("DELETE", &at, &[], "").await.status, 204);
    assert_eq!(client.send("PATCH", &at, &[], "more").await.code(), "BLOB_UPLOAD_UNKNOWN");
    let tmp = fixture.dir.path().join("registry/tmp");
    assert_eq!(std::fs::read_dir(tmp).expect("a directory").count(), 0);
}

#[tokio::test]
async fn sha512_is_as_good_as_sha256() {
    let (_fixture, client) = open().await;
    let digest = Algorithm::Sha512.digest(b"long");
    let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    assert_eq!(client.send("PUT", &format!("{at}?digest={digest}"), &[], "long").await.status, 201, "hashed again");
    let begin = "/v2/b/blobs/uploads/?digest-algorithm=sha512";
    let at = client.send("POST", begin, &[], "").await.header("location").to_owned();
    assert_eq!(client.send("PUT", &format!("{at}?digest={digest}"), &[], "long").await.status, 201);
    assert_eq!(&client.get(&format!("/v2/b/blobs/{digest}")).await.body[..], b"long");
    let manifest = image(&digest, 4, &digest, 4);
    let name = Algorithm::Sha512.digest(manifest.as_bytes());
    let put = client.put_manifest("b", name.as_str(), OCI, &manifest).await;
    assert_eq!((put.status.as_u16(), put.header("docker-content-digest")), (201, name.as_str()));
    assert_eq!(client.get(&format!("/v2/b/manifests/{name}")).await.body, manifest);
}

#[tokio::test]
async fn manifests_are_judged_before_they_are_kept() {
    let (_fixture, client) = open().await;
    let (good, layer) = client.push_image("a", "v1", b"layer").await;
    let absent = Digest::sha256(b"absent");
    let dangling = good.replace(layer.as_str(), absent.as_str());
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": OCI, "digest": absent.as_str(), "size": 7 }],
    });
    let huge = format!("{good}{}", " ".repeat(4 << 20));
    let exact = format!("{good}{}", " ".repeat((4 << 20) - good.len()));
    let table = [
        ("v2", OCI, dangling, 400, "MANIFEST_BLOB_UNKNOWN"),
        ("v2", INDEX, good.clone(), 400, "MANIFEST_INVALID"),
        ("v2", "", good.clone(), 400, "MANIFEST_INVALID"),
        ("v2", OCI, "{}".to_owned(), 400, "MANIFEST_INVALID"),
        ("v2", OCI, good.replace("sha256:", "sha256:../"), 400, "MANIFEST_INVALID"),
        ("v2", OCI, huge, 413, "SIZE_INVALID"),
        (absent.as_str(), OCI, good.clone(), 400, "DIGEST_INVALID"),
        ("sha256:xyz", OCI, good.clone(), 400, "DIGEST_INVALID"),
        ("-bad", OCI, good.clone(), 400, "MANIFEST_INVALID"),
        ("v3", &format!("{OCI}; charset=utf-8"), good.clone(), 201, ""),
        ("v3", OCI, exact, 201, ""),
        ("sparse", INDEX, index.to_string(), 201, ""),
    ];
    for (reference, media_type, body, status, code) in table {
        let reply = client.put_manifest("a", reference, media_type, &body).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{reference} {media_type}");
    }
    assert_eq!(client.get("/v2/a/manifests/v2").await.code(), "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_push_by_digest_may_set_several_tags() {
    let (_fixture, client) = open().await;
    let (manifest, _) = client.push_image("a", "v1", b"layer").await;
    let digest = Digest::sha256(manifest.as_bytes());
    let path = format!("/v2/a/manifests/{digest}?tag=x&tag=y");
    let reply = client.send("PUT", &path, &[("content-type", OCI)], manifest).await;
    assert_eq!((reply.status.as_u16(), reply.header("oci-tag")), (201, "x, y"));
    let tags = client.get("/v2/a/tags/list").await;
    assert_eq!(tags.json(), serde_json::json!({ "name": "a", "tags": ["v1", "x", "y"] }));
}

#[tokio::test]
async fn a_tag_moves_only_from_where_the_client_believes_it_is() {
    let (_fixture, client) = open().await;
    let (first, _) = client.push_image("a", "v1", b"one").await;
    let (second, _) = client.push_image("a", "other", b"two").await;
    let put = |condition: String, body: String| {
        let client = client.clone();
        async move {
            let headers = [("content-type", OCI), ("if-match", condition.as_str())];
            client.send("PUT", "/v2/a/manifests/v1", &headers, body).await.status.as_u16()
        }
    };
    let etag = |manifest: &str| format!("\"{}\"", Digest::sha256(manifest.as_bytes()));
    assert_eq!(put(etag(&second), second.clone()).await, 412);
    assert_eq!(put(etag(&first), second.clone()).await, 201);
    assert_eq!(client.get("/v2/a/manifests/v1").await.body, second);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (_fixture, client) = open().await;
    for tag in ["b", "A", "c", "a"] {
        client.push_image("z/tags", tag, b"layer").await;
    }
    client.push_image("a", "v1", b"layer").await;
    let page = client.get("/v2/z/tags/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["A", "a"]));
    assert_eq!(page.header("link"), "</v2/z/tags/tags/list?n=2&last=a>; rel=\"next\"");
    let rest = client.get("/v2/z/tags/tags/list?n=2&last=a").await;
    assert_eq!((rest.json()["tags"].clone(), rest.header("link")), (serde_json::json!(["b", "c"]), ""));
    assert_eq!(client.get("/v2/z/tags/tags/list?n=0").await.json()["tags"], serde_json::json!([]));
    assert_eq!(client.get("/v2/z/tags/tags/list?n=-1").await.code(), "PAGINATION_NUMBER_INVALID");
    assert_eq!(client.get("/v2/z/tags/tags/list?n=1000000000").await.status, 200);
    assert_eq!(client.get("/v2/none/tags/list").await.code(), "NAME_UNKNOWN");
    assert_eq!(client.get("/v2/z/tags/list").await.code(), "NAME_UNKNOWN", "a folder is no repository");
    let catalog = client.get("/v2/_catalog").await;
    assert_eq!(catalog.json()["repositories"], serde_json::json!(["a", "z/tags"]));
    let first = client.get("/v2/_catalog?n=1").await;
    assert_eq!(first.header("link"), "</v2/_catalog?n=1&last=a>; rel=\"next\"");
}

#[tokio::test]
async fn deleted_means_gone_here_and_kept_elsewhere() {
    let (fixture, client) = open().await;
    let (manifest, layer) = client.push_image("a", "v1", b"layer").await;
    client.push_image("b", "v1", b"layer").await;
    let digest = Digest::sha256(manifest.as_bytes());
    let delete = |path: String| {
        let client = client.clone();
        async move { client.send("DELETE", &path, &[], "").await.status.as_u16() }
    };
    assert_eq!(delete(format!("/v2/a/blobs/{layer}")).await, 405, "the manifest needs it");
    assert_eq!(client.put_manifest("a", "v2", OCI, &manifest).await.status, 201);
    assert_eq!(delete("/v2/a/manifests/v2".to_owned()).await, 202);
    assert_eq!(client.get("/v2/a/manifests/v2").await.status, 404);
    assert_eq!(client.get("/v2/a/manifests/v1").await.status, 200, "only the tag went");
    assert_eq!(delete(format!("/v2/a/manifests/{digest}")).await, 202);
    for gone in ["/v2/a/manifests/v1".to_owned(), format!("/v2/a/manifests/{digest}")] {
        assert_eq!(client.get(&gone).await.status, 404, "{gone}");
    }
    assert_eq!(client.get("/v2/a/tags/list").await.json()["tags"], serde_json::json!([]));
    assert_eq!(delete(format!("/v2/a/blobs/{layer}")).await, 202);
    assert_eq!(client.get(&format!("/v2/a/blobs/{layer}")).await.status, 404);
    assert_eq!(client.get(&format!("/v2/b/blobs/{layer}")).await.status, 200);
    assert_eq!(delete(format!("/v2/a/blobs/{layer}")).await, 404);
    fixture.registry.shutdown().await;

    let off = start(|_| {}).await;
    let client = Client::new(&off);
    client.push_image("a", "v1", b"layer").await;
    let refused = client.send("DELETE", "/v2/a/manifests/v1", &[], "").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (405, "UNSUPPORTED"));
}

#[tokio::test]
async fn a_restart_keeps_what_was_accepted_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Arc::new(MemoryLog::default());
    let registry = RegistryServer::start(config(dir.path())).await.expect("started");
    let fixture = Fixture { registry, log: log.clone(), dir };
    let client = Client::new(&fixture);
    let (manifest, _) = client.push_image("a/b", "v1", b"layer").await;
    let at = client.send("POST", "/v2/a/b/blobs/uploads/", &[], "").await.header("location").to_owned();
    client.send("PATCH", &at, &[], "half").await;
    let Fixture { registry, dir, .. } = fixture;
    registry.shutdown().await;
    let registry = RegistryServer::start(config(dir.path())).await.expect("started again");
    let fixture = Fixture { registry, log, dir };
    let client = Client::new(&fixture);
    assert_eq!(client.get("/v2/a/b/manifests/v1").await.body, manifest);
    assert_eq!(client.get(&at).await.code(), "BLOB_UPLOAD_UNKNOWN");
    let tmp = fixture.dir.path().join("registry/tmp");
    assert_eq!(std::fs::read_dir(tmp).expect("a directory").count(), 0);
}

#[tokio::test]
async fn bounds_hold() {
    let fixture = start(|config| {
        config.limits.blob_bytes = 10;
        config.limits.uploads = 2;
    })
    .await;
    let client = Client::new(&fixture);
    let digest = Digest::sha256(b"01234567890");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(client.send("POST", &path, &[], "01234567890").await.status, 413);
    client.push_blob("a", b"0123456789").await;
    for status in [202, 202, 429] {
        assert_eq!(client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn odd_requests_get_an_answer_and_not_a_500() {
    let (_fixture, client) = open().await;
    let table = [
        ("GET", "/", 404, "UNSUPPORTED"),
        ("GET", "/v2/../../etc/passwd", 404, "UNSUPPORTED"),
        ("GET", "/v2/A/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a/manifests/sha256:1", 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/tags/list", 405, "UNSUPPORTED"),
        ("PUT", "/v2/", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/a/manifests/v1", 405, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/uploads/", 405, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/token", 404, "UNSUPPORTED"),
        ("POST", "/v2/a/blobs/uploads/?digest=x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?mount=x&from=b", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
    ];
    for (method, path, status, code) in table {
        let reply = client.send(method, path, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{method} {path}");
    }
    assert_eq!(client.get("/v2/").await.json(), serde_json::json!({}));
}

#[tokio::test]
async fn blobs_are_mounted_from_a_repository() {
    let (_fixture, client) = open().await;
    let digest = client.push_blob("from", b"shared").await;
    let mount = |digest: &Digest, from: &str| format!("/v2/to/blobs/uploads/?mount={digest}&from={from}");
    let mounted = client.send("POST", &mount(&digest, "from"), &[], "").await;
    assert_eq!((mounted.status.as_u16(), mounted.header("docker-content-digest")), (201, digest.as_str()));
    assert_eq!(&client.get(&format!("/v2/to/blobs/{digest}")).await.body[..], b"shared");
    for absent in [mount(&digest, "other"), mount(&Digest::sha256(b"none"), "from"), mount(&digest, "Odd..name")] {
        let instead = client.send("POST", &absent, &[], "").await;
        assert_eq!(instead.status, 202, "{absent}");
        assert!(instead.header("location").starts_with("/v2/to/blobs/uploads/"));
    }
}
