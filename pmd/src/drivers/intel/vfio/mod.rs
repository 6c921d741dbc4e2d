//! A PCI device of this process, through the kernel's VFIO: registers, configuration space, interrupts, and memory that it can reach.
//!
//! The device is bound to vfio-pci beforehand (`rxline bind`). When the last that uses it lets go, it may no longer reach memory (bus
//! mastering is as it was found), is reset, and its file is closed. See the kernel's Documentation/driver-api/vfio.rst.
//! Deliberately absent: devices without an IOMMU, whose mistakes nothing would stop; INTx and MSI; hot reset of whole buses.

mod abi;
mod container;
mod iova;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use container::Mapping;
use container::{Container, Group};

use super::bar::Bar;
use super::error::DeviceError;
use crate::pool::PoolHandle;

/// Command register of the configuration space, and its bits "memory space" and "bus master" (PCI 3.0, section 6.2.2).
const COMMAND: u64 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;

/// What the system says of a PCI device before it is opened.
#[derive(Clone, Debug)]
pub(crate) struct PciAddress {
    /// As the kernel writes it, with its domain.
    pub text: String,
    pub vendor: u16,
    pub device: u16,
}

impl PciAddress {
    /// Looks for the device at `text`: DOMAIN:BUS:SLOT.FUNCTION, or without the domain when that is 0.
    pub(crate) fn find(text: &str) -> Result<PciAddress, DeviceError> {
        let text = normalise(text).ok_or_else(|| DeviceError::Address { text: text.to_owned() })?;
        let number = |name: &str| {
            let value = std::fs::read_to_string(folder(&text).join(name)).ok()?;
            u16::from_str_radix(value.trim().trim_start_matches("0x"), 16).ok()
        };
        match (number("vendor"), number("device")) {
            (Some(vendor), Some(device)) => Ok(PciAddress { text, vendor, device }),
            _ => Err(DeviceError::NoDevice { pci: text }),
        }
    }

