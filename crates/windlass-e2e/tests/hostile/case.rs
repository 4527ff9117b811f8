//! One list of cases out of the test kit's layers and documents and our own archives.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;
use windlass_core::reason::Reason;
use windlass_e2e::world::World;
use windlass_testkit::documents::{self, Expect as Documents};
use windlass_testkit::hostile::{self, Expect as Layers};
use windlass_testkit::images::{Bundle, Content, Family};
use windlass_testkit::registry::TestRegistry;

use super::Way;
use super::archives::{self, Archive};

/// What must come of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit status 0.
    Accepted,
    /// One of these classes of error.
    Refused(Vec<&'static str>),
    /// Either; only safety counts.
    Safe,
}

/// What is odd.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// Content, which is the same in a registry and in a layout.
    Content {
        bundle: Bundle,
        /// Whether a layout says about the root what a registry says: only then is the class the same.
        is_same_in_layout: bool,
    },
    /// The form around the content.
    Archive(Archive),
}

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) subject: Subject,
    outcome: Outcome,
    /// Names that an unpacked tree has; `None` where that is not said.
    paths: Option<BTreeSet<Vec<u8>>>,
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    let layers = hostile::layers().into_iter().map(of_layers);
    let documents = documents::cases().into_iter().map(of_document);
    let archives = archives::cases().into_iter().map(|(id, archive, outcome)| Case {
        id: id.to_owned(),
        subject: Subject::Archive(archive),
        outcome,
        paths: None,
    });
    let cases: Vec<Case> = layers.chain(documents).chain(archives).collect();
    let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.len(), cases.len(), "names are unique");
    cases
}

fn of_layers(case: hostile::Case) -> Case {
    let (outcome, paths) = match &case.expect {
        Layers::Refuse(class) => (Outcome::Refused(vec![class]), None),
        Layers::Apply(nodes) => {
            let paths = nodes.iter().map(|node| node.path.clone()).filter(|path| !path.is_empty()).collect();
            (Outcome::Accepted, Some(paths))
        }
    };
    let blobs: Vec<Content> =
        case.layers.iter().map(|layer| Content::new(layer.media_type, layer.blob.clone())).collect();
    let diff_ids: Vec<&str> = case.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = Content::json(Family::Oci.config(), &config);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": Family::Oci.manifest(), "config": config.descriptor(),
        "layers": blobs.iter().map(Content::descriptor).collect::<Vec<_>>(),
    });
    let root = Content::json(Family::Oci.manifest(), &manifest);
    let bundle = Bundle { root, manifests: Vec::new(), blobs: blobs.into_iter().chain([config]).collect() };
    Case { id: case.id.to_owned(), subject: Subject::Content { bundle, is_same_in_layout: true }, outcome, paths }
}

fn of_document(case: documents::Case) -> Case {
    let outcome = match case.expect {
        Documents::Accepted => Outcome::Accepted,
        Documents::Refused(reasons) => Outcome::Refused(reasons.iter().map(|reason| reason.class()).collect()),
    };
    // In a layout the type stands in a descriptor, which has its own rules.
    let known = [Family::Oci.manifest(), Family::Oci.index(), Family::Docker.manifest(), Family::Docker.index()];
    let is_same_in_layout = known.contains(&case.bundle.root.media_type.as_str());
    let subject = Subject::Content { bundle: case.bundle, is_same_in_layout };
    Case { id: case.id.to_owned(), subject, outcome, paths: None }
}

impl Case {
    /// The ways it can go.
    pub(crate) fn ways(&self) -> &'static [Way] {
        match &self.subject {
            Subject::Content { .. } => &[Way::Unpack, Way::Load, Way::Pull],
            Subject::Archive(_) => &[Way::Unpack, Way::Load],
        }
    }

    /// What must come of it this way.
    pub(crate) fn outcome(&self, way: Way) -> Outcome {
        match (&self.subject, way) {
            (Subject::Content { is_same_in_layout: false, .. }, Way::Unpack | Way::Load) => Outcome::Safe,
            // What one descriptor may not say is refused in a layout's index already.
            (Subject::Content { .. }, Way::Unpack | Way::Load) => match &self.outcome {
                Outcome::Refused(classes) => {
                    let missing = [Reason::BlobMissing.class()];
                    let not_found = classes.contains(&Reason::NotFound.class());
                    Outcome::Refused(classes.iter().copied().chain(missing.into_iter().filter(|_| not_found)).collect())
                }
                Outcome::Accepted | Outcome::Safe => self.outcome.clone(),
            },
            (Subject::Content { .. }, Way::Pull) | (Subject::Archive(_), _) => self.outcome.clone(),
        }
    }

    /// Names that an unpacked tree has, where that is known.
    pub(crate) fn paths(&self) -> Option<&BTreeSet<Vec<u8>>> {
        self.paths.as_ref()
    }

    /// Puts it into a registry, if that is a way for it.
    pub(crate) fn place(&self, registry: &TestRegistry, number: usize) -> Option<String> {
        match &self.subject {
            Subject::Content { bundle, .. } => Some(registry.place(bundle, &format!("cases/n{number}"), "v1")),
            Subject::Archive(_) => None,
        }
    }

    /// Writes it down in a folder; says how the command line calls it.
    pub(crate) fn write(&self, folder: &Path, world: &World) -> String {
        match &self.subject {
            Subject::Content { bundle, .. } => {
                bundle.write_layout(folder, "v1");
                own_all(folder, world);
                format!("oci:{}", folder.display())
            }
            Subject::Archive(archive) => {
                let source = archive.write(folder);
                own_all(folder, world);
                source
            }
        }
    }
}

/// Gives a folder and all in it to the machine's user. Links are not followed.
fn own_all(folder: &Path, world: &World) {
    world.own(folder);
    for entry in std::fs::read_dir(folder).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            own_all(&entry.path(), world);
        } else if !kind.is_symlink() {
            world.own(&entry.path());
        }
    }
}
