//! The Kubernetes programs that tests of a real node need: kube-apiserver, kube-controller-manager and kubelet.
//!
//! `KUBE_BIN` names the folder they are in. Where a script beside this repository can build them, `ci` runs it when they
//! are not there yet; it installs what it needs, so it wants root and Debian, and takes some minutes once.

use std::path::PathBuf;

use anyhow::Context;

use crate::say;
use crate::shell::{command, root, run, target};
use crate::tools;

/// What tests start.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubelet"];
/// The variable with the folder's name.
pub(crate) const VARIABLE: &str = "KUBE_BIN";

/// The folder that `KUBE_BIN` names, if it has the programs; says so when it does not.
pub(crate) fn given() -> Option<PathBuf> {
    let folder = std::env::var_os(VARIABLE).map(PathBuf::from);
    let found = folder.filter(|folder| are_in(folder));
    if found.is_none() {
        say(&format!("skipped: tests of a real Kubernetes node ({VARIABLE} names no folder with {PROGRAMS:?})"));
    }
    found
}

/// The same; where the folder does not have them, or none is named, they are built if that is possible here.
///
/// `script`, seen from the root, builds into the folder that `BIN` names, within a folder that `WORK` names.
pub(crate) fn given_or_built(script: &str) -> anyhow::Result<Option<PathBuf>> {
    let folder = match std::env::var_os(VARIABLE) {
        Some(named) => PathBuf::from(named),
        None => target()?.join("kube"),
    };
    let script = root().join(script);
    if !are_in(&folder) && script.is_file() && tools::may_install() {
        let work = target()?.join("kube-build");
        run(command(script).env("BIN", &folder).env("WORK", &work))?;
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    Ok(if are_in(&folder) { Some(folder) } else { given() })
}

fn are_in(folder: &std::path::Path) -> bool {
    PROGRAMS.iter().all(|program| folder.join(program).is_file())
}
