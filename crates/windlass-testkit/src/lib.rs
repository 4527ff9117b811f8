//! What tests need: images, a registry to serve them, a registry that misbehaves, and the tools to compare with.
//!
//! - [`images`]: layers, images and indexes from lists of entries; into a registry, a layout or an archive.
//! - [`registry`]: the real registry on a free loopback port, usable from blocking tests, with its request log.
//! - [`faults`]: a registry whose answers can be spoilt, request by request, down to the socket.
//! - [`hostile`]: hostile and odd layers, each with what has to come of it.
//! - [`documents`]: malformed manifests, indexes and configs, each with what a pull must say about it.
//! - [`program`]: a program of a few bytes, for containers.
//! - [`tools`]: skopeo, podman, docker-registry and others where they are installed.
//! - [`canary`]: finds a secret in whatever a program wrote.
//! - [`client`]: a registry client that waits no longer than a test should.
//! - [`clouds`]: Amazon, Google and Azure as far as a login to a registry needs them, with their faults.
//! - [`clock`]: a clock that moves when it is told to.
//!
//! Only for tests: failures panic with what went wrong.
#![forbid(unsafe_code)]

pub mod canary;
pub mod client;
pub mod clock;
pub mod clouds;
pub mod documents;
pub mod faults;
pub mod hostile;
pub mod images;
pub mod program;
pub mod registry;
pub mod tools;
mod wire;
