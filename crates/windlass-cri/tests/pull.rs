//! Pulls over the socket: credentials, errors, deadlines, sharing, as the kubelet meets them.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Node, client_config, eventually, login, spec};
use tonic::{Code, Request};
use windlass_cri::containerd::{Handover, HandoverConfig};
use windlass_proto::cri::v1;
use windlass_proto::cri::v1::AuthConfig;
use windlass_proto::cri::v1::image_service_client::ImageServiceClient;
use windlass_registry::access::Action;
use windlass_registry::route::RouteKind;
use windlass_testkit::faults::{Fault, FaultyRegistry, Guard, Seen, SeenAuthorization, When};
use windlass_testkit::images::{Entry, Image, Index, Layer, incompressible, small, small_for};
use windlass_testkit::registry::TestRegistry;

const PULL: &[Action] = &[Action::Pull];

/// A registry that lets `ci` with `correct horse` read `team/*`, and everybody `public/*`.
fn private() -> TestRegistry {
    TestRegistry::build()
        .bearer()
        .user("ci", "correct horse", "team/**", PULL)
        .rule("anonymous", "public/**", PULL)
        .start()
}

fn auth(user_and_password: &str) -> AuthConfig {
    AuthConfig { auth: STANDARD.encode(user_and_password), ..AuthConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_the_request_open_what_is_private() {
    let registry = private();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let node = Node::start().await;
    let mut client = node.client().await;
    let other_server =
        AuthConfig { server_address: "https://other.example".to_owned(), ..login("ci", "correct horse") };
    let this_server =
        AuthConfig { server_address: format!("http://{}", registry.host()), ..login("ci", "correct horse") };
    for (what, auth) in [
        ("none", None),
        ("an empty one", Some(AuthConfig::default())),
        ("a wrong password", Some(login("ci", "wrong horse"))),
        ("one for another registry", Some(other_server)),
        ("a password alone", Some(login("", "correct horse"))),
    ] {
        let error = client.pull_with(&reference, auth).await.unwrap_err();
        assert_eq!(error.code(), Code::Unknown, "{what}");
        assert!(error.message().contains("401 Unauthorized"), "{what}: {}", error.message());
        assert!(error.message().contains("pull access denied"), "{what}: {}", error.message());
        assert_eq!(client.list().await, [], "{what}");
    }
    for (what, auth) in [
        ("user and password", login("ci", "correct horse")),
        ("the same as auth", auth("ci:correct horse")),
        ("auth with zeros", auth("ci:correct horse\0\0")),
        ("with the server's address", this_server),
    ] {
        client.pull_with(&reference, Some(auth)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        client.remove(&reference).await.unwrap();
    }
    let error = client.pull_with(&reference, Some(auth("no colon"))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_used_at_the_token_endpoint() {
    let guard = Guard::bearer("ci", "correct horse").with_identity_token("identity-of-ci");
    let registry = FaultyRegistry::build().guard(guard).start();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let node = Node::plain_http().await;
    let mut client = node.client().await;
    let token = |token: &str| Some(AuthConfig { identity_token: token.to_owned(), ..AuthConfig::default() });
    assert!(client.pull_with(&reference, token("identity-of-other")).await.is_err());
    client.pull_with(&reference, token("identity-of-ci")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_token_is_shown_as_it_is() {
    let registry = FaultyRegistry::build().guard(Guard::bearer("ci", "correct horse")).start();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let node = Node::plain_http().await;
    let mut client = node.client().await;
    let auth = AuthConfig { registry_token: "not-the-one-it-made".to_owned(), ..AuthConfig::default() };
    let error = client.pull_with(&reference, Some(auth)).await.unwrap_err();
    assert!(error.message().contains("401"), "{}", error.message());
    let shown = |seen: &Seen| seen.authorization == SeenAuthorization::Bearer { is_good: false };
    assert!(registry.requests().iter().any(|seen| seen.path.contains("/manifests/") && shown(seen)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_own_credentials_serve_requests_without_any_and_no_others() {
    let registry = private();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let host = registry.host();
    let node = Node::with(client_config(), &[(&host, "ci", "correct horse")]).await;
    let mut client = node.client().await;
    // The kubelet would note a secret as proof of access that the node's credentials gave.
    for auth in [AuthConfig::default(), login("ci", "wrong horse"), login("nobody", "x")] {
        assert!(client.pull_with(&reference, Some(auth)).await.is_err());
    }
    client.pull(&reference).await.unwrap();
    // What everybody may have, any credential gets.
    let public = registry.place(&small("two").bundle(), "public/app", "1");
    client.pull_with(&public, Some(login("ci", "wrong horse"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_those_that_the_kubelet_knows() {
    let registry = private();
    registry.place(&small("one").bundle(), "public/app", "1");
    let foreign = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "s390x", None)]);
    registry.place(&foreign.bundle(), "public/foreign", "1");
    let host = registry.host();
    let nobody = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let node = Node::start().await;
    let mut client = node.client().await;
    let table = [
        (format!("{host}/public/app:absent"), Code::NotFound, ": not found"),
        (format!("{host}/public/foreign:1"), Code::NotFound, "no match for platform in manifest"),
        (format!("{host}/public/UPPER"), Code::Unknown, "failed to parse image reference"),
        ("http://x/y".to_owned(), Code::Unknown, ": invalid reference format"),
        ("0".repeat(64), Code::Unknown, ": invalid reference format"),
        ("a".repeat(100_000), Code::Unknown, ": invalid reference format"),
        (format!("{nobody}/app:1"), Code::Unknown, "RegistryUnavailable: "),
        (String::new(), Code::InvalidArgument, "names no image"),
    ];
    for (image, code, text) in table {
        let error = client.pull(&image).await.unwrap_err();
        assert_eq!(error.code(), code, "{}", error.message());
        assert!(error.message().contains(text), "{}", error.message());
        assert_eq!(error.message().starts_with("RegistryUnavailable"), text.starts_with("RegistryUnavailable"));
    }
    assert!(client.pull_with("a/b", None).await.is_err());
    let mut request = v1::PullImageRequest { image: spec("a/b"), auth: None, sandbox_config: None };
    request.image.as_mut().unwrap().runtime_handler = "kata".to_owned();
    let error = client.0.pull_image(request).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "runtime handler \"kata\" is not known"));
    assert_eq!(client.list().await, [], "a failed pull leaves nothing to see");
    assert_eq!(node.engine.store().images().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_a_registry_are_told() {
    let table =
        [(403, "403 Forbidden", false), (429, "429 Too Many Requests", false), (500, "500", true), (503, "503", true)];
    let node = Node::plain_http().await;
    let mut client = node.client().await;
    for (status, text, unavailable) in table {
        let registry = FaultyRegistry::open();
        let reference = registry.place(&small("one").bundle(), "team/app", "1");
        registry.inject(When::any(), Fault::status(status));
        let error = client.pull(&reference).await.unwrap_err();
        assert_eq!(error.code(), Code::Unknown, "{status}");
        assert!(error.message().contains(text), "{status}: {}", error.message());
        assert_eq!(error.message().starts_with("RegistryUnavailable: "), unavailable, "{}", error.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_reads_the_same_for_every_credential() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = Node::start().await;
    let mut client = node.client().await;
    let reference = format!("{nobody}/app:1");
    let mut texts = std::collections::BTreeSet::new();
    for user in ["one", "two", "three"] {
        texts.insert(client.pull_with(&reference, Some(login(user, "x"))).await.unwrap_err().message().to_owned());
    }
    assert_eq!(texts.len(), 1, "the kubelet would join them and lose the reason: {texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_an_error_and_leave_nothing() {
    let registry = FaultyRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let node = Node::plain_http().await;
    let mut client = node.client().await;
    let layer = &image.layers[0].blob;
    registry.inject(When::blob_of(&layer.digest), Fault::Corrupt);
    let error = client.pull(&reference).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    assert!(error.message().contains("hashed to"), "{}", error.message());
    assert_eq!((client.list().await, client.status(&reference).await), (Vec::new(), None));
    registry.heal();
    client.pull(&reference).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_what_is_here_asks_and_fetches_nothing() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let node = Node::start().await;
    let mut client = node.client().await;
    let id = client.pull(&reference).await.unwrap();
    registry.take_requests();
    assert_eq!(client.pull(&reference).await.unwrap(), id);
    let asked: Vec<_> = registry.take_requests().into_iter().map(|r| (r.method.to_string(), r.route)).collect();
    assert_eq!(asked, [("HEAD".to_owned(), RouteKind::Manifest)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pulls_of_one_image_fetch_each_blob_once() {
    let registry = TestRegistry::open();
    let layers = (0..4).map(|n| Layer::new([Entry::file(format!("f{n}"), incompressible(300_000, n))]));
    let image = layers.fold(Image::build(), |image, layer| image.layer(layer)).finish();
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let node = Node::start().await;
    let client = node.client().await;
    let pulls: Vec<_> = (0..100)
        .map(|_| {
            let (mut client, reference) = (client.clone(), reference.clone());
            tokio::spawn(async move { client.pull(&reference).await.unwrap() })
        })
        .collect();
    for pull in pulls {
        assert_eq!(pull.await.unwrap(), image.id().to_string());
    }
    let mut fetched = BTreeMap::new();
    for request in registry.requests().iter().filter(|r| r.route == RouteKind::Blob && r.method == "GET") {
        *fetched.entry(request.path.clone()).or_insert(0) += 1;
    }
    assert_eq!(fetched.len(), 5, "config and layers");
    assert!(fetched.values().all(|times| *times == 1), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_pull_and_keeps_finished_layers() {
    let registry = FaultyRegistry::open();
    let fast = Layer::new([Entry::file("fast", incompressible(20_000, 1))]);
    let slow = Layer::new([Entry::file("slow", incompressible(2 << 20, 2))]);
    let image = Image::build().layer(fast).layer(slow).finish();
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let slow = When::blob_of(&image.layers[1].blob.digest);
    registry.inject(slow, Fault::Stall { at: 100_000, how_long: None });
    let node = Node::plain_http().await;
    let mut client = node.client().await;

    // critest's way: long gone before an answer could come.
    let error = timed(&node, &reference, Duration::from_millis(1)).await;
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let began = Instant::now();
    let error = timed(&node, &reference, Duration::from_millis(700)).await;
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(client.list().await, []);
    eventually("the pull itself ends", || async { node.engine.board().state().pulls.is_empty() }).await;

    registry.heal();
    let fast = format!("/blobs/{}", image.layers[0].blob.digest);
    assert_eq!(registry.count("GET", &fast), 1);
    client.pull(&reference).await.unwrap();
    assert_eq!(registry.count("GET", &fast), 1, "the finished layer was fetched again");
}

/// The server's own answer: without a transport, whose clock would be the first.
async fn timed(node: &Node, image: &str, limit: Duration) -> tonic::Status {
    let mut request = Request::new(v1::PullImageRequest { image: spec(image), auth: None, sandbox_config: None });
    let value = format!("{}m", limit.as_millis()).parse().unwrap();
    request.metadata_mut().insert("grpc-timeout", value);
    ImageServiceClient::new(node.server.router()).pull_image(request).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_its_pull() {
    let registry = FaultyRegistry::open();
    let image = Image::build().layer(Layer::new([Entry::file("slow", incompressible(2 << 20, 2))])).finish();
    let reference = registry.place(&image.bundle(), "team/app", "1");
    registry.inject(When::blob_of(&image.layers[0].blob.digest), Fault::Stall { at: 100_000, how_long: None });
    let node = Node::plain_http().await;
    let client = node.client().await;
    let pull = {
        let (mut client, reference) = (client.clone(), reference.clone());
        tokio::spawn(async move { client.pull(&reference).await })
    };
    let pulls = || node.engine.board().state().pulls.len();
    eventually("the pull begins", || async { pulls() == 1 && registry.count("GET", "/blobs/") > 1 }).await;
    pull.abort();
    let began = Instant::now();
    eventually("the pull ends", || async { pulls() == 0 }).await;
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(node.engine.store().images().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_others_their_pull() {
    let registry = FaultyRegistry::open();
    let image = Image::build().layer(Layer::new([Entry::file("slow", incompressible(2 << 20, 2))])).finish();
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let layer = image.layers[0].blob.digest.clone();
    registry.inject(When::blob_of(&layer).first(1), Fault::Stall { at: 100_000, how_long: None });
    let node = Node::plain_http().await;
    let client = node.client().await;
    let start = || {
        let (mut client, reference) = (client.clone(), reference.clone());
        tokio::spawn(async move { client.pull(&reference).await })
    };
    let first = start();
    eventually("the layer is being fetched", || async { registry.count("GET", layer.as_str()) == 1 }).await;
    let others = [start(), start()];
    eventually("others wait for it", || async { node.engine.board().state().pulls.len() == 3 }).await;
    first.abort();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), image.id().to_string());
    }
    assert!(registry.count("GET", layer.as_str()) <= 2, "one of them went on, for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_does_not_know_is_not_shown() {
    let registry = TestRegistry::open();
    let here = registry.place(&small("here").bundle(), "team/app", "here");
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let node = Node::start().await;
    node.client().await.pull(&here).await.unwrap();

    let nobody = HandoverConfig::new(node.root().join("containerd.sock"));
    let handover = Handover::connect(&nobody, node.engine.store().clone()).unwrap();
    let node = node.again(Some(handover)).await;
    let mut client = node.client().await;
    assert!(client.status(&here).await.is_some(), "what was here at the start is shown");
    let error = client.pull(&reference).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    assert!(error.message().contains("containerd"), "{}", error.message());
    assert_eq!(client.status(&reference).await, None);
    assert!(node.engine.store().find(&reference).unwrap().is_some(), "its bytes are not lost");
    assert_eq!(client.list().await.len(), 1);
    // An image that cannot be taken away from containerd is not taken away here.
    let error = client.remove(&here).await.unwrap_err();
    assert!(error.message().contains("containerd"), "{}", error.message());
    assert!(client.status(&here).await.is_some());

    let node = node.again(None).await;
    assert_eq!(node.client().await.list().await.len(), 2);
}
