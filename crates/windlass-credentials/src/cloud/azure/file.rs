//! `azure.json`, the file of a node's cloud provider: JSON or YAML. Only what says who the node is counts.
//!
//! Invariants: `a_node_s_file_is_read_in_both_notations`, `no_value_of_a_file_shows`.

use std::path::Path;

use serde::Deserialize;
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;

use crate::cloud::{CloudError, endpoint, files};

/// What the file says; empty texts are as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFile {
    pub(super) cloud: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret<String>>,
    pub(super) managed_identity: bool,
    /// A client ID, or the ID of a resource.
    pub(super) user_assigned: Option<String>,
    /// Where a cloud of its own says what its services are called.
    pub(super) resource_manager: Option<HttpUrl>,
}

/// `null` is as absent. The file has many more keys.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    cloud: Option<String>,
    tenant_id: Option<String>,
    aad_client_id: Option<String>,
    aad_client_secret: Option<String>,
    use_managed_identity_extension: Option<bool>,
    #[serde(rename = "userAssignedIdentityID")]
    user_assigned_identity_id: Option<String>,
    resource_manager_endpoint: Option<String>,
}

/// Reads the file that `what` names. Blocks.
///
/// # Errors
/// [`CloudError::Settings`] names `what` and the file, and no value of it.
pub(super) fn read(what: &str, path: &Path) -> Result<NodeFile, CloudError> {
    let text = files::read_now(path).map_err(|error| files::unusable(what, path, &error.to_string()))?;
    let wire = parse(text.expose()).ok_or_else(|| {
        let problem = "it is neither JSON nor YAML with the keys of an azure.json, or a value has the wrong type";
        files::unusable(what, path, problem)
    })?;
    let filled = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let resource_manager = filled(wire.resource_manager_endpoint)
        .map(|url| endpoint::read("resourceManagerEndpoint", &url, &[]))
        .transpose()?;
    Ok(NodeFile {
        cloud: filled(wire.cloud),
        tenant: filled(wire.tenant_id),
        client_id: filled(wire.aad_client_id),
        client_secret: wire.aad_client_secret.filter(|secret| !secret.is_empty()).map(Secret::new),
        managed_identity: wire.use_managed_identity_extension.unwrap_or(false),
        user_assigned: filled(wire.user_assigned_identity_id),
        resource_manager,
    })
}

fn parse(text: &str) -> Option<Wire> {
    serde_json::from_str(text).ok().or_else(|| serde_saphyr::from_str(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<NodeFile, CloudError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("azure.json");
        std::fs::write(&path, text).unwrap();
        read("CONFIG", &path)
    }

    #[test]
    fn a_node_s_file_is_read_in_both_notations() {
        let json = r#"{"cloud":"AzureChinaCloud","tenantId":"t","aadClientId":"msi","aadClientSecret":"msi",
            "useManagedIdentityExtension":true,"userAssignedIdentityID":"id-1","subnetName":"x","vmType":null}"#;
        let yaml = "cloud: AzureChinaCloud\ntenantId: t\naadClientId: msi\naadClientSecret: msi\n\
                    useManagedIdentityExtension: true\nuserAssignedIdentityID: id-1\nsubnetName: x\n";
        for text in [json, yaml] {
            let file = file(text).unwrap();
            assert_eq!((file.cloud.as_deref(), file.tenant.as_deref()), (Some("AzureChinaCloud"), Some("t")));
            assert_eq!((file.managed_identity, file.user_assigned.as_deref()), (true, Some("id-1")));
        }
        let empty = file(r#"{"cloud":"","aadClientSecret":""}"#).unwrap();
        assert!(empty.cloud.is_none() && empty.client_secret.is_none() && !empty.managed_identity);
    }

    #[test]
    fn no_value_of_a_file_shows() {
        let good = file(r#"{"aadClientId":"c","aadClientSecret":"canary-1"}"#).unwrap();
        assert!(!format!("{good:?}").contains("canary"));
        for text in [
            r#"{"aadClientSecret":"canary-1","useManagedIdentityExtension":[1]}"#,
            r#"{"aadClientSecret":"canary-1""#,
            r#"{"resourceManagerEndpoint":"http://canary-1.example/"}"#,
            "canary-1",
        ] {
            let error = file(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
