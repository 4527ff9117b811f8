//! A CRI image service asked as a kubelet asks it, from tests that block.
//!
//! Needs no kubelet: ours and containerd's own are asked in the same way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use windlass_proto::cri::v1::image_service_client::ImageServiceClient;
use windlass_proto::cri::v1::{
    Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest,
};

/// As kubelet and crictl have it: 16 MiB.
const MESSAGE_BYTES: usize = 16 << 20;

/// A connection to an image service.
#[derive(Clone, Debug)]
pub struct ImageService {
    runtime: Arc<Runtime>,
    client: ImageServiceClient<Channel>,
    socket: PathBuf,
}

impl ImageService {
    /// To the service behind this socket; it is connected to when it is asked.
    pub fn at(socket: &Path) -> ImageService {
        ImageService::on(tokio::runtime::Builder::new_multi_thread().worker_threads(2), socket)
    }

    fn on(threads: &mut tokio::runtime::Builder, socket: &Path) -> ImageService {
        let runtime = threads.enable_all().build().expect("a runtime");
        let channel = {
            let _entered = runtime.enter();
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("a path");
            endpoint.connect_lazy()
        };
        let client = ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        ImageService { runtime: Arc::new(runtime), client, socket: socket.to_owned() }
    }

    /// Pulls an image without credentials; answers its ID.
    pub fn pull(&self, image: &str) -> Result<String, Status> {
        self.end(self.start_pull(image))
    }

    /// Starts a pull, which goes on meanwhile.
    pub fn start_pull(&self, image: &str) -> JoinHandle<Result<String, Status>> {
        let (mut client, image) = (self.client.clone(), Some(spec(image)));
        self.runtime.spawn(async move {
            let request = PullImageRequest { image, ..PullImageRequest::default() };
            Ok(client.pull_image(request).await?.into_inner().image_ref)
        })
    }

    /// Waits for what was started.
    pub fn end<T>(&self, started: JoinHandle<T>) -> T {
        self.runtime.block_on(started).expect("a task does not panic")
    }

    /// What it knows of an image; `None` of one that is not there.
    pub fn status(&self, image: &str) -> Result<Option<Image>, Status> {
        let mut client = self.client.clone();
        let request = ImageStatusRequest { image: Some(spec(image)), ..ImageStatusRequest::default() };
        self.runtime.block_on(async move { Ok(client.image_status(request).await?.into_inner().image) })
    }

    /// Every image.
    pub fn list(&self) -> Result<Vec<Image>, Status> {
        let mut client = self.client.clone();
        let request = ListImagesRequest::default();
        self.runtime.block_on(async move { Ok(client.list_images(request).await?.into_inner().images) })
    }

    /// Removes an image.
    pub fn remove(&self, image: &str) -> Result<(), Status> {
        let mut client = self.client.clone();
        let request = RemoveImageRequest { image: Some(spec(image)) };
        self.runtime.block_on(async move { client.remove_image(request).await.map(drop) })
    }

    /// How long answers about an image take, one after the other until `is_over`, shortest first.
    ///
    /// Asked on one thread and a connection of its own: what is measured is the service, not how long threads of this
    /// process wait for each other on a machine that is busy.
    pub fn status_times(&self, image: &str, mut is_over: impl FnMut() -> bool) -> Vec<Duration> {
        let asking = ImageService::on(&mut tokio::runtime::Builder::new_current_thread(), &self.socket);
        asking.status(image).expect("an answer about an image");
        let mut times = Vec::new();
        while !is_over() {
            let started = Instant::now();
            asking.status(image).expect("an answer about an image");
            times.push(started.elapsed());
            std::thread::sleep(STATUS_PAUSE);
        }
        times.sort();
        times
    }
}

/// Between two questions in [`ImageService::status_times`]: a hundred a second, far more than a kubelet asks.
const STATUS_PAUSE: Duration = Duration::from_millis(10);

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}
