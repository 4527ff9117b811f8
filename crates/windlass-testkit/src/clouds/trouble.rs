//! What goes wrong, and when.

use std::time::Duration;

use super::Service;
use super::{aws, azure, google};
use crate::wire::{End, Message, Reply};

/// Which requests are disturbed.
#[derive(Clone, Debug)]
pub struct On {
    service: Service,
    path: String,
    after: u64,
    count: u64,
}

impl On {
    /// Every request to a service.
    pub fn service(service: Service) -> On {
        On { service, path: String::new(), after: 0, count: u64::MAX }
    }

    /// Only those whose path contains this.
    pub fn at(mut self, part: &str) -> On {
        part.clone_into(&mut self.path);
        self
    }

    /// Only the first so many.
    pub fn first(mut self, count: u64) -> On {
        self.count = count;
        self
    }

    /// Only after so many went well.
    pub fn after(mut self, count: u64) -> On {
        self.after = count;
        self
    }

    /// Whether it strikes; counts.
    pub(super) fn strikes(&mut self, service: Service, message: &Message) -> bool {
        if self.service != service || !message.path.contains(&self.path) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        let strikes = self.count > 0;
        self.count = self.count.saturating_sub(1);
        strikes
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// This status, with a page in place of an answer.
    Status(u16),
    /// Too many requests, in the service's own words.
    Throttled {
        /// `Retry-After`.
        retry_after_seconds: Option<u64>,
    },
    /// The identity may not do this, in the service's own words.
    Refused,
    /// What the identity showed has expired, in the service's own words.
    Expired,
    /// Success, but the document is not one.
    Malformed,
    /// Success, and this is the document.
    Says(String),
    /// Success, and a document that does not end.
    Endless,
    /// A true answer after so long.
    Slow(Duration),
    /// No answer at all; the connection stays.
    Silent,
    /// A true answer that ends in its middle.
    Cut,
    /// The connection is reset in place of an answer.
    Reset,
    /// A redirect to this URL, which keeps method and body.
    Elsewhere(String),
}

impl Trouble {
    /// The answer in place of the true one; `None`: the true one is wanted.
    pub(super) fn instead(&self, service: Service) -> Option<Reply> {
        let page = |status| Reply::new(status, "text/html", "<html><body>something went wrong</body></html>");
        match self {
            Trouble::Status(status) => Some(page(*status)),
            Trouble::Throttled { retry_after_seconds } => {
                let reply = words(service, Ill::Throttled);
                Some(match retry_after_seconds {
                    Some(seconds) => reply.with("Retry-After", seconds.to_string()),
                    None => reply,
                })
            }
            Trouble::Refused => Some(words(service, Ill::Refused)),
            Trouble::Expired => Some(words(service, Ill::Expired)),
            Trouble::Malformed => Some(Reply::new(200, "application/json", "{\"access_token\":\"half a doc")),
            Trouble::Says(text) => Some(Reply::new(200, "application/json", text.clone())),
            Trouble::Endless => {
                let mut reply = Reply::new(200, "application/json", "{\"a\":\"");
                reply.is_endless = true;
                reply.length = crate::wire::Length::UntilClose;
                Some(reply)
            }
            Trouble::Reset => {
                let mut reply = Reply::new(200, "application/json", "{}");
                reply.cut_at = Some(0);
                reply.end = End::Reset;
                Some(reply)
            }
            Trouble::Elsewhere(url) => Some(page(307).with("Location", url.clone())),
            Trouble::Slow(_) | Trouble::Silent | Trouble::Cut => None,
        }
    }

    /// Spoils a true answer.
    pub(super) fn spoil(&self, reply: &mut Reply) {
        match self {
            Trouble::Slow(how_long) => reply.head_stall = Some(Some(*how_long)),
            Trouble::Silent => reply.head_stall = Some(None),
            Trouble::Cut => reply.cut_at = Some(reply.body.len() as u64 / 2),
            Trouble::Status(_)
            | Trouble::Throttled { .. }
            | Trouble::Refused
            | Trouble::Expired
            | Trouble::Malformed
            | Trouble::Says(_)
            | Trouble::Endless
            | Trouble::Reset
            | Trouble::Elsewhere(_) => {}
        }
    }
}

/// What each service has words of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ill {
    Throttled,
    Refused,
    Expired,
}

fn words(service: Service, ill: Ill) -> Reply {
    match service {
        Service::Ecr | Service::EcrPublic => aws::ecr::words(ill),
        Service::Sts => aws::sts::words(ill),
        Service::Imds => aws::metadata::instance_words(ill),
        Service::Container => aws::metadata::container_words(ill),
        Service::GceMetadata => google::metadata_words(ill),
        Service::GoogleSts => google::exchange_words(ill),
        Service::AzureImds => azure::metadata_words(ill),
        Service::Aad => azure::entra_words(ill),
        Service::Acr | Service::AcrCustom => azure::registry_words(ill),
        Service::Arm => azure::manager_words(ill),
    }
}