    /// The name that a link in its folder leads to.
    fn link(&self, name: &str) -> Option<String> {
        let target = std::fs::read_link(folder(&self.text).join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

fn folder(pci: &str) -> PathBuf {
    PathBuf::from("/sys/bus/pci/devices").join(pci)
}

fn normalise(text: &str) -> Option<String> {
    let (rest, function) = text.split_once('.')?;
    let mut parts = rest.rsplit(':');
    let (slot, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0000"));
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let good = parts.next().is_none()
        && hex(domain, 4)
        && hex(bus, 2)
        && hex(slot, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    good.then(|| format!("{domain}:{bus}:{slot}.{function}").to_ascii_lowercase())
}

/// An open device.
#[derive(Debug)]
pub(crate) struct VfioDevice {
    pci: String,
    fd: OwnedFd,
    /// Where its configuration space begins in the file.
    config: u64,
    /// The command register as it was found.
    command: u16,
    container: Arc<Container>,
    group: Arc<Group>,
}

impl VfioDevice {
    /// Opens a device that is bound to vfio-pci.
    pub(crate) fn open(address: &PciAddress) -> Result<VfioDevice, DeviceError> {
        let pci = address.text.clone();
        match address.link("driver").as_deref() {
            Some("vfio-pci") => {}
            driver => {
                let driver = driver.unwrap_or("no driver").to_owned();
                return Err(DeviceError::NotBound { pci, driver });
            }
        }
        let group = address.link("iommu_group").and_then(|group| group.parse().ok());
        let number = group.ok_or_else(|| DeviceError::NoIommu { pci: pci.clone() })?;
        let container = Container::get()?;
        let group = container.join(number, &pci)?;
        let fd = group.device(&pci)?;
        let mut device = VfioDevice { pci, fd, config: 0, command: 0, container, group };
        device.config = device.region(abi::CONFIG_SPACE)?.offset;
        device.command = device.read_command()?;
        device.write_command(device.command | COMMAND_MEMORY)?;
        Ok(device)
    }

    pub(crate) fn pci(&self) -> &str {
        &self.pci
    }

    /// Its registers: BAR 0.
    pub(crate) fn registers(&self) -> Result<Bar, DeviceError> {
        let region = self.region(abi::BAR0)?;
        if region.flags & abi::REGION_MMAP == 0 {
            return Err(self.io("BAR 0", io::Error::other("it cannot be mapped")));
        }
        Bar::map(self.fd.as_fd(), region.offset, region.size as usize)
            .map_err(|error| self.io("mapping BAR 0", error))
    }

    /// Lets it reach the memory that is mapped for it.
    pub(crate) fn start_dma(&self) -> Result<(), DeviceError> {
        self.write_command(self.read_command()? | COMMAND_MEMORY | COMMAND_BUS_MASTER)
    }

    /// Keeps it from all memory, interrupts included: nothing that it does reaches us any more.
    pub(crate) fn stop_dma(&self) {
        // A device that is gone reaches nothing either.
        let _ = self.read_command().and_then(|command| self.write_command(command & !COMMAND_BUS_MASTER));
    }

    /// Shows it the memory of a pool, at addresses of at most `bits`.
    pub(crate) fn map_pool(&self, pool: &PoolHandle, bits: u32) -> Result<Arc<Mapping>, DeviceError> {
        self.container.map_pool(pool, bits)
    }

    /// Memory of the driver's own that it sees.
    pub(crate) fn alloc(&self, len: usize, bits: u32) -> Result<Arc<Mapping>, DeviceError> {
        self.container.alloc(len, bits)
    }

    /// MSI-X vectors that it has.
    pub(crate) fn vectors(&self) -> Result<usize, DeviceError> {
        let argsz = size_of::<abi::IrqInfo>() as u32;
        let mut info = abi::IrqInfo { argsz, index: abi::MSIX, ..Default::default() };
        // SAFETY: the request reads and writes an IrqInfo.
        unsafe { abi::call(self.fd.as_raw_fd(), abi::DEVICE_GET_IRQ_INFO, &mut info) }
            .map_err(|error| self.io("asking for MSI-X", error))?;
        Ok(info.count as usize)
    }

    /// Connects MSI-X vector `i` with `eventfds[i]`, at most 16.
    pub(crate) fn connect_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> Result<(), DeviceError> {
        assert!(eventfds.len() <= abi::EVENTFDS_MAX);
        let mut fds: [RawFd; abi::EVENTFDS_MAX] = [-1; abi::EVENTFDS_MAX];
        for (to, from) in fds.iter_mut().zip(eventfds) {
            *to = from.as_raw_fd();
        }
        let argsz = (abi::IrqSet::HEADER + 4 * eventfds.len()) as u32;
        let (flags, count) = (abi::IRQS_TO_EVENTFDS, eventfds.len() as u32);
        let mut set = abi::IrqSet { argsz, flags, index: abi::MSIX, start: 0, count, eventfds: fds };
        // SAFETY: the request reads `argsz` bytes of the IrqSet, which has at least as many.
        unsafe { abi::call(self.fd.as_raw_fd(), abi::DEVICE_SET_IRQS, &mut set) }
            .map_err(|error| self.io("connecting MSI-X vectors", error))?;
        Ok(())
    }

    fn disconnect_vectors(&self) {
        let (argsz, flags) = (abi::IrqSet::HEADER as u32, abi::IRQS_OFF);
        let eventfds = [-1; abi::EVENTFDS_MAX];
        let mut set = abi::IrqSet { argsz, flags, index: abi::MSIX, start: 0, count: 0, eventfds };
        // SAFETY: as above. Without vectors connected it is refused, which is as well.
        let _ = unsafe { abi::call(self.fd.as_raw_fd(), abi::DEVICE_SET_IRQS, &mut set) };
    }

    fn region(&self, index: u32) -> Result<abi::RegionInfo, DeviceError> {
        let argsz = size_of::<abi::RegionInfo>() as u32;
        let mut info = abi::RegionInfo { argsz, index, ..Default::default() };
        // SAFETY: the request reads and writes a RegionInfo.
        unsafe { abi::call(self.fd.as_raw_fd(), abi::DEVICE_GET_REGION_INFO, &mut info) }
            .map_err(|error| self.io("asking for a region", error))?;
        Ok(info)
    }

    fn read_command(&self) -> Result<u16, DeviceError> {
        let mut bytes = [0u8; 2];
        let at = (self.config + COMMAND) as libc::off_t;
        // SAFETY: two bytes are written into `bytes`.
        let got = unsafe { libc::pread(self.fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 2, at) };
        if got != 2 {
            return Err(self.io("reading its configuration space", io::Error::last_os_error()));
        }
        Ok(u16::from_le_bytes(bytes))
    }

    fn write_command(&self, command: u16) -> Result<(), DeviceError> {
        let bytes = command.to_le_bytes();
        let at = (self.config + COMMAND) as libc::off_t;
        // SAFETY: two bytes are read from `bytes`.
        let put = unsafe { libc::pwrite(self.fd.as_raw_fd(), bytes.as_ptr().cast(), 2, at) };
        if put != 2 {
            return Err(self.io("writing its configuration space", io::Error::last_os_error()));
        }
        Ok(())
    }

    fn io(&self, what: &str, source: io::Error) -> DeviceError {
        DeviceError::io(format!("{}: {what}", self.pci), source)
    }
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        self.disconnect_vectors();
        let _ = self.write_command(self.command & !COMMAND_BUS_MASTER);
        // What has no reset of its own (function level, or by power) keeps its state; the next to open it resets it by its registers.
        let _ = abi::call_number(self.fd.as_raw_fd(), abi::DEVICE_RESET, 0);
        self.group.close(&self.pci);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_a_domain() {
        assert_eq!(normalise("0000:01:00.0").unwrap(), "0000:01:00.0");
        assert_eq!(normalise("0A:1f.7").unwrap(), "0000:0a:1f.7");
        for bad in ["", "eth0", "01:00", "1:00.0", "01:00.8", "00:00:01:00.0", "0000:01:00.00", "../x.0"] {
            assert!(normalise(bad).is_none(), "{bad:?} was taken");
        }
        let error = PciAddress::find("ffff:ff:1f.7").unwrap_err().to_string();
        assert_eq!(error, "there is no PCI device ffff:ff:1f.7; `lspci -D` lists them");
    }
}
