//! Memory that packet buffers live in: hugepages when the machine has them, ordinary pages otherwise, and a line
//! that says which, and how to get the better ones.
//!
//! *Private* regions are anonymous and come from hugepage-rs when pages are free. *Shared* regions are a memfd
//! (MFD_HUGETLB when pages are free, sealed against shrinking), so that another process can map them by their fd.
//! A region is owned by one pool, which unmaps it when the last buffer is home. Deliberately absent: growing,
//! NUMA binding, and 1 GiB pages.

use std::alloc::Layout;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Whether a region asks for hugepages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hugepages {
    /// Use them when enough are free, and ordinary pages otherwise.
    #[default]
    Try,
    /// Ordinary pages only.
    Never,
    /// Fail without them.
    Require,
}

/// Why a region could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// [`Hugepages::Require`] and there are not enough.
    #[error("{wanted} hugepages of {page_kib} KiB wanted, {free} free; as root: {mend}")]
    NoHugepages {
        /// Pages that the region needs.
        wanted: usize,
        /// Pages that are free.
        free: usize,
        /// Size of a page.
        page_kib: usize,
        /// The command that mends it.
        mend: String,
    },
    /// The kernel refused.
    #[error("{what} of {len} bytes failed: {source}")]
    Map {
        /// The call.
        what: &'static str,
        /// Its length.
        len: usize,
        /// Its error.
        source: io::Error,
    },
}

/// A mapping: base, length, page size, and an fd when others may map it.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    page_size: usize,
    fd: Option<OwnedFd>,
    /// Set for memory of hugepage-rs, which wants its layout back.
    huge_layout: Option<Layout>,
    note: String,
}

// SAFETY: a Region is an address range that it alone unmaps; it hands out no references to the memory itself.
unsafe impl Send for Region {}
// SAFETY: as above; all methods take &self and read plain fields.
unsafe impl Sync for Region {}

impl Region {
    /// Zeroed anonymous memory of this process alone, at least `len` bytes.
    pub fn private(len: usize, hugepages: Hugepages) -> Result<Region, RegionError> {
        let (wish, shortage) = wish(len, hugepages)?;
        if let Some(pages) = wish {
            let layout = Layout::from_size_align(len, 4096).expect("a region is smaller than isize::MAX");
            // SAFETY: the layout's size is not zero (`wish` asserts it).
            if let Some(base) = NonNull::new(unsafe { hugepage_rs::alloc(layout) }) {
                let len = len.next_multiple_of(pages.size);
                let note = pages.got(len);
                return Ok(Region {
                    base,
                    len,
                    page_size: pages.size,
                    fd: None,
                    huge_layout: Some(layout),
                    note,
                });
            }
            if hugepages == Hugepages::Require {
                return Err(pages.missing(len));
            }
        }
        let len = len.next_multiple_of(page_size());
        let base = map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        // SAFETY: the range is the mapping just made. Only advice: transparent hugepages where they are enabled.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(Region { base, len, page_size: page_size(), fd: None, huge_layout: None, note: shortage })
    }

    /// Zeroed memory behind a memfd called `name`, which other processes can map through [`Region::fd`].
    pub fn shared(name: &str, len: usize, hugepages: Hugepages) -> Result<Region, RegionError> {
        let (wish, shortage) = wish(len, hugepages)?;
        if let Some(pages) = wish {
            let len = len.next_multiple_of(pages.size);
            match memfd(name, len, libc::MFD_HUGETLB).and_then(|fd| Ok((map_fd(len, &fd)?, fd))) {
                Ok((base, fd)) => {
                    let note = pages.got(len);
                    return Ok(Region {
                        base,
                        len,
                        page_size: pages.size,
                        fd: Some(fd),
                        huge_layout: None,
                        note,
                    });
                }
                Err(_) if hugepages == Hugepages::Require => return Err(pages.missing(len)),
                Err(_) => {}
            }
        }
        let len = len.next_multiple_of(page_size());
        let fd = memfd(name, len, 0)?;
        let base = map_fd(len, &fd)?;
        Ok(Region { base, len, page_size: page_size(), fd: Some(fd), huge_layout: None, note: shortage })
    }

