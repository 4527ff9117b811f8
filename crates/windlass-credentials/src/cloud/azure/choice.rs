//! Which identity an image is asked for with. Pure.
//!
//! In: what the operator said, the service account of the pod. Out: one [`Identity`]. A service account that vouches for
//! itself is never answered with the node's identity, whatever is missing; only images that a mirror rule sends to a registry
//! of the operator's are the node's business alone.
//! Source of truth: cloud-provider-azure `NewAcrProvider`, but a token beats a service principal.
//!
//! Invariant: `the_identity_is_chosen_by_the_table`.

use std::path::PathBuf;

use windlass_core::keyring::Credential;
use windlass_core::secret::Secret;

use super::entra::is_name;
use super::settings::{AzureSettings, Bindings};
use crate::cloud::CloudError;
use crate::provider::ServiceAccountToken;

/// The annotation with the client ID of the identity that a service account acts for.
pub const ANNOTATION_CLIENT: &str = "kubernetes.azure.com/acr-client-id";
/// The annotation with the tenant of that identity.
pub const ANNOTATION_TENANT: &str = "kubernetes.azure.com/acr-tenant-id";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The machine; of several identities it has, the one named.
    Managed(Option<ManagedId>),
    /// An application of a tenant, with its proof.
    Client(Client),
    /// A service account, over the API server's own door to Azure.
    Bound(Bound),
    /// A service principal whose secret is the login.
    AsItIs { client_id: String, secret: Secret<String> },
}

/// One of the identities that a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ManagedId {
    Client(String),
    Resource(String),
}

/// An application of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) tenant: String,
    pub(super) client_id: String,
    pub(super) proof: Proof,
}

/// How an application proves what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A token of somebody whom the application trusts.
    Assertion(Secret<String>),
    /// The same in a file that others write anew.
    AssertionFile(PathBuf),
    /// Its own secret.
    Secret(Secret<String>),
}

/// A service account with identity bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) bindings: Bindings,
    pub(super) client_id: String,
    pub(super) tenant: Option<String>,
    pub(super) assertion: Secret<String>,
}

impl Identity {
    /// The login itself, where nothing has to be asked for.
    pub(super) fn as_it_is(&self) -> Option<Credential> {
        match self {
            Identity::AsItIs { client_id, secret } => {
                Some(Credential::Basic { username: client_id.clone(), password: secret.clone() })
            }
            Identity::Managed(_) | Identity::Client(_) | Identity::Bound(_) => None,
        }
    }

    /// The tenant, where it is known.
    pub(super) fn tenant(&self) -> Option<&str> {
        match self {
            Identity::Client(client) => Some(&client.tenant),
            Identity::Bound(bound) => bound.tenant.as_deref(),
            Identity::Managed(_) | Identity::AsItIs { .. } => None,
        }
    }
}

/// Chooses.
///
/// # Errors
/// [`CloudError::NoIdentity`] and [`CloudError::Settings`] say what is missing.
pub(super) fn choose(
    settings: &AzureSettings,
    account: Option<&ServiceAccountToken>,
    is_mirrored: bool,
) -> Result<Identity, CloudError> {
    match (is_mirrored, &settings.bindings, account) {
        (true, _, _) | (false, None, None) => of_node(settings),
        (false, Some(bindings), Some(account)) => bound(bindings, account),
        (false, None, Some(account)) => federated(account),
        (false, Some(_), None) => Err(no_identity(
            "--ib-sni-name is set, but the request has no token of a service account",
            "give the plugin tokenAttributes in the kubelet's configuration",
        )),
    }
}

fn of_node(settings: &AzureSettings) -> Result<Identity, CloudError> {
    if !settings.has_file {
        return Ok(of_environment(settings));
    }
    let file = &settings.file;
    match (file.managed_identity, &file.client_id, &file.client_secret) {
        (true, _, _) => Ok(Identity::Managed(file.user_assigned.as_deref().map(managed))),
        (false, Some(client_id), Some(secret)) => {
            Ok(Identity::AsItIs { client_id: client_id.clone(), secret: secret.clone() })
        }
        (false, Some(_) | None, _) => Err(no_identity(
            "azure.json has neither useManagedIdentityExtension: true nor aadClientId with aadClientSecret",
            "set useManagedIdentityExtension to true where the machine has an identity",
        )),
    }
}

