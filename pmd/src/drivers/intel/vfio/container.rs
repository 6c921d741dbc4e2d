//! The IOMMU's side: one container for the process, so that all its devices see memory at the same addresses and a pool is
//! pinned once however many ports use it.
//!
//! A container lives as long as a device or a mapping does; a group as long as one of its devices is open. The kernel drops mappings
//! with the last group, which is why a device lets go of its mappings before its group.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::abi;
use super::iova::IovaSpace;
use crate::drivers::intel::error::DeviceError;
use crate::pool::PoolHandle;
use crate::region::{Hugepages, Region};

const CONTAINER: &str = "/dev/vfio/vfio";

/// The process's container.
#[derive(Debug)]
pub(crate) struct Container {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<u32, Weak<Group>>,
    /// Known once the first group is in.
    space: Option<IovaSpace>,
    mappings: Vec<Weak<Mapping>>,
}

/// An IOMMU group of the container: it has no way out while one of its devices is open.
#[derive(Debug)]
pub(crate) struct Group {
    file: File,
    number: u32,
    /// Its devices that are open: the kernel would give out a second file.
    devices: Mutex<Vec<String>>,
}

impl Container {
    /// The one of this process.
    pub(crate) fn get() -> Result<Arc<Container>, DeviceError> {
        static OF_PROCESS: OnceLock<Mutex<Weak<Container>>> = OnceLock::new();
        let mut of_process =
            OF_PROCESS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = of_process.upgrade() {
            return Ok(container);
        }
        let file = open(Path::new(CONTAINER))?;
        let fd = file.as_raw_fd();
        let io = |source| DeviceError::io(format!("asking {CONTAINER}"), source);
        let version = abi::call_number(fd, abi::GET_API_VERSION, 0).map_err(io)?;
        let type1 = abi::call_number(fd, abi::CHECK_EXTENSION, abi::TYPE1_V2).map_err(io)?;
        if version != abi::API_VERSION || type1 == 0 {
            let what = format!("its version is {version}, and type 1 IOMMUs: {}", type1 != 0);
            return Err(DeviceError::NoVfio { what });
        }
        let container = Arc::new(Container { file, state: Mutex::default() });
        *of_process = Arc::downgrade(&container);
        Ok(container)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group `number`, which `pci` is in, joined to this container.
    pub(crate) fn join(&self, number: u32, pci: &str) -> Result<Arc<Group>, DeviceError> {
        let mut state = self.state();
        if let Some(group) = state.groups.get(&number).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let path = format!("/dev/vfio/{number}");
        let file = match open(Path::new(&path)) {
            Err(DeviceError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
                return Err(DeviceError::Busy { pci: pci.to_owned() });
            }
            other => other?,
        };
        let io = |source| DeviceError::io(format!("joining {path} to the container"), source);
        let mut status = abi::GroupStatus { argsz: 8, flags: 0 };
        // SAFETY: the request fills in a GroupStatus.
        unsafe { abi::call(file.as_raw_fd(), abi::GROUP_GET_STATUS, &mut status) }.map_err(io)?;
        if status.flags & abi::GROUP_VIABLE == 0 {
            return Err(DeviceError::NotViable {
                pci: pci.to_owned(),
                group: number,
                others: others(number, pci),
            });
        }
        let mut container = self.file.as_raw_fd();
        // SAFETY: the request reads one file descriptor.
        unsafe { abi::call(file.as_raw_fd(), abi::GROUP_SET_CONTAINER, &mut container) }.map_err(io)?;
        // The kernel forgets the IOMMU with the last group; while it has one, setting it again is refused.
        let set = abi::call_number(self.file.as_raw_fd(), abi::SET_IOMMU, abi::TYPE1_V2);
        let info = self.info();
        if let (Err(error), None) = (set, &info) {
            return Err(io(error));
        }
        if state.space.is_none() {
            state.space = Some(IovaSpace::new(info.as_ref().map(parse_ranges).unwrap_or_default()));
        }
        let group = Arc::new(Group { file, number, devices: Mutex::default() });
        state.groups.insert(number, Arc::downgrade(&group));
        Ok(group)
    }

    /// What the IOMMU says of itself, once it is set.
    fn info(&self) -> Option<abi::IommuInfo> {
        let mut info: abi::IommuInfo = [0; 256];
        info[0] = size_of::<abi::IommuInfo>() as u32;
        // SAFETY: the request writes at most `argsz` bytes, which is what `info` has.
        unsafe { abi::call(self.file.as_raw_fd(), abi::IOMMU_GET_INFO, &mut info) }.ok()?;
        Some(info)
    }

    /// Shows the memory of a pool to the devices; what is mapped already is shared.
    pub(crate) fn map_pool(
        self: &Arc<Self>,
        pool: &PoolHandle,
        bits: u32,
    ) -> Result<Arc<Mapping>, DeviceError> {
        let region = pool.region();
        let mut state = self.state();
        state.mappings.retain(|mapping| mapping.strong_count() > 0);
        let known = state.mappings.iter().filter_map(Weak::upgrade).find(|known| known.base == region.base());
        if let Some(known) = known {
            return Ok(known);
        }
        let iova = self.map(&mut state, region, bits)?;
        let (base, len) = (region.base(), region.len());
        let memory = Memory::Pool(pool.clone());
        let mapping = Arc::new(Mapping { base, len, iova, container: Some(self.clone()), _memory: memory });
        state.mappings.push(Arc::downgrade(&mapping));
        Ok(mapping)
    }

    /// Zeroed memory of the driver's own, for rings and copies.
    pub(crate) fn alloc(self: &Arc<Self>, len: usize, bits: u32) -> Result<Arc<Mapping>, DeviceError> {
        let region = own_memory(len)?;
        let iova = self.map(&mut self.state(), &region, bits)?;
        let (base, len) = (region.base(), region.len());
        Ok(Arc::new(Mapping { base, len, iova, container: Some(self.clone()), _memory: Memory::Own(region) }))
    }

    fn map(&self, state: &mut State, region: &Region, bits: u32) -> Result<u64, DeviceError> {
        let space = state.space.as_mut().expect("a device's group is in before it maps");
        let (size, last) = (region.len() as u64, space.last());
        let iova = space.take(size, bits).ok_or(DeviceError::Aperture { bytes: region.len(), last })?;
        let argsz = size_of::<abi::DmaMap>() as u32;
        let vaddr = region.base().as_ptr() as u64;
        let mut map = abi::DmaMap { argsz, flags: abi::DMA_READ_WRITE, vaddr, iova, size };
        // SAFETY: the request reads a DmaMap. The memory it names stays mapped in this process until after the unmapping, for the
        // Mapping that the caller makes owns it.
        match unsafe { abi::call(self.file.as_raw_fd(), abi::IOMMU_MAP_DMA, &mut map) } {
            Ok(_) => Ok(iova),
            Err(error) => {
                space.give_back(iova);
                Err(match error.raw_os_error() {
                    Some(libc::ENOMEM) => DeviceError::Memlock { bytes: region.len(), limit: memlock() },
                    _ => DeviceError::io(format!("mapping {} bytes for devices", region.len()), error),
                })
            }
        }
    }

    fn unmap(&self, iova: u64, len: usize) {
        let argsz = size_of::<abi::DmaUnmap>() as u32;
        let mut unmap = abi::DmaUnmap { argsz, flags: 0, iova, size: len as u64 };
        // SAFETY: the request reads and writes a DmaUnmap; it only takes access away.
        let done = unsafe { abi::call(self.file.as_raw_fd(), abi::IOMMU_UNMAP_DMA, &mut unmap) };
        // Addresses that a device may still reach are not given to anything else.
        if done.is_ok()
            && let Some(space) = &mut self.state().space
        {
            space.give_back(iova);
        }
    }
}

/// Pages that the driver alone uses: 4 KiB ones, for rings are small.
pub(crate) fn own_memory(len: usize) -> Result<Region, DeviceError> {
    Region::private(len, Hugepages::Never)
        .map_err(|error| DeviceError::io("memory for rings", io::Error::other(error)))
}

impl Group {
    /// The file of one of its devices.
    pub(crate) fn device(&self, pci: &str) -> Result<OwnedFd, DeviceError> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.iter().any(|device| device == pci) {
            return Err(DeviceError::Busy { pci: pci.to_owned() });
        }
        let name = std::ffi::CString::new(pci).expect("a PCI address has no zero byte");
        // SAFETY: the request reads a C string.
        let fd = abi::check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), abi::GROUP_GET_DEVICE_FD, name.as_ptr())
        });
        match fd {
            Ok(fd) => {
                devices.push(pci.to_owned());
                // SAFETY: the fd was just made and nothing else owns it.
                Ok(unsafe { OwnedFd::from_raw_fd(fd) })
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(DeviceError::Busy { pci: pci.to_owned() })
            }
            Err(error) => Err(DeviceError::io(format!("opening {pci} in group {}", self.number), error)),
        }
    }

    /// The device is used no more.
    pub(crate) fn close(&self, pci: &str) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).retain(|device| device != pci);
    }
}

