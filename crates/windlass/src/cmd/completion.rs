//! `windlass completion SHELL`.

use clap_complete::Shell;

use crate::failure::Failure;
use crate::output::write_out;

/// Arguments of `completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: source <(windlass completion bash)")]
pub(crate) struct Args {
    /// bash, zsh, fish or powershell.
    #[arg(value_parser = shell)]
    shell: Shell,
}

fn shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        "powershell" => Ok(Shell::PowerShell),
        _ => Err("wants bash, zsh, fish or powershell".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::command(), "windlass", &mut script);
    write_out(&String::from_utf8_lossy(&script))
}
