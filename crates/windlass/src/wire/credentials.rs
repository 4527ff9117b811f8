//! Where the credentials of this run come from, beside the pods' secrets.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_core::keyring::Mode;
use windlass_core::reason::Reason;
use windlass_credentials::{
    Builder, CredentialSources, HelperPolicy, NodePlaces, Person, PluginSettings, TrustedOwner, WhichHelpers,
};

use super::{chain, clouds};
use crate::config::node::Node;
use crate::failure::Failure;

/// Where a kubelet keeps its files.
const KUBELET_ROOT: &str = "/var/lib/kubelet";

/// Whose credentials a command uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of the person who runs it: docker's and podman's places, or `--authfile`.
    Person,
    /// Those of the node, searched as a kubelet does; where the rules are our own, the person's come after them.
    Node(Mode),
    /// None but what the pods bring.
    Nobody,
}

/// The sources. A configuration of providers is read, so that what is wrong with it is told before anything else.
pub(crate) fn sources(node: &Node, whose: Whose) -> Result<Arc<CredentialSources>, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let builder = CredentialSources::builder();
    let builder = match whose {
        Whose::Nobody => return Ok(Arc::new(builder.build())),
        Whose::Person => builder,
        Whose::Node(_) => {
            let root = node.general.kubelet_root.clone().unwrap_or_else(|| PathBuf::from(KUBELET_ROOT));
            builder.node(NodePlaces::kubelet(&root, None, home.as_deref()))
        }
    };
    let builder = programs(builder, node)?;
    if whose == Whose::Node(Mode::Kubelet) {
        return ready(builder);
    }
    let builder = match &node.general.authfile {
        Some(file) => builder.authfile(file),
        None => builder.person(Person::from_environment()),
    };
    ready(clouds::add(builder, node)?.helpers(persons_helpers(home)))
}

fn ready(builder: Builder) -> Result<Arc<CredentialSources>, Failure> {
    let sources = builder.build();
    sources.reload().map_err(|error| {
        Failure::new(error.reason(), "the credential providers cannot be used", chain(error.as_ref()))
            .hint("correct what credentials.providerConfig names; a kubelet would not start with it either")
    })?;
    Ok(Arc::new(sources))
}

/// Programs that are asked as a kubelet asks them.
fn programs(builder: Builder, node: &Node) -> Result<Builder, Failure> {
    let logins = &node.logins;
    let builder = match &logins.service_account_tokens {
        Some(directory) => builder.service_account_tokens(directory),
        None => builder,
    };
    match (&logins.provider_config, &logins.provider_bin_dir) {
        (Some(config), Some(programs)) => Ok(builder.plugins(PluginSettings::new(config, programs))),
        (None, None) => Ok(builder),
        (Some(_), None) | (None, Some(_)) => {
            let why = "credentials.providerConfig and credentials.providerBinDir are set together or not at all";
            Err(Failure::new(Reason::InvalidConfig, "the credential providers cannot be used", why))
        }
    }
}

/// A person's own configuration may name any helper; the programs are root's or the person's.
fn persons_helpers(home: Option<PathBuf>) -> HelperPolicy {
    let path = std::env::var_os("PATH").unwrap_or_default();
    HelperPolicy {
        which: WhichHelpers::AnyNamed,
        directories: std::env::split_paths(&path).filter(|directory| directory.is_absolute()).collect(),
        owner: TrustedOwner::RootOrSelf,
        environment: home.map(|home| ("HOME".into(), home.into())).into_iter().collect(),
        ..HelperPolicy::default()
    }
}
