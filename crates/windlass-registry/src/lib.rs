//! The registry server: the distribution API over files, with users, access rules and a token service.
//!
//! In: a [`RegistryConfig`]. Out: a [`RunningRegistry`] that answers at an address until it is shut down.
//! One request takes one path: `route` (what is asked) → `auth` (who asks) → `access` (may they) → `api` (the
//! end-point) → `storage` (files, on blocking threads). Nothing is looked up before access was decided.
//! Sources of truth: OCI distribution-spec 1.1 `spec.md`; distribution `docs/content/spec/auth/`.
//!
//! Invariants: `a_user_cannot_reach_a_foreign_private_repository_by_any_route`,
//! `nothing_unverified_becomes_a_blob`, `names_are_parsed_from_the_right`, `no_secret_is_logged`.
#![forbid(unsafe_code)]

pub mod access;
mod api;
pub mod auth;
mod body;
mod config;
mod error;
pub mod log;
mod query;
mod range;
pub mod route;
mod server;
mod storage;

pub use config::{Auth, BearerConfig, Deletes, Durability, Limits, RegistryConfig, TlsConfig, Users};
pub use error::{ErrorCode, RegistryError};
pub use server::{RegistryServer, RunningRegistry};
pub use storage::{Storage, StorageError};
