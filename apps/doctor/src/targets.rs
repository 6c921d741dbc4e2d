//! What doctor is asked about: ports by URL, interfaces, PCI devices; and what each driver needs.

use std::str::FromStr;

use crate::pci::{Address, NotPci};

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A port that is to be opened.
    Port {
        /// As written.
        url: String,
        /// Its driver's scheme.
        driver: &'static Driver,
        /// Interface, PCI address, socket: what is behind the colon and before the options.
        head: String,
    },
    /// An interface.
    Interface(String),
    /// A PCI device.
    Pci(Address),
}

/// Not a thing to look at.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// No such scheme.
    #[error("{url:?} names no driver; use one of {}", schemes())]
    UnknownDriver {
        /// As written.
        url: String,
    },
    /// It names no interface, or no PCI device.
    #[error("{url:?} does not say which {what}; write {driver}:{}", what.to_uppercase().replace(' ', "-"))]
    NoHead {
        /// As written.
        url: String,
        /// The driver.
        driver: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// Not a PCI address.
    #[error(transparent)]
    NotPci(#[from] NotPci),
}

/// What a port of this driver is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Memory of this process, or files.
    None,
    /// An interface of Linux.
    Interface,
    /// An interface that the driver makes.
    Tap,
    /// A PCI device on VFIO.
    Vfio,
    /// What DPDK's arguments say.
    Dpdk,
}

/// A driver, and what it needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Driver {
    /// Of its URLs.
    pub scheme: &'static str,
    /// What it drives.
    pub device: Device,
    /// Capabilities without which it does not open.
    pub capabilities: &'static [&'static str],
    /// Whether it locks memory: UMEM, DMA.
    pub locks: bool,
}

const fn driver(
    scheme: &'static str,
    device: Device,
    capabilities: &'static [&'static str],
    locks: bool,
) -> Driver {
    Driver { scheme, device, capabilities, locks }
}

/// Every driver of this project, whether it was built into this binary or not.
pub const DRIVERS: &[Driver] = &[
    driver("memory", Device::None, &[], false),
    driver("null", Device::None, &[], false),
    driver("pcap", Device::None, &[], false),
    driver("sim", Device::None, &[], false),
    driver("memif", Device::None, &[], false),
    driver("af_packet", Device::Interface, &["CAP_NET_RAW"], false),
    driver("tap", Device::Tap, &["CAP_NET_ADMIN"], false),
    driver("af_xdp", Device::Interface, &["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"], true),
    driver("dpdk", Device::Dpdk, &[], true),
    driver("igb", Device::Vfio, &[], true),
    driver("e1000e", Device::Vfio, &[], true),
    driver("ixgbe", Device::Vfio, &[], true),
];

fn schemes() -> String {
    DRIVERS.iter().map(|driver| format!("{}:", driver.scheme)).collect::<Vec<_>>().join(" ")
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(address) = text.parse() {
            return Ok(Target::Pci(address));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Ok(Target::Interface(text.into()));
        };
        // A wire around another port needs what that one needs.
        if let ("sim", Some((_, inner))) = (scheme, rest.split_once('@')) {
            return inner.parse();
        }
        let Some(driver) = DRIVERS.iter().find(|driver| driver.scheme == scheme) else {
            return Err(TargetError::UnknownDriver { url: text.into() });
        };
        let head = rest.split(',').next().filter(|head| !head.contains('=')).unwrap_or("").to_owned();
        let what = match driver.device {
            Device::Interface | Device::Tap => "interface",
            Device::Vfio => "pci address",
            Device::Dpdk => "device",
            Device::None => "",
        };
        if head.is_empty() && !what.is_empty() {
            return Err(TargetError::NoHead { url: text.into(), driver: driver.scheme, what });
        }
        if driver.device == Device::Vfio {
            head.parse::<Address>()?;
        }
        Ok(Target::Port { url: text.into(), driver, head })
    }
}

/// Everything asked about, and what follows from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets(pub Vec<Target>);

impl Targets {
    /// The drivers of the ports.
    pub fn drivers(&self) -> impl Iterator<Item = &'static Driver> + '_ {
        self.0.iter().filter_map(|target| match target {
            Target::Port { driver, .. } => Some(*driver),
            _ => None,
        })
    }

    /// The interfaces named, each with the driver it is named for.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, Option<&'static Driver>)> + '_ {
        self.0.iter().filter_map(|target| match target {
            Target::Port { driver, head, .. } if driver.device == Device::Interface => {
                Some((&**head, Some(*driver)))
            }
            Target::Interface(name) => Some((&**name, None)),
            _ => None,
        })
    }

    /// The PCI devices named, each with the driver it is named for.
    pub fn pci(&self) -> impl Iterator<Item = (Address, Option<&'static Driver>)> + '_ {
        self.0.iter().filter_map(|target| match target {
            Target::Port { driver, head, .. } if matches!(driver.device, Device::Vfio | Device::Dpdk) => {
                Some((head.parse().ok()?, Some(*driver)))
            }
            Target::Pci(address) => Some((*address, None)),
            _ => None,
        })
    }

    /// Whether a port that was named is driven through VFIO.
    pub fn wants_vfio(&self) -> bool {
        self.pci().any(|(_, driver)| driver.is_some())
    }

    /// Whether nothing was named: then everything is looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> (&'static str, String) {
        match text.parse() {
            Ok(Target::Port { driver, head, .. }) => (driver.scheme, head),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_is_named_is_told_apart() {
        assert_eq!(port("af_xdp:eth0,queues=2"), ("af_xdp", "eth0".into()));
        assert_eq!(port("igb:0000:03:00.1"), ("igb", "0000:03:00.1".into()));
        assert_eq!(port("sim:loss=0.1,delay=1ms@af_packet:eth1"), ("af_packet", "eth1".into()));
        assert_eq!(port("dpdk:net_ring0"), ("dpdk", "net_ring0".into()));
        assert_eq!(port("pcap:rx=a,tx=b"), ("pcap", "".into()));
        assert_eq!("eth0".parse(), Ok(Target::Interface("eth0".into())));
        assert!(matches!("03:00.0".parse(), Ok(Target::Pci(_))));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, names) in [
            ("ring:x", "names no driver"),
            ("af_xdp:", "af_xdp:INTERFACE"),
            ("af_packet:queues=2", "which interface"),
            ("igb:eth0", "\"eth0\" is no PCI address"),
            ("sim:@nope:x", "\"nope:x\" names no driver"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
