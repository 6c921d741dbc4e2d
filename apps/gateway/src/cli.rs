//! `rxline gateway`.

use std::path::PathBuf;
use std::process::ExitCode;

use cli::Exit;

use crate::config::Config;

/// Forward Rx calls from clients to pools of servers
#[derive(clap::Args, Debug)]
#[command(after_help = cli::EXIT_CODES)]
pub struct Args {
    /// Configuration: ports, cores, addresses, listeners, services and their backends (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Only look for mistakes in the configuration
    #[arg(long)]
    pub check: bool,

    /// Figures as one JSON object per line
    #[arg(long)]
    pub json: bool,

    /// Seconds between two lines of figures; 0: none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub interval: u64,
}

/// Runs it until SIGTERM or SIGINT.
pub fn run(args: Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage.into();
        }
    };
    if args.check {
        let (listeners, pools) = (config.listeners.len(), config.pools.len());
        println!("{}: no mistake found ({listeners} listeners, {pools} pools)", args.config.display());
        return Exit::Ok.into();
    }
    Exit::Environment.because("gateway", "cannot serve yet")
}
