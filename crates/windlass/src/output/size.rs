//! Quantities as people read them, the same as the daemon's page shows them.

pub(crate) use windlass_node::words::{age, bytes};
