//! Why a device could not be driven, and what mends it.

use std::io;

/// Trouble with a PCI device that is driven through VFIO.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not the form of a PCI address.
    #[error("{text:?} is not a PCI address; write one as `lspci -D` shows it: 0000:01:00.0")]
    Address {
        /// What was written.
        text: String,
    },
    /// Nothing there.
    #[error("there is no PCI device {pci}; `lspci -D` lists them")]
    NoDevice {
        /// The address.
        pci: String,
    },
    /// Another kind of device.
    #[error("{pci} is {vendor:04x}:{device:04x}, which {driver} does not drive; it drives {known}")]
    WrongDevice {
        /// The address.
        pci: String,
        /// What the device says it is.
        vendor: u16,
        /// What the device says it is.
        device: u16,
        /// The driver.
        driver: &'static str,
        /// Chips that it knows.
        known: String,
    },
    /// Still with its kernel driver.
    #[error("{pci} is bound to {driver}; as root: rxline bind {pci}")]
    NotBound {
        /// The address.
        pci: String,
        /// Who has it.
        driver: String,
    },
    /// Without an IOMMU there is no safe way.
    #[error(
        "{pci} has no IOMMU group; turn the IOMMU on in the firmware and boot with intel_iommu=on (or amd_iommu=on)"
    )]
    NoIommu {
        /// The address.
        pci: String,
    },
    /// Other devices of its group belong to the kernel.
    #[error(
        "IOMMU group {group} of {pci} is shared with {others}: bind all of them to vfio-pci (rxline bind), or use another slot"
    )]
    NotViable {
        /// The address.
        pci: String,
        /// Its group.
        group: u32,
        /// The others, with who drives each.
        others: String,
    },
    /// Not allowed.
    #[error("{what} is not permitted; run as root, or: sudo chown $USER {what}")]
    Permission {
        /// The file.
        what: String,
    },
    /// Somebody drives it.
    #[error("{pci} is in use by another process or port; close that first")]
    Busy {
        /// The address.
        pci: String,
    },
    /// The kernel has no VFIO, or an unknown one.
    #[error("VFIO is not there ({what}); as root: modprobe vfio-pci")]
    NoVfio {
        /// What was missing.
        what: String,
    },
    /// Pinning memory is limited.
    #[error(
        "{bytes} bytes cannot be pinned for the device: the limit is {limit}; raise it with `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit"
    )]
    Memlock {
        /// What was to be pinned.
        bytes: usize,
        /// RLIMIT_MEMLOCK.
        limit: u64,
    },
    /// The device or its IOMMU cannot address so much.
    #[error("{bytes} bytes do not fit the addresses of the device (up to {last:#x}); use smaller pools")]
    Aperture {
        /// What was to be mapped.
        bytes: usize,
        /// The last address.
        last: u64,
    },
    /// The kernel refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// It does not answer.
    #[error(
        "{what} did not finish within {millis} ms; unbind and bind the device, or reset it: echo 1 > /sys/bus/pci/devices/{pci}/reset"
    )]
    Timeout {
        /// The address.
        pci: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        millis: u64,
    },
    /// Its registers read as all ones.
    #[error("{pci} is gone: its registers read as all ones; it was removed, or its slot lost power")]
    Gone {
        /// The address.
        pci: String,
    },
    /// What its memory says of its address is not one.
    #[error("{pci} has no usable Ethernet address ({mac}); its non-volatile memory is empty or damaged")]
    NoMac {
        /// The address.
        pci: String,
        /// What it says.
        mac: String,
    },
}

impl DeviceError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> DeviceError {
        DeviceError::Io { what: what.into(), source }
    }
}
