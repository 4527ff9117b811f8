//! The commands, one file each: arguments, the request they stand for, the call, the report.

mod completion;
mod config;
mod secret;
mod version;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes and examines pull secrets.
    Secret(secret::Args),
    /// Shows or checks the configuration.
    Config(config::Args),
    /// Prints the completion script of a shell.
    Completion(completion::Args),
    /// Prints the version.
    Version,
}

impl Command {
    /// Whether the command must work with a broken configuration too.
    pub(crate) fn needs_configuration(&self) -> bool {
        match self {
            Command::Secret(_) | Command::Config(_) | Command::Completion(_) | Command::Version => false,
        }
    }
}

/// Does it.
pub(crate) fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Secret(args) => secret::run(args, session),
        Command::Config(args) => config::run(args, session),
        Command::Completion(args) => completion::run(&args),
        Command::Version => version::run(session),
    }
}
