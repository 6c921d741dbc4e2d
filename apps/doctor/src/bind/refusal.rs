//! What keeps a device where it is.

use std::fs;
use std::path::PathBuf;

use super::steps::Memory;
use super::{BindError, VFIO};
use crate::checks;
use crate::machine::Machine;
use crate::pci::PciDevice;
use crate::route::{default_route, with_uppers};

/// Whether `device` may go to vfio-pci.
pub(super) fn check_bind(machine: &Machine, device: &PciDevice, force: bool) -> Result<(), BindError> {
    let address = device.address;
    for interface in &device.interfaces {
        same_namespace(machine, device, interface)?;
        if let Some(route) = default_route(machine, interface) {
            return Err(BindError::DefaultRoute { address, interface: interface.clone(), route });
        }
    }
    if let Some(error) = &machine.network.error {
        return Err(BindError::Unknown { address, why: format!("the kernel does not answer: {error}") });
    }
    if !force {
        in_use(machine, device)?;
    }
    if !machine.has(format!("sys/bus/pci/drivers/{VFIO}")) {
        let (what, mend) = checks::vfio_missing(machine);
        return Err(BindError::NoVfio { what, mend });
    }
    if device.group.is_none() && !checks::unsafe_mode(machine) {
        return Err(BindError::NoIommu { address, mend: checks::iommu_mend(machine).replace('\n', "; or ") });
    }
    Ok(())
}

/// The kernel's answers and /sys must speak of one network namespace, or routes and interfaces do not go together.
fn same_namespace(machine: &Machine, device: &PciDevice, interface: &str) -> Result<(), BindError> {
    let shown = machine.number(format!("sys/class/net/{interface}/ifindex"));
    let answered = machine.network.link(interface).map(|link| i64::from(link.index));
    if machine.network.error.is_some() || shown.is_some() && shown == answered {
        return Ok(());
    }
    let why = format!(
        "/sys shows {interface} of another network namespace than this process is in; use `ip netns exec`, or the namespace that has it"
    );
    Err(BindError::Unknown { address: device.address, why })
}

/// Whether anybody would miss it.
fn in_use(machine: &Machine, device: &PciDevice) -> Result<(), BindError> {
    let address = device.address;
    let refuse = |what: String, mend: String| Err(BindError::InUse { address, what, mend });
    for name in &device.interfaces {
        let Some(link) = machine.network.link(name) else { continue };
        let addresses: Vec<_> =
            machine.network.addresses_of(link.index).map(|address| address.to_string()).collect();
        if !addresses.is_empty() {
            let mend = format!("`ip addr flush dev {name}`");
            return refuse(format!("{name} has {}", addresses.join(" ")), mend);
        }
        if let Some(upper) = with_uppers(machine, name).iter().find(|upper| *upper != name) {
            return refuse(
                format!("{upper} is built upon {name}"),
                format!("`ip link del {upper}` or take {name} out of it"),
            );
        }
        if link.up {
            return refuse(format!("{name} is up"), format!("`ip link set {name} down`"));
        }
    }
    if device.virtual_functions > 0 {
        let mend = format!("`echo 0 > /sys/bus/pci/devices/{address}/sriov_numvfs`");
        return refuse(format!("it has {} virtual functions", device.virtual_functions), mend);
    }
    // A driver of the kernel's without an interface in sight: a namespace, most likely a container's, has it.
    match &device.driver {
        Some(driver) if device.interfaces.is_empty() && !is_for_user_space(driver) => {
            let what =
                format!("{driver} has it, and its interface is in no namespace that is seen from here");
            refuse(what, "look in `ip netns` and in containers".into())
        }
        _ => Ok(()),
    }
}

fn is_for_user_space(driver: &str) -> bool {
    ["pci-stub", "uio_pci_generic", "igb_uio"].contains(&driver)
}

/// Whether `device` may leave vfio-pci.
pub(super) fn check_unbind(
    machine: &Machine,
    device: &PciDevice,
    memory: Option<&Memory>,
) -> Result<(), BindError> {
    let address = device.address;
    let before = memory.and_then(|memory| memory.driver.as_deref());
    match device.driver.as_deref() {
        Some(VFIO) => {}
        // It was put back by other means, or taken from vfio-pci and not given to anybody.
        driver if memory.is_some() && (driver.is_none() || driver == before) => {}
        driver => return Err(BindError::NotVfio { address, driver: driver.map(str::to_owned) }),
    }
    if let Some(driver) = before.filter(|driver| !machine.has(format!("sys/bus/pci/drivers/{driver}"))) {
        return Err(BindError::NoDriver { address, driver: driver.into() });
    }
    let holders = holders(machine, device);
    if holders.is_empty() { Ok(()) } else { Err(BindError::Open { address, processes: holders.join(", ") }) }
}

/// Processes that have the device's VFIO files open. Writing to `unbind` would wait for them inside the kernel.
fn holders(machine: &Machine, device: &PciDevice) -> Vec<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    if let Some(group) = device.group {
        files.extend([format!("/dev/vfio/{group}").into(), format!("/dev/vfio/noiommu-{group}").into()]);
    }
    let cdevs = machine.names(format!("{}/{}/vfio-dev", crate::pci::DEVICES, device.address));
    files.extend(cdevs.iter().map(|cdev| PathBuf::from(format!("/dev/vfio/devices/{cdev}"))));
    let has_it = |pid: &String| {
        let fds = machine.names(format!("proc/{pid}/fd")).into_iter();
        let mut targets =
            fds.filter_map(|fd| fs::read_link(machine.path(format!("proc/{pid}/fd/{fd}"))).ok());
        targets.any(|target| files.contains(&target))
    };
    let pids = machine.names("proc").into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    pids.filter(has_it)
        .map(|pid| {
            let name = machine.text(format!("proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({name})")
        })
        .collect()
}
