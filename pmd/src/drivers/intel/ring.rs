//! A ring of descriptors in memory that the device shares: 16 bytes each, written by both sides.
//!
//! Who may touch a descriptor is agreed through the tail register (ours to the device) and a "descriptor done" bit that the device
//! sets last. Between those and the rest stand two fences, [`done`] and [`publish`]; DMA is coherent.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::vfio::Mapping;

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: usize = 16;

/// What was read from a descriptor after its "done" bit is not older than that bit. Pairs with the device's order: data and
/// descriptor first, the bit last.
#[inline]
pub(crate) fn done() {
    fence(Ordering::Acquire);
}

/// What was written to descriptors and buffers is there before a tail register that is written after this. Pairs with the device
/// reading descriptors once it sees the tail.
#[inline]
pub(crate) fn publish() {
    // x86: stores to memory and to registers are seen in program order, so that this only holds the compiler back.
    #[cfg(target_arch = "x86_64")]
    fence(Ordering::Release);
    // Elsewhere a fence between cores does not order device memory; a full system barrier does.
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier touches nothing.
    unsafe {
        std::arch::asm!("dsb oshst", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::SeqCst);
}

/// The descriptors: a power of two of them.
#[derive(Debug)]
pub(crate) struct Descriptors {
    base: NonNull<[u64; 2]>,
    mask: usize,
    mapping: Arc<Mapping>,
}

// SAFETY: accesses are volatile, inside the mapping that is held, and made only through `&self` of the ring's one owner.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// `size` zeroed descriptors at the start of `mapping`.
    pub(crate) fn new(mapping: Arc<Mapping>, size: usize) -> Descriptors {
        assert!(size.is_power_of_two() && size * DESCRIPTOR <= mapping.len());
        Descriptors { base: mapping.base().cast(), mask: size - 1, mapping }
    }

    /// How many.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.mask + 1
    }

    /// Where they begin, for the device.
    pub(crate) fn iova(&self) -> u64 {
        self.mapping.iova()
    }

    /// `index` brought back into the ring.
    #[inline]
    pub(crate) fn wrap(&self, index: usize) -> usize {
        index & self.mask
    }

    /// Half `half` (0 or 1) of a descriptor, read once.
    #[inline]
    pub(crate) fn read(&self, index: usize, half: usize) -> u64 {
        // SAFETY: the masked index and a half of 0 or 1 lie inside the mapping, which is page aligned.
        u64::from_le(unsafe {
            self.base.as_ptr().add(index & self.mask).cast::<u64>().add(half & 1).read_volatile()
        })
    }

    #[inline]
    pub(crate) fn write(&self, index: usize, words: [u64; 2]) {
        // SAFETY: as for `read`.
        unsafe {
            let word = self.base.as_ptr().add(index & self.mask).cast::<u64>();
            word.write_volatile(words[0].to_le());
            word.add(1).write_volatile(words[1].to_le());
        }
    }
}

/// Memory that the device sees, as a queue looks addresses up in it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    base: usize,
    len: usize,
    iova: u64,
    /// Keeps it mapped.
    _mapping: Arc<Mapping>,
}

impl Seen {
    pub(crate) fn new(mapping: Arc<Mapping>) -> Seen {
        Seen {
            base: mapping.base().as_ptr() as usize,
            len: mapping.len(),
            iova: mapping.iova(),
            _mapping: mapping,
        }
    }

    /// The device's address of `len` bytes at `at`, if it sees them all.
    #[inline]
    pub(crate) fn locate(&self, at: *const u8, len: usize) -> Option<u64> {
        let offset = (at as usize).wrapping_sub(self.base);
        (offset < self.len && len <= self.len - offset).then(|| self.iova + offset as u64)
    }
}
