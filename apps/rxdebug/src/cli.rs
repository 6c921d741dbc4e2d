//! `rxline rxdebug`.

use std::process::ExitCode;

/// Ask an Rx server for its version, counters, connections and peers
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or address of the server
    pub host: String,

    /// Its UDP port
    #[arg(default_value_t = 7000)]
    pub port: u16,
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    cli::Exit::Environment.because("rxdebug", format_args!("cannot ask {} yet", args.host))
}
