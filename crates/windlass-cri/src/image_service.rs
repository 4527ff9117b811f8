//! `ImageService`: every call of it. Reads are answered from memory; a pull goes through the engine.
//!
//! A pull always asks the registry: the kubelet calls it only when it wants that. It answers once the image is unpacked
//! and shown. It writes no pull record: the kubelet keeps its own, with what only it knows (which pod's secret it was),
//! and one of ours beside them would say something else about the same image. To the kubelet, an image that came by
//! another hand is a preloaded one.
//! A client that goes away or whose deadline passes drops the call's future, by which transfers stop; finished layers
//! stay for the next try.
//! Source of truth: kubernetes/cri-api `api.proto`; KEP-4216 (runtime handlers), KEP-5825 (streams).
//!
//! Invariants: `status_by_every_name_is_the_same_message`, `a_deadline_ends_a_pull_and_keeps_finished_layers`,
//! `a_stream_has_every_image_once`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use prost::Message as _;
use serde_json::value::RawValue;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument as _;
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::reference::Reference;
use windlass_proto::cri::v1;
use windlass_proto::cri::v1::image_service_server::ImageService;
use windlass_pull::events::Silent;
use windlass_pull::{PullOptions, PullRequest};

use crate::auth;
use crate::publisher::blocking;
use crate::remove::ambiguous;
use crate::server::ImageServer;
use crate::status;
use crate::view::{ImageEntry, ImageUser, Index, Lookup, NAME_MAX_BYTES};

/// Most images in one message of a stream, as containerd sends them.
const STREAMED_AT_ONCE: usize = 5000;
/// Bytes after which a message of a stream is full, far below what a message may have: names may be long and many.
const STREAMED_BYTES: usize = 4 << 20;

/// The service on the wire.
#[derive(Debug, Clone)]
pub(crate) struct ImageApi {
    server: ImageServer,
}

impl ImageApi {
    pub(crate) fn new(server: ImageServer) -> ImageApi {
        ImageApi { server }
    }

    /// The images now; waits only in the first moments of a daemon.
    async fn index(&self) -> Result<Arc<Index>, Status> {
        self.server.inner().publisher.loaded().await?;
        Ok(self.server.view().index())
    }

    /// The images that a filter leaves. One without a name is none: crictl always sends it.
    async fn listed(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<Arc<ImageEntry>>, Status> {
        let index = self.index().await?;
        match filter.and_then(|filter| filter.image).map(|image| image.image).filter(|image| !image.is_empty()) {
            None => Ok(index.images().to_vec()),
            Some(image) => Ok(look_up(&index, &image)?.into_iter().collect()),
        }
    }
}

/// Images in messages of bounded size, at least one in each.
struct InMessages<I> {
    images: I,
}

impl<I: Iterator<Item = Arc<ImageEntry>>> Iterator for InMessages<I> {
    type Item = v1::StreamImagesResponse;