/// Memory that devices can reach, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    iova: u64,
    /// None for a model of a device, which uses our addresses.
    container: Option<Arc<Container>>,
    /// Dropped after the unmapping.
    _memory: Memory,
}

#[derive(Debug)]
enum Memory {
    #[expect(dead_code, reason = "held, so that it stays mapped")]
    Pool(PoolHandle),
    #[expect(dead_code, reason = "held, so that it stays mapped")]
    Own(Region),
}

// SAFETY: a Mapping names memory and keeps it mapped; what is read and written there is the business of its users.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; all methods read plain fields.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A pool at our own addresses, for a model of a device.
    #[cfg(test)]
    pub(crate) fn of_pool(pool: &PoolHandle) -> Arc<Mapping> {
        let (base, len) = (pool.region().base(), pool.region().len());
        let iova = base.as_ptr() as u64;
        Arc::new(Mapping { base, len, iova, container: None, _memory: Memory::Pool(pool.clone()) })
    }

    /// Memory of its own at our own addresses, for a model of a device.
    #[cfg(test)]
    pub(crate) fn of_own(len: usize) -> Arc<Mapping> {
        let region = own_memory(len).expect("memory");
        let (base, len) = (region.base(), region.len());
        let iova = base.as_ptr() as u64;
        Arc::new(Mapping { base, len, iova, container: None, _memory: Memory::Own(region) })
    }

    /// First byte, at our address.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// First byte, at the devices' address.
    pub(crate) fn iova(&self) -> u64 {
        self.iova
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(container) = &self.container {
            container.unmap(self.iova, self.len);
        }
    }
}

