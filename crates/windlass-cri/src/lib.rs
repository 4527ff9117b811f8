//! The node's edge: images for the kubelet by the CRI, snapshots for containerd as a proxy plugin, and the handover of
//! pulled images to containerd.
//!
//! In: requests on one socket. Out: answers from memory, and calls to the engine and the store. Protocol types stay here.
#![forbid(unsafe_code)]

mod auth;
pub mod authority;
pub mod containerd;
mod deadline;
mod filter;
mod fs_info;
mod handing;
mod image_service;
mod old_api;
mod publisher;
mod reading;
mod remove;
mod rounds;
mod runtime_service;
mod server;
mod snapshots_service;
pub mod socket;
mod status;
mod unknown;
pub mod view;

pub use auth::AuthError;
pub use server::{ImageServer, ImageServerParts, MESSAGE_MAX_BYTES};
pub use snapshots_service::SnapshotsService;
pub use unknown::unknown_service;
