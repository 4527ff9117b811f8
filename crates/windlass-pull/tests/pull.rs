//! Pulls from a real registry: requests, sharing, credentials, cancelling.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Recorder, Rig, client_config, plain_http, request};
use windlass_core::reason::Reason;
use windlass_pull::events::{Event, LayerState, Outcome, Silent, Totals};
use windlass_pull::{Accepted, ImageLimits, ImageSource, PullOptions, UnpackRequest};
use windlass_registry::access::Action;
use windlass_registry::route::RouteKind;
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::{Compression, Content, Entry, Image, Index, Layer, incompressible, small, small_for};
use windlass_testkit::registry::TestRegistry;

/// Requests for manifests and blobs, without questions about authentication.
fn content_requests(registry: &TestRegistry) -> Vec<String> {
    let content =
        registry.take_requests().into_iter().filter(|r| matches!(r.route, RouteKind::Manifest | RouteKind::Blob));
    content.filter(|r| r.status != 401).map(|r| format!("{} {}", r.method, r.path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_pull_of_n_layers_is_n_plus_two_requests() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "team/app", "1.4");
    let rig = Rig::new();
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!((report.outcome, report.layers, report.layers_already_here), (Outcome::Pulled, 2, 0));
    assert_eq!(&report.id, image.id());
    assert_eq!(report.platform, "linux/amd64");
    assert_eq!(content_requests(&registry).len(), 4);
    assert_eq!(report.requests, 4);
    assert_eq!(report.accepted, Accepted::Anonymous);
    let found = rig.engine.store().find(&reference).unwrap().unwrap();
    assert_eq!((&found.id, found.damage), (image.id(), None));
    let by_digest = format!("{}/team/app@{}", registry.host(), report.manifest);
    assert_eq!(&rig.engine.store().find(&by_digest).unwrap().unwrap().id, image.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn always_with_nothing_new_is_one_head() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let rig = Rig::new();
    rig.pull(&reference).await.unwrap();
    registry.take_requests();
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!((report.outcome, report.fetched_bytes), (Outcome::UpToDate, 0));
    assert_eq!(content_requests(&registry), ["HEAD /v2/app/manifests/1"]);
    // The same through an index.
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "amd64", None)]);
    let reference = registry.place(&index.bundle(), "app", "multi");
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!(report.platform, "linux/amd64");
    let manifests = content_requests(&registry).into_iter().filter(|request| request.contains("/manifests/"));
    assert_eq!(manifests.count(), 2, "an index adds one request");
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!(report.outcome, Outcome::UpToDate);
    assert_eq!(content_requests(&registry), ["HEAD /v2/app/manifests/multi"]);
    // Another platform of the same index is another image.
    let mut other = request(&reference);
    other.options.platform = Some(windlass_core::platform::Platform::new("linux", "arm64", None));
    let report = rig.engine.pull(other, Arc::new(Silent)).await.unwrap();
    assert_eq!((report.outcome, report.platform.as_str()), (Outcome::Pulled, "linux/arm64"));
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_are_fetched_once() {
    let registry = TestRegistry::open();
    let base = || Layer::new([Entry::file("base", incompressible(50_000, 1))]);
    let one = Image::build().layer(base()).layer(Layer::new([Entry::file("a", "1")])).finish();
    let two = Image::build().layer(base()).layer(Layer::new([Entry::file("a", "2")])).finish();
    let rig = Rig::new();
    rig.pull(&registry.place(&one.bundle(), "app", "1")).await.unwrap();
    registry.take_requests();
    let report = rig.pull(&registry.place(&two.bundle(), "app", "2")).await.unwrap();
    assert_eq!((report.layers, report.layers_already_here), (2, 1));
    assert_eq!(content_requests(&registry).len(), 3, "manifest, config and the one new layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_used_twice_is_fetched_once_and_applied_twice() {
    let registry = TestRegistry::open();
    let twice = || Layer::new([Entry::file("f", "same")]);
    let between = Layer::new([Entry::whiteout("f")]);
    let image = Image::build().layer(twice()).layer(between).layer(twice()).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let rig = Rig::new();
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!(report.layers, 2);
    assert_eq!(content_requests(&registry).len(), 4);
    let found = rig.engine.store().find(&reference).unwrap().unwrap();
    assert_eq!((found.layers.len(), found.damage), (3, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_is_pulled() {
    let registry = TestRegistry::open();
    let rig = Rig::new();
    for (tag, compression) in [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let layer = Layer::new([Entry::file(tag, incompressible(2 << 20, 3))]).compression(compression);
        let reference = registry.place(&Image::build().layer(layer).finish().bundle(), "app", tag);
        let report = rig.pull(&reference).await.unwrap();
        assert_eq!(report.fetched_bytes, report.size_bytes, "{tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pulls_of_one_image_fetch_each_blob_once() {
    let registry = TestRegistry::open();
    let layers = (0..4).map(|n| Layer::new([Entry::file(format!("f{n}"), incompressible(300_000, n))]));
    let image = layers.fold(Image::build(), |image, layer| image.layer(layer)).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let rig = Rig::new();
    let pulls = (0..10).map(|_| {
        let (engine, request) = (rig.engine.clone(), request(&reference));
        tokio::spawn(async move { engine.pull(request, Arc::new(Silent)).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        assert_eq!(&pull.await.unwrap().unwrap().id, image.id());
    }
    let blobs: Vec<String> = content_requests(&registry).into_iter().filter(|r| r.contains("/blobs/")).collect();
    let distinct: BTreeSet<&String> = blobs.iter().collect();
    assert_eq!((blobs.len(), distinct.len()), (5, 5), "{blobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_tried_in_order_and_named_in_errors() {
    let pull = &[Action::Pull];
    let build = TestRegistry::build().bearer();
    let registry = build.user("ci", "right", "team/*", pull).user("other", "right", "other/*", pull).start();
    let reference = registry.place(&small("private").bundle(), "team/app", "1");
    let host = registry.host();

    let good = Rig::with(client_config(), &[(&format!("{host}/team"), "other", "right"), (&host, "ci", "right")]);
    let report = good.pull(&reference).await.unwrap();
    let accepted = report.attempts.accepted().unwrap();
    assert_eq!((accepted.user.as_deref(), accepted.key.as_str()), (Some("ci"), host.as_str()));

    let wrong = Rig::with(client_config(), &[(&host, "ci", "canary-password")]);
    let error = wrong.pull(&reference).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unauthorized, "{error:?}");
    assert!(error.hint().contains("user ci"), "{}", error.hint());
    assert!(!format!("{error:?} {}", error.chain()).contains("canary-password"));

    let denied = Rig::with(client_config(), &[(&host, "other", "right")]);
    let error = denied.pull(&reference).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound, "this registry does not say what others have: {error:?}");
    let users: Vec<_> = error.attempts().0.iter().map(|attempt| attempt.user.as_deref()).collect();
    assert_eq!(users, [Some("other"), None], "the credential, then anonymously");

    let error = Rig::new().pull(&reference).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unauthorized);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_says_so() {
    let registry = TestRegistry::open();
    registry.place(&small_for("a", "s390x", None).bundle(), "app", "s390x");
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "s390x", None)]);
    registry.place(&index.bundle(), "app", "index");
    let rig = Rig::new();
    let table = [("app:nope", Reason::NotFound, "app:nope"), ("app:index", Reason::NoMatchingPlatform, "linux/arm64")];
    for (name, want, word) in table {
        let error = rig.pull(&format!("{}/{name}", registry.host())).await.unwrap_err();
        assert_eq!(error.reason(), want, "{name}: {error:?}");
        assert!(error.chain().contains(word), "{}", error.chain());
    }
    assert_eq!(rig.pull("team/UPPER").await.unwrap_err().reason(), Reason::InvalidReference);
    // A single manifest for another processor is pulled with a warning, and refused on request.
    let other = format!("{}/app:s390x", registry.host());
    let report = rig.pull(&other).await.unwrap();
    assert!(report.warnings[0].contains("linux/s390x"), "{:?}", report.warnings);
    let mut strict = request(&other);
    strict.options.strict_platform = windlass_pull::StrictPlatform::Refuse;
    rig.engine.store().remove(&other).unwrap();
    let error = rig.engine.pull(strict, Arc::new(Silent)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NoMatchingPlatform);
    assert!(rig.engine.store().find(&other).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_stops_the_transfer_and_keeps_finished_layers() {
    let registry = FaultyRegistry::open();
    let small_layer = Layer::new([Entry::file("small", "x")]);
    let large_layer = Layer::new([Entry::file("large", incompressible(1 << 20, 5))]);
    let image = Image::build().layer(small_layer).layer(large_layer).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let large = &image.layers[1].blob.digest;
    registry.inject(When::blob_of(large), Fault::Stall { at: 4096, how_long: None });
    let rig = Rig::with(plain_http(), &[]);
    let recorder = Recorder::default();
    let cancel = tokio_util::sync::CancellationToken::new();
    let mut request = request(&reference);
    request.options = PullOptions { cancel: cancel.clone(), ..PullOptions::default() };
    let pull = {
        let (engine, recorder) = (rig.engine.clone(), recorder.clone());
        let stop_when_small_is_done = move |event: Event| {
            if let Event::Layer { layer: 0, state: LayerState::Done, .. } = &event {
                cancel.cancel();
            }
            recorder.0.lock().unwrap().push(event);
        };
        tokio::spawn(async move { engine.pull(request, Arc::new(stop_when_small_is_done)).await })
    };
    let error = pull.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Reason::Canceled, "{error:?}");
    assert!(rig.engine.store().find(&reference).unwrap().is_none(), "no half image");
    registry.heal();
    registry.take_requests();
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!(report.layers_already_here, 1);
    assert_eq!(registry.count("GET", image.layers[0].blob.digest.hex()), 0, "the finished layer is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_whole_story() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let rig = Rig::new();
    let recorder = Recorder::default();
    rig.engine.pull(request(&reference), Arc::new(recorder.clone())).await.unwrap();
    let events = recorder.0.lock().unwrap();
    assert!(matches!(events.first(), Some(Event::Resolved { layers, .. }) if layers.len() == 2));
    assert!(matches!(events.last(), Some(Event::Finished { outcome: Outcome::Pulled, .. })));
    let mut totals = Totals::default();
    events.iter().for_each(|event| totals.add(event));
    let line = totals.line();
    assert_eq!((line.done, line.layers, line.done_bytes), (2, 2, line.total_bytes));
}

/// Layers of one image are claimed by several pulls, each layer above needing one below that another pull unpacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pulls_that_share_layers_never_wait_for_each_other() {
    let registry = TestRegistry::open();
    let rig = Rig::new();
    for round in 0..5 {
        // No layer but the lowest has an entry for the directory its file is in.
        let lowest =
            Layer::new([Entry::dir("deep/"), Entry::dir("deep/down"), Entry::file("deep/down/0", format!("{round}"))]);
        let above = (1..8).map(|n| Layer::new([Entry::file(format!("deep/down/{n}"), incompressible(20_000, n))]));
        let image = above.fold(Image::build().layer(lowest), |image, layer| image.layer(layer)).finish();
        let tag = format!("round{round}");
        let reference = registry.place(&image.bundle(), "app", &tag);
        let pulls = (0..6).map(|_| {
            let (engine, request) = (rig.engine.clone(), request(&reference));
            tokio::spawn(async move { engine.pull(request, Arc::new(Silent)).await })
        });
        for pull in pulls.collect::<Vec<_>>() {
            let done = tokio::time::timeout(std::time::Duration::from_secs(60), pull).await;
            assert_eq!(&done.expect("no deadlock").unwrap().unwrap().id, image.id(), "round {round}");
        }
    }
}

/// Four layers of two entries and 40 960 unpacked bytes each.
fn four_layers() -> Image {
    let layer = |n: u64| {
        let (one, two) = (incompressible(19_000, 2 * n), incompressible(19_000, 2 * n + 1));
        Layer::new([Entry::file(format!("{n}/a"), one), Entry::file(format!("{n}/b"), two)])
    };
    (0..4).fold(Image::build(), |image, n| image.layer(layer(n))).finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_bounded_over_all_its_layers() {
    let registry = TestRegistry::open();
    let image = four_layers();
    let unpacked_bytes: u64 = image.layers.iter().map(|layer| layer.tar.len() as u64).sum();
    let reference = registry.place(&image.bundle(), "app", "1");
    let exact = ImageLimits { unpacked_bytes, entries: 8 };
    let table = [
        // limits, the key that is named
        (exact, None),
        (ImageLimits { unpacked_bytes: unpacked_bytes - 1, ..exact }, Some(("imageUnpackedBytes", unpacked_bytes - 1))),
        (ImageLimits { entries: 7, ..exact }, Some(("imageEntries", 7))),
    ];
    for (limits, passed) in table {
        let rig = Rig::with_image_limits(limits);
        let source = ImageSource::Registry(reference.clone());
        let unpack = UnpackRequest {
            source,
            directory: rig.path("root"),
            mode: windlass_core::keyring::Mode::Windlass,
            options: PullOptions::default(),
        };
        let pulled = rig.pull(&reference).await.map(drop);
        let unpacked = rig.engine.unpack(unpack, Arc::new(Silent)).await.map(drop);
        for (how, result) in [("pulled", pulled), ("unpacked", unpacked)] {
            match passed {
                None => result.unwrap(),
                Some((key, limit)) => {
                    let error = result.unwrap_err();
                    assert_eq!(error.reason(), Reason::LimitExceeded, "{how}: {error:?}");
                    let text = error.to_string();
                    assert!(text.ends_with(&format!(", the limit limits.{key} is {limit}")), "{how}: {text}");
                    assert!(rig.engine.store().images().unwrap().is_empty());
                    // The layers that are here count as those that come.
                    assert_eq!(rig.pull(&reference).await.unwrap_err().reason(), Reason::LimitExceeded, "again");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_about_layers_is_noted_once() {
    let registry = TestRegistry::open();
    let rig = Rig::new();
    let mut image = (0..128).fold(Image::build(), |image, _| image.layer(Layer::new([]))).finish();
    let report = rig.pull(&registry.place(&image.bundle(), "app", "many")).await.unwrap();
    assert_eq!(report.notes, ["128 layers: some runtimes allow 127"]);

    image = Image::build().layer(Layer::new([Entry::file("f", "x")]).compression(Compression::Zstd)).finish();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    image.manifest = Content::json(&image.manifest.media_type, &manifest);
    let reference = registry.place(&image.bundle(), "app", "odd");
    let report = rig.pull(&reference).await.unwrap();
    let short = image.layers[0].blob.digest.short();
    assert_eq!(report.notes, [format!("{short}: the layer's type says gzip, its bytes are zstd")]);
    assert!(rig.pull(&reference).await.unwrap().notes.is_empty(), "nothing was unpacked");
}
