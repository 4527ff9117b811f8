//! The real program against real clients and servers, and against everything that can go wrong around it.
//!
//! - [`cluster`]: a real Kubernetes node with everything that belongs to it.
//! - [`world`]: a machine of its own for the program: home, store, user, limits; what a command answered.
//! - [`tree`]: a directory tree as data, and where two of them differ.
//! - [`cri`]: an image service asked as a kubelet asks it.
//! - [`gallery`]: one image with everything a layer can say.
//! - [`load`]: many pulls at once.
//! - [`node`]: `windlass node` by itself.
//! - [`peers`]: podman, umoci and containerd, each with a storage of its own.
//!
//! The tests are in `tests/`, one program per promise. `WINDLASS_BIN` names another binary to test.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod cri;
pub mod gallery;
pub mod load;
pub mod node;
pub mod peers;
pub mod tree;
pub mod world;
