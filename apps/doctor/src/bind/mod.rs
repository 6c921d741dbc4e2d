//! `rxline bind` and `rxline unbind`: a NIC from its kernel driver to vfio-pci, and back.
//!
//! The way is `driver_override`, which speaks of one device alone, and then `drivers_probe`; what was there before is
//! remembered below `/run`, as long as the kernel that knows of the binding lives. Everything that can be known is checked
//! before the first write, and a device that vfio-pci does not take goes back at once.
//!
//! Deliberately absent: loading modules, `new_id` (it would take every device of that kind), and binding at boot.

pub mod cli;
mod refusal;
mod steps;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::pci::{Address, PciDevice};
use steps::{Memory, Step};

/// The driver that gives a device to user space.
pub(crate) const VFIO: &str = "vfio-pci";

/// Why a device was left where it is, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// No such device.
    #[error("there is no PCI device {address}: `lspci -D` lists those that there are")]
    NoDevice {
        /// Where.
        address: Address,
    },
    /// It is something else.
    #[error("{address} is no network device (class {class:06x}), and rxline binds no other")]
    NotNetwork {
        /// Where.
        address: Address,
        /// What it is.
        class: u32,
    },
    /// The machine would be cut off.
    #[error(
        "{address} ({interface}) carries {route}: move the route to another NIC first (`ip route`, `ip -6 route`)"
    )]
    DefaultRoute {
        /// Where.
        address: Address,
        /// Its interface.
        interface: String,
        /// Of which interface the route is.
        route: String,
    },
    /// Whether it would be cut off cannot be told.
    #[error("{address}: it cannot be told whether it carries the default route: {why}")]
    Unknown {
        /// Where.
        address: Address,
        /// What is wrong, and the mend.
        why: String,
    },
    /// Somebody uses it.
    #[error("{address} is in use: {what}; {mend}, or give --force")]
    InUse {
        /// Where.
        address: Address,
        /// By what.
        what: String,
        /// What to do first.
        mend: String,
    },
    /// No driver to bind it to.
    #[error("{what}: {mend}")]
    NoVfio {
        /// What is missing.
        what: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// Nothing keeps the device from writing anywhere.
    #[error("{address} is in no IOMMU group, so VFIO does not take it: {mend}")]
    NoIommu {
        /// Where.
        address: Address,
        /// What to do.
        mend: String,
    },
    /// It is not ours to give back.
    #[error("{address} is not bound to vfio-pci but to {}: there is nothing to give back", driver.as_deref().unwrap_or("no driver"))]
    NotVfio {
        /// Where.
        address: Address,
        /// Who has it.
        driver: Option<String>,
    },
    /// Taking it away would block in the kernel until they let go.
    #[error("{address} is open in {processes}: end that first")]
    Open {
        /// Where.
        address: Address,
        /// Who has it open.
        processes: String,
    },
    /// Its driver has gone.
    #[error("{address} came from {driver}, which is not loaded: sudo modprobe {driver}, and unbind again")]
    NoDriver {
        /// Where.
        address: Address,
        /// Its driver.
        driver: String,
    },
    /// Others have not taken it.
    #[error("{address} is bound to {} and not to {wanted}: {why}", now.as_deref().unwrap_or("no driver"))]
    NotTaken {
        /// Where.
        address: Address,
        /// The driver that should have it.
        wanted: String,
        /// The driver that has it.
        now: Option<String>,
        /// What happened, and where to look.
        why: String,
    },
    /// A write failed.
    #[error("{}: {source}{}", path.display(), mend(source))]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run as root",
        io::ErrorKind::ReadOnlyFilesystem => ": sudo mount -o remount,rw /sys",
        io::ErrorKind::NotFound => ": is /sys mounted?",
        _ => "",
    }
}

/// Who writes into sysfs: the machine's own, or a made-up kernel.
pub(crate) trait Kernel {
    /// One write(2) into a file that is there.
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()>;
}

/// The real one.
pub(crate) struct Sysfs;

impl Kernel for Sysfs {
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        let written = file.write(text.as_bytes())?;
        if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// What is done, on which machine.
pub(crate) struct Binder<'a> {
    pub machine: &'a Machine,
    pub kernel: &'a mut dyn Kernel,
    /// Takes devices that are in use.
    pub force: bool,
    /// Shows the writes and does not do them.
    pub dry_run: bool,
}

/// What came of it, in words.
pub(crate) type Said = Vec<String>;

