//! The command line: flags that stand before or after the command, and one variable for each of them.
//!
//! In: the process's arguments. Out: [`Invocation`]. A flag that is also a configuration key is handed to
//! [`crate::config`] as text, so that its value is checked in one place.
//!
//! Invariants: `every_flag_has_a_variable`, `global_flags_stand_anywhere`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::cmd::Command;
use crate::config::FlagValue;
use crate::config::section::variable;

/// Kubernetes' container images on one machine: decide, fetch, verify, unpack, keep.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    max_term_width = 110,
    after_help = "Every flag can be set by the variable shown beside it, every configuration key by WINDLASS_ and its \
                  path in capitals. Exit status: 0 done, 1 failed, 2 wrong use, 3 undecided (registry not reachable), \
                  130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Flags of every command")]
pub(crate) struct Globals {
    /// The store [default: /var/lib/windlass, or $XDG_DATA_HOME/windlass for an ordinary user].
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<String>,
    /// Configuration file [default: /etc/windlass/config.yaml, or $XDG_CONFIG_HOME/windlass/config.yaml].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of hosts.toml files; may be repeated, the first hit wins.
    #[arg(long, global = true, value_name = "DIR")]
    hosts_dir: Vec<String>,
    /// Credential file in docker's format, instead of those in docker's and podman's places.
    #[arg(long, global = true, value_name = "FILE")]
    authfile: Option<String>,
    /// The registries named in this call speak http.
    #[arg(long, global = true)]
    pub(crate) plain_http: bool,
    /// PEM file with certificate authorities to trust beside the system's; may be repeated.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Vec<String>,
    /// Platform to choose from an index, such as linux/arm64/v8 [default: this machine's].
    #[arg(long, global = true, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// A blob that moves less than 64 KiB in this time fails [default: 60s].
    #[arg(long, global = true, value_name = "DURATION")]
    progress_timeout: Option<String>,
    /// Form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", hide_possible_values = true, help = "Form of the output: table, wide, json, yaml or name")]
    pub(crate) output: Format,
    /// Form of the progress on standard error.
    #[arg(long, global = true, value_enum, default_value_t = ProgressForm::Auto, value_name = "FORM", hide_possible_values = true, help = "Form of the progress: auto, tty, plain, json or none")]
    pub(crate) progress: ProgressForm,
    /// One name per line on standard output, nothing but errors on standard error.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log lines: error, warn, info, debug or trace [default: warn].
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Form of log lines: text or json [default: text].
    #[arg(long, global = true, value_name = "FORM")]
    log_format: Option<String>,
    /// When to use colour: auto, always or never. NO_COLOR and CLICOLOR_FORCE count too.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) color: Color,
}

/// Form of what is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// One document with apiVersion and kind.
    Json,
    /// The same as YAML.
    Yaml,
    /// One name per line.
    Name,
}

/// Form of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressForm {
    /// `tty` on a terminal, `plain` elsewhere.
    Auto,
    /// Lines that are drawn over.
    Tty,
    /// One line per change of state.
    Plain,
    /// One JSON object per event.
    Json,
    /// Nothing.
    None,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal that has it.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Flags that stand for a configuration key: the flag's name and the key's path.
const KEY_FLAGS: [(&str, &str); 8] = [
    ("root", "root"),
    ("hosts-dir", "hostsDir"),
    ("authfile", "authfile"),
    ("ca-file", "caFile"),
    ("platform", "platform"),
    ("progress-timeout", "limits.progressTimeout"),
    ("log-level", "log.level"),
    ("log-format", "log.format"),
];

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) cli: Cli,
    /// What the flags say about configuration keys.
    pub(crate) flags: Vec<FlagValue>,
}

/// Parses the arguments. The error of clap prints itself and knows its exit status.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let flags = KEY_FLAGS.iter().filter_map(|(flag, path)| flag_value(&matches, flag, path)).collect();
    Ok(Invocation { cli, flags })
}

/// The whole command with a variable for every flag.
pub(crate) fn command() -> clap::Command {
    with_variables(Cli::command(), "")
}

fn with_variables(command: clap::Command, prefix: &str) -> clap::Command {
    let own = prefix.to_owned();
    let inner = prefix.to_owned();
    command
        .mut_args(move |arg| {
            let Some(long) = arg.get_long().map(str::to_owned) else { return arg };
            if long == "help" || long == "version" {
                return arg;
            }
            let arg = if matches!(arg.get_action(), ArgAction::SetTrue) {
                arg.value_parser(BoolishValueParser::new())
            } else {
                arg
            };
            arg.env(variable(&format!("{own}{long}"))).hide_env_values(true)
        })
        .mut_subcommands(move |sub| {
            let prefix = format!("{inner}{}-", sub.get_name());
            with_variables(sub, &prefix)
        })
}

fn flag_value(matches: &ArgMatches, flag: &'static str, path: &'static str) -> Option<FlagValue> {
    let id = flag.replace('-', "_");
    let from_environment = match matches.value_source(&id)? {
        ValueSource::CommandLine => false,
        ValueSource::EnvVariable => true,
        _ => return None,
    };
    let texts = matches.get_many::<String>(&id)?.cloned().collect();
    Some(FlagValue { path, flag, from_environment, texts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Invocation {
        parse(line.split(' ').map(OsString::from)).unwrap()
    }

    #[test]
    fn every_flag_has_a_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let long = arg.get_long().unwrap_or_default();
                assert!(arg.get_env().is_some() || ["help", "version"].contains(&long), "{long}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
        command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        let table = [
            "windlass --root /r -o json version",
            "windlass version --root /r -o json",
            "windlass --root /r version -o json",
        ];
        for line in table {
            let Invocation { cli, flags } = parsed(line);
            assert_eq!(cli.globals.output, Format::Json, "{line}");
            assert_eq!((flags[0].path, flags[0].texts.as_slice()), ("root", &["/r".to_owned()][..]), "{line}");
        }
    }
}
