//! `rxline gateway`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Forward Rx calls from clients to pools of servers
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration: ports, cores, addresses, listeners, services and their backends (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Figures as one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Runs it until SIGTERM or SIGINT.
pub fn run(args: Args) -> ExitCode {
    eprintln!("rxline gateway: cannot serve {} yet", args.config.display());
    ExitCode::from(3)
}