/// As Azure's libraries do it: the application's secret, then a federated token, then the machine.
fn of_environment(settings: &AzureSettings) -> Identity {
    let set = &settings.variables;
    let proof = match (&set.client_secret, &set.federated_file) {
        (Some(secret), _) => Some(Proof::Secret(secret.clone())),
        (None, Some(file)) => Some(Proof::AssertionFile(file.clone())),
        (None, None) => None,
    };
    match (&set.tenant, &set.client_id, proof) {
        (Some(tenant), Some(client_id), Some(proof)) => {
            Identity::Client(Client { tenant: tenant.clone(), client_id: client_id.clone(), proof })
        }
        (Some(_) | None, client_id, _) => Identity::Managed(client_id.clone().map(ManagedId::Client)),
    }
}

fn managed(id: &str) -> ManagedId {
    if id.to_ascii_lowercase().contains("/subscriptions/") {
        ManagedId::Resource(id.to_owned())
    } else {
        ManagedId::Client(id.to_owned())
    }
}

fn federated(account: &ServiceAccountToken) -> Result<Identity, CloudError> {
    let (client_id, tenant) = (annotation(account, ANNOTATION_CLIENT)?, annotation(account, ANNOTATION_TENANT)?);
    match (client_id, tenant) {
        (Some(client_id), Some(tenant)) => {
            let proof = Proof::Assertion(account.token.clone());
            Ok(Identity::Client(Client { tenant, client_id, proof }))
        }
        (client_id, _) => {
            let missing = if client_id.is_none() { ANNOTATION_CLIENT } else { ANNOTATION_TENANT };
            Err(no_identity(
                &format!("the service account has a token, but not the annotation {missing}"),
                "annotate the service account, and list both annotations in the plugin's tokenAttributes",
            ))
        }
    }
}

fn bound(bindings: &Bindings, account: &ServiceAccountToken) -> Result<Identity, CloudError> {
    let client_id = annotation(account, ANNOTATION_CLIENT)?.or_else(|| bindings.client_id.clone());
    let tenant = annotation(account, ANNOTATION_TENANT)?.or_else(|| bindings.tenant.clone());
    let client_id = client_id.ok_or_else(|| {
        no_identity(
            &format!("neither the annotation {ANNOTATION_CLIENT} nor --ib-default-client-id names an identity"),
            "annotate the service account",
        )
    })?;
    Ok(Identity::Bound(Bound { bindings: bindings.clone(), client_id, tenant, assertion: account.token.clone() }))
}

/// An annotation that is not empty. Whoever may edit the service account writes it, so it is checked.
fn annotation(account: &ServiceAccountToken, name: &str) -> Result<Option<String>, CloudError> {
    let value = account.annotations.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    match value {
        Some(value) if !is_name(value) => Err(CloudError::Settings {
            what: format!("the annotation {name}"),
            problem: "is no ID: letters, digits, hyphens and dots".to_owned(),
        }),
        value => Ok(value.map(str::to_owned)),
    }
}