    /// Maps the first `len` bytes of a memfd that another process made with [`Region::shared`].
    pub(crate) fn map_shared(fd: OwnedFd, len: usize) -> Result<Region, RegionError> {
        // SAFETY: plain data, for which zeroes are valid.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: fstat fills in `stat`; F_GET_SEALS only reads.
        let seals = unsafe {
            if libc::fstat(fd.as_raw_fd(), &mut stat) < 0 {
                return Err(failed("fstat of a memfd", len));
            }
            libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS)
        };
        // One that could shrink would make our accesses fault.
        if len == 0 || stat.st_size < len as libc::off_t || seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            let source = io::Error::other("it is shorter than that, or not sealed against shrinking");
            return Err(RegionError::Map { what: "mapping a memfd", len, source });
        }
        let base = map_fd(len, &fd)?;
        // Of a memfd on hugepages this is the size of a page.
        let page_size = (stat.st_blksize as usize).max(page_size());
        let note = format!("memory of another process, pages of {} KiB", page_size / 1024);
        Ok(Region { base, len, page_size, fd: Some(fd), huge_layout: None, note })
    }

    /// First byte; aligned to the page size.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped: a multiple of the page size, at least what was asked for.
    #[allow(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes in a page of this mapping.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// The memfd of a shared region.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// One line: what kind of pages this is, and how to get hugepages when it has none.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let base = self.base.as_ptr();
        match self.huge_layout {
            // SAFETY: `base` came from hugepage_rs::alloc with this very layout and is freed once.
            Some(layout) => unsafe { hugepage_rs::dealloc(base, layout) },
            None => {
                // SAFETY: this is the range that mmap returned; its owner has no buffers out any more.
                unsafe { libc::munmap(base.cast(), self.len) };
            }
        }
    }
}

/// The default hugepages of this machine.
#[derive(Clone, Copy)]
struct HugePool {
    size: usize,
    total: usize,
    free: usize,
}

