//! What is written down of a snapshot.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;

use super::Labels;
use super::{SnapshotInfo, SnapshotKind};
use crate::image::Usage;

/// A snapshot that a container runtime knows. Key: its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuntimeRecord {
    /// Name of the snapshot below. First, and always there: see [`RuntimeRecord::beginning`].
    pub(crate) parent: Option<String>,
    pub(crate) state: State,
    #[serde(skip_serializing_if = "Labels::is_empty", default)]
    pub(crate) labels: Labels,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// What a snapshot is, and where its content stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum State {
    /// Writable, in a directory of its own.
    Active { dir: u64 },
    /// Read-only; with a directory of its own, which stays empty, where it has no parent.
    View {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        dir: Option<u64>,
    },
    /// Committed: a layer of the store.
    Layer { chain: Digest },
    /// Committed: content that the runtime wrote, in a directory of its own.
    Own {
        dir: u64,
        /// The layer it says it is.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        chain: Option<Digest>,
        size_bytes: u64,
        inodes: u64,
    },
}

impl State {
    pub(crate) fn kind(&self) -> SnapshotKind {
        match self {
            State::Active { .. } => SnapshotKind::Active,
            State::View { .. } => SnapshotKind::View,
            State::Layer { .. } | State::Own { .. } => SnapshotKind::Committed,
        }
    }

    /// The directory that belongs to the snapshot alone.
    pub(crate) fn dir(&self) -> Option<u64> {
        match self {
            State::Active { dir } | State::Own { dir, .. } => Some(*dir),
            State::View { dir } => *dir,
            State::Layer { .. } => None,
        }
    }

    /// What is written down of the room it takes by itself. Layers of the store are counted where they are recorded.
    pub(crate) fn recorded_usage(&self) -> Usage {
        match self {
            State::Own { size_bytes, inodes, .. } => Usage { used_bytes: *size_bytes, inodes: *inodes },
            State::Layer { .. } | State::Active { .. } | State::View { .. } => Usage::default(),
        }
    }

    /// The layer it is, with all that is below, where that is known.
    pub(crate) fn chain(&self) -> Option<&Digest> {
        match self {
            State::Layer { chain } => Some(chain),
            State::Own { chain, .. } => chain.as_ref(),
            State::Active { .. } | State::View { .. } => None,
        }
    }
}

impl RuntimeRecord {
    pub(crate) fn new(parent: Option<&str>, state: State, labels: Labels) -> RuntimeRecord {
        let now = Timestamp::now();
        RuntimeRecord { parent: parent.map(str::to_owned), state, labels, created: now, updated: now }
    }

    /// How the value of every child of `parent` begins: children are found without decoding anything.
    pub(crate) fn beginning(parent: &str) -> String {
        format!("{{\"parent\":{},", serde_json::Value::from(parent))
    }

    pub(super) fn info(self, name: String) -> SnapshotInfo {
        SnapshotInfo {
            name,
            parent: self.parent,
            kind: self.state.kind(),
            labels: self.labels,
            created: self.created,
            updated: self.updated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_children_begin_with_their_parent() {
        let parent = "k8s.io/1/a \"quoted\" \\ name ünd more";
        let bytes = |parent: Option<&str>| {
            serde_json::to_string(&RuntimeRecord::new(parent, State::Active { dir: 1 }, Labels::new())).unwrap()
        };
        assert!(bytes(Some(parent)).starts_with(&RuntimeRecord::beginning(parent)));
        assert!(!bytes(Some(&format!("{parent}s"))).starts_with(&RuntimeRecord::beginning(parent)));
        assert!(!bytes(None).starts_with(&RuntimeRecord::beginning("null")));
    }
}
