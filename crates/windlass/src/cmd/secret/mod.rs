//! `windlass secret`: makes pull secrets, and says what is wrong with one.

mod check;
mod create;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;

/// Arguments of `secret`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prints a pull secret for one or more registries, as YAML, or with -o json as JSON.
    Create(create::Args),
    /// Examines pull secrets in manifests, or docker credential files: what is in them, and what is wrong.
    Check(check::Args),
}

pub(super) fn run(args: Args, session: &Session) -> Result<(), Failure> {
    match args.action {
        Action::Create(args) => create::run(&args, session),
        Action::Check(args) => check::run(&args, session),
    }
}
