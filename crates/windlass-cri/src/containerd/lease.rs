//! A lease in containerd: what is made under it is not collected before an image leads to it.
//!
//! It ends with [`Lease::end`]. One that was left behind, because we were killed or the future was dropped, ends by itself.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use tonic::Code;
use windlass_proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};

use super::HandoverError;
use super::client::{ANSWER_MAX, Client, LeaseId};

/// How long a lease that nobody ends keeps things: a handover takes seconds, a suspended machine longer.
const LEASE_LIFE: SignedDuration = SignedDuration::from_hours(2);
/// The label that lets containerd end a lease (containerd `core/metadata/gc.go`).
const EXPIRE: &str = "containerd.io/gc.expire";

#[derive(Debug)]
pub(super) struct Lease {
    client: Client,
    name: String,
    id: LeaseId,
}

impl Lease {
    pub(super) async fn begin(client: &Client) -> Result<Lease, HandoverError> {
        let name = format!("windlass-{}", unique());
        let id = LeaseId::new(&name)?;
        let expire = (Timestamp::now() + LEASE_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let request = CreateRequest { id: name.clone(), labels: [(EXPIRE.to_owned(), expire)].into() };
        let request = client.request(request);
        client.answer("create a lease", client.leases().create(request)).await?;
        Ok(Lease { client: client.clone(), name, id })
    }

    pub(super) fn id(&self) -> &LeaseId {
        &self.id
    }

    /// Ends it; what only it kept goes with the next collection. That it cannot be ended is no failure of the work.
    pub(super) async fn end(self) {
        let request = self.client.request(DeleteRequest { id: self.name.clone(), sync: false });
        let deleted = self.client.within(ANSWER_MAX, "delete a lease", self.client.leases().delete(request)).await;
        match deleted {
            Ok(Ok(_)) => {}
            Ok(Err(status)) if status.code() == Code::NotFound => {}
            Ok(Err(status)) => tracing::warn!(lease = self.name, error = %status.message(), "lease left to expire"),
            Err(error) => tracing::warn!(lease = self.name, %error, "lease left to expire"),
        }
    }
}

/// A word that nobody else uses: time, process and a counter.
pub(super) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{nanoseconds}-{:x}-{number}", std::process::id())
}
