//! Blobs and manifests from registries that fail, stall, cut and lie.

use std::time::Duration;

use windlass_core::manifest::Descriptor;
use windlass_core::reason::Reason;
use windlass_distribution::config::ClientConfig;
use windlass_distribution::{BlobEvent, FetchError, TagOrDigest};

use crate::pull::read_all;
use crate::support::{Image, Reply, Seen, Server, fast, session};

const LAYER: usize = 1_000_000;

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

/// A server whose layer requests are answered by `blob`, which gets the number of the layer request, from 0.
async fn layer_server(image: &Image, blob: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Server {
    let requests = std::sync::atomic::AtomicUsize::new(0);
    let served = image.clone();
    Server::start(move |seen| {
        if !seen.path().contains("/blobs/") {
            return served.serve(seen);
        }
        blob(requests.fetch_add(1, std::sync::atomic::Ordering::SeqCst), seen)
    })
    .await
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.seen().iter().map(|s| s.header("range").map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_cut_blob_is_resumed_by_range() {
    let image = Image::new(LAYER);
    type Cut = fn(Reply) -> Reply;
    let cuts: [(&str, Cut); 3] = [
        ("end of file", |r| r.cut_after(300_000)),
        ("reset", |r| r.reset_after(300_000)),
        ("chunked, end of file", |r| r.chunked().cut_after(300_000)),
    ];
    for (name, cut) in cuts {
        let served = image.clone();
        let server = layer_server(&image, move |n, seen| match n {
            0 => cut(served.serve(seen)),
            _ => served.serve(seen),
        })
        .await;
        let got = read_all(session(&server, fast()).blob(&image.layer())).await.unwrap();
        assert!(got == image.layer, "{name}");
        let asked = ranges(&server);
        assert_eq!(asked.len(), 2, "{name}");
        let from: usize =
            asked[1].as_deref().unwrap().strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
        // A reset may throw away what was under way; what arrived is not asked for again.
        assert!(from <= 300_000, "{name}: {from}");
        assert!(name == "reset" || from > 290_000, "{name}: {from}");
    }
}

#[tokio::test]
async fn a_200_to_a_range_is_skipped_to_the_offset() {
    let image = Image::new(LAYER);
    let served = image.clone();
    let server = layer_server(&image, move |n, _| {
        let whole = Reply::new(200).body(served.layer.clone());
        if n == 0 { whole.cut_after(300_000) } else { whole }
    })
    .await;
    let repository = session(&server, fast());
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(repository.counters().bytes as usize, LAYER, "every byte is given once");
}

#[tokio::test]
async fn a_416_starts_again() {
    let image = Image::new(LAYER);
    let served = image.clone();
    let server = layer_server(&image, move |n, _| match n {
        0 => Reply::new(200).body(served.layer.clone()).cut_after(300_000),
        1 => Reply::error(416, "RANGE_INVALID", "no"),
        _ => Reply::new(200).body(served.layer.clone()),
    })
    .await;
    let mut fetch = session(&server, fast()).blob(&image.layer());
    let (mut restarts, mut all) = (0, Vec::new());
    while let Some(event) = fetch.next().await.unwrap() {
        match event {
            BlobEvent::Bytes(bytes) => all.extend_from_slice(&bytes),
            BlobEvent::Restart => {
                restarts += 1;
                all.clear();
            }
        }
    }
    assert!(all == image.layer && restarts == 1);
    assert_eq!(ranges(&server)[2], None, "after a 416 the whole blob is asked for");
}

#[tokio::test]
async fn a_lying_range_is_not_believed() {
    let image = Image::new(LAYER);
    for lie in ["bytes 0-699999/1000000", "bytes 300001-999999/1000000", "bytes 300000-999999/2000000", "nonsense", ""]
    {
        let served = image.clone();
        let server = layer_server(&image, move |n, seen| match n {
            0 => Reply::new(200).body(served.layer.clone()).cut_after(300_000),
            _ if seen.header("range").is_some() => Reply::new(206).header("Content-Range", lie).body(vec![0; 700_000]),
            _ => served.serve(seen),
        })
        .await;
        let got = read_all(session(&server, fast()).blob(&image.layer())).await.unwrap();
        assert!(got == image.layer, "{lie}");
        assert_eq!(ranges(&server).last().unwrap(), &None, "{lie}");
    }
}

#[tokio::test]
async fn a_blob_never_exceeds_its_size() {
    let image = Image::new(LAYER);
    let layer = image.layer.clone();
    type Lie = fn(Vec<u8>) -> Reply;
    let lies: [(&str, Lie); 6] = [
        ("endless", |_| Reply::new(200).endless()),
        ("longer, chunked", |mut b| {
            b.push(1);
            Reply::new(200).body(b).chunked()
        }),
        ("longer, announced", |mut b| {
            b.push(1);
            Reply::new(200).body(b)
        }),
        ("longer, until the connection's end", |mut b| {
            b.push(1);
            Reply::new(200).body(b).until_close()
        }),
        ("shorter, chunked", |mut b| {
            b.pop();
            Reply::new(200).body(b).chunked()
        }),
        ("shorter, announced", |mut b| {
            b.pop();
            Reply::new(200).body(b)
        }),
    ];
    for (name, lie) in lies {
        let body = layer.clone();
        let server = layer_server(&image, move |_, _| lie(body.clone())).await;
        let repository = session(&server, fast());
        let error = read_all(repository.blob(&image.layer())).await.unwrap_err();
        assert_eq!(error.reason(), Reason::SizeMismatch, "{name}: {error}");
        assert!(repository.counters().bytes as usize <= LAYER, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_resumed() {
    let image = Image::new(LAYER);
    let served = image.clone();
    let server = layer_server(&image, move |n, seen| match n {
        0 => Reply::new(200).body(served.layer[..400_000].to_vec()).until_close(),
        _ => served.serve(seen),
    })
    .await;
    assert!(read_all(session(&server, fast()).blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(ranges(&server)[1].as_deref(), Some("bytes=400000-"));
}

#[tokio::test]
async fn failures_of_the_moment_are_waited_out_and_others_are_not() {
    let image = Image::new(LAYER);
    for (status, patient) in
        [(500, true), (502, true), (503, true), (504, true), (408, true), (429, true), (522, true), (499, true)]
            .into_iter()
            .chain([(400, false), (405, false), (410, false), (501, false), (418, false)])
    {
        let served = image.clone();
        let server = Server::start(move |seen| match seen.number {
            0..4 => Reply::error(status, "UNKNOWN", "not now"),
            _ => served.serve(seen),
        })
        .await;
        let outcome = session(&server, fast()).manifest(&tag()).await;
        assert_eq!(outcome.is_ok(), patient, "{status}");
        assert_eq!(server.seen().len(), if patient { 5 } else { 1 }, "{status}");
    }
}

#[tokio::test]
async fn five_tries_without_progress_are_all() {
    let server = Server::start(|_| Reply::error(503, "UNAVAILABLE", "down for repair")).await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert_eq!(server.seen().len(), 5);
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    let host = server.host();
    assert_eq!(error.to_string(), format!("{host} answered 503 to manifest: UNAVAILABLE down for repair"));
}

#[tokio::test]
async fn progress_gives_the_tries_back() {
    let image = Image::new(LAYER);
    let served = image.clone();
    // Ten cuts, each after 100 KB: more than five tries, but each one brought something.
    let server = layer_server(&image, move |_, seen| {
        let left = seen
            .header("range")
            .map_or(LAYER, |r| LAYER - r.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
        let reply = served.serve(seen);
        if left > 100_000 { reply.cut_after(100_000) } else { reply }
    })
    .await;
    assert!(read_all(session(&server, fast()).blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(server.seen().len(), 10);
}

#[tokio::test]
async fn retry_after_is_obeyed_up_to_its_budget() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| match seen.number {
        0 => Reply::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "1"),
        _ => served.serve(seen),
    })
    .await;
    let begin = std::time::Instant::now();
    session(&server, fast()).manifest(&tag()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));

    for status in [429, 503] {
        let server =
            Server::start(move |_| Reply::error(status, "TOOMANYREQUESTS", "slow down").header("Retry-After", "3600"))
                .await;
        let begin = std::time::Instant::now();
        let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
        assert_eq!((error.reason(), server.seen().len()), (Reason::RateLimited, 1));
        assert!(error.to_string().contains("retry after 3600 s"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(3), "nobody waits an hour");
    }
}

fn impatient(progress_ms: u64) -> ClientConfig {
    let mut config = fast();
    config.timeouts.progress = Duration::from_millis(progress_ms);
    config
}

#[tokio::test]
async fn trickle_is_not_progress() {
    let image = Image::new(LAYER);
    let served = image.clone();
    let server = layer_server(&image, move |_, seen| served.serve(seen).trickle(100, Duration::from_millis(20))).await;
    let error = read_all(session(&server, impatient(400)).blob(&image.layer())).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout, "{error}");
    assert!(matches!(error, FetchError::NoProgress { .. }));
}

#[tokio::test]
async fn a_stalled_blob_is_resumed_or_ends_by_the_progress_rule() {
    let image = Image::new(LAYER);
    let served = image.clone();
    let server = layer_server(&image, move |n, seen| match n {
        0 => served.serve(seen).stall_after(300_000),
        _ => served.serve(seen),
    })
    .await;
    let mut config = fast();
    config.timeouts.idle = Duration::from_millis(150);
    assert!(read_all(session(&server, config.clone()).blob(&image.layer())).await.unwrap() == image.layer);

    let served = image.clone();
    let server = layer_server(&image, move |n, seen| match n {
        0 => served.serve(seen).stall_after(300_000),
        _ => served.serve(seen).stall_after(0),
    })
    .await;
    config.timeouts.progress = Duration::from_millis(400);
    let error = read_all(session(&server, config).blob(&image.layer())).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout, "{error}");
}

#[tokio::test]
async fn silence_ends_by_the_header_time_out() {
    let server = Server::start(|_| Reply::silence()).await;
    let mut config = fast();
    config.timeouts.header = Duration::from_millis(50);
    let error = session(&server, config).manifest(&tag()).await.unwrap_err();
    assert_eq!((error.reason(), server.seen().len()), (Reason::RegistryUnavailable, 5));
}

#[tokio::test]
async fn header_floods_are_refused() {
    let image = Image::new(10);
    let many = image.clone();
    let server =
        Server::start(move |_| (0..300).fold(many.manifest_reply(), |reply, n| reply.header(&format!("X-{n}"), "y")))
            .await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert_eq!((error.reason(), server.seen().len()), (Reason::LimitExceeded, 1), "{error}");

    let large = image.clone();
    let server = Server::start(move |_| large.manifest_reply().header("X", &"y".repeat(70 * 1024))).await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert_eq!((error.reason(), server.seen().len()), (Reason::LimitExceeded, 1), "{error}");
}

#[tokio::test]
async fn encoded_content_is_refused() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen).header("Content-Encoding", "gzip")).await;
    let repository = session(&server, fast());
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, FetchError::ContentEncoding { .. }), "{error}");
    let error = read_all(repository.blob(&image.layer())).await.unwrap_err();
    assert!(matches!(error, FetchError::ContentEncoding { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_says() {
    let image = Image::new(10);
    let (other, digest) = (Image::new(11), image.digest());
    // The content is another one than was asked for: one fresh download, then an error.
    let wrong = other.clone();
    let server = Server::start(move |_| wrong.manifest_reply()).await;
    let error = session(&server, fast()).manifest(&TagOrDigest::Digest(digest.clone())).await.unwrap_err();
    assert_eq!((error.reason(), server.seen().len()), (Reason::DigestMismatch, 2), "{error}");
    // The header lies about the content of a tag.
    let (honest, lie) = (image.clone(), other.digest().to_string());
    let server = Server::start(move |_| {
        Reply::new(200)
            .header("Content-Type", crate::support::image::MANIFEST_TYPE)
            .header("Docker-Content-Digest", &lie)
            .body(honest.manifest.clone())
    })
    .await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DigestMismatch, "{error}");
    // A header that is no digest is passed over.
    let honest = image.clone();
    let server = Server::start(move |_| {
        Reply::new(200)
            .header("Content-Type", crate::support::image::MANIFEST_TYPE)
            .header("Docker-Content-Digest", "sha256:../../../etc/passwd")
            .body(honest.manifest.clone())
    })
    .await;
    assert_eq!(session(&server, fast()).manifest(&tag()).await.unwrap().digest, digest);
}

#[tokio::test]
async fn a_manifest_has_a_size_limit() {
    type Lie = fn() -> Reply;
    let lies: [Lie; 2] = [
        || Reply::new(200).header("Content-Type", "application/json").length(5 << 20),
        || Reply::new(200).header("Content-Type", "application/json").endless(),
    ];
    for lie in lies {
        let server = Server::start(move |_| lie()).await;
        let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::LimitExceeded, "{error}");
        assert!(error.to_string().contains("manifestBytes"), "{error}");
    }
}

#[tokio::test]
async fn html_is_no_image() {
    let page = b"<html><body>Please log in</body></html>".to_vec();
    let server = Server::start(move |_| Reply::new(200).header("Content-Type", "text/html").body(page.clone())).await;
    let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotAnImage, "{error}");
}

#[tokio::test]
async fn an_entry_must_fit_what_it_names() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let repository = session(&server, fast());
    let entry = |media_type: &str, size: u64| Descriptor::new(media_type, image.digest(), size);
    let size = image.manifest.len() as u64;
    assert!(repository.child(&entry(crate::support::image::MANIFEST_TYPE, size)).await.is_ok());
    let error = repository.child(&entry(crate::support::image::MANIFEST_TYPE, size + 1)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::SizeMismatch);
    let error = repository.child(&entry("application/vnd.oci.image.index.v1+json", size)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::BadManifest);
}

#[tokio::test]
async fn data_in_the_descriptor_saves_the_request_and_must_fit() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let repository = session(&server, fast());
    let good = Descriptor { data: Some(image.config.clone()), ..image.config() };
    assert_eq!(&repository.blob_bytes(&good, 1 << 20).await.unwrap()[..], &image.config[..]);
    let bad = Descriptor { data: Some(b"{}".to_vec()), ..image.config() };
    let error = repository.blob_bytes(&bad, 1 << 20).await.unwrap_err();
    assert!(matches!(error, FetchError::InlineData { .. }), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_blob_that_is_gone_is_told_apart_from_an_image_that_is() {
    let image = Image::new(10);
    let server = Server::start(|_| Reply::error(404, "UNKNOWN", "gone")).await;
    let repository = session(&server, fast());
    assert_eq!(repository.manifest(&tag()).await.unwrap_err().reason(), Reason::NotFound);
    assert_eq!(repository.blob_bytes(&image.config(), 1 << 20).await.unwrap_err().reason(), Reason::BlobMissing);
    assert_eq!(server.seen().len(), 2, "a registry without authentication is not asked again anonymously");
}

#[tokio::test]
async fn a_small_blob_with_wrong_bytes_is_fetched_once_more() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| match seen.number {
        0 => Reply::new(200).body(vec![b'x'; served.config.len()]),
        _ => served.serve(seen),
    })
    .await;
    assert!(session(&server, fast()).blob_bytes(&image.config(), 1 << 20).await.is_ok());
    assert_eq!(server.seen().len(), 2);

    let size = image.config.len();
    let server = Server::start(move |_| Reply::new(200).body(vec![b'x'; size])).await;
    let error = session(&server, fast()).blob_bytes(&image.config(), 1 << 20).await.unwrap_err();
    assert_eq!((error.reason(), server.seen().len()), (Reason::DigestMismatch, 2));
}

