//! `cargo lab`: installs and starts the real peers that rxline is tested against, and runs every check and bench.
//!
//! Each check is a step: named, timed, with a log of its own and a time limit. Traffic stays inside network namespaces
//! that a step makes and removes. A missing peer is a failure: nothing skips itself. Deliberately absent: anything that a
//! plain `cargo test` can check; that is where it belongs.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod cargo;
mod cli;
mod copy;
mod fault;
mod figures;
mod frames;
mod fuzz;
mod gateway;
mod guest;
mod host;
mod hugepages;
mod log;
mod models;
mod mutants;
mod net;
mod ns;
mod openafs;
mod pids;
mod proc;
mod process_figures;
mod rawrx;
mod rows;
mod rxperf;
mod step;
mod tests;
mod tshark;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Args::parse()) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("cargo lab: {fault}");
            ExitCode::FAILURE
        }
    }
}
