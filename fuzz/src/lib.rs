//! What is asked of every input: one function per fuzz target.
//!
//! The fuzz targets call these functions, and so does the test `fuzz_corpus` of `windlass-testkit`, which replays the kept
//! inputs with the stable compiler; the file is shared, so the two cannot drift apart. Each function panics where an
//! invariant of the reader it feeds does not hold; what it compares with is written here from the public sources, not
//! with the code it tests.
#![forbid(unsafe_code)]

pub mod decompress;
pub mod digest;
pub mod docker_config;
pub mod erofs_image;
pub mod exec_reply;
pub mod hosts_toml;
pub mod layer_apply;
pub mod layer_forms;
pub mod manifest;
pub mod provider_config;
pub mod reference;
pub mod registry_upload;
pub mod secrets;
pub mod store_recovery;
pub mod tar_entries;
pub mod workload;
pub mod www_authenticate;

/// Takes one input; panics where an invariant does not hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("decompress", decompress::run),
    ("digest", digest::run),
    ("docker_config", docker_config::run),
    ("erofs_image", erofs_image::run),
    ("exec_reply", exec_reply::run),
    ("hosts_toml", hosts_toml::run),
    ("layer_apply", layer_apply::run),
    ("layer_forms", layer_forms::run),
    ("manifest", manifest::run),
    ("provider_config", provider_config::run),
    ("reference", reference::run),
    ("registry_upload", registry_upload::run),
    ("store_recovery", store_recovery::run),
    ("tar_entries", tar_entries::run),
    ("workload", workload::run),
    ("www_authenticate", www_authenticate::run),
];