#[tokio::test]
async fn an_empty_blob_is_complete_at_once() {
    let image = Image::new(0);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    assert!(read_all(session(&server, fast()).blob(&image.layer())).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dead_registry_is_left_alone_for_a_while() {
    let server = Server::start(|_| Reply::silence()).await;
    let reference = crate::support::reference(&server);
    drop(server);
    let client = windlass_distribution::Client::new(fast()).unwrap();
    let session = || client.repository(&reference, Vec::new(), windlass_distribution::CredentialMode::Windlass);
    let error = session().manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    let error = session().manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, FetchError::BreakerOpen { .. }), "{error}");
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    for junk in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 200 x\r\nContent-Length: -1\r\n\r\n",
    ] {
        let server = Server::start(move |_| Reply::raw(junk.to_vec())).await;
        let error = session(&server, fast()).manifest(&tag()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryUnavailable, "{error}");
        assert_eq!(server.seen().len(), 1, "it is not asked again");
    }
}

/// Settings that fetch blobs above 1 MiB over four streams from this server.
fn parallel(server: &Server) -> ClientConfig {
    use windlass_core::mirror::{HostOverride, ParallelRanges, RegistryOverride, Settings};
    let ranges = Some(ParallelRanges { streams: 4, above_bytes: 1 << 20 });
    let own = HostOverride { settings: Settings { ranges, ..Settings::default() }, ..HostOverride::default() };
    let host = windlass_core::host::Host::new(server.host());
    ClientConfig { registries: vec![(host, RegistryOverride { own, ..RegistryOverride::default() })], ..fast() }
}

