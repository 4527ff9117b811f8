//! The kubelet's side of the daemon: one value that is made, followed in the background, and routed to.
//!
//! ```no_run
//! # async fn example(engine: windlass_pull::Engine) {
//! use windlass_cri::{ImageServer, ImageServerParts};
//! let stop = tokio_util::sync::CancellationToken::new();
//! let server = ImageServer::new(ImageServerParts::new(engine));
//! let router: axum::Router = server.router(); // merge other routes into it and serve it
//! let following = tokio::spawn({
//!     let (server, stop) = (server.clone(), stop.clone());
//!     async move { server.run(stop).await }
//! });
//! # let _ = (router, following);
//! # }
//! ```
//!
//! Whoever changes images without a CRI call (the command line through the daemon, pinned images) says so with
//! [`ImageServer::pulled`] and [`ImageServer::remove`], so that every change takes the same way.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::ServiceExt as _;
use windlass_core::digest::Digest;
use windlass_core::manifest::DocumentLimits;
use windlass_proto::cri::v1::image_service_server::ImageServiceServer;
use windlass_proto::cri::v1::runtime_service_server::RuntimeServiceServer;
use windlass_pull::Engine;

use crate::containerd::Handover;
use crate::image_service::ImageApi;
use crate::publisher::Publisher;
use crate::runtime_service::RuntimeApi;
use crate::status::Outages;
use crate::view::ImageView;
use crate::{deadline, old_api};

/// Most bytes of one message in either direction. The kubelet's clients and containerd take as much
/// (`maxMsgSize` of kubernetes `cri-client`).
pub const MESSAGE_MAX_BYTES: usize = 16 << 20;

/// What an [`ImageServer`] is made of.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageServerParts {
    /// The engine; its store is the one that is shown.
    pub engine: Engine,
    /// The containerd that runs the containers; `None`: nobody is told.
    pub handover: Option<Handover>,
    /// Runtime handlers that a pull may name; the empty one always may.
    pub runtime_handlers: BTreeSet<String>,
    /// Bounds on manifests and configs, those of the engine.
    pub limits: DocumentLimits,
}

impl ImageServerParts {
    /// The defaults around an engine.
    pub fn new(engine: Engine) -> ImageServerParts {
        ImageServerParts {
            engine,
            handover: None,
            runtime_handlers: BTreeSet::new(),
            limits: DocumentLimits::default(),
        }
    }
}

/// The CRI's image service. Clones share everything.
#[derive(Debug, Clone)]
pub struct ImageServer {
    inner: Arc<Inner>,
}

/// What the clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) runtime_handlers: BTreeSet<String>,
    pub(crate) limits: DocumentLimits,
    pub(crate) publisher: Publisher,
    pub(crate) outages: Outages,
}

impl ImageServer {
    /// Makes a server. Nothing is read before [`ImageServer::run`]; calls wait until then.
    pub fn new(parts: ImageServerParts) -> ImageServer {
        let publisher = Publisher::new(parts.engine.store().clone(), parts.limits.clone(), parts.handover);
        let inner = Inner {
            engine: parts.engine,
            runtime_handlers: parts.runtime_handlers,
            limits: parts.limits,
            publisher,
            outages: Outages::default(),
        };
        ImageServer { inner: Arc::new(inner) }
    }

    /// The routes: `ImageService` and `RuntimeService` of `runtime.v1`, and of `runtime.v1alpha2`, whose messages are
    /// the same. It has no fallback, so that others can be merged; see [`crate::unknown_service`].
    pub fn router(&self) -> Router {
        let images = ImageServiceServer::new(ImageApi::new(self.clone()))
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        let runtime = RuntimeServiceServer::new(RuntimeApi).max_decoding_message_size(MESSAGE_MAX_BYTES);
        Router::new()
            .route_service("/runtime.v1.ImageService/{*call}", images.clone())
            .route_service("/runtime.v1.RuntimeService/{*call}", runtime.clone())
            .route_service("/runtime.v1alpha2.ImageService/{*call}", images.map_request(old_api::rewrite))
            .route_service("/runtime.v1alpha2.RuntimeService/{*call}", runtime.map_request(old_api::rewrite))
            .layer(from_fn(deadline::enforce))
    }

    /// Follows the store, and containerd where there is one, until told to end: reads it first, then after each change by
    /// other hands.
    pub async fn run(&self, stop: CancellationToken) {
        self.inner.publisher.run(&stop).await;
    }

    /// The images as they are shown.
    pub fn view(&self) -> &ImageView {
        self.inner.publisher.view()
    }

    /// An image was pulled: containerd knows it, and the kubelet is shown it, when this returns. It may be given up at
    /// any time.
    ///
    /// # Errors
    /// A gRPC status for the caller. The image stays in the store; it is handed over again and again, and shown then.
    pub async fn pulled(&self, image: &Digest) -> Result<(), Status> {
        self.inner.publisher.tell(image).await
    }

    /// Removes an image with all its names, whatever names it and whoever pinned it. A text that names nothing is no
    /// error, so that it may be repeated.
    ///
    /// # Errors
    /// A gRPC status: the beginning of several IDs, an image that is mounted, a store that fails.
    pub async fn remove(&self, text: &str) -> Result<(), Status> {
        crate::remove::remove(&self.inner, text).await
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}
