//! `windlass credential-provider`: the plugin role. A kubelet runs it for each image that its configuration matches; one
//! request on standard input, one answer on standard output, a failure in one line on standard error.
//!
//! It starts bare: no configuration, no store, no log; a runtime and certificates only once a cloud is asked.

mod acr;
mod ecr;
mod gcp;

use std::error::Error as StdError;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Subcommand;
use tokio::time::timeout;
use windlass_core::provider::ProviderAnswer;
use windlass_core::reason::chain;
use windlass_credentials::cloud::CloudError;
use windlass_credentials::serve::{self, Question, ServeError};
use windlass_credentials::{Provider, ProviderError, ProviderRequest};
use windlass_distribution::web::Web;

use crate::failure::{Failure, shown};
use crate::output::{write_err, write_out};
use crate::session::Session;
use crate::wire;

/// Arguments of `credential-provider`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads a CredentialProviderRequest from standard input and prints a CredentialProviderResponse of the \
                        same version. An image of another registry is answered with no credentials. Also runs as \
                        auth-provider-gcp, by the name of its file."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    cloud: Cloud,
}

#[derive(Debug, Subcommand)]
enum Cloud {
    /// Amazon: ECR, private and public.
    #[command(version)]
    Ecr(ecr::Args),
    /// Google: Artifact Registry and Container Registry.
    #[command(version)]
    Gcp(gcp::Args),
    /// Microsoft: Azure Container Registry.
    #[command(version)]
    Acr(acr::Args),
}

/// Flags that a plugin takes because kubelet configurations have them.
#[derive(Debug, clap::Args)]
struct Ignored {
    /// Verbosity of the plugin that this one stands in for; there is no log here.
    #[arg(short = 'v', long = "v", value_name = "LEVEL", hide = true)]
    verbosity: Option<String>,
}

/// A failure in one line.
struct Problem(String);

impl From<ServeError> for Problem {
    fn from(error: ServeError) -> Problem {
        Problem(chain(&error))
    }
}

impl From<CloudError> for Problem {
    fn from(error: CloudError) -> Problem {
        Problem::of(&error, error.hint())
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Problem {
        Problem::of(&error, error.hint())
    }
}

impl Problem {
    fn of(error: &(dyn StdError + 'static), hint: &str) -> Problem {
        let why = chain(error);
        Problem(if hint.is_empty() { why } else { format!("{why}; {hint}") })
    }
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let started = Instant::now();
    if std::io::stdin().is_terminal() {
        session.note("waiting for a CredentialProviderRequest on standard input");
    }
    match answer(args, session, started) {
        Ok(text) => write_out(text.expose()),
        Err(Problem(why)) => {
            write_err(&format!("error: {}\n", shown(&why).replace('\n', " ")));
            Err(Failure::told(1))
        }
    }
}

fn answer(args: &Args, session: &Session, started: Instant) -> Result<windlass_core::secret::Secret<String>, Problem> {
    let question = serve::read(&mut std::io::stdin().lock())?;
    let asking = Asking { question: &question, session, started };
    let answer = match &args.cloud {
        Cloud::Ecr(args) => ecr::answer(args, &asking)?,
        Cloud::Gcp(args) => gcp::answer(args, &asking)?,
        Cloud::Acr(args) => acr::answer(args, &asking)?,
    };
    Ok(serve::render(question.version, &answer))
}

/// One question and the means to answer it.
struct Asking<'a> {
    question: &'a Question,
    session: &'a Session,
    started: Instant,
}

impl Asking<'_> {
    /// The transport; only for questions that are the cloud's.
    fn web(&self) -> Result<Web, Problem> {
        self.web_with(None)
    }

    /// The same, with one more file of certificate authorities.
    fn web_with(&self, ca_file: Option<PathBuf>) -> Result<Web, Problem> {
        let ca_files = self.session.globals.ca_file.iter().map(PathBuf::from).chain(ca_file).collect();
        wire::web(ca_files).map_err(|error| Problem::of(&error, ""))
    }

    /// Asks the cloud, within what is left of the budget.
    fn ask(&self, provider: &dyn Provider, request: &ProviderRequest) -> Result<ProviderAnswer, Problem> {
        let left = serve::BUDGET.saturating_sub(self.started.elapsed());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem(format!("cannot start: {error}")))?;
        let answer = runtime.block_on(async { timeout(left, provider.ask(request)).await });
        // A name that is still being resolved must not hold the answer up.
        runtime.shutdown_timeout(Duration::ZERO);
        let late = CloudError::Timeout { limit_seconds: serve::BUDGET.as_secs() };
        Ok(answer.map_err(|_| late)??)
    }
}
