//! Writes the generated pages into a folder, or with `--check` fails when they differ from what is there.

use std::path::PathBuf;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "an automation task that says what it found")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = arguments.iter().any(|argument| argument == "--check");
    let Some(folder) = arguments.iter().find(|argument| !argument.starts_with('-')).map(PathBuf::from) else {
        eprintln!("usage: docs [--check] FOLDER");
        return ExitCode::from(2);
    };
    let mut status = ExitCode::SUCCESS;
    for (name, text) in windlass::pages::all() {
        let path = folder.join(name);
        if check {
            if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
                eprintln!("{} is out of date: run `cargo xtask docs`", path.display());
                status = ExitCode::FAILURE;
            }
        } else if let Err(error) = std::fs::write(&path, text) {
            eprintln!("{}: {error}", path.display());
            status = ExitCode::FAILURE;
        }
    }
    status
}
