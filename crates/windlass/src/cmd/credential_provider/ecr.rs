//! `windlass credential-provider ecr`: like ecr-credential-provider, which has no flags.

use windlass_core::provider::ProviderAnswer;
use windlass_credentials::cloud::aws::{self, Aws, AwsSettings, CredentialProcess, NodeFallback};
use windlass_credentials::serve;

use super::{Asking, Ignored, Problem};

/// Arguments of `credential-provider ecr`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What later versions of ecr-credential-provider may be told; may be left out.
    #[arg(value_parser = ["get-credentials"], hide = true)]
    command: Option<String>,
    /// Lets the node's identity stand in for a service account that brings a token, but no role.
    #[arg(long)]
    allow_node_fallback: bool,
    /// Runs the program that `credential_process` of a profile names, with the rights of this process.
    #[arg(long)]
    allow_credential_process: bool,
    /// Where logins are asked for, private and public ones, for tests and private access.
    #[arg(long, value_name = "URL")]
    ecr_endpoint: Option<String>,
    /// Where roles are assumed, for tests and private access.
    #[arg(long, value_name = "URL")]
    sts_endpoint: Option<String>,
    /// The instance metadata service, for tests and emulators.
    #[arg(long, value_name = "URL")]
    imds_endpoint: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
}

pub(super) fn answer(args: &Args, asking: &Asking<'_>) -> Result<ProviderAnswer, Problem> {
    let request = &asking.question.request;
    if !aws::serves(&request.image) {
        return Ok(serve::nothing());
    }
    let mut settings = AwsSettings::from_environment(&|name| std::env::var_os(name));
    settings.ecr_endpoint.clone_from(&args.ecr_endpoint);
    settings.sts_endpoint.clone_from(&args.sts_endpoint);
    settings.imds_endpoint.clone_from(&args.imds_endpoint);
    if args.allow_node_fallback {
        settings.node_fallback = NodeFallback::Allowed;
    }
    if args.allow_credential_process {
        settings.credential_process = CredentialProcess::Allowed;
    }
    let web = asking.web_with(settings.ca_file())?;
    asking.ask(&Aws::new(settings, web), request)
}
