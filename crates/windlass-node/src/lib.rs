//! The node daemon: what runs beside a kubelet and containerd.
//!
//! In: a configuration and an engine, as [`NodeParts`]. Out: one socket for both, metrics, health and a status page;
//! until it is told to stop. [`run`] is its life. The command line finds it by [`NodeLock::holder`] and speaks to it
//! through [`client`], in the words of [`wire`] and [`status`].
#![forbid(unsafe_code)]

mod api;
pub mod client;
pub mod collect;
mod daemon;
mod drain;
mod edge;
mod error;
mod health;
mod health_http;
mod inventory;
mod lock;
mod logins;
mod metrics;
mod page;
mod parts;
mod pinned;
mod reload;
#[cfg(test)]
mod rig;
mod rows;
mod run;
mod serve;
mod socket;
pub mod status;
mod systemd;
pub mod wire;
pub mod words;

pub use error::NodeError;
pub use lock::{Holder, NodeLock};
pub use parts::{CollectOptions, Configuration, ContainerdOptions, Control, NodeOptions, NodeParts, Reread, Tunables};
pub use run::run;
