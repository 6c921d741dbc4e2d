//! The memory that both sides map: memfds that the client made.
//!
//! Whoever maps another process's file can be killed by it with SIGBUS: by a file cut short, or by hugepages taken back. So
//! a peer's region must be an ordinary memfd that is sealed against shrinking and as long as it says; DPDK's and VPP's are. For
//! the same reason our own regions use no hugepages: a server could punch holes into them. Holes in ordinary pages read as zeroes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::region::{Hugepages, Region};

/// Regions of one connection. DPDK and libmemif have one, VPP one more for each buffer pool.
pub(super) const REGIONS_MAX: usize = 16;
/// Bytes of all of them together: what a 32-bit offset reaches. Pages that we are the first to touch are charged to us.
pub(super) const BYTES_MAX: u64 = 1 << 32;

/// One mapped memfd.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a range of addresses that this alone unmaps; it hands out no references to the memory itself.
unsafe impl Send for Mapping {}
// SAFETY: as above; its methods read plain fields.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New memory of `len` bytes, sealed, and the file descriptor that lets the peer map it.
    pub(super) fn create(len: usize) -> io::Result<(Mapping, OwnedFd)> {
        let region = Region::shared("memif", len, Hugepages::Never).map_err(io::Error::other)?;
        let fd = region.fd().expect("a shared region has one").try_clone_to_owned()?;
        Ok((Mapping::map(&fd, len)?, fd))
    }

    /// A peer's memory, or what is wrong with it.
    pub(super) fn of_peer(fd: OwnedFd, size: u64) -> Result<Mapping, &'static str> {
        // SAFETY: a plain system call; of what is no memfd it fails.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err("region must be a memfd with F_SEAL_SHRINK");
        }
        let file = File::from(fd);
        let meta = file.metadata().map_err(|_| "region cannot be looked at")?;
        if is_hugetlb(&file) {
            return Err("region must not be of hugepages: they can be taken back");
        }
        if size == 0 || size > BYTES_MAX || meta.len() < size {
            return Err("region is not as long as it says, or longer than 4 GiB");
        }
        Mapping::map(&file, size as usize).map_err(|_| "region cannot be mapped for reading and writing")
    }

    fn map(fd: &impl AsFd, len: usize) -> io::Result<Mapping> {
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, fd.as_fd().as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: NonNull::new(base.cast()).expect("not null"), len })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

fn is_hugetlb(file: &File) -> bool {
    // SAFETY: statfs is plain data, for which zeroes are valid, and the call fills it in.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        libc::fstatfs(file.as_raw_fd(), &raw mut stat) != 0 || stat.f_type == libc::HUGETLBFS_MAGIC
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range that mmap returned; rings keep the memory alive while they use it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// All regions of a connection.
#[derive(Debug, Default)]
pub(super) struct Memory {
    regions: ArrayVec<Mapping, REGIONS_MAX>,
}

impl Memory {
    /// Adds region `index`, which must be the next.
    pub(super) fn add(&mut self, index: u16, mapping: Mapping) -> Result<(), &'static str> {
        if usize::from(index) != self.regions.len() {
            return Err("Invalid region index");
        }
        let total: u64 = self.regions.iter().map(|region| region.len as u64).sum();
        if total + mapping.len as u64 > BYTES_MAX {
            return Err("regions are longer than 4 GiB together");
        }
        self.regions.try_push(mapping).map_err(|_| "too many regions")
    }

    pub(super) fn regions(&self) -> &[Mapping] {
        &self.regions
    }

    /// Where `len` bytes at `offset` of a region lie.
    pub(super) fn range(&self, region: u16, offset: u32, len: usize) -> Option<NonNull<u8>> {
        let region = self.regions.get(usize::from(region))?;
        let end = (offset as usize).checked_add(len)?;
        // SAFETY: `offset` is within the mapping, as `end` is.
        (end <= region.len).then(|| unsafe { region.base.add(offset as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    fn memfd(flags: u32, len: i64, seals: i32) -> OwnedFd {
        // SAFETY: plain calls on an fd that is new and ours.
        unsafe {
            let fd = libc::memfd_create(c"t".as_ptr(), libc::MFD_CLOEXEC | flags);
            assert!(fd >= 0);
            let fd = OwnedFd::from_raw_fd(fd);
            assert_eq!(libc::ftruncate(fd.as_raw_fd(), len), 0);
            if seals != 0 {
                assert_eq!(libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals), 0);
            }
            fd
        }
    }

    #[test]
    fn regions_that_could_kill_us_are_refused() {
        let sealable = libc::MFD_ALLOW_SEALING;
        let of = |fd, size| Mapping::of_peer(fd, size).err();
        assert_eq!(of(memfd(sealable, 8192, libc::F_SEAL_SHRINK), 8192), None);
        assert!(of(memfd(sealable, 8192, 0), 8192).unwrap().contains("F_SEAL_SHRINK"));
        assert!(of(memfd(sealable, 8192, libc::F_SEAL_GROW), 8192).unwrap().contains("F_SEAL_SHRINK"));
        assert!(of(memfd(sealable, 8192, libc::F_SEAL_SHRINK), 8193).unwrap().contains("not as long"));
        assert!(of(memfd(sealable, 8192, libc::F_SEAL_SHRINK), 0).unwrap().contains("not as long"));
        assert!(of(memfd(sealable, 8192, libc::F_SEAL_SHRINK), u64::MAX).unwrap().contains("not as long"));
        assert!(
            of(memfd(sealable, 8192, libc::F_SEAL_SHRINK | libc::F_SEAL_WRITE), 8192)
                .unwrap()
                .contains("writing")
        );
        let file = File::open("/proc/self/exe").unwrap();
        assert!(of(file.into(), 100).unwrap().contains("memfd"));
        let huge = memfd(sealable | libc::MFD_HUGETLB, 0, libc::F_SEAL_SHRINK);
        assert!(of(huge, 4096).unwrap().contains("hugepages"));
    }

    #[test]
    fn ranges_end_within_their_region() {
        let mut memory = Memory::default();
        memory.add(0, Mapping::create(4096).unwrap().0).unwrap();
        assert_eq!(memory.add(0, Mapping::create(4096).unwrap().0), Err("Invalid region index"));
        assert!(memory.range(0, 4095, 1).is_some() && memory.range(0, 4096, 0).is_some());
        assert!(memory.range(0, 4095, 2).is_none() && memory.range(1, 0, 0).is_none());
        assert!(memory.range(0, u32::MAX, usize::MAX).is_none());
    }
}
