//! What containerd's own CRI plugin knows: the kubelet asks it for containers, and it looks into its memory only.
//!
//! It learns of images by events, some milliseconds later. The newer version of the protocol is tried first; before
//! containerd 1.6 there was only the older one, with the same messages.

use std::collections::BTreeSet;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use windlass_proto::cri::v1::{
    Image, ImageSpec, ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse,
};

use super::HandoverError;
use super::client::{ANSWER_MAX, Client, MESSAGE_MAX_BYTES};
use super::plan::Plan;
use super::records;

/// First and longest wait between two questions.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(160));
/// After this long its events may have been lost: the records are touched once.
const TOUCH_AFTER: Duration = Duration::from_secs(2);
/// After this long its ID is enough: that is what containers are created from, and a name may be one that this version
/// of containerd cannot read.
const NAMES_UNTIL: Duration = Duration::from_secs(4);
/// After this long the pull counts as done all the same; the periodic check goes on with it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(8);

/// What the CRI plugin knows of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It shows the image, under all its names that it can read.
    Yes,
    /// Not yet, after some seconds.
    NotYet,
    /// There is no CRI plugin in this containerd.
    NoPlugin,
}

/// Waits until the image is shown under its ID and all its names.
pub(super) async fn wait(client: &Client, plan: &Plan) -> Result<Seen, HandoverError> {
    let names: Vec<&str> = plan.records.iter().skip(1).map(|record| record.name.as_str()).collect();
    let began = Instant::now();
    let (mut pause, mut touched) = (POLL.0, false);
    loop {
        match image_status(client, plan.id.as_str()).await {
            Ok(Some(image)) if shows(&image, &names) || began.elapsed() >= NAMES_UNTIL => return Ok(Seen::Yes),
            Ok(_) => {}
            Err(status) if status.code() == Code::Unimplemented => return Ok(Seen::NoPlugin),
            Err(status) => tracing::debug!(error = %status.message(), "the CRI of containerd did not answer"),
        }
        if began.elapsed() >= GIVE_UP_AFTER {
            tracing::warn!(image = %plan.id, "the CRI of containerd does not show the image yet");
            return Ok(Seen::NotYet);
        }
        if !touched && began.elapsed() >= TOUCH_AFTER {
            touched = true;
            let mut is_there = false;
            for record in &plan.records {
                is_there |= records::touch(client, &record.name).await?;
            }
            if !is_there {
                // Removed again by somebody.
                return Ok(Seen::NotYet);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL.1);
    }
}

fn shows(image: &Image, names: &[&str]) -> bool {
    names.iter().all(|name| image.repo_tags.iter().chain(&image.repo_digests).any(|shown| shown == name))
}

/// The IDs of all images that it shows; `None` without the plugin.
pub(super) async fn shown(client: &Client) -> Result<Option<BTreeSet<String>>, HandoverError> {
    let request = ListImagesRequest::default();
    let listed = call(client, "ListImages", request).await;
    match listed {
        Ok(ListImagesResponse { images }) => Ok(Some(images.into_iter().map(|image| image.id).collect())),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(client.error("list its images", &status)),
    }
}

async fn image_status(client: &Client, name: &str) -> Result<Option<Image>, Status> {
    let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let request = ImageStatusRequest { image, verbose: false };
    Ok(call::<_, ImageStatusResponse>(client, "ImageStatus", request).await?.image)
}

/// Asks the image service, in the older version of the protocol if it does not know the newer one.
async fn call<M, A>(client: &Client, method: &str, message: M) -> Result<A, Status>
where
    M: prost::Message + Clone + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    match call_version(client, "runtime.v1", method, message.clone()).await {
        Err(status) if status.code() == Code::Unimplemented => {
            call_version(client, "runtime.v1alpha2", method, message).await
        }
        answer => answer,
    }
}

async fn call_version<M, A>(client: &Client, version: &str, method: &str, message: M) -> Result<A, Status>
where
    M: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let path = PathAndQuery::try_from(format!("/{version}.ImageService/{method}"))
        .map_err(|_| Status::internal("not a method's path"))?;
    let mut grpc = tonic::client::Grpc::new(client.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES);
    let call = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<M, A>::default();
        grpc.unary(Request::new(message), path, codec).await.map(Response::into_inner)
    };
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}