fn open(path: &Path) -> Result<File, DeviceError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|source| {
        let what = path.display().to_string();
        match source.kind() {
            io::ErrorKind::NotFound => DeviceError::NoVfio { what: format!("no {what}") },
            io::ErrorKind::PermissionDenied => DeviceError::Permission { what },
            _ => DeviceError::Io { what: format!("opening {what}"), source },
        }
    })
}

fn memlock() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit, written by the call.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_cur
}

/// The devices of a group that neither vfio-pci nor nobody drives, each with who does.
fn others(group: u32, pci: &str) -> String {
    let folder = format!("/sys/kernel/iommu_groups/{group}/devices");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let driver = std::fs::read_link(entry.path().join("driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        match driver.as_deref() {
            Some("vfio-pci" | "pcieport") | None => {}
            Some(driver) if name != pci => names.push(format!("{name} ({driver})")),
            Some(_) => {}
        }
    }
    names.sort();
    names.join(", ")
}

/// First and last address of each range that GET_INFO names; empty when it names none. Offsets are the kernel's, checked all the same.
fn parse_ranges(info: &abi::IommuInfo) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    if info[1] & abi::INFO_CAPS == 0 {
        return ranges;
    }
    let mut at = info[abi::INFO_CAP_OFFSET / 4] as usize / 4;
    // As many steps as there can be capabilities: a list that bites its tail ends too.
    for _ in 0..info.len() / 2 {
        let Some(&[id_version, next]) = info.get(at..at + 2).and_then(|words| words.first_chunk()) else {
            break;
        };
        if at == 0 {
            break;
        }
        if id_version as u16 == abi::CAP_IOVA_RANGES {
            let count = info.get(at + 2).map_or(0, |count| *count as usize);
            let words = info.get(at + 4..).unwrap_or(&[]);
            let long = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair[1]) << 32;
            ranges.extend(
                words.chunks_exact(4).take(count).map(|range| (long(&range[..2]), long(&range[2..]))),
            );
        }
        at = next as usize / 4;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_from_the_list_of_capabilities() {
        let mut info: abi::IommuInfo = [0; 256];
        assert!(parse_ranges(&info).is_empty(), "an old kernel says nothing");
        info[1] = abi::INFO_CAPS;
        info[4] = 24;
        // Some other capability first.
        info[6..9].copy_from_slice(&[3, 40, 99]);
        info[10..14].copy_from_slice(&[1 << 16 | 1, 0, 2, 0]);
        info[14..22].copy_from_slice(&[0, 0, 0xfedf_ffff, 0, 0xfef0_0000, 0, 0xffff_ffff, 0x7f]);
        assert_eq!(parse_ranges(&info), [(0, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)]);
        // A list that leads to itself, or out of the answer.
        info[7] = 24;
        assert!(parse_ranges(&info).is_empty());
        info[4] = 5000;
        assert!(parse_ranges(&info).is_empty());
    }
}
