//! The buffers that the kernel receives into: a ring of descriptors that it takes from, and that we put back to.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The name of the group of buffers in its ring.
pub const GROUP: u16 = 0;
/// Buffers: a power of two.
const COUNT: u16 = 1024;
/// Bytes of each: the longest datagram, what describes it, and its sender's address.
const LEN: usize = 2048;
/// The ring of descriptors lies on pages of its own.
const PAGE: usize = 4096;

/// See the module's head.
pub struct Buffers {
    ring: NonNull<BufRingEntry>,
    bytes: Vec<[u8; LEN]>,
    /// Descriptors that were ever put into the ring; the kernel may take those up to what was published last.
    tail: u16,
}

impl Buffers {
    /// All buffers, offered to the kernel. They must live as long as the ring.
    pub fn register(ring: &IoUring) -> io::Result<Buffers> {
        // SAFETY: the layout is of more than zero bytes.
        let descriptors = unsafe { alloc_zeroed(layout()) };
        let Some(descriptors) = NonNull::new(descriptors.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout())
        };
        let bytes = vec![[0; LEN]; usize::from(COUNT)];
        let mut buffers = Buffers { ring: descriptors, bytes, tail: 0 };
        // SAFETY: page-aligned memory for COUNT descriptors, which its user keeps until the ring is closed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(descriptors.as_ptr() as u64, COUNT, GROUP, 0)?
        };
        (0..COUNT).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// What the kernel wrote into a buffer that it has told us of.
    pub fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        &self.bytes[usize::from(buffer)][..len.min(LEN)]
    }

    /// Puts a buffer back, for the kernel to find once it is published.
    pub fn give(&mut self, buffer: u16) {
        let bytes = self.bytes[usize::from(buffer)].as_mut_ptr();
        // SAFETY: the index is below COUNT, of which there are descriptors; the kernel does not read this one before the tail says so. The
        // tail itself lies in the first descriptor, in a field that none of these writes.
        let entry = unsafe { &mut *self.ring.as_ptr().add(usize::from(self.tail % COUNT)) };
        entry.set_addr(bytes as u64);
        entry.set_len(LEN as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel take what was put back.
    pub fn publish(&mut self) {
        // SAFETY: the pointer is to the first descriptor of the ring; the tail in it is aligned, and we alone write it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut()) };
        // Release: pairs with the kernel's acquire of the tail, so that it finds the descriptors before it whole.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring that knew it is closed, or never learned of it.
        unsafe { dealloc(self.ring.as_ptr().cast(), layout()) };
    }
}

fn layout() -> Layout {
    Layout::from_size_align(usize::from(COUNT) * size_of::<BufRingEntry>(), PAGE).expect("sound")
}
