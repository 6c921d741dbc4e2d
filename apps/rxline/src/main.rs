//! The `rxline` binary: one subcommand for each app, each a library crate beside this one. Nothing happens here.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// RxRPC on a kernel-bypass packet engine: a gateway, and the tools around it.
///
/// Start with `rxline demo`: it needs no privilege, no network interface and no configuration.
#[derive(Parser)]
#[command(name = "rxline", version, after_help = cli::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::cli::Args),
    Doctor(doctor::cli::Args),
    Bind(doctor::bind::cli::BindArgs),
    Unbind(doctor::bind::cli::UnbindArgs),
    Gateway(gateway::cli::Args),
    Linerate(linerate::cli::Args),
    Rxperf(rxperf::cli::Args),
    Rxdebug(rxdebug::cli::Args),
    Rx(inspect::rx::Args),
    Top(inspect::top::Args),
    Capture(capture::cli::Args),
    Trace(trace::cli::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::cli::run(args),
        Command::Doctor(args) => doctor::cli::run(args),
        Command::Bind(args) => doctor::bind::cli::bind(args),
        Command::Unbind(args) => doctor::bind::cli::unbind(args),
        Command::Gateway(args) => gateway::cli::run(args),
        Command::Linerate(args) => linerate::cli::run(args),
        Command::Rxperf(args) => rxperf::cli::run(args),
        Command::Rxdebug(args) => rxdebug::cli::run(args),
        Command::Rx(args) => inspect::rx::run(args),
        Command::Top(args) => inspect::top::run(args),
        Command::Capture(args) => capture::cli::run(args),
        Command::Trace(args) => trace::cli::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
