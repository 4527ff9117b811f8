//! The engine: ensure and pull, single-flight, progress.
#![forbid(unsafe_code)]

pub mod workload;
