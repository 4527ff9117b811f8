//! The node daemon: what runs beside a kubelet and containerd.
//!
//! In: a configuration and an engine. Out: one socket for both, metrics, health and a status page; until it is told to stop.
#![forbid(unsafe_code)]
