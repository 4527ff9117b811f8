//! Every rule and type of Windlass that needs no IO.
//!
//! Nothing here reads a clock, a file, the environment or a socket: time, randomness and file contents are
//! arguments. That is what lets the command line, the node daemon and the cluster parts share one decision.
#![forbid(unsafe_code)]

pub mod digest;
pub mod host;
pub mod manifest;
pub mod platform;
pub mod reason;
pub mod reference;
pub mod secret;
