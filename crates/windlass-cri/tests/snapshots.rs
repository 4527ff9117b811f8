//! The calls of containerd's proxy client, one by one, as they arrive from it.

mod common;

use axum::Router;
use common::Node;
use tonic::{Code, Response, Status};
use windlass_cri::SnapshotsService;
use windlass_proto::containerd::services::snapshots::v1 as api;
use windlass_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use windlass_testkit::images::{Entry, Image, Layer};
use windlass_testkit::registry::TestRegistry;

const REF: &str = "containerd.io/snapshot.ref";

/// A client with short words; what it asks goes to the service without a socket.
struct Client(SnapshotsClient<Router>);

type Answer<T> = Result<T, Status>;

impl Client {
    async fn prepare(&mut self, key: &str, parent: &str, chain: Option<&str>) -> Answer<api::PrepareSnapshotResponse> {
        let labels = chain.map(|chain| (REF.to_owned(), chain.to_owned())).into_iter().collect();
        let (key, parent) = (key.to_owned(), parent.to_owned());
        let request = api::PrepareSnapshotRequest { snapshotter: "windlass".to_owned(), key, parent, labels };
        self.0.prepare(request).await.map(Response::into_inner)
    }

    async fn list(&mut self, filters: &[&str]) -> Vec<api::Info> {
        let filters = filters.iter().map(ToString::to_string).collect();
        let request = api::ListSnapshotsRequest { snapshotter: "windlass".to_owned(), filters };
        let mut messages = self.0.list(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await.unwrap() {
            assert!(!message.info.is_empty(), "an empty message says nothing");
            all.extend(message.info);
        }
        all
    }

    async fn stat(&mut self, key: &str) -> Answer<api::Info> {
        let request = api::StatSnapshotRequest { snapshotter: "windlass".to_owned(), key: key.to_owned() };
        self.0.stat(request).await.map(|answer| answer.into_inner().info.unwrap())
    }

    async fn usage(&mut self, key: &str) -> api::UsageResponse {
        let request = api::UsageRequest { snapshotter: "windlass".to_owned(), key: key.to_owned() };
        self.0.usage(request).await.unwrap().into_inner()
    }

    async fn commit(&mut self, name: &str, key: &str) -> Answer<()> {
        let (name, key) = (name.to_owned(), key.to_owned());
        let request = api::CommitSnapshotRequest { snapshotter: String::new(), name, key, labels: Default::default() };
        self.0.commit(request).await.map(Response::into_inner)
    }

    async fn remove(&mut self, key: &str) -> Answer<()> {
        let request = api::RemoveSnapshotRequest { snapshotter: "windlass".to_owned(), key: key.to_owned() };
        self.0.remove(request).await.map(Response::into_inner)
    }

    async fn update(&mut self, name: &str, labels: &[(&str, &str)], paths: &[&str]) -> Answer<api::Info> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let info = api::Info { name: name.to_owned(), labels, ..api::Info::default() };
        let mask = prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() };
        let request =
            api::UpdateSnapshotRequest { snapshotter: String::new(), info: Some(info), update_mask: Some(mask) };
        self.0.update(request).await.map(|answer| answer.into_inner().info.unwrap())
    }
}

