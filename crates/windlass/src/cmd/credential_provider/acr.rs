//! `windlass credential-provider acr`, with the file and the flags of acr-credential-provider.

use std::path::PathBuf;

use windlass_core::keyring::Credential;
use windlass_core::provider::ProviderAnswer;
use windlass_credentials::cloud::CloudError;
use windlass_credentials::cloud::azure::{Azure, AzureSettings};
use windlass_credentials::serve;

use super::{Asking, Ignored, Problem};

/// What kubelets try after the login, without one: the kubelet itself makes no anonymous attempt once a login matched.
const ANONYMOUS_AFTERWARDS: &str = "*.azurecr.*";

/// Arguments of `credential-provider acr`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's azure.json; without one the variables of Azure's libraries count, then the machine's identity.
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
    /// Images of one registry that are found in another, with the node's login for both.
    #[arg(long, value_name = "SOURCE:TARGET,...")]
    registry_mirror: Vec<String>,
    /// Identity bindings: the name under which the API server passes tokens on to Azure.
    #[arg(long, value_name = "HOST")]
    ib_sni_name: Option<String>,
    /// Identity bindings: the address or name of the API server.
    #[arg(long, value_name = "ADDRESS")]
    ib_apiserver_ip: Option<String>,
    /// Identity bindings: the identity of service accounts that are annotated with none.
    #[arg(long, value_name = "ID")]
    ib_default_client_id: Option<String>,
    /// Identity bindings: its tenant.
    #[arg(long, value_name = "ID")]
    ib_default_tenant_id: Option<String>,
    /// Identity bindings: the cluster's certificate authority [default: /etc/kubernetes/certs/ca.crt].
    #[arg(long, value_name = "FILE")]
    ib_ca_file: Option<PathBuf>,
    /// The metadata server, for tests and emulators.
    #[arg(long, value_name = "URL")]
    azure_imds: Option<String>,
    /// Azure's login service, for tests and clouds of one's own.
    #[arg(long, value_name = "URL")]
    aad_endpoint: Option<String>,
    /// Where a registry is asked for its login, for tests and private access; may be repeated.
    #[arg(long, value_name = "HOST=URL")]
    acr_endpoint: Vec<String>,
    #[command(flatten)]
    ignored: Ignored,
}

pub(super) fn answer(args: &Args, asking: &Asking<'_>) -> Result<ProviderAnswer, Problem> {
    let settings = settings(args)?;
    let request = &asking.question.request;
    if settings.serves(&request.image) == Some(false) {
        return Ok(serve::nothing());
    }
    let mut answer = asking.ask(&Azure::new(settings, asking.web()?), request)?;
    if !answer.auth.is_empty() {
        answer.auth.push((ANONYMOUS_AFTERWARDS.to_owned(), Credential::Anonymous));
    }
    Ok(answer)
}

fn settings(args: &Args) -> Result<AzureSettings, CloudError> {
    let mut settings = AzureSettings::from_environment(&|name| std::env::var_os(name))?;
    if let Some(file) = &args.file {
        settings = settings.node_file("CONFIG", file)?;
    }
    for rules in &args.registry_mirror {
        settings = settings.mirrors(rules)?;
    }
    settings = settings.identity_bindings(
        args.ib_sni_name.as_deref(),
        args.ib_apiserver_ip.as_deref(),
        args.ib_default_client_id.as_deref(),
        args.ib_default_tenant_id.as_deref(),
    )?;
    if let Some(file) = &args.ib_ca_file {
        settings = settings.cluster_ca(file.clone());
    }
    if let Some(place) = &args.azure_imds {
        settings = settings.imds_at("--azure-imds", place)?;
    }
    if let Some(place) = &args.aad_endpoint {
        settings = settings.login_at("--aad-endpoint", place)?;
    }
    for rule in &args.acr_endpoint {
        settings = settings.registry_at("--acr-endpoint", rule)?;
    }
    Ok(settings)
}
