//! What a device is attached to.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::error::DeviceError;
use super::vfio::{Mapping, VfioDevice};
use crate::pool::PoolHandle;

/// All of these chips reach any address.
pub(crate) const ADDRESS_BITS: u32 = 64;

pub(crate) enum Bus {
    Vfio(VfioDevice),
    /// Nothing: a model of a device, which uses our addresses.
    #[cfg(test)]
    Model,
}

impl Bus {
    /// The address of the device, for people.
    pub(crate) fn pci(&self) -> &str {
        match self {
            Bus::Vfio(device) => device.pci(),
            #[cfg(test)]
            Bus::Model => "model",
        }
    }

    /// Shows the device the memory of a pool.
    pub(crate) fn map_pool(&self, pool: &PoolHandle) -> Result<Arc<Mapping>, DeviceError> {
        match self {
            Bus::Vfio(device) => device.map_pool(pool, ADDRESS_BITS),
            #[cfg(test)]
            Bus::Model => Ok(Mapping::of_pool(pool)),
        }
    }

    /// Zeroed memory of the driver's own that the device sees.
    pub(crate) fn alloc(&self, len: usize) -> Result<Arc<Mapping>, DeviceError> {
        match self {
            Bus::Vfio(device) => device.alloc(len, ADDRESS_BITS),
            #[cfg(test)]
            Bus::Model => Ok(Mapping::of_own(len)),
        }
    }

    /// Lets the device reach memory.
    pub(crate) fn start_dma(&self) -> Result<(), DeviceError> {
        match self {
            Bus::Vfio(device) => device.start_dma(),
            #[cfg(test)]
            Bus::Model => Ok(()),
        }
    }

    /// Keeps it from memory.
    pub(crate) fn stop_dma(&self) {
        match self {
            Bus::Vfio(device) => device.stop_dma(),
            #[cfg(test)]
            Bus::Model => {}
        }
    }

    /// MSI-X vectors that the device has.
    pub(crate) fn vectors(&self) -> Result<usize, DeviceError> {
        match self {
            Bus::Vfio(device) => device.vectors(),
            #[cfg(test)]
            Bus::Model => Ok(0),
        }
    }

    /// Connects vector `i` with `eventfds[i]`.
    pub(crate) fn connect_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> Result<(), DeviceError> {
        match self {
            Bus::Vfio(device) => device.connect_vectors(eventfds),
            #[cfg(test)]
            Bus::Model => Ok(()),
        }
    }
}
