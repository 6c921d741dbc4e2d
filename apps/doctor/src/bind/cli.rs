//! `rxline bind` and `rxline unbind`.

use std::process::ExitCode;

use cli::Exit;

use super::{BindError, Binder, Said, Sysfs};
use crate::machine::Machine;
use crate::pci::Address;

/// Take NICs from their kernel drivers and give them to vfio-pci, for igb:, e1000e:, ixgbe: and dpdk:
///
/// The interface that carries the default route is always refused, also if a bridge, bond or VLAN upon it has the route.
/// Interfaces that are up or have addresses are refused without --force. Loads no module. `rxline unbind` puts a NIC
/// back to the driver that it came from.
#[derive(clap::Args, Debug)]
#[command(after_help = BIND_EXAMPLES)]
pub struct BindArgs {
    /// As lspci -D shows it: 0000:03:00.0
    #[arg(value_name = "PCI", required = true)]
    devices: Vec<Address>,

    /// Take interfaces that are up, have addresses, or belong to a bridge; never the default route's
    #[arg(long)]
    force: bool,

    /// Check everything, and print the writes instead of doing them
    #[arg(long)]
    dry_run: bool,
}

/// Give NICs back from vfio-pci to the drivers that they came from
///
/// Where nothing is remembered (after `driver_override` by hand, say) the kernel chooses. A NIC that a process has open
/// is refused: end that process first.
#[derive(clap::Args, Debug)]
#[command(after_help = EXITS)]
pub struct UnbindArgs {
    /// As lspci -D shows it: 0000:03:00.0
    #[arg(value_name = "PCI", required = true)]
    devices: Vec<Address>,

    /// Check everything, and print the writes instead of doing them
    #[arg(long)]
    dry_run: bool,
}

const BIND_EXAMPLES: &str = "\
Examples:
  rxline doctor                                    which NICs there are, and who drives them
  sudo rxline bind --dry-run 0000:03:00.0
  sudo rxline bind 0000:03:00.0 0000:03:00.1       both ports of a card that share an IOMMU group
  sudo rxline unbind 0000:03:00.0 0000:03:00.1

Exits 0 when all are bound, 1 if one is refused or not taken, 2 for wrong arguments, 3 without the rights or without vfio-pci, IOMMU or device.";

const EXITS: &str = "Exits 0 when all are back, 1 if one is refused or not taken, 2 for wrong arguments, 3 without the rights or the device.";

/// Binds.
pub fn bind(args: BindArgs) -> ExitCode {
    let machine = Machine::here();
    let (force, dry_run) = (args.force, args.dry_run);
    let done = Binder { machine: &machine, kernel: &mut Sysfs, force, dry_run }.bind(&args.devices);
    tell("bind", done)
}

/// Gives back.
pub fn unbind(args: UnbindArgs) -> ExitCode {
    let machine = Machine::here();
    let dry_run = args.dry_run;
    let done = Binder { machine: &machine, kernel: &mut Sysfs, force: false, dry_run }.unbind(&args.devices);
    tell("unbind", done)
}

fn tell(command: &str, done: Result<Said, BindError>) -> ExitCode {
    match done {
        Ok(said) => {
            said.iter().for_each(|line| cli::say(format_args!("{line}\n")));
            Exit::Ok.into()
        }
        Err(error) => exit(&error).because(command, error),
    }
}

fn exit(error: &BindError) -> Exit {
    use BindError as E;
    match error {
        E::NotNetwork { .. } => Exit::Usage,
        E::NoDevice { .. } | E::NoVfio { .. } | E::NoIommu { .. } | E::NoDriver { .. } => Exit::Environment,
        E::Io { .. } | E::Unknown { .. } => Exit::Environment,
        E::DefaultRoute { .. } | E::InUse { .. } | E::NotVfio { .. } => Exit::Failed,
        E::Open { .. } | E::NotTaken { .. } => Exit::Failed,
    }
}
