//! Connections: names to addresses to TLS to HTTP/1.1 or HTTP/2, pooled per origin.
//!
//! In: a request for one origin and the [`Profile`] to reach it with. Out: the response's head at once and
//! its body frame by frame, every wait bounded by [`crate::config::Timeouts`].
//! Nothing here knows registries, credentials or redirects; those are one level up.
//!
//! Invariants: `an_https_only_host_is_never_asked_in_plain_text`, `sessions_of_one_client_share_connections`,
//! `at_most_the_configured_number_of_connections_is_open`.

pub(crate) mod body;
pub(crate) mod dial;
pub(crate) mod greedy;
pub(crate) mod network;
pub(crate) mod payload;
pub(crate) mod pool;
pub(crate) mod profile;
pub(crate) mod proxy;
pub(crate) mod tls;

pub(crate) use body::Body;
pub(crate) use network::{Network, Response};
pub(crate) use payload::Payload;
pub(crate) use profile::{Guard, Profile};
