//! Files that a person names: manifests, secrets, credential files. Bounded, `-` is standard input.

use std::io::Read;
use std::path::Path;

use serde_json::Value as Json;
use windlass_core::reason::Reason;

use crate::failure::Failure;

/// Longest manifest file, the same as the reader of workloads takes.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Deepest nesting, values and documents of a manifest file.
const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 1_000_000;
const DOCUMENTS_MAX: usize = 4_096;

/// The text of a file.
pub(crate) fn text(path: &Path, limit_bytes: u64) -> Result<String, Failure> {
    let what = || format!("cannot read {}", path.display());
    let failed = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::NotFound => Reason::InvalidConfig,
            std::io::ErrorKind::PermissionDenied => Reason::NotPermitted,
            _ => Reason::IoError,
        };
        Failure::new(reason, what(), error.to_string()).hint("check the path and its rights")
    };
    let reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    let mut text = String::new();
    reader.take(limit_bytes.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > limit_bytes) {
        let why = format!("it is longer than {limit_bytes} bytes");
        return Err(Failure::usage(what(), why).hint("split the file"));
    }
    Ok(text)
}

/// The documents of a YAML or JSON text.
pub(crate) fn documents(name: &str, text: &str) -> Result<Vec<Json>, Failure> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
            max_documents: DOCUMENTS_MAX,
        },
        // A snippet would show the lines around the fault, passwords among them.
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options::<Json>(text, options).map_err(|error| {
        let place =
            error.location().map_or_else(|| name.to_owned(), |at| format!("{name}:{}:{}", at.line(), at.column()));
        Failure::usage(format!("cannot read {name}"), format!("{place} is neither YAML nor JSON"))
            .hint("correct the file at the place named")
    })
}
