//! A ring in shared memory: its words and descriptors, and who may write what.
//!
//! ```text
//! 0                    64                 128
//! | cookie flags head  | tail             | descriptors of 16 bytes ...
//! ```
//!
//! The client writes `head`, the server `tail`; both count up without end and wrap at 16 bits. From client to server, `head` is where
//! the client's next frame goes and `tail` what the server has read. From server to client, `head` is how many buffers the
//! client lent and `tail` how many of them the server filled. `flags` belongs to whoever receives.
//!
//! The other side may write anything anywhere at any time. So each word is an atomic, read once, and judged afterwards.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::memory::Memory;

const COOKIE: u32 = 0x03e3_1f20;
/// Bytes before the descriptors.
const HEAD_LEN: usize = 128;
const DESC_LEN: usize = 16;
/// Slots of a ring: what DPDK and VPP allow.
pub(super) const LOG2_SLOTS_MAX: u8 = 14;
/// The receiver polls: do not tell it.
pub(super) const FLAG_MASK_INT: u16 = 1;
/// The frame goes on in the next slot.
pub(super) const DESC_NEXT: u16 = 1;

/// Bytes of a ring.
pub(super) const fn ring_len(log2_slots: u8) -> usize {
    HEAD_LEN + (DESC_LEN << log2_slots)
}

/// A descriptor, as it was when it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Desc {
    pub flags: u16,
    pub region: u16,
    pub length: u32,
    pub offset: u32,
}

impl Desc {
    fn words(self) -> [u64; 2] {
        let pack = |low: u32, high: u32| {
            let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        };
        let ([a, b], [c, d]) = (self.flags.to_ne_bytes(), self.region.to_ne_bytes());
        [pack(u32::from_ne_bytes([a, b, c, d]), self.length), pack(self.offset, 0)]
    }

    #[inline]
    fn from_words(words: [u64; 2]) -> Desc {
        let [a, b, c, d, e, f, g, h] = words[0].to_ne_bytes();
        let [i, j, k, l, ..] = words[1].to_ne_bytes();
        Desc {
            flags: u16::from_ne_bytes([a, b]),
            region: u16::from_ne_bytes([c, d]),
            length: u32::from_ne_bytes([e, f, g, h]),
            offset: u32::from_ne_bytes([i, j, k, l]),
        }
    }
}

/// A ring, and a share in the memory that it lies in.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    mask: u16,
    _memory: Arc<Memory>,
}

// SAFETY: `base` points into `_memory`, which the ring keeps mapped and reaches through atomics only.
unsafe impl Send for Ring {}

