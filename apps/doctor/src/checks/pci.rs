//! IOMMU, VFIO, and the network devices on PCI.

use rustix::fs::{Access, access};

use crate::machine::Machine;
use crate::pci::{Address, PciDevice};
use crate::report::{Group, State};
use crate::route::default_route;
use crate::targets::{Driver, Targets};

use super::{cpus, missing};

pub(super) fn check(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    let devices = PciDevice::all(machine);
    let of_interest = |device: &&PciDevice| {
        let named = |(address, _)| address == device.address;
        targets.is_empty() || targets.pci().any(named)
    };
    if targets.wants_vfio() || targets.is_empty() && !devices.is_empty() {
        iommu(machine, targets, group);
        vfio(machine, targets, group);
    }
    for device in devices.iter().filter(of_interest) {
        let driver =
            targets.pci().find(|(address, _)| *address == device.address).and_then(|(_, driver)| driver);
        show(machine, device, driver, group);
    }
    for (address, _) in targets.pci() {
        if !devices.iter().any(|device| device.address == address) {
            absent(machine, address, group);
        }
    }
}

/// Whether VFIO works without an IOMMU, and so without protection from what a device does.
pub(crate) fn unsafe_mode(machine: &Machine) -> bool {
    machine.text("sys/module/vfio/parameters/enable_unsafe_noiommu_mode").as_deref() == Some("Y")
}

/// How to get an IOMMU: for a `mend`.
pub(crate) fn iommu_mend(machine: &Machine) -> String {
    let vendor = machine.text("proc/cpuinfo").unwrap_or_default();
    let option = if vendor.contains("AuthenticAMD") {
        "switch on AMD-Vi (IOMMU) in the firmware and boot with iommu=pt"
    } else {
        "switch on VT-d in the firmware and boot with intel_iommu=on iommu=pt"
    };
    format!(
        "{option}\n\
         echo 1 | sudo tee /sys/module/vfio/parameters/enable_unsafe_noiommu_mode  # instead, without protection"
    )
}

fn iommu(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    let groups = machine.names("sys/kernel/iommu_groups").len();
    let units = machine.names("sys/class/iommu");
    if groups > 0 {
        let units = if units.is_empty() { String::new() } else { format!(" ({})", units.join(" ")) };
        group.ok("iommu", None, format!("{groups} groups{units}"));
    } else if unsafe_mode(machine) {
        let text = "none; VFIO works without protection from what a device does";
        group.bad("iommu", None, State::Warning, text, iommu_mend(machine));
    } else {
        let text = "none: no PCI device can be driven from user space (igb:, e1000e:, ixgbe:, dpdk:)";
        group.bad("iommu", None, missing(targets.wants_vfio()), text, iommu_mend(machine));
    }
}

fn vfio(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    if !machine.has("sys/bus/pci/drivers/vfio-pci") {
        let (text, mend) = vfio_missing(machine);
        group.bad("vfio", None, missing(targets.wants_vfio()), text, mend);
        return;
    }
    let bound: Vec<_> = machine
        .names("sys/bus/pci/drivers/vfio-pci")
        .into_iter()
        .filter(|name| name.parse::<Address>().is_ok())
        .collect();
    let bound = if bound.is_empty() { "no device".into() } else { bound.join(" ") };
    group.ok("vfio", None, format!("vfio-pci is there, with {bound}"));
}

/// Why there is no vfio-pci, and what to do.
pub(crate) fn vfio_missing(machine: &Machine) -> (&'static str, &'static str) {
    let release = machine.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = machine.text(format!("lib/modules/{release}/modules.dep")).unwrap_or_default();
    if modules.contains("/vfio-pci.ko") {
        ("vfio-pci is not loaded", "sudo modprobe vfio-pci")
    } else {
        ("this kernel has no vfio-pci", "boot a kernel with CONFIG_VFIO_PCI, as distributions build theirs")
    }
}

