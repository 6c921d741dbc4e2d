//! The kernel's VFIO interface, as far as it is used here: numbers and structures of include/uapi/linux/vfio.h.

use std::io;
use std::os::fd::RawFd;

/// The version of the interface.
pub(crate) const API_VERSION: libc::c_int = 0;
/// An IOMMU of type 1 that unmaps exactly what was mapped.
pub(crate) const TYPE1_V2: libc::c_ulong = 3;

// _IO(';', 100 + n): no size in the number, each structure says its own in `argsz`.
pub(crate) const GET_API_VERSION: libc::c_ulong = 0x3b64;
pub(crate) const CHECK_EXTENSION: libc::c_ulong = 0x3b65;
pub(crate) const SET_IOMMU: libc::c_ulong = 0x3b66;
pub(crate) const GROUP_GET_STATUS: libc::c_ulong = 0x3b67;
pub(crate) const GROUP_SET_CONTAINER: libc::c_ulong = 0x3b68;
pub(crate) const GROUP_GET_DEVICE_FD: libc::c_ulong = 0x3b6a;
pub(crate) const DEVICE_GET_REGION_INFO: libc::c_ulong = 0x3b6c;
pub(crate) const DEVICE_GET_IRQ_INFO: libc::c_ulong = 0x3b6d;
pub(crate) const DEVICE_SET_IRQS: libc::c_ulong = 0x3b6e;
pub(crate) const DEVICE_RESET: libc::c_ulong = 0x3b6f;
pub(crate) const IOMMU_GET_INFO: libc::c_ulong = 0x3b70;
pub(crate) const IOMMU_MAP_DMA: libc::c_ulong = 0x3b71;
pub(crate) const IOMMU_UNMAP_DMA: libc::c_ulong = 0x3b72;

/// All devices of the group are bound to vfio-pci, or to nothing.
pub(crate) const GROUP_VIABLE: u32 = 1;
/// The region can be mapped.
pub(crate) const REGION_MMAP: u32 = 4;
pub(crate) const BAR0: u32 = 0;
pub(crate) const CONFIG_SPACE: u32 = 7;
pub(crate) const MSIX: u32 = 2;

/// DATA_NONE | ACTION_TRIGGER: with a count of 0, interrupts off.
pub(crate) const IRQS_OFF: u32 = 1 | 32;
/// DATA_EVENTFD | ACTION_TRIGGER.
pub(crate) const IRQS_TO_EVENTFDS: u32 = 4 | 32;

/// The device may read and write.
pub(crate) const DMA_READ_WRITE: u32 = 1 | 2;
/// The answer of GET_INFO has capabilities.
pub(crate) const INFO_CAPS: u32 = 2;
/// Capability: the addresses that can be mapped.
pub(crate) const CAP_IOVA_RANGES: u16 = 1;

#[repr(C)]
#[derive(Default)]
pub(crate) struct GroupStatus {
    pub argsz: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct RegionInfo {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub cap_offset: u32,
    pub size: u64,
    pub offset: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct IrqInfo {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub count: u32,
}

/// Vectors that a driver here can want: one a queue.
pub(crate) const EVENTFDS_MAX: usize = 16;

#[repr(C)]
pub(crate) struct IrqSet {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub start: u32,
    pub count: u32,
    pub eventfds: [RawFd; EVENTFDS_MAX],
}

impl IrqSet {
    /// Bytes before the eventfds.
    pub(crate) const HEADER: usize = 20;
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct DmaMap {
    pub argsz: u32,
    pub flags: u32,
    pub vaddr: u64,
    pub iova: u64,
    pub size: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct DmaUnmap {
    pub argsz: u32,
    pub flags: u32,
    pub iova: u64,
    pub size: u64,
}

/// The answer of GET_INFO with room for its capabilities.
pub(crate) type IommuInfo = [u32; 256];
/// Where it says how the list of capabilities begins: argsz, flags, page sizes (64 bits), then this.
pub(crate) const INFO_CAP_OFFSET: usize = 16;

const _: () = {
    assert!(size_of::<RegionInfo>() == 32);
    assert!(size_of::<IrqSet>() == IrqSet::HEADER + 4 * EVENTFDS_MAX);
    assert!(size_of::<DmaMap>() == 32);
    assert!(size_of::<DmaUnmap>() == 24);
};

/// An ioctl on a structure that begins with its own size.
///
/// # Safety
/// `request` reads and writes a `T`, and any address in it belongs to memory that the caller gives to the kernel so.
pub(crate) unsafe fn call<T>(fd: RawFd, request: libc::c_ulong, argument: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `argument` is a live T, which is what the request takes.
    check(unsafe { libc::ioctl(fd, request, std::ptr::from_mut(argument)) })
}

/// An ioctl on a plain number.
pub(crate) fn call_number(
    fd: RawFd,
    request: libc::c_ulong,
    argument: libc::c_ulong,
) -> io::Result<libc::c_int> {
    debug_assert!([GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU, DEVICE_RESET].contains(&request));
    // SAFETY: these requests take a number, no address.
    check(unsafe { libc::ioctl(fd, request, argument) })
}

pub(crate) fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
