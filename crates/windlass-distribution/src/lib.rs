//! The OCI distribution HTTP client: challenge, resolve, ranged fetch, mirror failover, push.
//!
//! One [`Client`] per process; one [`Repository`] per image and pull. Every wait, body, retry and cache has a
//! bound in [`config`]; every error answers with a [`windlass_core::reason::Reason`]. Rules without IO
//! (challenges, scopes, realm trust, `hosts.toml`, manifests) are `windlass_core`'s.
#![forbid(unsafe_code)]

mod attempt;
mod auth;
mod blob;
mod breaker;
mod client;
pub mod config;
mod counters;
mod error;
mod exchange;
mod hosts;
mod net;
mod push;
mod renewal;
mod repository;
mod resolve;
mod retry;
mod session;
pub mod web;
mod words;

pub use attempt::Attempt;
pub use blob::{BlobEvent, BlobFetch};
pub use client::{Client, CredentialMode};
pub use config::ClientConfig;
pub use counters::Counters;
pub use error::{ClientError, FetchError, Step, TransportError};
pub use push::{Mount, Pushed, UploadSource};
pub use renewal::{Renewal, Renewed};
pub use repository::Repository;
pub use resolve::{FetchedManifest, ManifestHead, TagOrDigest};
pub use retry::chance;
pub use words::{RateLimit, Words, escape, retry_after};
