//! The windlass command: arguments, configuration, wiring, printing, exit codes.
//!
//! A command is one file of `cmd`: it turns arguments into a request of the engine or the store, calls it, and
//! shows the report. Rules live in windlass-core, the pull path in windlass-pull.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod config;
mod dispatch;
mod failure;
mod input;
mod interrupt;
mod output;
pub mod pages;
mod process;
mod progress;
mod session;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use failure::Failure;
use session::Session;

/// Runs one command line, arguments as the process got them, and says with which status to end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    process::protect();
    let arguments = dispatch::by_file_name(arguments.into_iter().collect());
    let invocation = match args::parse(arguments.clone()) {
        Ok(invocation) => invocation,
        Err(error) => return misused(&error, &arguments),
    };
    let format = invocation.cli.globals.output;
    process::colour(invocation.cli.globals.color);
    let (command, session) = Session::new(invocation);
    match start(command, &session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                output::write_err(&failure.render(format));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start(command: cmd::Command, session: &Session) -> Result<(), Failure> {
    if command.starts_bare() {
        return cmd::run(command, session);
    }
    match session.load() {
        // The daemon has a log of its own habits.
        Ok(_) if matches!(command, cmd::Command::Node(_)) => {}
        Ok(loaded) => drop(process::log(&loaded.node.log)),
        Err(failure) if command.needs_configuration() => return Err(failure),
        // What needs no configuration works with a broken one too, and logs nothing.
        Err(_) => {}
    }
    cmd::run(command, session)
}

/// Help and version print themselves and are no failure; everything else is wrong use.
fn misused(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.exit_code() != 0 && wants_json(arguments) {
        let text = error.render().to_string();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        output::write_err(&Failure::usage("wrong use", why).render(args::Format::Json));
    } else if error.print().is_err() {
        // Standard output or error is gone; the status still tells.
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The arguments could not be parsed, so the form of the output is looked for by hand.
fn wants_json(arguments: &[OsString]) -> bool {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
        || words.iter().any(|word| ["-ojson", "-o=json", "--output=json"].contains(word))
        || std::env::var("WINDLASS_OUTPUT").is_ok_and(|form| form == "json")
}
