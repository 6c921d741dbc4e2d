//! `rxline demo`.

use std::process::ExitCode;

/// Run a gateway, two services and a load in this process, over memory
///
/// Needs no privilege, no hugepages and no interface, and works on one CPU. Ends with a summary; exits 0 only if every
/// call was answered and every byte of every answer was right.
#[derive(clap::Args, Debug)]
#[command(after_help = cli::EXIT_CODES)]
pub struct Args {
    /// How long to run
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub seconds: u64,

    /// The summary as one JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    cli::Exit::Environment.because("demo", format_args!("cannot run for {} s yet", args.seconds))
}
