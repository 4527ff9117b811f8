//! Where the credentials of this run come from, beside the pods' secrets.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_core::keyring::Mode;
use windlass_credentials::{CredentialSources, HelperPolicy, NodePlaces, Person, TrustedOwner, WhichHelpers};

use crate::config::node::Node;

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

/// The sources; nothing is read yet.
pub(crate) fn sources(node: &Node, whose: Whose) -> Arc<CredentialSources> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let builder = CredentialSources::builder();
    let builder = match whose {
        Whose::Nobody => return Arc::new(builder.build()),
        Whose::Person => builder,
        Whose::Node(_) => {
            let root = node.general.kubelet_root.clone().unwrap_or_else(|| PathBuf::from(KUBELET_ROOT));
            builder.node(NodePlaces::kubelet(&root, None, home.as_deref()))
        }
    };
    if whose == Whose::Node(Mode::Kubelet) {
        return Arc::new(builder.build());
    }
    let builder = match &node.general.authfile {
        Some(file) => builder.authfile(file),
        None => builder.person(Person::from_environment()),
    };
    Arc::new(builder.helpers(persons_helpers(home)).build())
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
