//! What snapshots of a container runtime need of the store: asked by those who collect, unmount, convert and check.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::digest::Digest;

use super::record::{RuntimeRecord, State};

/// Layers that records stand for: they are not collected.
pub(crate) fn recorded_chains<'a>(
    records: impl IntoIterator<Item = (&'a String, &'a RuntimeRecord)>,
) -> BTreeSet<String> {
    let chains = records.into_iter().filter_map(|(_, record)| match &record.state {
        State::Layer { chain } => Some(chain.to_string()),
        State::Active { .. } | State::View { .. } | State::Own { .. } => None,
    });
    chains.collect()
}

/// Layers under active snapshots and views, each with the name of one of those: they are mounted, or about to be.
pub(crate) fn used_chains(records: &[(String, RuntimeRecord)]) -> BTreeMap<Digest, String> {
    let by_name: BTreeMap<&str, &RuntimeRecord> =
        records.iter().map(|(name, record)| (name.as_str(), record)).collect();
    let mut used = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (name, record) in records {
        match record.state {
            State::Active { .. } | State::View { .. } => {}
            State::Layer { .. } | State::Own { .. } => continue,
        }
        let mut next = record.parent.as_deref();
        while let Some(parent) = next.filter(|parent| seen.insert(*parent)) {
            let Some(below) = by_name.get(parent) else { break };
            if let State::Layer { chain } = &below.state {
                used.entry(chain.clone()).or_insert_with(|| name.clone());
            }
            next = below.parent.as_deref();
        }
    }
    used
}