impl Binder<'_> {
    /// Binds all of them, or none if one of them must not be.
    pub fn bind(&mut self, addresses: &[Address]) -> Result<Said, BindError> {
        let mut devices = Vec::new();
        for &address in addresses {
            let device = self.device(address)?;
            if device.driver.as_deref() != Some(VFIO) {
                refusal::check_bind(self.machine, &device, self.force)?;
            }
            devices.push(device);
        }
        let mut said = Said::new();
        for device in &devices {
            if device.driver.as_deref() == Some(VFIO) {
                said.push(format!("{} is bound to {VFIO} already", device.address));
            } else {
                self.bind_one(device, &mut said)?;
            }
            said.extend(self.companions(device, addresses));
        }
        Ok(said)
    }

    fn bind_one(&mut self, device: &PciDevice, said: &mut Said) -> Result<(), BindError> {
        let steps = steps::bind(device);
        if self.dry_run {
            said.extend(steps.iter().map(Step::to_string));
            return Ok(());
        }
        let done = self.run(&steps).and_then(|()| self.must_have(device.address, VFIO));
        if let Err(error) = done {
            let back = self.run(&steps::undo(device));
            return Err(explain(error, device, back));
        }
        let from = device.driver.as_deref().unwrap_or("no driver");
        let gone = match device.interfaces.join(" ") {
            names if names.is_empty() => String::new(),
            names => format!(", {names} is gone"),
        };
        let group = PciDevice::read(self.machine, device.address).and_then(|device| device.group);
        let file = group.map_or(String::new(), |group| format!(", /dev/vfio/{group}"));
        let at = device.address;
        said.push(format!("{at}: {from} -> {VFIO}{file}{gone}; `rxline unbind {at}` puts it back"));
        Ok(())
    }

    /// Names what must leave the kernel too before VFIO gives the group to anybody.
    fn companions(&self, device: &PciDevice, also: &[Address]) -> Option<String> {
        let busy = |other: &PciDevice| {
            !also.contains(&other.address) && other.driver.as_deref().is_some_and(|driver| driver != VFIO)
        };
        let others = device.companions(self.machine).into_iter().filter(busy);
        let others: Vec<_> = others
            .map(|other| format!("{} ({})", other.address, other.driver.as_deref().unwrap_or_default()))
            .collect();
        let (group, at) = (device.group?, device.address);
        let list = others.join(" ");
        (!others.is_empty()).then(|| {
            format!("{at} shares IOMMU group {group} with {list}: VFIO opens it once these are bound to {VFIO} too")
        })
    }

    /// Gives all of them back, or none if one of them cannot be.
    pub fn unbind(&mut self, addresses: &[Address]) -> Result<Said, BindError> {
        let mut devices = Vec::new();
        for &address in addresses {
            let device = self.device(address)?;
            let memory = Memory::read(self.machine, address)?;
            refusal::check_unbind(self.machine, &device, memory.as_ref())?;
            devices.push((device, memory));
        }
        let mut said = Said::new();
        for (device, memory) in devices {
            self.unbind_one(&device, memory, &mut said)?;
        }
        Ok(said)
    }

    fn unbind_one(
        &mut self,
        device: &PciDevice,
        memory: Option<Memory>,
        said: &mut Said,
    ) -> Result<(), BindError> {
        let steps = steps::unbind(device, memory.as_ref());
        if self.dry_run {
            said.extend(steps.iter().map(Step::to_string));
            return Ok(());
        }
        self.run(&steps)?;
        if let Some(driver) = memory.as_ref().and_then(|memory| memory.driver.as_deref()) {
            self.must_have(device.address, driver)?;
        }
        self.run(&[Step::Forget { address: device.address }])?;
        let now = self.device(device.address)?;
        let (at, driver) = (device.address, now.driver.as_deref().unwrap_or("no driver"));
        let names = match now.interfaces.join(" ") {
            names if names.is_empty() => String::new(),
            names => format!(" ({names}, which is down: `ip link set {names} up`)"),
        };
        let unknown = if memory.is_none() { "; nothing was remembered, so the kernel chose" } else { "" };
        said.push(format!("{at}: {VFIO} -> {driver}{names}{unknown}"));
        Ok(())
    }

    fn device(&self, address: Address) -> Result<PciDevice, BindError> {
        let device = PciDevice::read(self.machine, address).ok_or(BindError::NoDevice { address })?;
        match device.is_network() {
            true => Ok(device),
            false => Err(BindError::NotNetwork { address, class: device.class }),
        }
    }

    fn must_have(&self, address: Address, wanted: &str) -> Result<(), BindError> {
        let now = self.device(address)?.driver;
        if now.as_deref() == Some(wanted) {
            return Ok(());
        }
        let why = "the kernel's reason is in `dmesg | tail`".into();
        Err(BindError::NotTaken { address, wanted: wanted.into(), now, why })
    }

    fn run(&mut self, steps: &[Step]) -> Result<(), BindError> {
        steps.iter().try_for_each(|step| step.run(self.machine, self.kernel))
    }
}

/// Adds to an error whether the device is back where it was.
fn explain(error: BindError, device: &PciDevice, back: Result<(), BindError>) -> BindError {
    let from = device.driver.as_deref().unwrap_or("no driver");
    match (error, back) {
        (BindError::NotTaken { address, wanted, now, why }, Ok(())) => {
            BindError::NotTaken { address, wanted, now, why: format!("{why}; it is back at {from}") }
        }
        (BindError::NotTaken { address, wanted, now, why }, Err(back)) => {
            let why = format!("{why}; and it could not be put back to {from}: {back}");
            BindError::NotTaken { address, wanted, now, why }
        }
        (error, _) => error,
    }
}
