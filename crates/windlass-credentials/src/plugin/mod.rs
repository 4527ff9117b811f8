//! Exec plugins: programs that a `CredentialProviderConfig` names, as a kubelet runs them.
//!
//! In: a configuration, one file or a directory of files, and the directory of programs. Out: providers that are asked by
//! [`crate::providers`]. Source of truth: kubernetes `pkg/credentialprovider/plugin`.
//!
//! Invariants (`tests/plugins.rs`): `a_bad_configuration_tells_every_problem`, `reload_keeps_the_old_configuration`,
//! `a_hanging_plugin_and_its_children_are_killed`, `no_secret_of_a_plugin_shows`.

mod exec;
mod load;
mod set;

pub(crate) use exec::ExecPlugin;
pub use exec::PluginError;
pub use load::{PluginConfigError, PluginSettings, read_provider_files};
pub(crate) use set::PluginSet;
pub use set::{ProviderConfigState, Reloaded};
