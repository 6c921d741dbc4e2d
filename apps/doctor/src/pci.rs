//! PCI devices as sysfs shows them.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use crate::machine::Machine;

/// Where a device is: domain, bus, slot, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    domain: u32,
    bus: u8,
    slot: u8,
    function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.slot, self.function)
    }
}

/// What was written is no PCI address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no PCI address; write one as lspci -D shows it: 0000:03:00.0")]
pub struct NotPci(String);

impl FromStr for Address {
    type Err = NotPci;

    /// `0000:03:00.0`, or without the domain, which is then 0.
    fn from_str(text: &str) -> Result<Self, NotPci> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let mut parts = rest.rsplit(':');
            let (slot, bus) = (parts.next()?, parts.next()?);
            let domain = parts.next().unwrap_or("0000");
            let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
                let sound = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                sound.then(|| u32::from_str_radix(text, 16).ok()).flatten()
            };
            let address = Address {
                domain: hex(domain, 4..=8)?,
                bus: hex(bus, 2..=2)? as u8,
                slot: hex(slot, 2..=2)? as u8,
                function: hex(function, 1..=1)? as u8,
            };
            (parts.next().is_none() && address.slot < 32 && address.function < 8).then_some(address)
        };
        parse().ok_or_else(|| NotPci(text.into()))
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is.
    pub address: Address,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Class, subclass, interface.
    pub class: u32,
    /// The kernel driver bound to it.
    pub driver: Option<String>,
    /// The only driver that may be bound to it, if one was named.
    pub driver_override: Option<String>,
    /// Interfaces of it in this network namespace.
    pub interfaces: Vec<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its NUMA node.
    pub node: Option<usize>,
    /// SR-IOV functions switched on.
    pub virtual_functions: u32,
}

/// Every PCI device's folder.
pub(crate) const DEVICES: &str = "sys/bus/pci/devices";
/// The class of Ethernet and other network controllers.
const CLASS_NETWORK: u32 = 2;

impl PciDevice {
    /// The device at `address`, whatever it is.
    pub fn read(machine: &Machine, address: Address) -> Option<Self> {
        let folder = PathBuf::from(DEVICES).join(address.to_string());
        let number = |name: &str| machine.number(folder.join(name));
        let class = number("class")? as u32;
        let group = machine.link(folder.join("iommu_group")).and_then(|group| group.parse().ok());
        let named = machine.text(folder.join("driver_override"));
        Some(PciDevice {
            address,
            id: (number("vendor")? as u16, number("device")? as u16),
            class,
            driver: machine.link(folder.join("driver")),
            driver_override: named.filter(|name| !name.is_empty() && name != "(null)"),
            interfaces: interfaces(machine, &folder),
            group,
            node: number("numa_node").and_then(|node| usize::try_from(node).ok()),
            virtual_functions: number("sriov_numvfs").map_or(0, |n| n as u32),
        })
    }

    /// All network devices, in the order of their addresses.
    pub fn all(machine: &Machine) -> Vec<Self> {
        let addresses = machine.names(DEVICES).into_iter().filter_map(|name| name.parse().ok());
        addresses
            .filter_map(|address| PciDevice::read(machine, address))
            .filter(PciDevice::is_network)
            .collect()
    }

    /// Whether it is a network controller.
    pub fn is_network(&self) -> bool {
        self.class >> 16 == CLASS_NETWORK
    }

    /// The other devices of its IOMMU group, which go to user space together or not at all; bridges are no matter.
    pub fn companions(&self, machine: &Machine) -> Vec<PciDevice> {
        const CLASS_BRIDGE: u32 = 6;
        let Some(group) = self.group else { return Vec::new() };
        let names = machine.names(format!("sys/kernel/iommu_groups/{group}/devices"));
        let others = names.iter().filter_map(|name| name.parse().ok()).filter(|other| *other != self.address);
        let devices = others.filter_map(|other| PciDevice::read(machine, other));
        devices.filter(|device| device.class >> 16 != CLASS_BRIDGE).collect()
    }

    /// The native driver of this project that knows the device.
    pub fn native(&self) -> Option<&'static str> {
        const INTEL: u16 = 0x8086;
        let known = |ids: &[u16]| self.id.0 == INTEL && ids.contains(&self.id.1);
        if known(&[0x10c9, 0x10e6, 0x10e7, 0x1526, 0x1521, 0x1522, 0x1523]) {
            Some("igb")
        } else if known(&[0x10d3]) {
            Some("e1000e")
        } else if known(&[0x10fb, 0x10fc, 0x1528, 0x1560, 0x1563, 0x15d1]) {
            Some("ixgbe")
        } else {
            None
        }
    }
}

/// The interfaces below a device's folder; virtio's are a device further down.
fn interfaces(machine: &Machine, folder: &std::path::Path) -> Vec<String> {
    let Ok(device) = fs::canonicalize(machine.path(folder)) else { return Vec::new() };
    let all = machine.names("sys/class/net").into_iter();
    all.filter(|name| {
        let real = fs::canonicalize(machine.path("sys/class/net").join(name));
        real.is_ok_and(|real| real.starts_with(&device))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_lspci_writes_them() {
        let address: Address = "0000:3a:00.1".parse().unwrap();
        assert_eq!(address.to_string(), "0000:3a:00.1");
        assert_eq!("3a:00.1".parse(), Ok(address));
        assert_eq!("10000:01:1f.7".parse::<Address>().unwrap().to_string(), "10000:01:1f.7");
        for bad in ["", "eth0", "3a:00", "3a:00.8", "3a:20.0", "zz:00.0", "0:3a:00.0", "1:2:3:4.0", "+a:00.0"]
        {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
