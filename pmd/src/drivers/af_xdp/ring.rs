//! The four rings of a socket, which the kernel and we share: one produces, the other consumes.
//!
//! Layout and protocol: Documentation/networking/af_xdp.rst. Producer and consumer are free-running 32-bit counts; the
//! number of entries is a power of two. The kernel's side of each ordering is in net/xdp/xsk_queue.h.

use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which ring of a socket, as the offset at which it is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Rx,
    Tx,
    Fill,
    Completion,
}

impl Which {
    fn offset(self) -> libc::off_t {
        match self {
            Which::Rx => libc::XDP_PGOFF_RX_RING,
            Which::Tx => libc::XDP_PGOFF_TX_RING,
            Which::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            Which::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
        }
    }
}

/// A mapped ring with entries of type `T`: plain data, for which any bytes are valid.
pub(crate) struct Ring<T> {
    base: NonNull<u8>,
    len: usize,
    offsets: libc::xdp_ring_offset,
    mask: u32,
    /// Our own count: of entries produced or consumed.
    ours: u32,
    /// The kernel's, when we last looked.
    theirs: u32,
    _entries: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone, and the kernel does not care which thread reads it.
unsafe impl<T> Send for Ring<T> {}

/// Entries of the rings for packets and of those for buffers.
pub(crate) trait Entry: Copy {}
impl Entry for libc::xdp_desc {}
impl Entry for u64 {}

impl<T: Entry> Ring<T> {
    /// Maps a ring that was given `entries` entries by setsockopt, and is fresh.
    pub(crate) fn map(
        fd: RawFd,
        which: Which,
        entries: u32,
        offsets: libc::xdp_ring_offset,
    ) -> io::Result<Ring<T>> {
        assert!(entries.is_power_of_two());
        let len = offsets.desc as usize + entries as usize * size_of::<T>();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, which.offset()) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mapped");
        let mut ring =
            Ring { base, len, offsets, mask: entries - 1, ours: 0, theirs: 0, _entries: PhantomData };
        let producing = matches!(which, Which::Fill | Which::Tx);
        ring.ours = if producing { ring.producer() } else { ring.consumer() }.load(Ordering::Relaxed);
        ring.theirs = ring.ours;
        Ok(ring)
    }

    #[inline]
    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: the kernel's own offsets of 32-bit words inside the mapping, which lives as long as `self`; both sides
        // access them atomically.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset as usize).cast()) }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    #[inline]
    fn entry(&self, at: u32) -> *mut T {
        // SAFETY: the masked index is below the number of entries, all of which lie inside the mapping; the kernel aligns them.
        unsafe {
            self.base.as_ptr().add(self.offsets.desc as usize).cast::<T>().add((at & self.mask) as usize)
        }
    }

    /// Entries in all.
    pub(crate) fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// Whether the kernel waits for a system call before it looks at this ring. Fill and transmit rings only.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    // As producer.

    /// Entries that can be written now, at least `wanted` if there are as many.
    #[inline]
    pub(crate) fn room(&mut self, wanted: u32) -> u32 {
        let room = self.capacity() - self.ours.wrapping_sub(self.theirs);
        if room >= wanted {
            return room;
        }
        // Acquire: pairs with the kernel's store-release of the consumer; it is done with the entries.
        self.theirs = self.consumer().load(Ordering::Acquire);
        self.capacity() - self.ours.wrapping_sub(self.theirs)
    }

    /// Writes entry `at` behind those that were submitted. The caller asked for room.
    #[inline]
    pub(crate) fn write(&mut self, at: u32, value: T) {
        debug_assert!(self.ours.wrapping_add(at).wrapping_sub(self.theirs) < self.capacity());
        // SAFETY: `entry` is inside the mapping, and the kernel does not read it before it is submitted.
        unsafe { self.entry(self.ours.wrapping_add(at)).write(value) };
    }

    /// Shows the kernel `n` written entries.
    #[inline]
    pub(crate) fn submit(&mut self, n: u32) {
        self.ours = self.ours.wrapping_add(n);
        // Release: pairs with the kernel's load-acquire of the producer; the entries are written.
        self.producer().store(self.ours, Ordering::Release);
    }

    /// Takes back the `n` entries submitted last, which the kernel has not looked at.
    pub(crate) fn retract(&mut self, n: u32) {
        self.ours = self.ours.wrapping_sub(n);
        self.producer().store(self.ours, Ordering::Relaxed);
    }

    /// Reads entry `at` of those that were written and not submitted, or taken back.
    pub(crate) fn written(&self, at: u32) -> T {
        debug_assert!(at < self.capacity());
        // SAFETY: `entry` is inside the mapping; the kernel only reads this ring.
        unsafe { self.entry(self.ours.wrapping_add(at)).read() }
    }

    /// Entries that the kernel has not consumed yet.
    #[inline]
    pub(crate) fn pending(&mut self) -> u32 {
        // Acquire: as in `room`.
        self.theirs = self.consumer().load(Ordering::Acquire);
        self.ours.wrapping_sub(self.theirs)
    }

    // As consumer.

    /// Entries that can be read now; looks at the kernel's count only when fewer than `wanted` are known.
    #[inline]
    pub(crate) fn ready(&mut self, wanted: u32) -> u32 {
        let ready = self.theirs.wrapping_sub(self.ours);
        if ready >= wanted {
            return ready;
        }
        // Acquire: pairs with the kernel's store-release of the producer; the entries, and what they point at, are written.
        self.theirs = self.producer().load(Ordering::Acquire);
        self.theirs.wrapping_sub(self.ours)
    }

    /// Reads entry `at` of those that are ready.
    #[inline]
    pub(crate) fn read(&self, at: u32) -> T {
        debug_assert!(at < self.theirs.wrapping_sub(self.ours));
        // SAFETY: `entry` is inside the mapping, and the kernel does not write it before it is released.
        unsafe { self.entry(self.ours.wrapping_add(at)).read() }
    }

    /// Gives the first `n` entries back.
    #[inline]
    pub(crate) fn release(&mut self, n: u32) {
        self.ours = self.ours.wrapping_add(n);
        // Release: pairs with the kernel's load-acquire of the consumer; we have read the entries.
        self.consumer().store(self.ours, Ordering::Release);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: the range is what mmap returned, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
