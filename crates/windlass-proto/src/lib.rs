//! Messages and services of the protocols that a node speaks on sockets: the CRI towards the kubelet, containerd's own
//! towards containerd. Generated from `proto/`, in a crate of its own so that it is compiled once.
//!
//! Nothing here decides anything, and no type of it goes further than `windlass-cri`.
#![forbid(unsafe_code)]

/// The CRI, towards the kubelet.
pub mod cri {
    /// `runtime.v1`.
    #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("runtime.v1");
    }
}

/// containerd's services, asked of it or served to it.
pub mod containerd {
    /// Mounts and descriptors.
    #[expect(missing_docs, reason = "generated")]
    pub mod types {
        tonic::include_proto!("containerd.types");
    }

    /// The services; the nesting follows the packages, by which generated code finds its neighbours.
    pub mod services {
        /// Snapshots.
        pub mod snapshots {
            #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
        /// Leases.
        pub mod leases {
            #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!("containerd.services.leases.v1");
            }
        }
        /// Content.
        pub mod content {
            #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!("containerd.services.content.v1");
            }
        }
        /// Images.
        pub mod images {
            #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!("containerd.services.images.v1");
            }
        }
        /// Events.
        pub mod events {
            #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!("containerd.services.events.v1");
            }
        }
        /// Version.
        pub mod version {
            #[expect(missing_docs, clippy::allow_attributes, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!("containerd.services.version.v1");
            }
        }
    }
}
