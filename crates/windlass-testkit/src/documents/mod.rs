//! Malformed and odd manifests, indexes, configs and digests, each with what a pull for linux/amd64 must say.
//!
//! Each [`Case`] brings everything its reference needs, so it can be placed in a registry as it is:
//! ```no_run
//! use windlass_testkit::{documents, registry::TestRegistry};
//! let registry = TestRegistry::open();
//! for case in documents::cases() {
//!     let reference = registry.place(&case.bundle, "cases", case.id);
//!     // pull `reference` and compare with `case.expect`
//! }
//! ```
//! Families: `dg-` digests and sizes in descriptors, `mf-` manifests, `ix-` indexes, `df-` configs and diff IDs.

mod configs;
mod descriptors;
mod indexes;
mod manifests;

use serde_json::Value;
use windlass_core::reason::Reason;

use crate::images::{Bundle, Content, Family, Image, small};

/// What a document is supposed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image manifest.
    Manifest,
    /// An index.
    Index,
    /// An image config.
    Config,
}

/// What a pull must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The image is pulled.
    Accepted,
    /// Refused with one of these, and nothing is recorded.
    Refused(&'static [Reason]),
}

/// Where a case is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// By the bytes of the document alone.
    Parse,
    /// Only together with what it refers to.
    Pull,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Unique name; also a valid tag.
    pub id: &'static str,
    /// What is odd about it, one line.
    pub what: &'static str,
    /// What the odd document is.
    pub kind: Kind,
    /// The odd document.
    pub bytes: bytes::Bytes,
    /// The `Content-Type` it is served with (manifests and indexes).
    pub content_type: String,
    /// What must come of it.
    pub expect: Expect,
    /// Where that is decided.
    pub stage: Stage,
    /// Everything the reference needs.
    pub bundle: Bundle,
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut cases = descriptors::cases();
    cases.extend(manifests::cases());
    cases.extend(indexes::cases());
    cases.extend(configs::cases());
    cases
}

const BAD: Expect = Expect::Refused(&[Reason::BadManifest]);
const NOT_IMAGE: Expect = Expect::Refused(&[Reason::NotAnImage]);
const UNSUPPORTED: Expect = Expect::Refused(&[Reason::UnsupportedMediaType]);
const LIMIT: Expect = Expect::Refused(&[Reason::LimitExceeded]);
const NO_PLATFORM: Expect = Expect::Refused(&[Reason::NoMatchingPlatform]);
const SIZE: Expect = Expect::Refused(&[Reason::SizeMismatch]);

/// The good image that manifests and configs are made from.
fn good() -> Image {
    small("documents")
}

fn value(content: &Content) -> Value {
    serde_json::from_slice(&content.bytes).expect("our own document")
}

/// A case whose root is a manifest of these bytes; config and layers are those of the good image.
fn manifest_bytes(
    id: &'static str,
    what: &'static str,
    expect: Expect,
    stage: Stage,
    content_type: &str,
    bytes: impl Into<bytes::Bytes>,
) -> Case {
    let root = Content::new(content_type, bytes);
    let bundle = Bundle { root: root.clone(), ..good().bundle() };
    let content_type = content_type.to_owned();
    Case { id, what, kind: Kind::Manifest, bytes: root.bytes, content_type, expect, stage, bundle }
}

/// A case whose root is the good manifest after a change.
fn manifest(
    id: &'static str,
    what: &'static str,
    expect: Expect,
    stage: Stage,
    change: impl FnOnce(&mut Value),
) -> Case {
    let mut document = value(&good().manifest);
    change(&mut document);
    manifest_bytes(id, what, expect, stage, Family::Oci.manifest(), document.to_string())
}

/// A case whose root is the good manifest after a change of its text.
fn manifest_text(id: &'static str, what: &'static str, expect: Expect, change: impl FnOnce(String) -> String) -> Case {
    let text = String::from_utf8(good().manifest.bytes.to_vec()).expect("JSON is text");
    manifest_bytes(id, what, expect, Stage::Parse, Family::Oci.manifest(), change(text))
}

/// A case whose root is an index of these bytes over the good image.
fn index_bytes(
    id: &'static str,
    what: &'static str,
    expect: Expect,
    stage: Stage,
    bytes: impl Into<bytes::Bytes>,
    more: Vec<Content>,
) -> Case {
    let image = good();
    let root = Content::new(Family::Oci.index(), bytes);
    let mut manifests = vec![image.manifest.clone()];
    manifests.extend(more);
    let bundle = Bundle { root: root.clone(), manifests, ..image.bundle() };
    let content_type = Family::Oci.index().to_owned();
    Case { id, what, kind: Kind::Index, bytes: root.bytes, content_type, expect, stage, bundle }
}

/// A case whose root is a good manifest over a config of these bytes.
fn config_bytes(
    id: &'static str,
    what: &'static str,
    expect: Expect,
    stage: Stage,
    bytes: impl Into<bytes::Bytes>,
) -> Case {
    let image = good();
    let config = Content::new(Family::Oci.config(), bytes);
    let mut document = value(&image.manifest);
    document["config"] = config.descriptor();
    let root = Content::json(Family::Oci.manifest(), &document);
    let mut bundle = Bundle { root, ..image.bundle() };
    bundle.blobs.push(config.clone());
    let content_type = Family::Oci.config().to_owned();
    Case { id, what, kind: Kind::Config, bytes: config.bytes, content_type, expect, stage, bundle }
}

/// A case whose config is the good one after a change.
fn config(id: &'static str, what: &'static str, expect: Expect, stage: Stage, change: impl FnOnce(&mut Value)) -> Case {
    let mut document = value(&good().config);
    change(&mut document);
    config_bytes(id, what, expect, stage, document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use windlass_core::manifest::{Document, DocumentLimits, ManifestError, parse_config, parse_document};
    use windlass_registry::route::Tag;

    /// What the bytes alone come to; `Ok` where only a pull can tell.
    fn judged(case: &Case) -> Result<(), ManifestError> {
        let limits = DocumentLimits::default();
        match case.kind {
            Kind::Config => parse_config(&case.bytes, &limits).map(drop),
            Kind::Manifest | Kind::Index => {
                match parse_document(&case.bytes, Some(&case.content_type), None, &limits)? {
                    Document::Manifest(manifest) => manifest.layer_types(&limits).map(drop),
                    Document::Index(_) => Ok(()),
                }
            }
        }
    }

    #[test]
    fn every_case_is_judged_by_its_bytes_or_needs_a_pull() {
        for case in cases() {
            match (judged(&case), case.expect, case.stage) {
                (Err(error), Expect::Refused(reasons), Stage::Parse) => {
                    assert!(reasons.contains(&error.reason()), "{}: {error}", case.id);
                }
                (Ok(()), Expect::Accepted, _) | (Ok(()), Expect::Refused(_), Stage::Pull) => {}
                (got, want, stage) => panic!("{}: {got:?}, wanted {want:?} at {stage:?}", case.id),
            }
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "the number of cases belongs into the report of the test run")]
    fn names_are_unique_and_every_family_is_there() {
        let cases = cases();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.id).collect();
        assert_eq!(names.len(), cases.len());
        assert!(names.iter().all(|name| Tag::parse(name).is_ok()));
        for (family, least) in [("dg-", 20), ("mf-", 30), ("ix-", 15), ("df-", 15)] {
            let count = names.iter().filter(|name| name.starts_with(family)).count();
            assert!(count >= least, "{family} {count}");
        }
        println!("{} document cases", cases.len());
    }
}
