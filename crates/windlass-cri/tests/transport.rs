//! What is the same for every call: both names of the services, unknown calls, hostile texts, many calls at once.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Node, spec};
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use windlass_core::digest::Digest;
use windlass_proto::cri::v1;
use windlass_testkit::images::{Image, small};
use windlass_testkit::registry::TestRegistry;

/// Any call by its path.
async fn call<M, A>(node: &Node, path: &'static str, message: M) -> Result<A, Status>
where
    M: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(node.channel().await);
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<M, A>::default();
    Ok(grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_kubelets_are_served_under_the_old_name() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let node = Node::start().await;
    let pull = v1::PullImageRequest { image: spec(&reference), auth: None, sandbox_config: None };
    let pulled: v1::PullImageResponse = call(&node, "/runtime.v1alpha2.ImageService/PullImage", pull).await.unwrap();
    assert_eq!(pulled.image_ref, image.id().to_string());
    let asked = v1::ImageStatusRequest { image: spec(&reference), verbose: false };
    let old: v1::ImageStatusResponse =
        call(&node, "/runtime.v1alpha2.ImageService/ImageStatus", asked.clone()).await.unwrap();
    let new: v1::ImageStatusResponse = call(&node, "/runtime.v1.ImageService/ImageStatus", asked).await.unwrap();
    assert!(old == new && new.image.is_some());
    let listed = v1::ListImagesRequest::default();
    let listed: v1::ListImagesResponse =
        call(&node, "/runtime.v1alpha2.ImageService/ListImages", listed).await.unwrap();
    assert_eq!(listed.images.len(), 1);
    let info = v1::ImageFsInfoRequest {};
    let info: v1::ImageFsInfoResponse = call(&node, "/runtime.v1alpha2.ImageService/ImageFsInfo", info).await.unwrap();
    assert_eq!(info.image_filesystems.len(), 1);
    let gone = v1::RemoveImageRequest { image: spec(&reference) };
    let _: v1::RemoveImageResponse = call(&node, "/runtime.v1alpha2.ImageService/RemoveImage", gone).await.unwrap();
    assert_eq!(node.client().await.list().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_that_is_not_here_says_so() {
    let node = Node::start().await;
    let mut runtime = node.runtime().await;
    let version = runtime.version(v1::VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.runtime_name.as_str()), ("0.1.0", "windlass"));
    assert_eq!(version.runtime_api_version, "v1");
    assert!(!version.runtime_version.is_empty(), "clients refuse an empty one");
    let path = "/runtime.v1alpha2.RuntimeService/Version";
    let old: v1::VersionResponse = call(&node, path, v1::VersionRequest::default()).await.unwrap();
    assert_eq!(old.runtime_api_version, "v1alpha2");
    let status = runtime.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner().status.unwrap();
    let kinds: Vec<&str> = status.conditions.iter().map(|condition| condition.r#type.as_str()).collect();
    assert_eq!(kinds, ["RuntimeReady", "NetworkReady"]);
    assert!(status.conditions.iter().all(|condition| !condition.status && !condition.reason.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_is_unimplemented() {
    let node = Node::start().await;
    for path in [
        "/runtime.v1.RuntimeService/RunPodSandbox",
        "/runtime.v1.RuntimeService/ListContainers",
        "/runtime.v1alpha2.RuntimeService/CreateContainer",
        "/runtime.v1.ImageService/NoSuchCall",
        "/runtime.v1.NoSuchService/Call",
        "/runtime.v2.ImageService/ListImages",
        "/x",
    ] {
        let answer: Result<v1::VersionResponse, Status> = call(&node, path, v1::VersionRequest::default()).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    // Others than gRPC get an answer of HTTP, in its older version too.
    let mut stream = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_answered() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let long = "x".repeat(8 << 20);
    let texts = [
        long.as_str(),
        "\0",
        "../../etc/passwd",
        "sha256:",
        "sha256:zz",
        "@",
        ":",
        "/",
        "a@sha256:0",
        "\u{202e}x",
        "x\u{0}y:z",
        "%00",
        "docker.io/library/busybox:latest@",
        "[::1",
        "[::1]:70000/x:y",
        "-",
        "sha256:sha256:sha256",
    ];
    for text in texts {
        assert_eq!(client.try_status(text).await.unwrap(), None);
        client.remove(text).await.unwrap();
        let error = client.pull(text).await.unwrap_err();
        assert!(error.message().len() < 8192, "{}", error.message().len());
        assert!(!error.message().chars().any(char::is_control), "{:?}", error.message());
    }
    // More than a message may have.
    let request = v1::ImageStatusRequest { image: spec(&"x".repeat(17 << 20)), verbose: false };
    let error = client.0.image_status(request).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    assert_eq!(client.list().await, [], "and the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_status_calls_at_once_are_answered() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "team/app", "1");
    let node = Node::start().await;
    let mut client = node.client().await;
    client.pull(&reference).await.unwrap();
    let calls: Vec<_> = (0..10_000)
        .map(|_| {
            let (mut client, reference) = (client.clone(), reference.clone());
            tokio::spawn(async move { client.try_status(&reference).await })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_images_come_in_a_list_and_in_a_stream() {
    const IMAGES: usize = 50;
    let registry = TestRegistry::open();
    let node = Node::start().await;
    let mut client = node.client().await;
    for n in 0..IMAGES {
        let image = Image::build().config(serde_json::json!({ "Labels": { "n": n.to_string() } })).finish();
        let reference = registry.place(&image.bundle(), "app", &format!("v{n}"));
        let report = node.engine.pull(request(&reference), Arc::new(windlass_pull::events::Silent)).await.unwrap();
        assert_eq!(report.id, *image.id());
    }
    node.server.pulled(&Digest::sha256(b"any")).await.unwrap();
    let listed = client.list().await;
    let mut ids: Vec<&str> = listed.iter().map(|image| image.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((listed.len(), ids.len()), (IMAGES, IMAGES), "each once");
    let mut streamed = Vec::new();
    let mut stream = client.0.stream_images(v1::StreamImagesRequest { filter: None }).await.unwrap().into_inner();
    while let Some(message) = stream.message().await.unwrap() {
        streamed.extend(message.images);
    }
    assert_eq!(streamed, listed);
}

fn request(image: &str) -> windlass_pull::PullRequest {
    windlass_pull::PullRequest {
        image: image.to_owned(),
        mode: windlass_core::keyring::Mode::Windlass,
        credentials: windlass_pull::Credentials::Sources,
        options: windlass_pull::PullOptions::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_streams_nothing() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let mut stream = client.0.stream_images(v1::StreamImagesRequest { filter: None }).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_while_pulls_run() {
    let registry = TestRegistry::open();
    let here = registry.place(&small("here").bundle(), "team/app", "here");
    let node = Node::start().await;
    let mut client = node.client().await;
    client.pull(&here).await.unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Accepts and says nothing: these pulls wait for as long as the test lasts.
    let silent = format!("{}/app", nobody.local_addr().unwrap());
    let pulls: Vec<_> = (0..50)
        .map(|n| {
            let (mut client, image) = (client.clone(), format!("{silent}:{n}"));
            tokio::spawn(async move { client.pull(&image).await })
        })
        .collect();
    let began = Instant::now();
    for _ in 0..100 {
        assert!(client.status(&here).await.is_some());
        assert_eq!(client.list().await.len(), 1);
        client.0.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?} for 300 reads", began.elapsed());
    pulls.iter().for_each(tokio::task::JoinHandle::abort);
}
