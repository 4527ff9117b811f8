//! What the tests of the kubelet's side share: a server on a socket, with a store and an engine of its own, and clients.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use windlass_core::keyring::Credential;
use windlass_core::platform::Platform;
use windlass_credentials::CredentialSources;
use windlass_cri::containerd::Handover;
use windlass_cri::socket::{self, SocketFile};
use windlass_cri::{ImageServer, ImageServerParts, unknown_service};
use windlass_distribution::{Client, ClientConfig};
use windlass_proto::cri::v1;
use windlass_proto::cri::v1::image_service_client::ImageServiceClient;
use windlass_proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use windlass_pull::{Engine, EngineConfig};
use windlass_store::{Store, StoreOptions};
pub use windlass_testkit::client::client_config;

/// A node: store, engine, server, socket. Everything ends with it.
pub struct Node {
    pub server: ImageServer,
    pub engine: Engine,
    pub socket: PathBuf,
    pub dir: tempfile::TempDir,
    stop: CancellationToken,
    _file: SocketFile,
}

impl Node {
    pub async fn start() -> Node {
        Node::with(client_config(), &[]).await
    }

    /// For registries that speak plain http and would not answer a question for TLS.
    pub async fn plain_http() -> Node {
        Node::with(ClientConfig { plain_http_everywhere: true, ..client_config() }, &[]).await
    }

    /// With credentials of the node by registry host: user and password.
    pub async fn with(config: ClientConfig, logins: &[(&str, &str, &str)]) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        let mut sources = CredentialSources::builder();
        for (host, user, password) in logins {
            sources = sources.given(host, Credential::basic(*user, *password));
        }
        let client = Client::new(config).unwrap();
        let platform = Platform::new("linux", "amd64", None);
        let engine = Engine::new(EngineConfig::new(store, client, Arc::new(sources.build()), platform));
        Node::serve(engine, dir, None).await
    }

    /// The daemon ends and another one begins with its store.
    pub async fn again(mut self, handover: Option<Handover>) -> Node {
        self.stop.cancel();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        let engine = self.engine.clone();
        drop(self);
        Node::serve(engine, dir, handover).await
    }

    async fn serve(engine: Engine, dir: tempfile::TempDir, handover: Option<Handover>) -> Node {
        let mut parts = ImageServerParts::new(engine.clone());
        parts.runtime_handlers.insert("runc".to_owned());
        parts.handover = handover;
        let server = ImageServer::new(parts);
        let socket = dir.path().join("run/windlass.sock");
        let (listener, file) = socket::bind(&socket).unwrap();
        let stop = CancellationToken::new();
        let router = server.router().fallback(unknown_service);
        tokio::spawn({
            let (server, stop) = (server.clone(), stop.clone());
            async move { server.run(stop).await }
        });
        tokio::spawn(accept(listener, router, stop.clone()));
        Node { server, engine, socket, dir, stop, _file: file }
    }

    pub async fn channel(&self) -> Channel {
        let path = self.socket.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
    }

    pub async fn client(&self) -> Images {
        Images(ImageServiceClient::new(self.channel().await).max_decoding_message_size(16 << 20))
    }

    pub async fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel().await)
    }

    /// The store as another process sees it.
    pub fn other_hand(&self) -> Store {
        Store::open(&self.dir.path().join("store"), StoreOptions::default()).unwrap()
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }
}

async fn accept(listener: UnixListener, router: Router, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, _) = accepted.unwrap();
        let service = TowerToHyperService::new(router.clone());
        let stop = stop.clone();
        tokio::spawn(async move {
            let http = auto::Builder::new(TokioExecutor::new());
            // A client that goes away ends its connection.
            let served = http.serve_connection(TokioIo::new(stream), service);
            drop(stop.run_until_cancelled(served).await);
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn spec(image: &str) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() })
}

pub fn login(username: &str, password: &str) -> v1::AuthConfig {
    v1::AuthConfig { username: username.to_owned(), password: password.to_owned(), ..v1::AuthConfig::default() }
}

/// A client with short words.
#[derive(Clone)]
pub struct Images(pub ImageServiceClient<Channel>);

impl Images {
    pub async fn pull(&mut self, image: &str) -> Result<String, Status> {
        self.pull_with(image, None).await
    }

    pub async fn pull_with(&mut self, image: &str, auth: Option<v1::AuthConfig>) -> Result<String, Status> {
        let request = v1::PullImageRequest { image: spec(image), auth, sandbox_config: None };
        self.0.pull_image(request).await.map(|response| response.into_inner().image_ref)
    }

    pub async fn status(&mut self, image: &str) -> Option<v1::Image> {
        self.try_status(image).await.unwrap()
    }

    pub async fn try_status(&mut self, image: &str) -> Result<Option<v1::Image>, Status> {
        let request = v1::ImageStatusRequest { image: spec(image), verbose: false };
        let answer = self.0.image_status(request).await?.into_inner();
        assert!(answer.info.is_empty(), "nobody asked for more");
        Ok(answer.image)
    }

    pub async fn list(&mut self) -> Vec<v1::Image> {
        self.0.list_images(v1::ListImagesRequest { filter: None }).await.unwrap().into_inner().images
    }

    pub async fn remove(&mut self, image: &str) -> Result<(), Status> {
        self.0.remove_image(v1::RemoveImageRequest { image: spec(image) }).await.map(Response::into_inner).map(drop)
    }
}

/// Asks again and again until it is so; ends what would never end.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut asked: impl FnMut() -> F) {
    let asking = async {
        while !asked().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap_or_else(|_| panic!("{what}"));
}