/// A device: what it is, who drives it, what else hangs on it.
fn show(machine: &Machine, device: &PciDevice, driver: Option<&Driver>, group: &mut Group<'_>) {
    let (vendor, id) = device.id;
    let mut text = format!("{vendor:04x}:{id:04x}, {}", device.driver.as_deref().unwrap_or("no driver"));
    if !device.interfaces.is_empty() {
        text += &format!(" ({})", device.interfaces.join(" "));
    }
    if let Some(iommu_group) = device.group {
        text += &format!(", IOMMU group {iommu_group}");
    }
    if let Some(node) = device.node {
        text += &format!(", NUMA node {node}");
    }
    if let Some(native) = device.native() {
        text += &format!("; {native}:{} drives it", device.address);
    }
    let at = device.address.to_string();
    let of = Some(&*at);
    match (&device.driver, driver) {
        (Some(bound), Some(driver)) if bound != "vfio-pci" => {
            let route = device.interfaces.iter().find_map(|name| default_route(machine, name));
            let mend = match &route {
                None => format!("sudo rxline bind {at}"),
                Some(_) => "use another NIC, or move the route first: rxline bind refuses this one".into(),
            };
            let carries = route.map_or(String::new(), |route| format!(", and carries {route}"));
            let text = format!("{text}; {}: needs vfio-pci{carries}", driver.scheme);
            group.bad("device", of, State::Problem, text, mend);
        }
        (None, _) => {
            let text = format!("{text}: nothing drives it");
            let mend = format!(
                "sudo rxline bind {at}  # for user space\necho {at} | sudo tee /sys/bus/pci/drivers_probe  # for the kernel"
            );
            group.bad("device", of, missing(driver.is_some()), text, mend);
        }
        _ => group.ok("device", of, text),
    }
    if let Some(driver) = driver {
        fits(device, driver, of, group);
    }
    if device.driver.as_deref() == Some("vfio-pci") {
        group_file(machine, device, of, driver.is_some(), group);
    }
    companions(machine, device, of, driver.is_some(), group);
    near(machine, device, of, group);
}

/// Whether a native driver knows the device.
fn fits(device: &PciDevice, driver: &Driver, of: Option<&str>, group: &mut Group<'_>) {
    if driver.scheme == "dpdk" || device.native() == Some(driver.scheme) {
        return;
    }
    let text = format!("{}: does not know this device", driver.scheme);
    let at = device.address;
    let mend = match device.native() {
        Some(native) => format!("write {native}:{at}"),
        None => format!("write dpdk:{at}, if DPDK has a driver for it"),
    };
    group.bad("device_driver", of, State::Problem, text, mend);
}

/// The group's file, which whoever opens the device must be able to open.
fn group_file(machine: &Machine, device: &PciDevice, of: Option<&str>, named: bool, group: &mut Group<'_>) {
    let Some(number) = device.group else { return };
    let path = format!("dev/vfio/{number}");
    match access(machine.path(&path), Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => group.ok("vfio_group", of, format!("/{path} can be opened")),
        Err(error) => {
            let text = format!("/{path}: {error}");
            group.bad("vfio_group", of, missing(named), text, format!("sudo chown $USER /{path}"));
        }
    }
}

fn companions(machine: &Machine, device: &PciDevice, of: Option<&str>, named: bool, group: &mut Group<'_>) {
    let busy =
        |other: &PciDevice| other.driver.as_deref().is_some_and(|d| d != "vfio-pci" && d != "pci-stub");
    let others: Vec<_> = device.companions(machine).into_iter().filter(busy).collect();
    if others.is_empty() || device.driver.as_deref() != Some("vfio-pci") && !named {
        return;
    }
    let list: Vec<_> = others.iter().map(|other| other.address.to_string()).collect();
    let text =
        format!("kernel drivers have {} of the same IOMMU group: VFIO refuses all of it", list.join(" "));
    let mend = format!("sudo rxline bind {}  # or put the card into another slot", list.join(" "));
    group.bad("iommu_group", of, missing(named), text, mend);
}

/// Whether there are CPUs on the device's node.
fn near(machine: &Machine, device: &PciDevice, of: Option<&str>, group: &mut Group<'_>) {
    let Some(node) = device.node else { return };
    let local = cpus::cpus_of(machine, node);
    if !local.is_empty() && local.is_disjoint(&cpus::allowed(machine)) {
        let text = format!("on NUMA node {node}, none of whose CPUs this process may use");
        let mend = format!("taskset -c {} rxline ..", cpus::ranges(&local));
        group.bad("numa", of, State::Warning, text, mend);
    }
}

fn absent(machine: &Machine, address: Address, group: &mut Group<'_>) {
    let at = address.to_string();
    let text = match PciDevice::read(machine, address) {
        Some(device) => format!("is no network device (class {:06x})", device.class),
        None => "there is no such device".into(),
    };
    group.bad(
        "device",
        Some(&at),
        State::Problem,
        text,
        "lspci -D | grep -i net  # lists those that there are",
    );
}
