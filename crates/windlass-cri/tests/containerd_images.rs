//! The kubelet's side with a real containerd behind it: what is shown here can be run there.

mod containerd_support;

use std::time::{Duration, Instant};

use std::sync::Arc;

use containerd_support::{GREETING, Rig, enclosed, eventually, stacked};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use windlass_core::pin::PinSource;
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_credentials::CredentialSources;
use windlass_cri::{ImageServer, ImageServerParts};
use windlass_distribution::{Client, ClientConfig};
use windlass_proto::cri::v1;
use windlass_proto::cri::v1::image_service_client::ImageServiceClient;
use windlass_pull::{Engine, EngineConfig};
use windlass_store::SnapshotFormat;
use windlass_testkit::images::{Index, small_for};

/// The image service of a daemon, asked without a socket.
struct Daemon {
    server: ImageServer,
    stop: CancellationToken,
    following: JoinHandle<()>,
}

impl Daemon {
    fn start(rig: &Rig) -> Daemon {
        let client = Client::new(ClientConfig { plain_http_everywhere: true, ..ClientConfig::default() }).unwrap();
        let sources = Arc::new(CredentialSources::builder().build());
        let platform = Platform::new("linux", "amd64", None);
        let engine = Engine::new(EngineConfig::new(rig.store.clone(), client, sources, platform));
        let mut parts = ImageServerParts::new(engine);
        parts.handover = Some(rig.handover.clone());
        let (server, stop) = (ImageServer::new(parts), CancellationToken::new());
        let following = tokio::spawn({
            let (server, stop) = (server.clone(), stop.clone());
            async move { server.run(stop).await }
        });
        Daemon { server, stop, following }
    }

    async fn end(self) {
        self.stop.cancel();
        self.following.await.unwrap();
    }

    async fn pull(&self, image: &str) -> Result<String, Status> {
        let request = v1::PullImageRequest { image: spec(image), auth: None, sandbox_config: None };
        Ok(ImageServiceClient::new(self.server.router()).pull_image(request).await?.into_inner().image_ref)
    }

    async fn shown(&self, image: &str) -> Option<v1::Image> {
        let request = v1::ImageStatusRequest { image: spec(image), verbose: false };
        ImageServiceClient::new(self.server.router()).image_status(request).await.unwrap().into_inner().image
    }

    async fn remove(&self, image: &str) -> Result<(), Status> {
        let request = v1::RemoveImageRequest { image: spec(image) };
        ImageServiceClient::new(self.server.router()).remove_image(request).await.map(drop)
    }
}

fn spec(image: &str) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() })
}

#[test]
fn both_sides_show_the_same_once_a_pull_returns() {
    enclosed("both_sides_show_the_same_once_a_pull_returns", async |home| {
        let rig = Rig::start(&home).await;
        let daemon = Daemon::start(&rig);
        let plain = rig.registry.place(&stacked("plain", 3).bundle(), "plain", "1");
        let index = Index::of([small_for("i", "arm64", None), stacked("multi", 4)]);
        let multi = rig.registry.place(&index.bundle(), "multi", "1");
        for (n, name) in [&plain, &multi].into_iter().enumerate() {
            let id = daemon.pull(name).await.unwrap();
            let (ours, theirs) = (daemon.shown(name).await.unwrap(), rig.shown(name).await.unwrap());
            assert_eq!(ours.id, id);
            assert_eq!(ours, theirs);
            assert_eq!(rig.shown(&id).await, Some(theirs), "the id is what containers are created from");
            assert_eq!(rig.run_once(name, &format!("run-{n}")), GREETING);
        }
        // A second tag of the same content, and the pull of what is here.
        let other = rig.registry.place(&stacked("plain", 3).bundle(), "plain", "2");
        daemon.pull(&other).await.unwrap();
        assert_eq!(daemon.pull(&other).await.unwrap(), daemon.shown(&plain).await.unwrap().id);
        assert_eq!(daemon.shown(&plain).await, rig.shown(&plain).await);

        // Removed by one name, gone under all, and a container goes on.
        let root = rig.run_on(&plain, "stays");
        daemon.remove(&other).await.unwrap();
        daemon.remove(&other).await.unwrap();
        for name in [&plain, &other] {
            assert_eq!(daemon.shown(name).await, None);
            eventually("its CRI has forgotten it", async || rig.shown(name).await.is_none()).await;
        }
        assert!(!rig.image_names().iter().any(|name| name.contains("/plain")));
        rig.collect();
        assert!(rig.runs("stays") && root.join("etc/text").exists());
        rig.end("stays");
        daemon.end().await;
    });
}

