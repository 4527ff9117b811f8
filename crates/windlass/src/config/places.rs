//! Where configuration and data are for root and for everybody else.
//!
//! Source: XDG base directory specification; relative values of its variables are ignored, as it says.

use std::path::PathBuf;

/// The system's configuration file.
const SYSTEM_CONFIG: &str = "/etc/windlass/config.yaml";

/// Whether this process is root: the store and the configuration are then the machine's.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `/var/lib/windlass`, or `$XDG_DATA_HOME/windlass` for an ordinary user.
pub(crate) fn default_root() -> PathBuf {
    if is_root() { "/var/lib/windlass".into() } else { user_folder("XDG_DATA_HOME", ".local/share").join("windlass") }
}

/// `/etc/windlass/config.yaml`, or `$XDG_CONFIG_HOME/windlass/config.yaml` for an ordinary user.
pub(crate) fn default_config() -> PathBuf {
    if is_root() {
        SYSTEM_CONFIG.into()
    } else {
        user_folder("XDG_CONFIG_HOME", ".config").join("windlass/config.yaml")
    }
}

/// `/run/windlass/windlass.sock`, or below `$XDG_RUNTIME_DIR` for an ordinary user.
pub(crate) fn default_socket() -> PathBuf {
    const BELOW_RUN: &str = "windlass/windlass.sock";
    let given = || std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    if is_root() { None } else { given() }.unwrap_or_else(|| "/run".into()).join(BELOW_RUN)
}

/// Ours first, then containerd's.
pub(crate) fn default_hosts_dirs() -> Vec<PathBuf> {
    vec!["/etc/windlass/certs.d".into(), "/etc/containerd/certs.d".into()]
}

fn user_folder(variable: &str, below_home: &str) -> PathBuf {
    let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    given.or_else(|| home().map(|home| home.join(below_home))).unwrap_or_else(|| PathBuf::from("/nonexistent"))
}