    fn next(&mut self) -> Option<v1::StreamImagesResponse> {
        let (mut images, mut bytes) = (Vec::new(), 0);
        while images.len() < STREAMED_AT_ONCE && bytes < STREAMED_BYTES {
            let Some(image) = self.images.next() else { break };
            let image = message(&image);
            bytes += image.encoded_len();
            images.push(image);
        }
        (!images.is_empty()).then_some(v1::StreamImagesResponse { images })
    }
}

type Images = Pin<Box<dyn Stream<Item = Result<v1::StreamImagesResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ImageService for ImageApi {
    type StreamImagesStream = Images;

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.listed(request.into_inner().filter).await?;
        let images = images.iter().map(|image| message(image)).collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn stream_images(&self, request: Request<v1::StreamImagesRequest>) -> Result<Response<Images>, Status> {
        let images = self.listed(request.into_inner().filter).await?;
        let messages = InMessages { images: images.into_iter() };
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages.map(Ok)))))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let v1::ImageStatusRequest { image, verbose } = request.into_inner();
        let name = named(image)?.image;
        let found = look_up(&*self.index().await?, &name)?;
        let info = match &found {
            Some(image) if verbose => self.info(&image.id).await?,
            Some(_) | None => HashMap::new(),
        };
        Ok(Response::new(v1::ImageStatusResponse { image: found.as_deref().map(message), info }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let v1::PullImageRequest { image, auth, sandbox_config } = request.into_inner();
        let image = named(image)?;
        let pod = sandbox_config.and_then(|config| config.metadata).unwrap_or_default();
        let span = tracing::info_span!(
            "pull_image",
            image = status::shown(&image.image),
            namespace = status::shown(&pod.namespace),
            pod = status::shown(&pod.name),
            uid = status::shown(&pod.uid),
        );
        let id = self.pull(image, auth).instrument(span).await?;
        Ok(Response::new(v1::PullImageResponse { image_ref: id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?.image;
        self.server.remove(&name).await?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        Ok(Response::new(self.server.inner().publisher.fs().answer().await))
    }
}

impl ImageApi {
    async fn pull(&self, image: v1::ImageSpec, auth: Option<v1::AuthConfig>) -> Result<Digest, Status> {
        let inner = self.server.inner();
        let handler = &image.runtime_handler;
        if !handler.is_empty() && !inner.runtime_handlers.contains(handler) {
            return Err(status::invalid(format!("runtime handler {:?} is not known", status::shown(handler))));
        }
        if image.image.len() > NAME_MAX_BYTES {
            return Err(status::bad_reference(&image.image, format!("longer than {NAME_MAX_BYTES} bytes")));
        }
        let reference = Reference::parse(&image.image);
        let reference = reference.map_err(|error| status::bad_reference(&image.image, error.fault))?;
        let credentials = auth::credentials(auth, &reference).map_err(|error| status::invalid(error.to_string()))?;
        inner.publisher.loaded().await?;

        let options = PullOptions::default();
        // A dropped future stops the engine's work as well; the token also reaches what it has handed to threads.
        let _stop = options.cancel.clone().drop_guard();
        let request = PullRequest { image: image.image, mode: Mode::Windlass, credentials, options };
        let registry = reference.host().as_str();
        let report = inner.engine.pull(request, Arc::new(Silent)).await.map_err(|error| {
            let status = status::pull(reference.as_typed(), registry, &error, &inner.outages);
            tracing::warn!(reason = %error.reason(), error = status.message(), "image not pulled");
            status
        })?;
        inner.outages.over(registry);
        self.server.pulled(&report.id).await?;
        if self.server.view().index().by_id(&report.id).is_none() {
            // Somebody removed it meanwhile; the kubelet must not count on it.
            let text = format!("image {} went away while it was pulled", report.id);
            return Err(status::status(Code::Unknown, text));
        }
        Ok(report.id)
    }

    /// What `verbose` adds: the top layer and the whole config, as containerd words it. Only people ask for it, so it is
    /// read from disk.
    async fn info(&self, id: &Digest) -> Result<HashMap<String, String>, Status> {
        let inner = self.server.inner();
        let (store, id, limit) = (inner.engine.store().clone(), id.clone(), inner.limits.config_bytes);
        let read = blocking(move || Ok((store.find_id(&id)?, store.read_blob(&id, limit)?))).await;
        let (image, config) = read.map_err(|error| status::store("the image's config cannot be read", &error))?;
        // It may have been removed meanwhile.
        let (Some(image), Some(config)) = (image, config) else { return Ok(HashMap::new()) };
        let chain_id = image.layers.last().map(|layer| layer.chain_id.as_str()).unwrap_or_default();
        let spec = std::str::from_utf8(&config).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let spec = spec.ok_or_else(|| Status::unknown("the image's config is not JSON"))?;
        let info = serde_json::to_string(&VerboseInfo { chain_id, image_spec: spec });
        let info = info.map_err(|_| Status::internal("the image's config cannot be written"))?;
        Ok(HashMap::from([("info".to_owned(), info)]))
    }
}

#[derive(serde::Serialize)]
struct VerboseInfo<'a> {
    #[serde(rename = "chainID")]
    chain_id: &'a str,
    #[serde(rename = "imageSpec")]
    image_spec: &'a RawValue,
}

/// The image that a request is about.
fn named(image: Option<v1::ImageSpec>) -> Result<v1::ImageSpec, Status> {
    image.filter(|image| !image.image.is_empty()).ok_or_else(|| status::invalid("the request names no image"))
}

fn look_up(index: &Index, name: &str) -> Result<Option<Arc<ImageEntry>>, Status> {
    match index.look_up(name) {
        Lookup::Found(image) => Ok(Some(image)),
        Lookup::Absent => Ok(None),
        Lookup::Ambiguous => Err(ambiguous(name)),
    }
}

/// An image as the CRI writes it.
fn message(image: &ImageEntry) -> v1::Image {
    let (uid, username) = match &image.user {
        ImageUser::Unset => (None, String::new()),
        ImageUser::Uid(uid) => (Some(v1::Int64Value { value: *uid }), String::new()),
        ImageUser::Name(name) => (None, name.clone()),
    };
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size_bytes,
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize, tags: usize) -> Vec<Arc<ImageEntry>> {
        let entry = |n: usize| {
            let id = Digest::sha256(&n.to_le_bytes());
            Arc::new(ImageEntry {
                manifest: (id.clone(), None),
                id,
                repo_tags: (0..tags).map(|tag| format!("registry.example/team/app:{tag:0>100}")).collect(),
                repo_digests: Vec::new(),
                more_digests: Vec::new(),
                size_bytes: 1,
                user: ImageUser::Unset,
                pinned: false,
            })
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn a_stream_has_every_image_once() {
        for (count, tags, messages) in
            [(0, 1, 0), (1, 1, 1), (STREAMED_AT_ONCE, 1, 1), (STREAMED_AT_ONCE + 1, 1, 2), (100, 1000, 4)]
        {
            let images = entries(count, tags);
            let streamed: Vec<_> = InMessages { images: images.clone().into_iter() }.collect();
            assert_eq!(streamed.len(), messages, "{count} images with {tags} tags");
            assert!(streamed.iter().all(|message| message.encoded_len() < crate::MESSAGE_MAX_BYTES / 2));
            let ids: Vec<_> = streamed.into_iter().flat_map(|message| message.images).map(|image| image.id).collect();
            assert_eq!(ids, images.iter().map(|image| image.id.to_string()).collect::<Vec<_>>());
        }
    }
}
