//! The windlass command as these tests run it: the same library, called in the same way as by its own `main`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass::run(std::env::args_os())
}
