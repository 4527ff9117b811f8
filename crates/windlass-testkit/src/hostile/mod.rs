//! Hostile and odd layers, each with what has to come of it.
//!
//! [`layers`] builds them as data, so that the extractor, `load`, `pull` and `unpack` can all be put through the same
//! list. Archives are written byte by byte ([`raw`]), since no tar writer would write most of them. Expectations are
//! stated by hand from the rules of the formats (OCI `layer.md`, Go `archive/tar`, overlayfs) and from the advisories
//! named in the descriptions, never copied from what our own code does.

mod compression;
mod content;
mod expect;
mod links;
mod paths;
pub mod raw;
mod tar;
mod whiteouts;

pub use expect::{Expect, Node, What};

use windlass_core::digest::Digest;

use raw::{Tar, gzip};

/// Media type of a gzip layer.
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a zstd layer.
pub const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Media type of a layer without compression.
pub const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// One layer as it is stored and described.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its bytes.
    pub blob: Vec<u8>,
    /// What its descriptor says.
    pub media_type: &'static str,
    /// What the image's config says. Not always the truth.
    pub diff_id: Digest,
}

impl Layer {
    /// A layer of this tar, gzip-compressed, described truthfully.
    pub fn of_tar(tar: &[u8]) -> Layer {
        Layer { blob: gzip(tar), media_type: GZIP, diff_id: Digest::sha256(tar) }
    }
}

/// One case: an image's layers, lowest first, and what has to come of applying them.
#[derive(Clone, Debug)]
pub struct Case {
    /// A name that says what it does.
    pub id: &'static str,
    /// What is odd about it, with the advisory where there is one.
    pub description: &'static str,
    /// The layers; the last one is the odd one.
    pub layers: Vec<Layer>,
    /// Outcome.
    pub expect: Expect,
}

/// A list of cases being written.
#[derive(Debug, Default)]
pub(crate) struct Cases(Vec<Case>);

impl Cases {
    /// One layer that is refused with this class.
    fn refuse(&mut self, id: &'static str, description: &'static str, tar: Tar, class: &'static str) {
        self.push(id, description, vec![Layer::of_tar(&tar.end())], Expect::Refuse(class));
    }

    /// One layer and the tree it gives.
    fn apply(&mut self, id: &'static str, description: &'static str, tar: Tar, tree: Vec<Node>) {
        self.push(id, description, vec![Layer::of_tar(&tar.end())], Expect::Apply(tree));
    }

    /// Two layers and the tree they give.
    fn stack(&mut self, id: &'static str, description: &'static str, lower: Tar, upper: Tar, tree: Vec<Node>) {
        let layers = vec![Layer::of_tar(&lower.end()), Layer::of_tar(&upper.end())];
        self.push(id, description, layers, Expect::Apply(tree));
    }

    /// Two layers of which the upper one is refused.
    fn stack_refused(
        &mut self,
        id: &'static str,
        description: &'static str,
        lower: Tar,
        upper: Tar,
        class: &'static str,
    ) {
        let layers = vec![Layer::of_tar(&lower.end()), Layer::of_tar(&upper.end())];
        self.push(id, description, layers, Expect::Refuse(class));
    }

    fn push(&mut self, id: &'static str, description: &'static str, layers: Vec<Layer>, expect: Expect) {
        self.0.push(Case { id, description, layers, expect });
    }
}

/// A directory that lies outside of every root, and whose content no layer may touch: symbolic links and names of the
/// cases lead there. The caller makes it with a file `file` in it and compares it afterwards.
pub const SENTINEL: &str = "/tmp/windlass-sentinel";

/// All cases.
pub fn layers() -> Vec<Case> {
    let mut cases = Cases::default();
    links::symbolic(&mut cases);
    links::hard(&mut cases);
    paths::cases(&mut cases);
    whiteouts::cases(&mut cases);
    content::cases(&mut cases);
    tar::cases(&mut cases);
    compression::cases(&mut cases);
    cases.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn case_names_are_unique() {
        let cases = super::layers();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.id).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.len() >= 150, "{}", cases.len());
    }
}
