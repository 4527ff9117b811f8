//! Puts a layer right that was unpacked without the layers below, once those are there.
//!
//! | noted | the layers below have | then |
//! | --- | --- | --- |
//! | a directory without an entry | a directory | it takes its owner, mode, times and attributes, as overlayfs's copy-up does |
//! | | a link | extract again with them: what lies below it belongs elsewhere |
//! | | something else or nothing | it stays as it is; only for whiteouts: it goes |
//! | a whiteout | that name | it stays |
//! | | nothing of that name | it goes: overlayfs would list it in a directory that is not merged |
//! | an opaque root | names | each gets a whiteout, or an opaque mark: overlayfs has no opaque root |
//!
//! The table is carried out here, once; what it asks of a layer is an [`Own`], of which each form has one. Settling
//! twice changes nothing the second time.
//!
//! Invariants: `any_stack_equals_layers_applied_one_after_the_other`; `hostile_layers_are_refused_or_applied_safely` (no whiteout shows).

use super::Settled;
use super::below::{Below, Lower};
use super::error::{Failed, LayerError};
use super::needs::{Implicit, Needs};
use super::rules::{Meta, Rules, split};

/// A layer that is being settled. Paths are cleaned and lead over no links; a name that is not there is no error.
pub(super) trait Own {
    /// Whether a directory stands at a path; if so, whether it or one above it hides what the layers below have.
    fn hides_below(&mut self, dir: &[u8]) -> Result<Option<bool>, Failed>;

    /// Removes what stands under a name if it is a whiteout. The times of its directory stay.
    fn remove_whiteout(&mut self, path: &[u8]) -> Result<(), Failed>;

    /// Gives a directory owner, mode, times and extended attributes; none if there is no directory.
    fn give(&mut self, dir: &[u8], meta: &Meta) -> Result<(), Failed>;

    /// Removes a directory if it is empty, and then, if wanted, puts a whiteout in its place. The times of the
    /// directory it stands in stay.
    fn remove_empty(&mut self, dir: &[u8], leave: Leave) -> Result<(), Failed>;

    /// Hides a name of the root from the layers below: a directory becomes opaque, where nothing stands comes a
    /// whiteout, all else hides by itself. The times of the root stay.
    fn hide(&mut self, name: &[u8]) -> Result<(), Failed>;
}

/// What stays of a removed directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Nothing,
    Whiteout,
}

/// Carries the table out on a layer.
pub(super) fn carry_out(
    own: &mut dyn Own,
    needs: &Needs,
    below: &mut Below,
    rules: &Rules<'_>,
) -> Result<Settled, LayerError> {
    if needs.redo {
        return Ok(Settled::Redo);
    }
    if !needs.stacked {
        for path in needs.implicit.keys() {
            // Whether this layer hides the link does not matter: what went through it may have come before.
            if let Lower::Symlink(..) = below.find(path).map_err(|failed| failed.at(path))? {
                return Ok(Settled::Redo);
            }
        }
    }
    let mut settling = Settling { own, below, rules, root_opaque: needs.root_opaque };
    if needs.root_opaque {
        settling.hide_root().map_err(|failed| failed.at(b"/"))?;
    }
    for path in &needs.whiteouts {
        settling.whiteout(path).map_err(|failed| failed.at(path))?;
    }
    // Deepest first, so that a directory made for whiteouts only is empty when its turn comes.
    for (path, implicit) in needs.implicit.iter().rev() {
        settling.implicit(path, *implicit).map_err(|failed| failed.at(path))?;
    }
    Ok(Settled::Done)
}

struct Settling<'a, 'r> {
    own: &'a mut dyn Own,
    below: &'a mut Below,
    rules: &'a Rules<'r>,
    root_opaque: bool,
}

impl Settling<'_, '_> {
    /// What the layers below show at a path of this layer: nothing where this layer hides it.
    fn lower(&mut self, path: &[u8]) -> Result<Lower, Failed> {
        match self.own.hides_below(split(path).0)? {
            // Missing: removed again while unpacking.
            None | Some(true) => Ok(Lower::Absent),
            Some(false) => self.below.find(path),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Failed> {
        match self.lower(path)? {
            Lower::Absent => self.own.remove_whiteout(path),
            Lower::Directory(_) | Lower::Symlink(..) | Lower::Other(_) => Ok(()),
        }
    }

    fn implicit(&mut self, path: &[u8], implicit: Implicit) -> Result<(), Failed> {
        if implicit.described {
            return Ok(());
        }
        // In an opaque root the names themselves are gone.
        let hidden = self.root_opaque && !path.is_empty();
        let lower = if hidden { Lower::Absent } else { self.lower(path)? };
        match lower {
            Lower::Directory(merged) => self.own.give(path, &merged.meta(self.rules)?),
            Lower::Absent | Lower::Symlink(..) | Lower::Other(_) if implicit.for_whiteouts && !path.is_empty() => {
                // In an opaque root the directory itself hid one below.
                let hides =
                    self.root_opaque && split(path).0.is_empty() && !matches!(self.below.find(path)?, Lower::Absent);
                self.own.remove_empty(path, if hides { Leave::Whiteout } else { Leave::Nothing })
            }
            Lower::Absent | Lower::Symlink(..) | Lower::Other(_) => Ok(()),
        }
    }

    /// Hides every name of the layers' roots below, since overlayfs always merges the roots.
    fn hide_root(&mut self) -> Result<(), Failed> {
        let Lower::Directory(lower) = self.below.find(b"")? else { return Ok(()) };
        let mut names = Vec::new();
        lower.names(&mut |name| names.push(name.to_vec()))?;
        for name in names {
            if !matches!(self.below.find(&name)?, Lower::Absent) {
                self.own.hide(&name)?;
            }
        }
        Ok(())
    }
}
