//! Whose buffers a ring's descriptors speak of, and which index is whose: the two roles.
//!
//! A client laid out the memory itself: slot n has buffer n, whatever the descriptor in shared memory says by now. A server finds
//! the buffers through descriptors that the client wrote, and checks each.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU16;

use super::memory::Memory;
use super::ring::{DESC_NEXT, Desc, Ring};

/// Where a frame can be put.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub at: NonNull<u8>,
    /// Bytes that can be written there: none, where the descriptor lies.
    pub room: u32,
    /// The region that the filled descriptor is to name.
    pub region: u16,
}

/// A role, as far as buffers and indexes go.
pub(super) trait Slots: Send {
    /// Where the `desc.length` bytes that a descriptor speaks of lie; `None` when it lies.
    fn source(&self, slot: u16, desc: Desc) -> Option<NonNull<u8>>;
    /// Where the next frame can be put.
    fn target(&self, ring: &Ring, number: u16) -> Target;
    /// Makes a slot that was read fit to be filled again.
    fn renew(&self, ring: &Ring, number: u16, read: Desc);
    /// The index that we write, and the one that the peer writes.
    fn indexes<'r>(&self, ring: &'r Ring) -> (&'r AtomicU16, &'r AtomicU16);
    /// By how much a client's `head` is ahead of what it has read, having lent all its buffers; likewise by how much it may
    /// be ahead of `tail` when it sends. Zero for a server.
    fn lead(&self, ring: &Ring) -> u16;
}

/// A client's own buffers, one behind the other, one for each slot.
pub(super) struct Own {
    pub base: NonNull<u8>,
    /// Bytes of each.
    pub len: u32,
}

// SAFETY: `base` points into the mapping that the ring used with it keeps; nothing is reached but through raw copies.
unsafe impl Send for Own {}

impl Own {
    #[inline]
    fn buffer(&self, slot: u16) -> NonNull<u8> {
        // SAFETY: slots are below the ring's, and `layout` has a buffer for each.
        unsafe { self.base.add(usize::from(slot) * self.len as usize) }
    }
}

impl Slots for Own {
    #[inline]
    fn source(&self, slot: u16, desc: Desc) -> Option<NonNull<u8>> {
        (desc.length <= self.len).then(|| self.buffer(slot))
    }

    #[inline]
    fn target(&self, ring: &Ring, number: u16) -> Target {
        Target { at: self.buffer(ring.slot(number)), room: self.len, region: 0 }
    }

    #[inline]
    fn renew(&self, ring: &Ring, number: u16, _read: Desc) {
        ring.set_desc(number, Desc { length: self.len, ..Desc::default() });
    }

    #[inline]
    fn indexes<'r>(&self, ring: &'r Ring) -> (&'r AtomicU16, &'r AtomicU16) {
        (ring.head(), ring.tail())
    }

    #[inline]
    fn lead(&self, ring: &Ring) -> u16 {
        ring.slots()
    }
}

/// The client's buffers, as its server sees them: anywhere in its regions.
pub(super) struct Lent {
    /// Base and length of each region.
    regions: Box<[(NonNull<u8>, usize)]>,
}

// SAFETY: as for `Own`.
unsafe impl Send for Lent {}

impl Lent {
    pub(super) fn new(memory: &Memory) -> Lent {
        Lent { regions: memory.regions().iter().map(|region| (region.base(), region.len())).collect() }
    }

    #[inline]
    fn find(&self, desc: Desc) -> Option<NonNull<u8>> {
        let (base, len) = self.regions.get(usize::from(desc.region))?;
        let end = u64::from(desc.offset) + u64::from(desc.length);
        // SAFETY: `end` is within the mapping, and the offset is no larger.
        (end <= *len as u64).then(|| unsafe { base.add(desc.offset as usize) })
    }
}

impl Slots for Lent {
    #[inline]
    fn source(&self, _slot: u16, desc: Desc) -> Option<NonNull<u8>> {
        self.find(desc)
    }

    #[inline]
    fn target(&self, ring: &Ring, number: u16) -> Target {
        let desc = ring.desc(number);
        match self.find(desc) {
            Some(at) => Target { at, room: desc.length, region: desc.region },
            None => Target { at: NonNull::dangling(), room: 0, region: desc.region },
        }
    }

    #[inline]
    fn renew(&self, ring: &Ring, number: u16, read: Desc) {
        // DPDK 22.11 never takes this flag off a slot: a short frame in it later would seem to go on in the next.
        if read.flags & DESC_NEXT != 0 {
            ring.set_desc(number, Desc { flags: 0, ..read });
        }
    }

    #[inline]
    fn indexes<'r>(&self, ring: &'r Ring) -> (&'r AtomicU16, &'r AtomicU16) {
        (ring.tail(), ring.head())
    }

    #[inline]
    fn lead(&self, _ring: &Ring) -> u16 {
        0
    }
}