#[tokio::test]
async fn a_large_blob_comes_over_several_connections_in_order() {
    let image = Image::new(23_000_000);
    let served = image.clone();
    let server = layer_server(&image, move |n, seen| match n {
        2 => served.serve(seen).cut_after(1_000_000),
        _ => served.serve(seen),
    })
    .await;
    let repository = session(&server, parallel(&server));
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    let asked = ranges(&server);
    assert!(asked.iter().all(Option::is_some) && asked.len() == 7, "{asked:?}");
    assert!(server.most_connections() > 1 && server.most_connections() <= 4);
    assert_eq!(repository.counters().bytes as usize, image.layer.len());
    // A small one comes in one piece.
    let small = Image::new(1_000_000);
    let served = small.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    assert!(read_all(session(&server, parallel(&server)).blob(&small.layer())).await.unwrap() == small.layer);
    assert_eq!(ranges(&server), [None]);
}

#[tokio::test]
async fn a_200_to_a_part_means_one_stream() {
    let image = Image::new(23_000_000);
    type Odd = fn(&Image, usize, &Seen) -> Reply;
    let odd: [(&str, Odd); 5] = [
        ("never ranges", |image, _, _| Reply::new(200).body(image.layer.clone())),
        ("stops to do ranges", |image, n, seen| match n {
            0 => image.serve(seen),
            _ => Reply::new(200).body(image.layer.clone()),
        }),
        ("refuses ranges", |image, _, seen| match seen.header("range") {
            Some(_) => Reply::new(416),
            None => image.serve(seen),
        }),
        ("lies about ranges", |image, n, seen| match (n, seen.header("range")) {
            (0, _) | (_, None) => image.serve(seen),
            (_, Some(range)) if range.ends_with('-') => image.serve(seen),
            _ => Reply::new(206).header("Content-Range", "bytes 0-9/23000000").body(vec![0; 10]),
        }),
        ("fails parts", |image, n, seen| match (n, seen.header("range")) {
            (0, _) => image.serve(seen),
            (_, Some(range)) if range.ends_with('-') => image.serve(seen),
            _ => Reply::new(500),
        }),
    ];
    for (name, answer) in odd {
        let served = image.clone();
        let server = layer_server(&image, move |n, seen| answer(&served, n, seen)).await;
        let got = read_all(session(&server, parallel(&server)).blob(&image.layer())).await;
        assert!(got.unwrap() == image.layer, "{name}");
    }
}