fn no_identity(looked: &str, hint: &str) -> CloudError {
    CloudError::NoIdentity { looked: looked.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> AzureSettings {
        AzureSettings::from_environment(&|_| None).unwrap()
    }

    fn with_file(managed: bool, secret: Option<&str>) -> AzureSettings {
        let mut settings = base();
        settings.has_file = true;
        settings.file.managed_identity = managed;
        settings.file.client_id = secret.map(|_| "sp".to_owned());
        settings.file.client_secret = secret.map(Secret::from);
        settings
    }

    fn bound_settings(client: Option<&str>) -> AzureSettings {
        base().identity_bindings(Some("sni.example"), Some("10.0.0.1"), client, None).unwrap()
    }

    fn of_variables(names: &'static [&'static str]) -> AzureSettings {
        AzureSettings::from_environment(&|name| names.contains(&name).then(|| format!("v-{name}").into())).unwrap()
    }

    fn account(annotations: &[(&str, &str)]) -> ServiceAccountToken {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServiceAccountToken { token: Secret::from("jwt"), annotations }
    }

    #[test]
    fn the_identity_is_chosen_by_the_table() {
        let whole = account(&[(ANNOTATION_CLIENT, "c"), (ANNOTATION_TENANT, "t")]);
        let half = account(&[(ANNOTATION_CLIENT, "c"), (ANNOTATION_TENANT, " ")]);
        let evil = account(&[(ANNOTATION_CLIENT, "c"), (ANNOTATION_TENANT, "../evil")]);
        let bare = account(&[]);
        let table: [(&str, AzureSettings, Option<&ServiceAccountToken>, bool, &str); 19] = [
            ("nothing is said", base(), None, false, "managed"),
            ("a file, the machine", with_file(true, None), None, false, "managed"),
            ("a file, the machine, leftovers", with_file(true, Some("msi")), None, false, "managed"),
            ("a file, a principal", with_file(false, Some("s")), None, false, "as it is"),
            ("a file without either", with_file(false, None), None, false, "none"),
            ("a token beats the machine", with_file(true, None), Some(&whole), false, "federated c in t"),
            ("a token beats a principal", with_file(false, Some("s")), Some(&whole), false, "federated c in t"),
            ("a token without tenant", base(), Some(&half), false, "none"),
            ("a token without annotations", base(), Some(&bare), false, "none"),
            ("a tenant that is a path", base(), Some(&evil), false, "settings"),
            ("mirrored, with a token", with_file(true, None), Some(&whole), true, "managed"),
            ("mirrored, a principal", with_file(false, Some("s")), Some(&whole), true, "as it is"),
            ("bindings", bound_settings(None), Some(&whole), false, "bound c"),
            ("bindings, default client", bound_settings(Some("d")), Some(&bare), false, "bound d"),
            ("bindings, no client", bound_settings(None), Some(&bare), false, "none"),
            ("bindings, no token", bound_settings(Some("d")), None, false, "none"),
            ("bindings, mirrored", bound_settings(Some("d")), Some(&whole), true, "managed"),
            ("a client in a variable", of_variables(&["AZURE_CLIENT_ID"]), None, false, "managed v-AZURE_CLIENT_ID"),
            (
                "a federated file in variables",
                of_variables(&["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"]),
                None,
                false,
                "file v-AZURE_CLIENT_ID in v-AZURE_TENANT_ID",
            ),
        ];
        for (what, settings, account, mirrored, want) in table {
            let got = match choose(&settings, account, mirrored) {
                Ok(Identity::Managed(None)) => "managed".to_owned(),
                Ok(Identity::Managed(Some(ManagedId::Client(id) | ManagedId::Resource(id)))) => format!("managed {id}"),
                Ok(Identity::AsItIs { .. }) => "as it is".to_owned(),
                Ok(Identity::Bound(bound)) => format!("bound {}", bound.client_id),
                Ok(Identity::Client(Client { tenant, client_id, proof })) => match proof {
                    Proof::Assertion(_) => format!("federated {client_id} in {tenant}"),
                    Proof::AssertionFile(_) => format!("file {client_id} in {tenant}"),
                    Proof::Secret(_) => format!("secret {client_id} in {tenant}"),
                },
                Err(CloudError::NoIdentity { .. }) => "none".to_owned(),
                Err(CloudError::Settings { .. }) => "settings".to_owned(),
                Err(other) => other.to_string(),
            };
            assert_eq!(got, want, "{what}");
        }
    }

    #[test]
    fn an_identity_is_named_by_client_or_resource() {
        let resource = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
        assert_eq!(managed(resource), ManagedId::Resource(resource.to_owned()));
        assert!(matches!(managed("/SUBSCRIPTIONS/x"), ManagedId::Resource(_)));
        assert!(matches!(managed("0a1b"), ManagedId::Client(_)));
        let all = ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"];
        let settings = AzureSettings::from_environment(&|name| all.contains(&name).then(|| "x".into())).unwrap();
        let chosen = choose(&settings, None, false).unwrap();
        assert!(matches!(chosen, Identity::Client(Client { proof: Proof::Secret(_), .. })));
    }
}
