//! `windlass credential-provider gcp`, with the flags of auth-provider-gcp.

use windlass_core::provider::ProviderAnswer;
use windlass_credentials::cloud::CloudError;
use windlass_credentials::cloud::google::{Google, GoogleSettings};
use windlass_credentials::serve;

use super::{Asking, Ignored, Problem};

/// Arguments of `credential-provider gcp`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What auth-provider-gcp wants to be told; may be left out.
    #[arg(value_parser = ["get-credentials"], hide_possible_values = true, value_name = "get-credentials")]
    command: Option<String>,
    /// Where logins come from: gcr (a token of the node's account or the pod's), dockercfg or dockercfg-url (an attribute
    /// of the instance).
    #[arg(short = 'a', long = "authFlow", value_name = "FLOW", default_value = "gcr")]
    auth_flow: String,
    /// The cluster as an identity provider: service accounts annotated with iam.gke.io/enable-wi-image-pull act for
    /// themselves.
    #[arg(long, value_name = "URL")]
    identity_provider: Option<String>,
    /// The project of the cluster's workload identity pool.
    #[arg(long, value_name = "ID")]
    project_id: Option<String>,
    /// A registry beside Google's own that gets Google's token; may be repeated.
    #[arg(long, value_name = "HOST")]
    extra_host: Vec<String>,
    /// The metadata server, for tests and emulators.
    #[arg(long, value_name = "URL")]
    gce_metadata: Option<String>,
    /// Google's token exchange, for tests and private access.
    #[arg(long, value_name = "URL")]
    google_sts_endpoint: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
}

pub(super) fn answer(args: &Args, asking: &Asking<'_>) -> Result<ProviderAnswer, Problem> {
    let settings = settings(args)?;
    let question = asking.question;
    if !settings.serves(&question.request.image) {
        return Ok(serve::nothing());
    }
    if settings.wants_own_identity(&question.annotations_alone) {
        let problem = "the service account wants to be known to Google as itself, but the request has no token of it";
        return Err(Problem(format!("{problem}; give the plugin tokenAttributes in the kubelet's configuration")));
    }
    asking.ask(&Google::new(settings, asking.web()?), &question.request)
}

fn settings(args: &Args) -> Result<GoogleSettings, CloudError> {
    let mut settings = GoogleSettings::from_environment(&|name| std::env::var_os(name))?
        .flow(args.auth_flow.parse()?)
        .workload_identity(args.identity_provider.as_deref(), args.project_id.as_deref())?
        .extra_hosts("--extra-host", args.extra_host.iter().cloned())?;
    if let Some(place) = &args.gce_metadata {
        settings = settings.metadata_at("--gce-metadata", place)?;
    }
    match &args.google_sts_endpoint {
        Some(place) => settings.sts_at("--google-sts-endpoint", place),
        None => Ok(settings),
    }
}
