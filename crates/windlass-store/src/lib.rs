//! The embedded store: blobs, leases, unpacked layers, pull records, collection and repair.
//!
//! Start at [`Store::open`]. A pull is [`Store::begin`], then [`PullLease::put_blob`] for manifest and config,
//! [`PullLease::try_claim_layer`] and [`LayerWork::unpack`] for each layer, then [`PullLease::commit`]. Everything
//! blocks and may be called from any thread; nothing above this crate knows in which form a layer is unpacked.
#![forbid(unsafe_code)]

mod blobs;
mod claim;
mod convert;
mod durable;
mod error;
mod files;
mod flight;
mod fsck;
mod gc;
mod image;
mod image_mounts;
mod intent;
pub mod layer;
mod layer_source;
mod layers;
mod layout;
mod lease;
mod lock;
mod meta;
mod mirror;
mod mount;
mod names;
mod partial;
mod pending;
mod probe;
mod records;
mod recover;
mod remove;
mod settle;
mod snapshots;
mod space;
mod stamp;
mod store;
mod sync;
mod tar;
mod tee;
mod work;

pub use convert::{Conversion, ConvertReport, ConvertedLayer, LayerForm, TarIs};
pub use error::StoreError;
pub use fsck::{Finding, FindingClass, FsckReport, Outcome, Repair, Verdict};
pub use gc::{Dry, GRACE, GcReport, GcRequest, Victim, VictimKind};
pub use image::{Image, Usage};
pub use layer::{Depth, FileEntry, FileKind, LayerError, LayerLimits, Progress, Step, StoredTar, Warning};
pub use layers::Threads;
pub use layout::FORMAT;
pub use lease::{ImageCommit, LeaseOptions, PullLease};
pub use meta::Hold;
pub use meta::record::{BlobKind, LayerRecord, Source};
pub use mirror::Mirrored;
pub use mount::SetUserId;
pub use names::Name;
pub use partial::{PARTIAL_KEPT, Partial};
pub use records::{PullMark, PullRecords};
pub use recover::Recovered;
pub use remove::Removed;
pub use snapshots::{LabelMask, Labels, Prepared, SnapshotError, SnapshotInfo, SnapshotKind, SnapshotMount, Snapshots};
pub use space::{FileSystem, Reserve};
pub use stamp::Stamp;
pub use store::{Access, KeepLayers, LOCK_TIMEOUT, SnapshotFormat, Store, StoreOptions};
pub use sync::SYNC_WINDOW;
pub use work::{LayerClaim, LayerKey, LayerSize, LayerWork, Unpacked};
