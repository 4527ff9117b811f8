//! The store of this run.

use windlass_store::{Access, Hold, KeepLayers, LayerLimits, Reserve, SnapshotFormat, Store, StoreOptions};

use super::{size, store_failure};
use crate::config::node::{Limits, Node, Snapshots};
use crate::failure::Failure;

/// The store, to be looked at only: nothing is created.
pub(crate) fn store_to_read(node: &Node) -> Result<Store, Failure> {
    store(node, Access::Read, Hold::Transaction)
}

/// The store, to be changed.
pub(crate) fn store_to_write(node: &Node) -> Result<Store, Failure> {
    store(node, Access::Write, Hold::Transaction)
}

/// The store of a daemon, which makes many small changes, beside commands that want it, too.
pub(crate) fn store_of_daemon(node: &Node) -> Result<Store, Failure> {
    store(node, Access::Write, Hold::Burst)
}

fn store(node: &Node, access: Access, hold: Hold) -> Result<Store, Failure> {
    let mut options = StoreOptions::default();
    options.access = access;
    options.hold = hold;
    options.keep_layers = if node.store.keep_layers { KeepLayers::Yes } else { KeepLayers::No };
    options.keep_partial_above_bytes = Some(node.store.keep_partial_above.0).filter(|bytes| *bytes > 0);
    options.reserve = Reserve {
        percent: u8::try_from(node.limits.disk_reserve_percent.min(100)).unwrap_or(100),
        bytes: node.limits.disk_reserve_bytes.0,
    };
    options.limits = layer_limits(&node.limits);
    options.snapshot_format = match node.store.snapshot_format {
        Snapshots::Auto => SnapshotFormat::Auto,
        Snapshots::Overlay => SnapshotFormat::Overlay,
        Snapshots::Erofs => SnapshotFormat::Erofs,
    };
    Store::open(&node.general.root, options)
        .map_err(|error| store_failure(&format!("cannot open the store {}", node.general.root.display()), &error))
}

fn layer_limits(limits: &Limits) -> LayerLimits {
    let mut layer = LayerLimits::default();
    layer.unpacked_bytes = limits.layer_unpacked_bytes.0;
    layer.ratio = limits.layer_ratio;
    layer.entries = limits.layer_entries;
    layer.path_bytes = size(limits.path_bytes);
    layer.component_bytes = size(limits.component_bytes);
    layer.link_bytes = size(limits.link_bytes);
    layer.depth = size(limits.directory_depth);
    layer.pax_bytes = limits.pax_bytes.0;
    layer.pax_records = size(limits.pax_records);
    layer.xattrs = size(limits.xattrs);
    layer.xattr_bytes = size(limits.xattr_bytes.0);
    layer.sparse_pieces = size(limits.sparse_pieces);
    layer.zstd_window_log = u32::try_from(limits.zstd_window_log).unwrap_or(u32::MAX);
    layer.gzip_header_bytes = size(limits.gzip_header_bytes.0);
    layer.pending_bytes = size(limits.layer_pending_bytes.0);
    layer.metadata_bytes = limits.layer_metadata_bytes.0;
    layer.lookups = limits.layer_lookups;
    layer
}
