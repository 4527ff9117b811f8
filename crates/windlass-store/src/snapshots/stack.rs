//! What a snapshot stands on: its parents' records, each resolved to the directory or layer that has its content.

use windlass_core::digest::Digest;

use super::SnapshotError;
use super::record::{RuntimeRecord, State};
use crate::layers;
use crate::layout::Layout;
use crate::meta::Look;
use crate::meta::record::{Form, SnapshotRecord};

/// Most snapshots one on top of the other: the kernel's own limit for an overlay (`OVL_MAX_STACK`).
const LEVELS_MAX: usize = 500;

/// One level.
#[derive(Clone, Debug)]
pub(super) enum Level {
    /// A layer of the store.
    Layer(Digest, SnapshotRecord),
    /// A directory of the runtime's own.
    Own(u64),
}

/// The parent of a snapshot to be: it must be committed.
pub(super) fn parent(tx: &impl Look, name: &str) -> Result<RuntimeRecord, SnapshotError> {
    let record = tx.look::<RuntimeRecord>(name)?.ok_or_else(|| SnapshotError::not_found(name))?;
    match record.state {
        State::Layer { .. } | State::Own { .. } => Ok(record),
        State::Active { .. } | State::View { .. } => {
            Err(SnapshotError::invalid(format!("parent {name} is not committed")))
        }
    }
}

/// What lies below a snapshot with this parent, topmost first.
pub(super) fn below(tx: &impl Look, name: Option<&str>) -> Result<Vec<Level>, SnapshotError> {
    let mut levels = Vec::new();
    let mut next = name.map(str::to_owned);
    while let Some(name) = next {
        if levels.len() == LEVELS_MAX {
            return Err(SnapshotError::refused(format!("more than {LEVELS_MAX} layers: the kernel mounts no more")));
        }
        let record = parent(tx, &name)?;
        levels.push(match record.state {
            State::Layer { chain } => {
                let layer = layer(tx, &chain)?.ok_or_else(|| {
                    SnapshotError::refused(format!("layer {chain} of snapshot {name} is gone: pull its image again"))
                })?;
                Level::Layer(chain, layer)
            }
            State::Own { dir, .. } => Level::Own(dir),
            State::Active { .. } | State::View { .. } => {
                return Err(SnapshotError::invalid(format!("parent {name} is not committed")));
            }
        });
        next = record.parent;
    }
    Ok(levels)
}

/// Whether a layer is here, and where it belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It is not here, or not whole.
    No,
    /// It is here and belongs on this parent.
    Here,
    /// It is here and belongs on this layer, or on nothing, which the parent is not.
    OnAnother(Option<Digest>),
}

/// Looks for a layer that is to stand on the committed snapshot of this name.
pub(super) fn held(
    tx: &impl Look,
    layout: &Layout,
    chain: &Digest,
    parent_name: Option<&str>,
) -> Result<Held, SnapshotError> {
    let below = parent_name.map(|name| parent(tx, name)).transpose()?;
    let Some(layer) = layer(tx, chain)?.filter(|layer| layers::stands(layout, layer)) else { return Ok(Held::No) };
    let is_right = match (&below, &layer.parent) {
        (None, None) => true,
        (Some(below), Some(wanted)) => below.state.chain() == Some(wanted),
        (None, Some(_)) | (Some(_), None) => false,
    };
    Ok(if is_right { Held::Here } else { Held::OnAnother(layer.parent) })
}

/// A layer that containers can stand on: one that an ordinary user unpacked has the wrong owners.
pub(super) fn layer(tx: &impl Look, chain: &Digest) -> Result<Option<SnapshotRecord>, SnapshotError> {
    let record = tx.look::<SnapshotRecord>(chain.as_str())?;
    Ok(record.filter(|record| match record.form {
        Form::Directory | Form::Erofs => true,
        Form::UserDirectory => !rustix::process::geteuid().is_root(),
    }))
}