fn code<T: std::fmt::Debug>(answer: Answer<T>) -> Code {
    answer.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_containerd_gets_what_it_expects() {
    let (node, registry) = (Node::start().await, TestRegistry::open());
    let image = Image::build()
        .layer(Layer::new([Entry::file("low", "lower")]))
        .layer(Layer::new([Entry::file("up", "upper"), Entry::dir("etc")]))
        .finish();
    let id = node.client().await.pull(&registry.place(&image.bundle(), "app", "1")).await.unwrap();
    let found = node.engine.store().find(&id).unwrap().unwrap();
    let chains: Vec<String> = found.layers.iter().map(|layer| layer.chain_id.to_string()).collect();
    let mut client = Client(SnapshotsClient::new(SnapshotsService::new(node.engine.store()).router()));

    // Layers are adopted from below; containerd then looks for the record by label and parent.
    assert_eq!(client.list(&[]).await, [], "what nobody adopted is not shown");
    let above = client.prepare("k8s.io/1/extract-1 a", "wl/nothing", Some(&chains[1])).await;
    assert_eq!(code(above), Code::NotFound, "a parent that is not known");
    let mut parent = String::new();
    for (n, chain) in chains.iter().enumerate() {
        let key = format!("k8s.io/{n}/extract-{n} {chain}");
        assert_eq!(code(client.prepare(&key, &parent, Some(chain)).await), Code::AlreadyExists);
        let found = client.list(&[&format!("labels.\"{REF}\"=={chain},parent==\"{parent}\"")]).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind(), &found[0].parent), (api::Kind::Committed, &parent));
        assert_eq!(found[0].labels.get(REF), Some(chain));
        assert!(found[0].created_at.is_some_and(|at| at.seconds > 1_700_000_000));
        parent.clone_from(&found[0].name);
    }
    assert_eq!(code(client.prepare("k8s.io/3/wrong", "", Some(&chains[1])).await), Code::InvalidArgument);
    let used = client.usage(&parent).await;
    assert!(used.size >= 5 && used.inodes >= 2, "{used:?}");

    // A container: a writable snapshot on the top layer.
    let container = "k8s.io/4/0123456789abcdef";
    let mounts = client.prepare(container, &parent, None).await.unwrap().mounts;
    assert_eq!(mounts.len(), 1);
    let has = |option: &str| mounts[0].options.iter().any(|given| given.starts_with(option));
    assert!(mounts[0].r#type == "overlay" && has("lowerdir=") && has("upperdir=") && has("workdir="), "{mounts:?}");
    assert_eq!(code(client.prepare(container, &parent, None).await), Code::AlreadyExists);
    let request = api::MountsRequest { snapshotter: "windlass".to_owned(), key: container.to_owned() };
    assert_eq!(client.0.mounts(request).await.unwrap().into_inner().mounts, mounts);
    assert_eq!(client.stat(container).await.unwrap().kind(), api::Kind::Active);
    let names = |infos: Vec<api::Info>| infos.into_iter().map(|info| info.name).collect::<Vec<_>>();
    assert_eq!(names(client.list(&["kind==active", "kind==view"]).await), [container]);
    let malformed = api::ListSnapshotsRequest { snapshotter: String::new(), filters: vec!["kind=active".to_owned()] };
    assert_eq!(code(client.0.list(malformed).await.map(|_| ())), Code::InvalidArgument);

    // Labels.
    let info = client.update(container, &[("a", "1"), ("b", "2")], &["labels.a"]).await.unwrap();
    assert_eq!(info.labels, [("a".to_owned(), "1".to_owned())].into());
    assert_eq!(code(client.update(container, &[], &["parent"]).await), Code::InvalidArgument);
    assert_eq!(code(client.update("k8s.io/9/none", &[], &["labels.a"]).await), Code::NotFound);

    // Something that containerd unpacks by itself.
    client.prepare("k8s.io/5/extract-5", "", None).await.unwrap();
    client.commit("k8s.io/6/sha256:own", "k8s.io/5/extract-5").await.unwrap();
    assert_eq!(client.stat("k8s.io/6/sha256:own").await.unwrap().kind(), api::Kind::Committed);
    assert_eq!(code(client.stat("k8s.io/5/extract-5").await), Code::NotFound);
    assert_eq!(code(client.commit("k8s.io/6/sha256:own", container).await), Code::AlreadyExists);
    let view = api::ViewSnapshotRequest {
        snapshotter: "windlass".to_owned(),
        key: "k8s.io/7/view".to_owned(),
        parent: "k8s.io/6/sha256:own".to_owned(),
        labels: Default::default(),
    };
    let mounts = client.0.view(view).await.unwrap().into_inner().mounts;
    assert!(mounts[0].r#type == "bind" && mounts[0].options.contains(&"ro".to_owned()), "{mounts:?}");

    // A collection lists everything and removes children before parents.
    assert_eq!(client.list(&[]).await.len(), 5);
    assert_eq!(code(client.remove(&parent).await), Code::FailedPrecondition, "a container stands on it");
    let lowest = client.stat(&parent).await.unwrap().parent;
    for name in ["k8s.io/7/view", "k8s.io/6/sha256:own", container, &parent, &lowest] {
        client.remove(name).await.unwrap();
        assert_eq!(code(client.remove(name).await), Code::NotFound);
    }
    client.0.cleanup(api::CleanupRequest { snapshotter: "windlass".to_owned() }).await.unwrap();
    assert_eq!(client.list(&[]).await, []);
    assert!(node.engine.store().find(&id).unwrap().unwrap().damage.is_none(), "the layers are the store's");
}