impl HugePool {
    /// From /proc/meminfo; `None` where the kernel has no hugepages.
    fn read() -> Option<HugePool> {
        Self::parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn parse(meminfo: &str) -> Option<HugePool> {
        let field = |name: &str| {
            let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().next()?.parse::<usize>().ok()
        };
        let free = field("HugePages_Free:")?.saturating_sub(field("HugePages_Rsvd:")?);
        Some(HugePool { size: field("Hugepagesize:")? * 1024, total: field("HugePages_Total:")?, free })
    }

    fn wanted(&self, len: usize) -> usize {
        len.div_ceil(self.size)
    }

    fn mend(&self, len: usize) -> String {
        let total = self.total + self.wanted(len).saturating_sub(self.free);
        format!("echo {total} > /proc/sys/vm/nr_hugepages")
    }

    fn missing(&self, len: usize) -> RegionError {
        let page_kib = self.size / 1024;
        RegionError::NoHugepages { wanted: self.wanted(len), free: self.free, page_kib, mend: self.mend(len) }
    }

    fn got(&self, len: usize) -> String {
        format!("{} hugepages of {} KiB", len / self.size, self.size / 1024)
    }
}

/// What to try, and the note for the case that it does not come true.
fn wish(len: usize, hugepages: Hugepages) -> Result<(Option<HugePool>, String), RegionError> {
    assert!(len > 0 && len < isize::MAX as usize / 2, "a region has a sensible size");
    let ordinary = format!("ordinary pages of {} KiB", page_size() / 1024);
    let Some(pages) = HugePool::read().filter(|pages| pages.size > 0) else {
        let mend = "build the kernel with CONFIG_HUGETLBFS".to_owned();
        return match hugepages {
            Hugepages::Require => Err(RegionError::NoHugepages { wanted: 1, free: 0, page_kib: 0, mend }),
            _ => Ok((None, format!("{ordinary}: this kernel has no hugepages"))),
        };
    };
    let enough = pages.free >= pages.wanted(len);
    match hugepages {
        Hugepages::Never => Ok((None, format!("{ordinary}, as configured"))),
        Hugepages::Require if !enough => Err(pages.missing(len)),
        _ => {
            let (wanted, free, kib) = (pages.wanted(len), pages.free, pages.size / 1024);
            let mend = pages.mend(len);
            let shortage =
                format!("{ordinary}: {wanted} hugepages of {kib} KiB wanted, {free} free; as root: {mend}");
            Ok((enough.then_some(pages), shortage))
        }
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("the page size is positive")
}

fn failed(what: &'static str, len: usize) -> RegionError {
    RegionError::Map { what, len, source: io::Error::last_os_error() }
}

fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> Result<NonNull<u8>, RegionError> {
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let base =
        unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    if base == libc::MAP_FAILED {
        Err(failed("mmap", len))
    } else {
        Ok(NonNull::new(base.cast()).expect("not null"))
    }
}

fn map_fd(len: usize, fd: &OwnedFd) -> Result<NonNull<u8>, RegionError> {
    map(len, libc::MAP_SHARED, fd.as_raw_fd())
}

/// A memfd of `len` bytes that nobody can shrink: a peer that maps it cannot make our accesses fault.
fn memfd(name: &str, len: usize, flags: libc::c_uint) -> Result<OwnedFd, RegionError> {
    let name = CString::new(name.replace('\0', "")).expect("the zero bytes were taken out");
    // SAFETY: `name` is a live C string.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags) };
    if fd < 0 {
        return Err(failed("memfd_create", len));
    }
    // SAFETY: the fd was just created and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain calls on an fd that we own.
    unsafe {
        if libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) < 0 {
            return Err(failed("ftruncate of a memfd", len));
        }
        if libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) < 0 {
            return Err(failed("sealing a memfd", len));
        }
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 1 kB\nHugePages_Total:     512\nHugePages_Free:      100\nHugePages_Rsvd:       90\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n";

    #[test]
    fn reserved_pages_are_not_free() {
        let pages = HugePool::parse(MEMINFO).unwrap();
        assert_eq!((pages.size, pages.total, pages.free), (2 << 20, 512, 10));
        assert_eq!(pages.mend(12 << 21), "echo 514 > /proc/sys/vm/nr_hugepages");
        assert!(HugePool::parse("MemTotal: 1 kB\n").is_none());
    }

    #[test]
    fn the_error_names_the_mend() {
        let text = HugePool::parse(MEMINFO).unwrap().missing(12 << 21).to_string();
        assert_eq!(
            text,
            "12 hugepages of 2048 KiB wanted, 10 free; as root: echo 514 > /proc/sys/vm/nr_hugepages"
        );
    }

    #[test]
    fn both_kinds_are_zeroed_writable_and_say_what_they_are() {
        for region in [
            Region::private(10_000, Hugepages::Try).unwrap(),
            Region::shared("t", 10_000, Hugepages::Try).unwrap(),
        ] {
            assert!(region.len() >= 10_000);
            assert_eq!(region.base().as_ptr() as usize % region.page_size(), 0);
            assert!(region.note().contains("pages"), "{}", region.note());
            // SAFETY: the last byte of a mapping that this test alone uses.
            unsafe {
                let last = region.base().as_ptr().add(region.len() - 1);
                assert_eq!(*last, 0);
                *last = 7;
                assert_eq!(*last, 7);
            }
        }
    }

    #[test]
    fn a_shared_region_can_be_mapped_again_and_not_shrunk() {
        let region = Region::shared("twice", 4096, Hugepages::Never).unwrap();
        let fd = region.fd().unwrap().as_raw_fd();
        // SAFETY: reads and writes stay inside the two mappings of the same page, both alive.
        unsafe {
            *region.base().as_ptr() = 42;
            let again = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
            assert_ne!(again, libc::MAP_FAILED);
            assert_eq!(*again.cast::<u8>(), 42);
            libc::munmap(again, 4096);
            assert_eq!(libc::ftruncate(fd, 0), -1, "the seal holds");
        }
    }

    #[test]
    fn never_is_obeyed() {
        let region = Region::private(4096, Hugepages::Never).unwrap();
        assert_eq!(region.page_size(), page_size());
        assert!(region.note().ends_with("as configured"));
    }
}
