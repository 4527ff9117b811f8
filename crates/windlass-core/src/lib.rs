//! Every rule and type of Windlass that needs no IO.
//!
//! Nothing here reads a clock, a file, the environment or a socket: time, randomness and file contents are
//! arguments. That is what lets the command line, the node daemon and the cluster parts share one decision.
#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
pub mod allowlist;
pub mod backoff;
pub mod challenge;
pub mod decide;
pub mod digest;
pub mod dockerconfig;
pub mod gc;
pub mod host;
pub mod httpurl;
pub mod keyring;
pub mod manifest;
pub mod matchimage;
pub mod mirror;
pub mod pin;
pub mod plan;
pub mod platform;
pub mod policy;
pub mod provider;
pub mod realm;
pub mod reason;
pub mod reference;
pub mod registryclass;
pub mod scope;
pub mod secret;
pub mod secretcheck;
