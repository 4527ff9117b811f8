//! The clouds that are asked in this process: those that are switched on, and by themselves the one this machine is in.
//!
//! Invariant: `a_cloud_is_asked_where_it_is_at_home`.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_credentials::cloud::CloudError;
use windlass_credentials::cloud::aws::{self, Aws, AwsSettings, CredentialProcess};
use windlass_credentials::cloud::azure::{Azure, AzureSettings};
use windlass_credentials::cloud::detect::{Cloud, FIRMWARE, Firmware};
use windlass_credentials::cloud::google::{Google, GoogleSettings};
use windlass_credentials::{Builder, BuiltIn, Provider};
use windlass_distribution::config::Timeouts;
use windlass_distribution::web::{Web, WebConfig};

use super::chain;
use super::client::proxy_of_environment;
use crate::config::node::{Logins, Node, Switch};
use crate::failure::Failure;

/// Where nodes of Azure have the file of their cloud provider.
const AZURE_FILE: &str = "/etc/kubernetes/azure.json";

type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// Adds the clouds of this run.
pub(super) fn add(builder: Builder, node: &Node) -> Result<Builder, Failure> {
    let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let here = Firmware::read(Path::new(FIRMWARE)).cloud();
    let mut builder = builder;
    for cloud in wanted(&node.logins, here, &environment) {
        builder = builder.builtin(built_in(cloud, node, &environment)?);
    }
    Ok(builder)
}

/// Which clouds are asked.
fn wanted(logins: &Logins, here: Option<Cloud>, environment: Environment) -> Vec<Cloud> {
    let is_set = |name: &str| environment(name).is_some();
    let named = |cloud: Cloud| match cloud {
        Cloud::Amazon => AwsSettings::from_environment(environment).names_identity(),
        Cloud::Google => is_set("GCE_METADATA_HOST"),
        Cloud::Azure => {
            let settings = AzureSettings::from_environment(environment);
            logins.azure_config.is_some() || settings.is_ok_and(|settings| settings.names_identity())
        }
    };
    let all = [(Cloud::Amazon, logins.ecr), (Cloud::Google, logins.gcp), (Cloud::Azure, logins.acr)];
    let is_wanted = |(cloud, switch): &(Cloud, Switch)| match switch {
        Switch::On => true,
        Switch::Off => false,
        Switch::Auto => here == Some(*cloud) || named(*cloud),
    };
    all.into_iter().filter(is_wanted).map(|(cloud, _)| cloud).collect()
}

fn built_in(cloud: Cloud, node: &Node, environment: Environment) -> Result<BuiltIn, Failure> {
    type Matches = Arc<dyn Fn(&Reference) -> bool + Send + Sync>;
    let (name, matches, provider): (&str, Matches, Arc<dyn Provider>) = match cloud {
        Cloud::Amazon => {
            let mut settings = AwsSettings::from_environment(environment);
            if node.logins.ecr_credential_process {
                settings.credential_process = CredentialProcess::Allowed;
            }
            let mut config = web(node);
            config.ca_files.extend(settings.ca_file());
            ("ecr", Arc::new(aws::serves), Arc::new(Aws::new(settings, opened(&config)?)))
        }
        Cloud::Google => {
            let hosts = node.logins.google_extra_hosts.clone();
            let settings = GoogleSettings::from_environment(environment);
            let settings = settings.and_then(|settings| settings.extra_hosts("credentials.googleExtraHosts", hosts));
            let settings = settings.map_err(|error| wrong(&error))?;
            let judge = settings.clone();
            (
                "gcp",
                Arc::new(move |image: &Reference| judge.serves(image)),
                Arc::new(Google::new(settings, opened(&web(node))?)),
            )
        }
        Cloud::Azure => {
            let settings = azure(&node.logins, environment).map_err(|error| wrong(&error))?;
            let judge = settings.clone();
            // What the registries of a custom cloud are called is known once it is asked.
            let may_be_azure = move |image: &Reference| judge.serves(image) != Some(false);
            ("acr", Arc::new(may_be_azure), Arc::new(Azure::new(settings, opened(&web(node))?)))
        }
    };
    Ok(BuiltIn { name: name.to_owned(), matches, provider })
}

fn azure(logins: &Logins, environment: Environment) -> Result<AzureSettings, CloudError> {
    let mut settings = AzureSettings::from_environment(environment)?;
    // Nodes have several identities; their own file says which of them may pull. Only root may read it.
    let usual = || (!settings.names_identity() && File::open(AZURE_FILE).is_ok()).then(|| Path::new(AZURE_FILE));
    if let Some(file) = logins.azure_config.as_deref().or_else(usual) {
        settings = settings.node_file("credentials.azureConfig", file)?;
    }
    if let Some(place) = &logins.azure_imds {
        settings = settings.imds_at("credentials.azureImds", place)?;
    }
    for rule in &logins.acr_endpoints {
        settings = settings.registry_at("credentials.acrEndpoints", rule)?;
    }
    Ok(settings)
}

/// The transport of pulls: its certificates, proxies and waits.
fn web(node: &Node) -> WebConfig {
    let timeouts = Timeouts {
        connect: node.limits.connect_timeout,
        header: node.limits.response_timeout,
        idle: node.limits.idle_timeout,
        ..Timeouts::default()
    };
    WebConfig { ca_files: node.general.ca_file.clone(), proxy: proxy_of_environment(), timeouts }
}

fn opened(config: &WebConfig) -> Result<Web, Failure> {
    Web::new(config).map_err(|error| Failure::new(Reason::InvalidConfig, "a cloud cannot be asked", chain(&error)))
}

fn wrong(error: &CloudError) -> Failure {
    Failure::new(error.reason(), "a cloud cannot be asked", chain(error)).hint(error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;

    #[test]
    fn a_cloud_is_asked_where_it_is_at_home() {
        type Row<'a> = (Switch, Option<Cloud>, &'a [&'a str], &'a [Cloud]);
        let (amazon, google, azure) = (Cloud::Amazon, Cloud::Google, Cloud::Azure);
        let table: [Row; 9] = [
            (Switch::Auto, None, &[], &[]),
            (Switch::Auto, Some(amazon), &[], &[amazon]),
            (Switch::Auto, Some(google), &[], &[google]),
            (Switch::Auto, Some(azure), &[], &[azure]),
            (Switch::Auto, None, &["AWS_WEB_IDENTITY_TOKEN_FILE"], &[amazon]),
            (Switch::Auto, None, &["GCE_METADATA_HOST"], &[google]),
            (Switch::Auto, Some(google), &["AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"], &[google, azure]),
            (Switch::On, None, &[], &[amazon, google, azure]),
            (Switch::Off, Some(amazon), &["GCE_METADATA_HOST"], &[]),
        ];
        for (switch, here, set, want) in table {
            let mut logins = defaults().node.logins;
            (logins.ecr, logins.gcp, logins.acr) = (switch, switch, switch);
            let environment = |name: &str| set.contains(&name).then(|| OsString::from("x"));
            assert_eq!(wanted(&logins, here, &environment), want, "{switch:?} {here:?} {set:?}");
        }
    }
}
