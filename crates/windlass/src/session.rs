//! What every command has at hand: the screen and the configuration.

use std::path::{Path, PathBuf};

use serde_json::json;
use windlass_core::reason::Reason;

use crate::args::{Format, Globals, Invocation};
use crate::cmd::Command;
use crate::config::{self, ConfigError, FlagValue, Loaded};
use crate::failure::{Failure, shown};
use crate::output::{Screen, write_err};

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) screen: Screen,
    pub(crate) globals: Globals,
    flags: Vec<FlagValue>,
}

impl Session {
    /// From the parsed arguments.
    pub(crate) fn new(invocation: Invocation) -> (Command, Session) {
        let Invocation { cli, flags } = invocation;
        let screen = Screen { format: cli.globals.output, quiet: cli.globals.quiet };
        (cli.command, Session { screen, globals: cli.globals, flags })
    }

    /// The configuration that this run obeys.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        self.load_from(self.globals.config.as_deref())
    }

    /// Tells a failure that does not end the command.
    pub(crate) fn tell(&self, failure: &Failure) {
        write_err(&failure.render(self.screen.format));
    }

    /// Tells something that is no failure but should be looked at.
    pub(crate) fn warn(&self, text: &str) {
        self.remark("warning", text);
    }

    /// Tells something that only matters to those who wonder.
    pub(crate) fn note(&self, text: &str) {
        self.remark("note", text);
    }

    /// With -o json standard error holds objects only, so a remark is one too.
    fn remark(&self, word: &str, text: &str) {
        match (self.screen.quiet, self.screen.format) {
            (true, _) => {}
            (false, Format::Json) => write_err(&format!("{}\n", json!({ word: { "message": shown(text) } }))),
            (false, Format::Table | Format::Wide | Format::Yaml | Format::Name) => {
                write_err(&format!("{word}: {}\n", shown(text)));
            }
        }
    }

    /// The same with another file.
    pub(crate) fn load_from(&self, file: Option<&Path>) -> Result<Loaded, Failure> {
        config::load(file, &self.flags, &|name| std::env::var(name).ok()).map_err(|error| failure(&error))
    }
}

/// The configuration, to be read again as this run read it.
#[derive(Clone, Debug)]
pub(crate) struct Rereader {
    file: Option<PathBuf>,
    flags: Vec<FlagValue>,
}

impl Session {
    /// Whether this call's own line gives a value to a key.
    pub(crate) fn has_flag(&self, path: &str) -> bool {
        self.flags.iter().any(|flag| flag.path == path && !flag.from_environment)
    }

    /// What reads the configuration again.
    pub(crate) fn rereader(&self) -> Rereader {
        Rereader { file: self.globals.config.clone(), flags: self.flags.clone() }
    }
}

impl Rereader {
    /// What has to be looked at for changes.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        config::watched(self.file.as_deref())
    }

    /// The configuration as it is now.
    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        config::load(self.file.as_deref(), &self.flags, &|name| std::env::var(name).ok())
    }
}

fn failure(error: &ConfigError) -> Failure {
    let failure = Failure::new(Reason::InvalidConfig, "the configuration is not valid", error.to_string());
    match error {
        ConfigError::Wrong(_) => failure.hint("`windlass config print --defaults` lists every key with its default"),
        ConfigError::Unreadable { .. } | ConfigError::Planted { .. } => failure,
    }
}
