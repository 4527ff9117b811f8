//! A lease in containerd: what is made under it is not collected before an image leads to it.
//!
//! It ends with its [`Lease`], also when a handover is given up half-way. One that was left behind, because containerd
//! or we were killed, is found by the next look at everything; if there is none, it ends by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use tonic::Code;
use windlass_proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest, ListRequest};

use super::HandoverError;
use super::client::{ANSWER_MAX, Client, LeaseId};

/// How long a lease that nobody ends keeps things: a handover takes seconds, a suspended machine longer.
const LEASE_LIFE: SignedDuration = SignedDuration::from_hours(2);
/// The label that lets containerd end a lease (containerd `core/metadata/gc.go`).
const EXPIRE: &str = "containerd.io/gc.expire";
/// How the names of our leases begin.
const OURS: &str = "windlass-";

/// The leases that are in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    living: Arc<Mutex<BTreeSet<String>>>,
}

impl Leases {
    pub(super) async fn begin(&self, client: &Client) -> Result<Lease, HandoverError> {
        let name = format!("{OURS}{}", unique());
        let id = LeaseId::new(&name)?;
        // Before it is there, so that it is never taken for one that was left behind.
        self.living().insert(name.clone());
        let lease = Lease { client: client.clone(), leases: self.clone(), name, id };
        let expire = (Timestamp::now() + LEASE_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let request = CreateRequest { id: lease.name.clone(), labels: [(EXPIRE.to_owned(), expire)].into() };
        client.answer("create a lease", client.leases().create(client.request(request))).await?;
        Ok(lease)
    }

    /// Ends what was left behind; how many.
    pub(super) async fn sweep(&self, client: &Client) -> Result<usize, HandoverError> {
        let request = client.request(ListRequest { filters: vec![format!("id~=^{OURS}")] });
        let listed = client.answer("list its leases", client.leases().list(request)).await?.leases;
        let mut swept = 0;
        for lease in listed {
            if !self.living().contains(&lease.id) {
                end(client, &lease.id).await;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn living(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease in use. Nobody waits for its end.
#[derive(Debug)]
pub(super) struct Lease {
    client: Client,
    leases: Leases,
    name: String,
    id: LeaseId,
}

impl Lease {
    pub(super) fn id(&self) -> &LeaseId {
        &self.id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (client, leases, name) = (self.client.clone(), self.leases.clone(), std::mem::take(&mut self.name));
        let ending = async move {
            end(&client, &name).await;
            leases.living().remove(&name);
        };
        // Without a runtime everything ends, and the next look at everything finds it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(ending);
        }
    }
}

/// Ends a lease; what only it kept goes with the next collection. That it cannot be ended is no failure of the work.
async fn end(client: &Client, name: &str) {
    let request = client.request(DeleteRequest { id: name.to_owned(), sync: false });
    match client.within(ANSWER_MAX, "delete a lease", client.leases().delete(request)).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) if status.code() == Code::NotFound => {}
        Ok(Err(status)) => tracing::debug!(lease = name, error = %status.message(), "lease left behind"),
        Err(error) => tracing::debug!(lease = name, %error, "lease left behind"),
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
