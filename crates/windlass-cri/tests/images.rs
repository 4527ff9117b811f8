//! The image service over its socket: identity, status, lists, removal, as kubelet, crictl and critest use them.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{Images, Node, eventually, spec};
use serde_json::{Value, json};
use tonic::Code;
use windlass_core::pin::PinSource;
use windlass_core::reference::Reference;
use windlass_proto::cri::v1;
use windlass_store::GcRequest;
use windlass_testkit::images::{Entry, Image, Index, Layer, small, small_for};
use windlass_testkit::registry::TestRegistry;

/// A node on which one small image was pulled.
struct One {
    _registry: TestRegistry,
    image: Image,
    reference: String,
    node: Node,
    client: Images,
}

async fn one_image() -> One {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "app", "1");
    let node = Node::start().await;
    let mut client = node.client().await;
    client.pull(&reference).await.unwrap();
    One { _registry: registry, image, reference, node, client }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_there_at_once_under_its_id() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "team/app", "1.4");
    let node = Node::start().await;
    let mut client = node.client().await;
    assert_eq!(client.status(&reference).await, None, "not present is no error");
    let image_ref = client.pull(&reference).await.unwrap();
    assert_eq!(image_ref, image.id().to_string());
    let found = client.status(&reference).await.unwrap();
    assert_eq!(found.id, image_ref);
    assert_eq!(found.repo_tags, [reference.as_str()]);
    let digest = &image.manifest.digest;
    assert_eq!(found.repo_digests, [format!("{}/team/app@{digest}", registry.host())]);
    assert_eq!((found.pinned, &found.spec), (false, &None));
    assert_eq!(client.list().await, [found]);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_by_every_name_is_the_same_message() {
    let registry = TestRegistry::open();
    let image = small("one");
    let reference = registry.place(&image.bundle(), "team/app", "1.4");
    let latest = registry.place(&image.bundle(), "team/app", "latest");
    let node = Node::start().await;
    let mut client = node.client().await;
    client.pull(&reference).await.unwrap();
    client.pull(&latest).await.unwrap();
    let want = client.status(&reference).await.unwrap();
    assert_eq!(want.repo_tags, [reference.clone(), latest.clone()]);
    let repository = format!("{}/team/app", registry.host());
    let (id, digest) = (image.id(), &image.manifest.digest);
    let names = [
        latest,
        repository.clone(),
        id.to_string(),
        id.hex().to_owned(),
        id.hex()[..12].to_owned(),
        format!("sha256:{}", &id.hex()[..5]),
        format!("{repository}@{digest}"),
        format!("{repository}:gone@{digest}"),
    ];
    for name in names {
        assert_eq!(client.status(&name).await.as_ref(), Some(&want), "{name}");
    }
    let absent = [
        format!("{repository}:other"),
        format!("{repository}@{id}"),
        format!("{}/team/other@{digest}", registry.host()),
        "0".repeat(64),
        format!("sha256:{}", "0".repeat(64)),
        "UPPER/Case".to_owned(),
        "http://x/y".to_owned(),
        "\u{1b}[31m\r\n".to_owned(),
        "a".repeat(1 << 20),
    ];
    for name in absent {
        assert_eq!(client.status(&name).await, None, "{name}");
    }
    assert_eq!(client.try_status("").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_what_its_name_resolved_to() {
    let registry = TestRegistry::open();
    let index = Index::of([small_for("i", "arm64", Some("v8")), small_for("i", "amd64", None)]);
    let reference = registry.place(&index.bundle(), "app", "multi");
    let node = Node::start().await;
    let mut client = node.client().await;
    let id = client.pull(&reference).await.unwrap();
    let amd64 = &index.images[1];
    assert_eq!(id, amd64.id().to_string());
    let found = client.status(&id).await.unwrap();
    let repository = format!("{}/app", registry.host());
    let by_index = format!("{repository}@{}", index.index.digest);
    let by_manifest = format!("{repository}@{}", amd64.manifest.digest);
    assert_eq!(found.repo_digests, [by_index.as_str()]);
    assert_eq!(client.status(&by_index).await.as_ref(), Some(&found));
    let layers: usize = amd64.layers.iter().map(|layer| layer.blob.bytes.len()).sum();
    let documents = index.index.bytes.len() + amd64.manifest.bytes.len() + amd64.config.bytes.len();
    assert_eq!(found.size, (layers + documents) as u64);
    // Asked for by itself, the manifest is a name of its own.
    client.pull(&by_manifest).await.unwrap();
    let mut both = vec![by_index, by_manifest];
    both.sort();
    assert_eq!(client.status(&id).await.unwrap().repo_digests, both);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_content_from_two_registries_is_one_image() {
    let (a, b) = (TestRegistry::open(), TestRegistry::open());
    let image = small("one");
    let names = [a.place(&image.bundle(), "x", "1"), b.place(&image.bundle(), "y", "2")];
    let node = Node::start().await;
    let mut client = node.client().await;
    for name in &names {
        client.pull(name).await.unwrap();
    }
    let images = client.list().await;
    assert_eq!(images.len(), 1);
    let tags: BTreeSet<&String> = images[0].repo_tags.iter().collect();
    assert_eq!(tags, names.iter().collect());
    assert!(images[0].repo_tags.is_sorted() && images[0].repo_digests.is_sorted());
    assert_eq!(images[0].repo_digests.len(), 2);
    // One removal takes all of it, from both.
    client.remove(&names[0]).await.unwrap();
    assert_eq!((client.list().await, client.status(&names[1]).await), (Vec::new(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_leaves_the_old_image_with_its_digest() {
    let registry = TestRegistry::open();
    let (old, new) = (small("old"), small("new"));
    let reference = registry.place(&old.bundle(), "app", "latest");
    let node = Node::start().await;
    let mut client = node.client().await;
    client.pull(&reference).await.unwrap();
    registry.place(&new.bundle(), "app", "latest");
    let id = client.pull(&reference).await.unwrap();
    assert_eq!(id, new.id().to_string(), "the registry is always asked");
    assert_eq!(client.status(&reference).await.unwrap().id, id);
    let left = client.status(old.id().as_str()).await.unwrap();
    assert_eq!(left.repo_tags, Vec::<String>::new());
    assert_eq!(left.repo_digests, [format!("{}/app@{}", registry.host(), old.manifest.digest)]);
    assert_eq!(client.list().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_pulled_by_digest_has_no_tag() {
    let registry = TestRegistry::open();
    let image = small("one");
    registry.place(&image.bundle(), "app", "1");
    let node = Node::start().await;
    let mut client = node.client().await;
    let by_digest = format!("{}/app@{}", registry.host(), image.manifest.digest);
    client.pull(&by_digest).await.unwrap();
    let found = client.status(&by_digest).await.unwrap();
    assert_eq!((found.repo_tags, found.repo_digests), (Vec::new(), vec![by_digest]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_config_is_told() {
    let registry = TestRegistry::open();
    let node = Node::start().await;
    let mut client = node.client().await;
    let table = [
        ("", None, ""),
        ("0", Some(0), ""),
        ("1000:1000", Some(1000), ""),
        ("nobody", None, "nobody"),
        ("www:staff", None, "www"),
    ];
    for (n, (user, uid, name)) in table.into_iter().enumerate() {
        let config = json!({ "User": user });
        let image = Image::build().config(config).layer(Layer::new([Entry::file("f", n.to_string())])).finish();
        let reference = registry.place(&image.bundle(), "app", &format!("v{n}"));
        client.pull(&reference).await.unwrap();
        let found = client.status(&reference).await.unwrap();
        assert_eq!((found.uid.map(|uid| uid.value), found.username.as_str()), (uid, name), "{user:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_adds_the_top_layer_and_the_config() {
    let One { _registry, image, reference, node: _node, mut client } = one_image().await;
    let request = v1::ImageStatusRequest { image: spec(&reference), verbose: true };
    let answer = client.0.image_status(request).await.unwrap().into_inner();
    let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
    let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let top = windlass_core::manifest::chain_ids(&diff_ids).pop().unwrap();
    assert_eq!(info["chainID"], top.as_str());
    assert_eq!(info["imageSpec"], serde_json::from_slice::<Value>(&image.config.bytes).unwrap());
    let request = v1::ImageStatusRequest { image: spec("absent"), verbose: true };
    let answer = client.0.image_status(request).await.unwrap().into_inner();
    assert_eq!((answer.image, answer.info.len()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_one_image_or_none() {
    let registry = TestRegistry::open();
    let node = Node::start().await;
    let mut client = node.client().await;
    let names: Vec<String> = ["a", "b"].map(|tag| registry.place(&small(tag).bundle(), "app", tag)).into();
    for name in &names {
        client.pull(name).await.unwrap();
    }
    let table = [(names[0].as_str(), 1), ("absent", 0), ("", 2), ("NO/NAME", 0)];
    for (image, want) in table {
        let filter = Some(v1::ImageFilter { image: spec(image) });
        let listed = client.0.list_images(v1::ListImagesRequest { filter: filter.clone() }).await.unwrap();
        let listed = listed.into_inner().images;
        assert_eq!(listed.len(), want, "{image}");
        let mut streamed = Vec::new();
        let mut stream = client.0.stream_images(v1::StreamImagesRequest { filter }).await.unwrap().into_inner();
        while let Some(message) = stream.message().await.unwrap() {
            assert!(!message.images.is_empty());
            streamed.extend(message.images);
        }
        assert_eq!(streamed, listed, "{image}");
    }
    let filter = Some(v1::ImageFilter { image: None });
    assert_eq!(client.0.list_images(v1::ListImagesRequest { filter }).await.unwrap().into_inner().images.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_is_idempotent_and_takes_every_name() {
    let registry = TestRegistry::open();
    let image = small("one");
    let names = ["1", "2", "3"].map(|tag| registry.place(&image.bundle(), "app", tag));
    let node = Node::start().await;
    let mut client = node.client().await;
    for name in &names {
        client.pull(name).await.unwrap();
    }
    // Pinned by anybody: advice to collectors, not to this call.
    node.engine.store().pin(&names[0], &PinSource::user(), "mine").unwrap();
    eventually("the pin shows", || {
        let (mut client, name) = (client.clone(), names[0].clone());
        async move { client.status(&name).await.unwrap().pinned }
    })
    .await;
    let removals = (0..5).map(|n| {
        let (mut client, name) = (client.clone(), names[n % 3].clone());
        tokio::spawn(async move {
            client.remove(&name).await.unwrap();
            assert_eq!(client.status(&name).await, None, "gone when the call returns");
        })
    });
    for removal in removals.collect::<Vec<_>>() {
        removal.await.unwrap();
    }
    assert_eq!(client.list().await, []);
    for absent in [names[0].as_str(), image.id().as_str(), &"0".repeat(64), "NOT/A:NAME", &"x".repeat(100_000)] {
        client.remove(absent).await.unwrap();
        client.remove(absent).await.unwrap();
    }
    assert_eq!(client.remove("").await.unwrap_err().code(), Code::InvalidArgument);
    eventually("what it took is free again", || async { node.engine.store().usage().unwrap().used_bytes == 0 }).await;
    client.pull(&names[0]).await.unwrap();
    assert!(!client.status(&names[0]).await.unwrap().pinned);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_id_removes_and_an_ambiguous_one_does_not() {
    let registry = TestRegistry::open();
    let node = Node::start().await;
    let mut client = node.client().await;
    // Seventeen IDs have sixteen first digits.
    let mut ids = Vec::new();
    for n in 0..17 {
        let image = Image::build().config(json!({ "Labels": { "n": n.to_string() } })).finish();
        let reference = registry.place(&image.bundle(), "app", &format!("v{n}"));
        ids.push(client.pull(&reference).await.unwrap());
    }
    let first = |id: &str| id["sha256:".len()..][..1].to_owned();
    let twice = ids.iter().map(|id| first(id)).find(|digit| ids.iter().filter(|id| first(id) == *digit).count() > 1);
    let twice = twice.unwrap();
    for error in [client.try_status(&twice).await.unwrap_err(), client.remove(&twice).await.unwrap_err()] {
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("ambiguous"), "{}", error.message());
    }
    assert_eq!(client.list().await.len(), 17);
    client.remove(&ids[0]["sha256:".len()..][..20]).await.unwrap();
    assert_eq!(client.status(&ids[0]).await, None);
    assert_eq!(client.list().await.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_other_hands_are_seen_within_a_second() {
    let One { _registry, image, reference, node, client } = one_image().await;
    let other = node.other_hand();
    let within_a_second = async |what: &str, tag: &str, want: bool| {
        let began = Instant::now();
        eventually(what, || {
            let (mut client, tag) = (client.clone(), tag.to_owned());
            async move { client.status(&tag).await.is_some() == want }
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(1), "{what} took {:?}", began.elapsed());
    };
    other.tag(&reference, &Reference::parse("elsewhere.example/x:2").unwrap()).unwrap();
    within_a_second("a new tag shows", "elsewhere.example/x:2", true).await;
    other.remove(&reference).unwrap();
    within_a_second("a removed tag is gone", &reference, false).await;
    other.remove("elsewhere.example/x:2").unwrap();
    within_a_second("a removed image is gone", image.id().as_str(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_not_present() {
    let One { _registry, image, reference, node, mut client } = one_image().await;
    let blob = node.root().join("store/blobs/sha256").join(image.config.digest.hex());
    std::fs::remove_file(&blob).unwrap();
    node.engine.store().touch(image.id(), jiff::Timestamp::now()).unwrap();
    eventually("the damaged image is not shown", || {
        let (mut client, reference) = (client.clone(), reference.clone());
        async move { client.status(&reference).await.is_none() && client.list().await.is_empty() }
    })
    .await;
    // What the kubelet does then repairs it.
    client.pull(&reference).await.unwrap();
    assert!(client.status(&reference).await.is_some());
    // And a damaged one can be removed.
    std::fs::remove_file(&blob).unwrap();
    client.remove(&reference).await.unwrap();
    assert!(node.engine.store().images().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_system_is_told_in_nanoseconds_and_bytes() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let before = jiff::Timestamp::now().as_nanosecond();
    let node = Node::start().await;
    let mut client = node.client().await;
    let info = client.0.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.image_filesystems.len(), info.container_filesystems.len()), (1, 0));
    let filesystem = &info.image_filesystems[0];
    assert!(i128::from(filesystem.timestamp) >= before);
    assert_eq!(filesystem.used_bytes, Some(v1::UInt64Value { value: 0 }));
    assert_eq!(filesystem.inodes_used, Some(v1::UInt64Value { value: 0 }));
    let mountpoint = filesystem.fs_id.as_ref().unwrap().mountpoint.clone();
    assert!(std::path::Path::new(&mountpoint).is_absolute() && std::path::Path::new(&mountpoint).is_dir());
    drop(node);

    // A daemon that starts with images knows what they take before it answers.
    let node = Node::start().await;
    let mut client = node.client().await;
    client.pull(&reference).await.unwrap();
    let usage = node.engine.store().usage().unwrap();
    let again = windlass_cri::ImageServer::new(windlass_cri::ImageServerParts::new(node.engine.clone()));
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (again, stop) = (again.clone(), stop.clone());
        async move { again.run(stop).await }
    });
    let answer = ask_fs_info(&again).await;
    assert_eq!(answer.image_filesystems[0].used_bytes, Some(v1::UInt64Value { value: usage.used_bytes }));
    assert_eq!(answer.image_filesystems[0].inodes_used, Some(v1::UInt64Value { value: usage.inodes }));
    assert!(usage.used_bytes > 0 && usage.inodes > 0);
    stop.cancel();
    running.await.unwrap();
}

/// Asks a server's router without a socket.
async fn ask_fs_info(server: &windlass_cri::ImageServer) -> v1::ImageFsInfoResponse {
    let mut client = v1::image_service_client::ImageServiceClient::new(server.router());
    client.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_an_image_that_goes_are_not_taken_from_others() {
    let registry = TestRegistry::open();
    let base = || Layer::new([Entry::file("base", "shared")]);
    let one = Image::build().layer(base()).layer(Layer::new([Entry::file("a", "1")])).finish();
    let two = Image::build().layer(base()).layer(Layer::new([Entry::file("a", "2")])).finish();
    let names = [registry.place(&one.bundle(), "app", "1"), registry.place(&two.bundle(), "app", "2")];
    let node = Node::start().await;
    let mut client = node.client().await;
    for name in &names {
        client.pull(name).await.unwrap();
    }
    client.remove(&names[0]).await.unwrap();
    node.engine.store().gc(&GcRequest::sweep()).unwrap();
    assert_eq!(node.engine.store().find(&names[1]).unwrap().unwrap().damage, None);
    assert_eq!(client.list().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_read_is_no_empty_store() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let node = Node::start().await;
    node.client().await.pull(&reference).await.unwrap();
    let database = node.root().join("store/meta/store.redb");
    let aside = node.root().join("aside");
    std::fs::rename(&database, &aside).unwrap();
    std::fs::write(&database, vec![b'x'; 1 << 20]).unwrap();
    // A daemon that knows the images goes on with them.
    assert!(node.client().await.status(&reference).await.is_some());

    let node = node.again(None).await;
    let mut client = node.client().await;
    let error = client.try_status(&reference).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    assert!(error.message().contains("cannot be read"), "{}", error.message());
    assert!(client.0.list_images(v1::ListImagesRequest { filter: None }).await.is_err());
    assert!(client.pull(&reference).await.is_err());
    std::fs::rename(&aside, &database).unwrap();
    eventually("the images are back", || {
        let (mut client, reference) = (client.clone(), reference.clone());
        async move { client.try_status(&reference).await.is_ok_and(|image| image.is_some()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_and_removals_of_one_image_at_once_end_with_an_answer_each() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let node = Node::start().await;
    let client = node.client().await;
    let calls: Vec<_> = (0..40)
        .map(|n| {
            let (mut client, reference) = (client.clone(), reference.clone());
            tokio::spawn(async move {
                match n % 4 {
                    0 => client.remove(&reference).await.unwrap(),
                    // It may be told that the image went away; never anything else.
                    _ => drop(client.pull(&reference).await.map_err(|error| {
                        assert!(error.message().contains("went away"), "{}", error.message());
                    })),
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let mut client = client;
    client.pull(&reference).await.unwrap();
    let image = client.status(&reference).await.unwrap();
    assert_eq!(client.list().await, [image]);
    assert_eq!(node.engine.store().find(&reference).unwrap().unwrap().damage, None);
}
