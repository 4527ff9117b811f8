//! Manifests, indexes and configs: foreign JSON, checked whole before any of it is believed.
//!
//! In: the bytes as they were hashed, what the transport and the parent said they are. Out: a [`Document`] or an
//! [`ImageConfig`]; the bytes themselves stay the truth and are never written again from what was parsed.
//! Source of truth: image-spec `manifest.md`, `image-index.md`, `config.md`, `descriptor.md`; where the
//! specification leaves room, the strict reading (CVE-2021-41190, CVE-2024-3727).
//!
//! Invariants: `documents_that_break_a_rule_are_refused`, `hostile_bytes_never_panic`, `limits_bind`,
//! `a_written_descriptor_reads_back`.

mod config;
mod descriptor;
mod document;
mod error;
mod fields;
pub(crate) mod json;
mod limits;
pub mod media_type;

pub use config::{History, ImageConfig, RunConfig, chain_ids, parse_config};
pub use descriptor::{Descriptor, UnverifiableEntry};
pub use document::{Document, Index, Manifest, parse_document};
pub use error::{Expected, ManifestError};
pub use limits::{DocumentLimits, IndexWalk};
pub use media_type::{Compression, LayerType};

#[cfg(test)]
mod tests;
