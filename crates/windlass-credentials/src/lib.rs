//! Credential sources that do IO: configuration files, helpers, provider plugins and the clouds.
//!
//! In: where to look ([`Builder`]), a reference, the pod's pull secrets. Out: a [`Lookup`], the candidates in the
//! kubelet's order (what was given, pull secrets, explicit files, the node's file, a person's files, plugins, clouds), and a
//! report of everything that was passed over. The rules themselves are in `windlass_core::keyring` and `dockerconfig`.
//!
//! Invariants: `sources_come_in_the_kubelet_s_order`, `the_first_node_file_wins`, `a_changed_file_is_read_again`,
//! `no_secret_shows_anywhere`, `a_hanging_helper_and_its_children_are_killed`.
#![forbid(unsafe_code)]

mod accounts;
mod builder;
pub mod cloud;
mod file;
mod helper;
mod lookup;
mod places;
mod plugin;
mod process;
mod provider;
mod providers;
pub mod serve;
mod source;
mod sources;

pub use accounts::{ServiceAccount, TokenDirectory, TokenError};
pub use builder::Builder;
pub use file::{FileError, MAX_FILE_BYTES};
pub use helper::{
    HELPER_CACHE, HELPER_OUTPUT_BYTES, HELPER_TIMEOUT, HelperError, HelperPolicy, Helpers, TrustedOwner, WhichHelpers,
};
pub use lookup::{
    Asked, CachedLogin, CredentialsError, Lookup, Matched, ProviderKind, ProviderNote, ProviderState, RefusedOutcome,
};
pub use places::{NodePlaces, Person};
pub use plugin::{PluginConfigError, PluginError, PluginSettings, ProviderConfigState, Reloaded, read_provider_files};
pub use provider::{Answering, Provider, ProviderError, ProviderRequest, ServiceAccountToken};
pub use providers::BuiltIn;
pub use source::Source;
pub use sources::{Asker, CredentialSources};
