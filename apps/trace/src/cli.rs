//! `rxline trace`.

use crate::read::{CallName, ReadError, Trace};
use crate::{PlotError, Summary, plot};
use clap::Subcommand;
use cli::Exit;
use std::path::PathBuf;
use std::process::ExitCode;

/// Read the event logs that --trace writes: draw a call, or sum a log up
#[derive(clap::Args, Debug)]
#[command(after_help = cli::EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Draw one call as SVG: sequence numbers, ACKs and losses against time; windows; round trips
    #[command(after_help = "\
Example:
  rxline rxperf client ... --request-bytes 1000000 --calls 1 --trace call.jsonl
  rxline trace plot call.jsonl -o call.svg")]
    Plot {
        /// The log
        file: PathBuf,

        /// Where to; beside the log if not given
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,

        /// Which call, as the summary names it; the one with the most payload packets if not given
        #[arg(long, value_name = "EPOCH/CID:CHANNEL:NUMBER")]
        call: Option<CallName>,
    },
    /// What happened, in numbers, and the calls with the most payload
    Summary {
        /// The log
        file: PathBuf,
    },
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Plot { file, out, call } => draw(&file, out, call.as_ref()),
        Command::Summary { file } => {
            Trace::read(&file).map(|trace| cli::say(Summary::of(&trace))).map_err(Failure::from)
        }
    };
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            let exit = match failure {
                Failure::Read(ReadError::Io { .. }) | Failure::Plot(_) => Exit::Environment,
                Failure::Read(_) => Exit::Usage,
            };
            exit.because("trace", failure)
        }
    }
}

fn draw(file: &std::path::Path, out: Option<PathBuf>, call: Option<&CallName>) -> Result<(), Failure> {
    let trace = Trace::read(file)?;
    let out = out.unwrap_or_else(|| file.with_extension("svg"));
    plot(&trace, trace.call(call)?, &out)?;
    cli::say(format_args!("{}\n", out.display()));
    Ok(())
}