#[test]
fn a_hundred_pulls_share_a_handover() {
    enclosed("a_hundred_pulls_share_a_handover", async |home| {
        let rig = Rig::start(&home).await;
        let daemon = Daemon::start(&rig);
        let image = stacked("app", 10);
        let name = rig.registry.place(&image.bundle(), "app", "1");
        let pulls = (0..100).map(|_| daemon.pull(&name));
        for pulled in futures_util::future::join_all(pulls).await {
            assert_eq!(pulled.unwrap(), image.id().as_str());
        }
        assert_eq!(rig.run_once(&name, "run"), GREETING);
        daemon.end().await;
    });
}

#[test]
fn what_other_hands_do_to_the_store_is_told_to_containerd() {
    enclosed("what_other_hands_do_to_the_store_is_told_to_containerd", async |home| {
        let rig = Rig::start(&home).await;
        let daemon = Daemon::start(&rig);
        let first = rig.registry.place(&stacked("first", 2).bundle(), "first", "1");
        let first_id = daemon.pull(&first).await.unwrap();

        let name = rig.registry.place(&stacked("second", 30).bundle(), "second", "1");
        let id = rig.pull(&name, SnapshotFormat::Auto).await;
        eventually("the image is shown", async || daemon.shown(&name).await.is_some()).await;
        assert!(rig.shown(id.as_str()).await.is_some(), "shown before containerd knew it");
        assert_eq!(rig.run_once(&name, "second"), GREETING);

        let copy = format!("{}/copy:2", rig.registry.host());
        rig.store.tag(&name, &Reference::parse(&copy).unwrap()).unwrap();
        eventually("the new name is told", async || rig.shown(&copy).await.is_some()).await;
        rig.store.pin(&name, &PinSource::user(), "").unwrap();
        eventually("the pin is told", async || rig.ctr(&["images", "ls"]).contains("pinned=pinned")).await;
        rig.store.unpin(&name, &PinSource::user()).unwrap();
        eventually("and taken back", async || !rig.ctr(&["images", "ls"]).contains("pinned=pinned")).await;

        // A name that was heard from containerd and moves here.
        let moving = format!("{}/moving:1", rig.registry.host());
        rig.ctr(&["images", "tag", &first, &moving]);
        eventually("a name of containerd", async || daemon.shown(&moving).await.is_some()).await;
        rig.knows(&moving, &first_id).await;
        rig.store.tag(&name, &Reference::parse(&moving).unwrap()).unwrap();
        let moved = Instant::now();
        rig.knows(&moving, id.as_str()).await;
        assert!(moved.elapsed() < Duration::from_secs(30), "told, and not found by the look at everything");

        rig.store.remove(id.as_str()).unwrap();
        eventually("the removed image is not shown", async || daemon.shown(&name).await.is_none()).await;
        eventually("containerd was told", async || !rig.image_names().iter().any(|name| name.contains("/second")))
            .await;
        assert!(daemon.shown(&first).await.is_some() && rig.shown(&first).await.is_some());

        // And what others do in containerd is shown here.
        rig.ctr(&["images", "tag", &first, &copy]);
        let took = eventually("a name of containerd", async || daemon.shown(&copy).await.is_some()).await;
        assert!(took.as_secs_f32() < 1.0, "{took:?}");
        rig.knows(&copy, &first_id).await;
        rig.ctr(&["images", "rm", &copy]);
        let took = eventually("a removed name", async || daemon.shown(&copy).await.is_none()).await;
        assert!(took.as_secs_f32() < 1.0, "{took:?}");
        daemon.end().await;
    });
}

#[test]
fn a_containerd_that_comes_back_gets_what_was_pulled_meanwhile() {
    enclosed("a_containerd_that_comes_back_gets_what_was_pulled_meanwhile", async |home| {
        let mut rig = Rig::start(&home).await;
        let daemon = Daemon::start(&rig);
        let here = rig.registry.place(&stacked("here", 2).bundle(), "here", "1");
        daemon.pull(&here).await.unwrap();
        rig.kill_containerd();
        let name = rig.registry.place(&stacked("app", 3).bundle(), "app", "1");
        let error = daemon.pull(&name).await.unwrap_err();
        assert!(error.message().contains("containerd"), "{}", error.message());
        assert_eq!(daemon.shown(&name).await, None, "nothing could be created from it");
        assert!(daemon.shown(&here).await.is_some(), "images do not come and go with containerd");
        rig.start_containerd();
        // Nobody pulls again.
        eventually("it is handed over", async || daemon.shown(&name).await.is_some()).await;
        assert_eq!(rig.run_once(&name, "after"), GREETING);
        assert_eq!(daemon.shown(&here).await, rig.shown(&here).await);
        daemon.end().await;
    });
}
