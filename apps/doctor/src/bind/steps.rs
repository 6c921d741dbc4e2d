//! The writes of a binding, in their order; and what is remembered of before.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{BindError, Kernel, VFIO};
use crate::machine::Machine;
use crate::pci::{Address, DEVICES, PciDevice};

const DRIVERS: &str = "sys/bus/pci/drivers";
const PROBE: &str = "sys/bus/pci/drivers_probe";
/// Private to root, as the control sockets' folder around it is.
const REMEMBERED: &str = "run/rxline/bound";

/// How a device was before it was bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Who had it.
    pub driver: Option<String>,
    /// Its `driver_override`.
    pub driver_override: Option<String>,
}

impl Memory {
    fn path(address: Address) -> PathBuf {
        PathBuf::from(REMEMBERED).join(format!("{address}.json"))
    }

    fn of(device: &PciDevice) -> Self {
        Memory { driver: device.driver.clone(), driver_override: device.driver_override.clone() }
    }

    /// What is remembered; `None` if nothing is.
    pub fn read(machine: &Machine, address: Address) -> Result<Option<Self>, BindError> {
        let path = machine.path(Memory::path(address));
        let parsed = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from)),
        };
        parsed.map(Some).map_err(|source| BindError::Io { path, source })
    }
}

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Keeps what is there now for `unbind`.
    Remember { address: Address, memory: Memory },
    /// Tells the kernel.
    Write { path: String, text: String },
    /// Nothing is to be put back any more.
    Forget { address: Address },
}

fn write(path: String, text: impl Into<String>) -> Step {
    Step::Write { path, text: text.into() }
}

/// What makes the kernel bind the device to `name` alone; an empty line takes that back.
fn only(device: &PciDevice, name: Option<&str>) -> Step {
    write(format!("{DEVICES}/{}/driver_override", device.address), format!("{}\n", name.unwrap_or_default()))
}

fn take_from(device: &PciDevice, driver: &str) -> Step {
    write(format!("{DRIVERS}/{driver}/unbind"), device.address.to_string())
}

/// From where it is to vfio-pci.
pub(super) fn bind(device: &PciDevice) -> Vec<Step> {
    let address = device.address;
    let mut steps = vec![Step::Remember { address, memory: Memory::of(device) }, only(device, Some(VFIO))];
    steps.extend(device.driver.as_deref().map(|driver| take_from(device, driver)));
    steps.push(write(PROBE.into(), address.to_string()));
    steps
}

/// Back to how `device` was, after some of the steps of [`bind`] and a device that nobody took.
pub(super) fn undo(device: &PciDevice) -> Vec<Step> {
    let mut steps = vec![only(device, device.driver_override.as_deref())];
    steps.extend(device.driver.as_deref().map(|driver| give_to(device, driver)));
    steps.push(Step::Forget { address: device.address });
    steps
}

fn give_to(device: &PciDevice, driver: &str) -> Step {
    write(format!("{DRIVERS}/{driver}/bind"), device.address.to_string())
}

/// From vfio-pci to where it was; where nothing is remembered, to whom the kernel gives it.
pub(super) fn unbind(device: &PciDevice, memory: Option<&Memory>) -> Vec<Step> {
    let mut steps = vec![only(device, memory.and_then(|memory| memory.driver_override.as_deref()))];
    steps.extend(device.driver.as_deref().filter(|driver| *driver == VFIO).map(|d| take_from(device, d)));
    match memory.map(|memory| memory.driver.as_deref()) {
        Some(Some(driver)) if device.driver.as_deref() != Some(driver) => steps.push(give_to(device, driver)),
        Some(_) => {}
        None => steps.push(write(PROBE.into(), device.address.to_string())),
    }
    steps
}

impl Step {
    pub fn run(&self, machine: &Machine, kernel: &mut dyn Kernel) -> Result<(), BindError> {
        let (path, done) = match self {
            Step::Write { path, text } => {
                let path = machine.path(path);
                let done = kernel.write(&path, text);
                (path, done)
            }
            Step::Remember { address, memory } => {
                let path = machine.path(Memory::path(*address));
                let folder = machine.path(REMEMBERED);
                let text = serde_json::to_vec(memory).expect("plain data");
                let made = DirBuilder::new().mode(0o700).recursive(true).create(folder);
                let done = made.and_then(|()| fs::write(&path, text));
                (path, done)
            }
            Step::Forget { address } => {
                let path = machine.path(Memory::path(*address));
                let done = match fs::remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    done => done,
                };
                (path, done)
            }
        };
        done.map_err(|source| BindError::Io { path, source })
    }
}

/// As a command that does the same.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Write { path, text } => write!(f, "echo {} > /{path}", text.trim_end()),
            Step::Remember { address, memory } => {
                let driver = memory.driver.as_deref().unwrap_or("no driver");
                write!(f, "# remember in /{}: {driver}", Memory::path(*address).display())
            }
            Step::Forget { address } => write!(f, "rm -f /{}", Memory::path(*address).display()),
        }
    }
}
