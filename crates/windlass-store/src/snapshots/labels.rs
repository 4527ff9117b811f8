//! Names and labels as containerd gives them: bounded, and otherwise none of our business.
//!
//! Invariants: `labels_and_names_are_bounded`, `an_update_changes_what_its_mask_names`.

use std::collections::BTreeMap;

use windlass_core::digest::{Algorithm, Digest};

use super::SnapshotError;

/// Labels of a snapshot.
pub type Labels = BTreeMap<String, String>;

/// The label by which containerd names the layer that a snapshot is to hold: its chain ID (containerd
/// `core/snapshots/snapshotter.go`, `LabelSnapshotRef`).
pub(super) const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";

/// Most bytes of a label, key and value together. containerd: `maxSize` of `pkg/labels`.
const LABEL_MAX_BYTES: usize = 4096;
/// Most labels of one snapshot: containerd gives a handful.
const LABELS_MAX: usize = 256;
/// Longest name. containerd's own are some 150 bytes, those of other clients with them in front.
const NAME_MAX_BYTES: usize = 1024;

/// Which labels an update is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelMask {
    /// All: those that are not given go.
    All,
    /// These keys: one that is not given, or is given empty, goes; all others stay.
    Keys(Vec<String>),
}

impl LabelMask {
    /// The labels after an update. Empty values are no labels, as in containerd.
    pub(super) fn apply(&self, old: &Labels, given: &Labels) -> Labels {
        match self {
            LabelMask::All => without_empty(given),
            LabelMask::Keys(keys) => {
                let mut labels = old.clone();
                for key in keys {
                    match given.get(key).filter(|value| !value.is_empty()) {
                        Some(value) => drop(labels.insert(key.clone(), value.clone())),
                        None => drop(labels.remove(key)),
                    }
                }
                labels
            }
        }
    }
}

/// Labels as they are kept.
pub(super) fn without_empty(labels: &Labels) -> Labels {
    labels.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Refuses labels that are too large or too many.
pub(super) fn check(labels: &Labels) -> Result<(), SnapshotError> {
    if labels.len() > LABELS_MAX {
        return Err(SnapshotError::invalid(format!("{} labels, at most {LABELS_MAX} are kept", labels.len())));
    }
    match labels.iter().find(|(key, value)| key.is_empty() || key.len() + value.len() > LABEL_MAX_BYTES) {
        Some((key, _)) => {
            let key: String = key.chars().take(64).collect();
            Err(SnapshotError::invalid(format!("label {key:?} is empty or longer than {LABEL_MAX_BYTES} bytes")))
        }
        None => Ok(()),
    }
}

/// Refuses what cannot be a snapshot's name.
pub(super) fn check_name(name: &str) -> Result<(), SnapshotError> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(SnapshotError::invalid(format!("a snapshot's name has 1 to {NAME_MAX_BYTES} bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err(SnapshotError::invalid("a snapshot's name has no control characters"));
    }
    Ok(())
}

/// The layer that labels speak of.
pub(super) fn wanted_chain(labels: &Labels) -> Option<Digest> {
    labels.get(SNAPSHOT_REF).and_then(|text| chain(text))
}

/// The layer that a name speaks of: containerd commits a layer as `<namespace>/<number>/<chain ID>`.
pub(super) fn chain_in_name(name: &str) -> Option<Digest> {
    chain(name.rsplit('/').next()?)
}

/// Chain IDs are SHA-256 (image-spec `config.md`, "Layer ChainID").
fn chain(text: &str) -> Option<Digest> {
    Digest::parse(text).ok().filter(|digest| digest.algorithm() == Algorithm::Sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_and_names_are_bounded() {
        let (most, more) = ("v".repeat(LABEL_MAX_BYTES - 1), "v".repeat(LABEL_MAX_BYTES));
        check(&labels(&[("k", &most)])).unwrap();
        check(&labels(&[("k", &more)])).unwrap_err();
        check(&labels(&[("", "v")])).unwrap_err();
        let many: Labels = (0..=LABELS_MAX).map(|n| (n.to_string(), "v".to_owned())).collect();
        check(&many).unwrap_err();
        let longest = "n".repeat(NAME_MAX_BYTES);
        for (name, is_fine) in [
            ("k8s.io/12/extract-163-x8Zq sha256:aa", true),
            (longest.as_str(), true),
            ("", false),
            (&format!("{longest}n"), false),
            ("a\nb", false),
            ("a\0b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), is_fine, "{name:?}");
        }
    }

    #[test]
    fn an_update_changes_what_its_mask_names() {
        let old = labels(&[("a", "1"), ("b", "2")]);
        let given = labels(&[("a", "9"), ("c", "3"), ("d", "")]);
        let keys = |keys: &[&str]| LabelMask::Keys(keys.iter().map(ToString::to_string).collect());
        let table = [
            (LabelMask::All, labels(&[("a", "9"), ("c", "3")])),
            (keys(&[]), old.clone()),
            (keys(&["a"]), labels(&[("a", "9"), ("b", "2")])),
            (keys(&["b", "c"]), labels(&[("a", "1"), ("c", "3")])),
            (keys(&["a", "d"]), labels(&[("a", "9"), ("b", "2")])),
        ];
        for (mask, want) in table {
            assert_eq!(mask.apply(&old, &given), want, "{mask:?}");
        }
    }

    #[test]
    fn only_a_chain_id_names_a_layer() {
        let chain = Digest::sha256(b"layer");
        assert_eq!(chain_in_name(&format!("k8s.io/7/{chain}")), Some(chain.clone()));
        assert_eq!(wanted_chain(&labels(&[(SNAPSHOT_REF, chain.as_str())])), Some(chain.clone()));
        for name in [format!("k8s.io/7/extract-1-a {chain}"), "k8s.io/7/abc".to_owned(), String::new()] {
            assert_eq!(chain_in_name(&name), None, "{name:?}");
        }
    }
}
