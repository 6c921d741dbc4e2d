//! The checks, a file for each group.

mod cpus;
mod dpdk;
mod interfaces;
mod memory;
mod pci;
mod rights;
mod system;
#[cfg(test)]
mod tests;

pub(crate) use self::pci::{iommu_mend, unsafe_mode, vfio_missing};
use crate::machine::Machine;
use crate::report::{Report, State};
use crate::targets::Targets;

/// Looks at everything that concerns `targets`; at everything if there are none.
pub(crate) fn all(machine: &Machine, targets: &Targets) -> Report {
    let mut report = Report::default();
    system::check(machine, targets, &mut report.group("system"));
    cpus::check(machine, targets, &mut report.group("cpus"));
    memory::check(machine, targets, &mut report.group("memory"));
    rights::check(machine, targets, &mut report.group("rights"));
    pci::check(machine, targets, &mut report.group("pci"));
    interfaces::check(machine, targets, &mut report.group("interfaces"));
    dpdk::check(machine, targets, &mut report.group("dpdk"));
    report
}

/// What is missing is a problem if a port that was named needs it, and otherwise a warning.
fn missing(needed: bool) -> State {
    if needed { State::Problem } else { State::Warning }
}
