//! The node's edge: images for the kubelet by the CRI, snapshots for containerd as a proxy plugin, and the handover of
//! pulled images to containerd.
//!
//! In: requests on one socket. Out: answers from memory, and calls to the engine and the store. Protocol types stay here.
#![forbid(unsafe_code)]

#[cfg_attr(not(test), expect(dead_code, reason = "the snapshots service comes next"))]
mod filter;
