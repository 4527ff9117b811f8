//! A connection to containerd: made when it is needed, again when it was lost, with what every call carries.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;
use windlass_proto::containerd::services::events::v1::events_client::EventsClient;
use windlass_proto::containerd::services::images::v1::images_client::ImagesClient;
use windlass_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use windlass_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use windlass_proto::containerd::services::version::v1::version_client::VersionClient;

use super::HandoverError;

/// Most bytes of one message, as in containerd's own server and clients (`defaults.DefaultMaxRecvMsgSize`).
pub(super) const MESSAGE_MAX_BYTES: usize = 16 << 20;
/// Longest wait for an ordinary answer. They take milliseconds; a collection that runs makes them wait.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a removal that collects at once: everything in containerd is looked at.
pub(super) const COLLECTION_MAX: Duration = Duration::from_secs(120);
/// Longest wait for a connection. A server on a local socket accepts at once, or is not there.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Most entries of a list that comes in many messages: more than any node has, and some hundred MiB.
const LISTED_MAX: usize = 500_000;

/// A cheap clone; all clones use one connection.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
    metadata: MetadataValue<Ascii>,
    namespace: String,
    socket: PathBuf,
}

impl Client {
    /// A client that has not connected yet. Must be called within a runtime.
    pub(super) fn new(socket: &Path, namespace: &str) -> Result<Client, HandoverError> {
        let bad = || HandoverError::Name { what: "the namespace", name: namespace.to_owned() };
        let metadata = namespace.parse().map_err(|_| bad())?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The authority that Go's clients of unix sockets send; others are refused by some servers.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_MAX);
        Ok(Client {
            channel: endpoint.connect_with_connector_lazy(connector),
            metadata,
            namespace: namespace.to_owned(),
            socket: socket.to_owned(),
        })
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(super) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(super) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(super) fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel())
    }

    pub(super) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel())
    }

    pub(super) fn version(&self) -> VersionClient<Channel> {
        VersionClient::new(self.channel())
    }

    /// A message with our namespace.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.metadata.clone());
        request
    }

    /// The same under a lease: what it makes is not collected while the lease lives.
    pub(super) fn leased<T>(&self, message: T, lease: &LeaseId) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("containerd-lease", lease.0.clone());
        request
    }

    /// What a failed call means; `action` is a verb.
    pub(super) fn error(&self, action: &'static str, status: &Status) -> HandoverError {
        let text: String = status.message().chars().take(TEXT_MAX_CHARS).collect();
        // A status of containerd's own has no cause in our transport.
        if std::error::Error::source(status).is_some() {
            return HandoverError::Unreachable { socket: self.socket.clone(), text };
        }
        HandoverError::Refused { action, code: status.code().description(), text }
    }

    /// Waits for an answer, at most [`ANSWER_MAX`].
    pub(super) async fn answer<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, HandoverError> {
        self.within(ANSWER_MAX, action, call).await?.map_err(|status| self.error(action, &status))
    }

    /// Waits for an answer, and gives a refusal with its code to who can make something of it.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        action: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Result<T, Status>, HandoverError> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)),
            Err(_) => Err(HandoverError::Timeout { action, seconds: limit.as_secs() }),
        }
    }
}

/// Takes in a part of a list, as long as it stays in bounds.
pub(super) fn extend<T>(all: &mut Vec<T>, part: impl IntoIterator<Item = T>) -> Result<(), Status> {
    all.extend(part);
    match all.len() > LISTED_MAX {
        true => Err(Status::resource_exhausted(format!("a list of more than {LISTED_MAX} entries"))),
        false => Ok(()),
    }
}

/// Longest text of a foreign error that is repeated.
const TEXT_MAX_CHARS: usize = 1024;

/// The ID of a lease, fit to be sent along.
#[derive(Clone, Debug)]
pub(super) struct LeaseId(MetadataValue<Ascii>);

impl LeaseId {
    pub(super) fn new(id: &str) -> Result<LeaseId, HandoverError> {
        id.parse().map(LeaseId).map_err(|_| HandoverError::Internal("a lease's name is not ASCII"))
    }
}