impl Ring {
    /// The ring of `1 << log2_slots` slots at `offset` of a region; says what is wrong with it.
    pub(super) fn new(
        memory: &Arc<Memory>,
        region: u16,
        offset: u32,
        log2_slots: u8,
    ) -> Result<Ring, &'static str> {
        if log2_slots > LOG2_SLOTS_MAX {
            return Err("ring has more than 16384 slots");
        }
        if !offset.is_multiple_of(64) {
            return Err("ring is not aligned to 64 bytes");
        }
        let base = memory.range(region, offset, ring_len(log2_slots));
        let base = base.ok_or("ring is not within its region")?;
        Ok(Ring { base, mask: (1 << log2_slots) - 1, _memory: memory.clone() })
    }

    /// Slots that it has.
    #[inline]
    pub(super) fn slots(&self) -> u16 {
        self.mask + 1
    }

    /// The slot that a running number means.
    #[inline]
    pub(super) fn slot(&self, number: u16) -> u16 {
        number & self.mask
    }

    #[inline]
    fn word<T>(&self, offset: usize) -> *mut T {
        // SAFETY: callers stay within the ring's bytes, which `new` found within the mapping.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// Writes the cookie, and waits for nobody to tell.
    pub(super) fn initialise(&self) {
        self.cookie().store(COOKIE, Ordering::Relaxed);
        self.flags().store(FLAG_MASK_INT, Ordering::Relaxed);
        self.head().store(0, Ordering::Relaxed);
        self.tail().store(0, Ordering::Relaxed);
    }

    /// Whether somebody who knows memif made it.
    pub(super) fn has_cookie(&self) -> bool {
        self.cookie().load(Ordering::Relaxed) == COOKIE
    }

    fn cookie(&self) -> &AtomicU32 {
        // SAFETY: aligned (the ring begins at a multiple of 64 of a page), within the mapping that `self` keeps, atomic.
        unsafe { AtomicU32::from_ptr(self.word(0)) }
    }

    #[inline]
    pub(super) fn flags(&self) -> &AtomicU16 {
        // SAFETY: as for the cookie.
        unsafe { AtomicU16::from_ptr(self.word(4)) }
    }

    #[inline]
    pub(super) fn head(&self) -> &AtomicU16 {
        // SAFETY: as for the cookie.
        unsafe { AtomicU16::from_ptr(self.word(6)) }
    }

    #[inline]
    pub(super) fn tail(&self) -> &AtomicU16 {
        // SAFETY: as for the cookie.
        unsafe { AtomicU16::from_ptr(self.word(64)) }
    }

    #[inline]
    fn desc_words(&self, number: u16) -> &[AtomicU64; 2] {
        let offset = HEAD_LEN + DESC_LEN * usize::from(self.slot(number));
        // SAFETY: as for the cookie; `slot` keeps it within the descriptors, which are 16 bytes each behind 128.
        unsafe { &*self.word::<[AtomicU64; 2]>(offset) }
    }

    /// Reads a descriptor, once.
    #[inline]
    pub(super) fn desc(&self, number: u16) -> Desc {
        // Relaxed: `head` or `tail`, read with Acquire before, says that it is written.
        let [first, second] = self.desc_words(number);
        Desc::from_words([first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)])
    }

    /// Writes flags, region and length; the offset stays.
    #[inline]
    pub(super) fn set_desc(&self, number: u16, desc: Desc) {
        // Relaxed: `head` or `tail`, written with Release afterwards, publishes it.
        self.desc_words(number)[0].store(desc.words()[0], Ordering::Relaxed);
    }

    /// Writes all of a descriptor.
    pub(super) fn lay_desc(&self, number: u16, desc: Desc) {
        let words = desc.words();
        self.desc_words(number).iter().zip(words).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Mapping;
    use super::*;

    fn memory(len: usize) -> Arc<Memory> {
        let mut memory = Memory::default();
        memory.add(0, Mapping::create(len).unwrap().0).unwrap();
        Arc::new(memory)
    }

    #[test]
    fn words_stand_where_dpdk_has_them() {
        let memory = memory(4096);
        let ring = Ring::new(&memory, 0, 64, 4).unwrap();
        ring.initialise();
        ring.head().store(0x1234, Ordering::Relaxed);
        ring.tail().store(0x5678, Ordering::Relaxed);
        ring.lay_desc(17, Desc { flags: 1, region: 2, length: 3, offset: 4 });
        // SAFETY: the ring's 128 + 16 * 16 bytes lie at offset 64 of a 4096-byte mapping that nobody writes now.
        let bytes = unsafe { std::slice::from_raw_parts(memory.range(0, 64, 384).unwrap().as_ptr(), 384) };
        assert_eq!(bytes[..8], [0x20, 0x1f, 0xe3, 0x03, 1, 0, 0x34, 0x12]);
        assert_eq!(bytes[64..66], [0x78, 0x56]);
        assert_eq!(bytes[144..160], [1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ring.desc(1), Desc { flags: 1, region: 2, length: 3, offset: 4 });
        ring.set_desc(1, Desc { length: 9, ..Desc::default() });
        assert_eq!(ring.desc(1), Desc { length: 9, offset: 4, ..Desc::default() });
    }

    #[test]
    fn rings_lie_within_their_region() {
        let memory = memory(4096);
        let fault = |offset, log2| Ring::new(&memory, 0, offset, log2).err();
        assert_eq!(fault(4096 - 384, 4), None);
        assert!(fault(4096 - 384 + 64, 4).unwrap().contains("within"));
        assert!(fault(32, 4).unwrap().contains("aligned"));
        assert!(fault(0, 15).unwrap().contains("16384"));
        assert!(Ring::new(&memory, 1, 0, 4).is_err());
        assert!(fault(!63, 14).is_some());
    }
}
