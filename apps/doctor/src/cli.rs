//! `rxline doctor`.

use std::process::ExitCode;

use cli::Exit;

use crate::checks;
use crate::machine::Machine;
use crate::report::State;
use crate::targets::{Target, Targets};

/// Look at hugepages, rights, CPUs, NICs and XDP, and name the command that mends what is missing
///
/// Changes nothing, and needs no privilege; what it says of rights is about the user who runs it. Without a name it looks
/// at the whole machine, and what is missing is a warning. With names it looks at what these need, and what is missing
/// for a port is a problem.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ports that you mean to open, interfaces, PCI addresses
    #[arg(value_name = "PORT-URL|IFACE|PCI", value_parser = |text: &str| text.parse::<Target>())]
    targets: Vec<Target>,

    /// One JSON object instead of text: names and states are stable, texts are not
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  rxline doctor                            the whole machine
  rxline doctor af_xdp:eth1                can this user open that port here?
  sudo rxline doctor igb:0000:03:00.0      the same for a NIC on VFIO
  rxline doctor eth1 0000:03:00.0 --json | jq '.findings[] | select(.state != \"ok\")'

Exits 0 without a problem, 1 with one, 2 for wrong arguments.";

/// Looks, and prints what it found.
pub fn run(args: Args) -> ExitCode {
    let machine = Machine::here();
    let report = checks::all(&machine, &Targets(args.targets));
    cli::say(if args.json { report.json() } else { report.to_string() });
    match report.count(State::Problem) {
        0 => Exit::Ok.into(),
        _ => Exit::Failed.into(),
    }
}
