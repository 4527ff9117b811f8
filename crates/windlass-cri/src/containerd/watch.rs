//! Listening to containerd for as long as we live: its events as they come, and a look at everything now and then.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use windlass_proto::containerd::services::events::v1::{Envelope, SubscribeRequest};
use windlass_proto::containerd::services::images::v1::ImageDelete;
use windlass_store::Mirrored;

use super::{Handover, HandoverError};

/// Wait before another try to connect: containerd itself looks for us as often.
const RECONNECT: Duration = Duration::from_millis(500);
/// Between two looks at everything.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// Before another look when one failed: its CRI plugin answers some time after its socket does.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

impl Handover {
    /// Follows containerd until `cancel`: hands over what it does not have, and repeats in the store what others change
    /// there. `changed` is called after each change of the store. Reconnects for ever.
    pub async fn run(&self, changed: impl Fn() + Send + Sync, cancel: CancellationToken) {
        let link = Link::default();
        while let Some(error) = cancel.run_until_cancelled(self.follow(&changed, &link)).await {
            link.lost(&error);
            if cancel.run_until_cancelled(tokio::time::sleep(RECONNECT)).await.is_none() {
                return;
            }
        }
    }

    /// Follows one connection to its end.
    async fn follow(&self, changed: &(impl Fn() + Send + Sync), link: &Link) -> HandoverError {
        tokio::select! {
            // Polled first: what happens between the two comes twice rather than never.
            biased;
            error = self.listen(changed) => error,
            never = self.check_for_ever(link) => match never {},
        }
    }

    async fn listen(&self, changed: &(impl Fn() + Send + Sync)) -> HandoverError {
        const LISTEN: &str = "tell of its events";
        let client = &self.inner.client;
        let filters = vec![format!("namespace=={},topic~=|^/images/|", client.namespace())];
        // The answer begins with the first event, be that soon or in a year.
        let mut events = match client.events().subscribe(client.request(SubscribeRequest { filters })).await {
            Ok(events) => events.into_inner(),
            Err(status) => return client.error(LISTEN, &status),
        };
        loop {
            let event = match events.message().await {
                Ok(Some(event)) => event,
                Ok(None) => return HandoverError::Internal("the events of containerd ended"),
                Err(status) => return client.error(LISTEN, &status),
            };
            let Some((name, at)) = read(&event) else { continue };
            match self.repeat(&name, at).await {
                Ok(Mirrored::Changed) => {
                    tracing::info!(name, topic = event.topic, "repeated what another hand changed in containerd");
                    changed();
                }
                Ok(Mirrored::Same) => {}
                // The next look at everything is not long away.
                Err(error) => tracing::warn!(name, %error, "a change in containerd was not repeated"),
            }
        }
    }

    async fn check_for_ever(&self, link: &Link) -> Infallible {
        loop {
            let wait = match self.check().await {
                Ok(_) => {
                    link.found();
                    CHECK_EVERY
                }
                Err(error) => {
                    tracing::debug!(%error, "containerd could not be checked");
                    CHECK_AGAIN
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether containerd is there, as was last said.
#[derive(Debug, Default)]
struct Link {
    said: Mutex<Option<bool>>,
}

impl Link {
    fn found(&self) {
        if self.is_news(true) {
            tracing::info!("following containerd");
        }
    }

    fn lost(&self, error: &HandoverError) {
        if self.is_news(false) {
            tracing::warn!(%error, "containerd is not there; looking for it again and again");
        }
    }

    fn is_news(&self, is_there: bool) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).replace(is_there) != Some(is_there)
    }
}

/// Whose record changed, and when.
fn read(event: &Envelope) -> Option<(String, Timestamp)> {
    // The three kinds of events have the name as their first field.
    let name = ImageDelete::decode(event.event.as_ref()?.value.as_slice()).ok()?.name;
    let at = event.timestamp.as_ref()?;
    Some((name, Timestamp::new(at.seconds, at.nanos).ok()?))
}
