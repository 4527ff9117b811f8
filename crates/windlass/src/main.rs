//! The windlass command. Everything is in the library of the same name.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass::run(std::env::args_os())
}
